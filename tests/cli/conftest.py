"""One fitted model of each kind for all tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_runs import TINY, continuous, done, mixed
from image_runs import CLASSES, TINY_IMAGES, fit_pictures, squares, write_classes


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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder pets of two classes; grey.npy without labels, and labels.txt; a flow for each of what may be given."""
    path = tmp_path_factory.mktemp("images")
    (path / "tiny.toml").write_text(TINY_IMAGES)
    images = squares(60)
    write_classes(images, path / "pets")
    np.save(path / "grey.npy", images.pixels[:, 0])
    assert images.labels is not None
    (path / "labels.txt").write_text("\n".join(CLASSES[i] for i in images.labels))
    np.save(path / "large.npy", squares(4, size=(10, 8)).pixels[:, 0])
    continuous(60).write_csv(path / "table.csv")
    for given in ("plain", "class", "top", "small"):
        fit_pictures(
            path, path / "pets", path / f"{given}.flow", *(() if given == "plain" else ("--given", given))
        )
    done("fit", path / "table.csv", "-o", path / "table.flow", "--model", "nice", "--epochs", 1)
    return path
