"""What `fit` makes of odd tables, and the line that it refuses malformed ones with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runs import run

from malformed_tables import REFUSED, TAKEN
from pushforward import load
from pushforward.configs import ColumnSchema

SETTINGS = '[model]\nname = "mixed"\nbins = 4\nhidden = [8]\n[training]\nbatch_size = 16\n'


def described(column: ColumnSchema) -> str:
    """A column in few words: kind, labels, step, gaps."""
    words = [column.kind, "/".join(column.categories)]
    words += [f"step {column.step or 0:g}"] * (column.step is not None) + ["gaps"] * column.missing
    return " ".join(filter(None, words))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(SETTINGS)
    return tmp_path


@pytest.mark.parametrize("case", TAKEN)
def test_odd_tables_are_taken_for_what_they_are(here: Path, case: str) -> None:
    name, content, expected = TAKEN[case]
    (here / name).write_bytes(content)
    result = run("fit", name, "-o", "m.flow", "--config", "tiny.toml", "--epochs", "1")
    assert (result.code, result.err) == (0, ""), result.err
    columns = load("m.flow").table.columns
    assert [c.name for c in columns] == ["a", "b"]
    assert described(columns[1]) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_tables_are_refused_in_a_line_with_a_remedy(here: Path, case: str) -> None:
    name, content, expected = REFUSED[case]
    (here / name).write_bytes(content)
    result = run("fit", name, "-o", "m.flow", "--config", "tiny.toml", "--epochs", "1")
    assert result.code == 3, result
    assert result.err.startswith(f"error: {name}") and result.err.count("\n") == 1, result.err
    assert expected in result.err
    assert result.err.rstrip().endswith((".", "?"))
    assert "Warning" not in result.err + result.out
    assert len(result.err) < 600


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "t.csv: there are no pictures in it. Give"),
        (lambda path: path.with_name("u.csv").touch(), "t.csv: no such file. Is 'u.csv' meant?"),
    ],
)
def test_what_is_no_file_is_refused(here: Path, make: Callable[[Path], None], says: str) -> None:
    make(here / "t.csv")
    result = run("fit", "t.csv", "-o", "m.flow")
    assert result.code == 3
    assert result.err.startswith(f"error: {says}")


def test_ten_thousand_columns_are_looked_at(here: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(20, 10_000)), schema=[f"c{i}" for i in range(10_000)])
    frame.with_columns(c77=pl.Series([*"xy" * 9, "1", "2"]), c78=pl.lit(None)).write_parquet(
        here / "t.parquet"
    )
    result = run("fit", "t.parquet", "-o", "m.flow")
    assert (result.code, result.err) == (
        3,
        "error: t.parquet, column 'c78': holds no value at all. Leave it out with --drop.\n",
    )
