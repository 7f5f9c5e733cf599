"""One fitted model of each kind for all tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import TINY, continuous, done, mixed


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables plain.csv, mixed.csv, their flows, conditional.flow (a given b and c) and tiny.toml; only read."""
    path = tmp_path_factory.mktemp("cli")
    (path / "tiny.toml").write_text(TINY)
    continuous().write_csv(path / "plain.csv")
    mixed().write_csv(path / "mixed.csv")
    for name, table, options in (
        ("plain", "plain", ()),
        ("mixed", "mixed", ()),
        ("conditional", "plain", ("--condition", "b,c")),
    ):
        done(
            "fit",
            path / f"{table}.csv",
            "-o",
            path / f"{name}.flow",
            "--config",
            path / "tiny.toml",
            *options,
        )
    return path
