"""`fit` where the table is read buffer by buffer."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import continuous, done, refused

from pushforward.artifact import load


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder of Parquet files."""
    path = tmp_path / "rows"
    path.mkdir()
    for number in range(3):
        continuous(100, number).write_parquet(path / f"{number}.parquet", row_group_size=20)
    return path


def test_large_tables_are_streamed_by_themselves_and_it_is_said(
    rows: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fit", rows, "-o", tmp_path / "a.flow", "--config", folder / "tiny.toml"]
    assert "Streamed" not in done(*words).out
    monkeypatch.setattr("pushforward.cli.fit_table._MOST_VALUES", 800)
    monkeypatch.setattr("pushforward.data.shuffled.BUFFER_ROWS", 130)
    assert "Streamed" not in done(*words, "--no-stream").out
    said = done(*words, "--drop", "c").out
    facts = load(tmp_path / "a.flow").facts
    assert f"{rows}: 300 rows, 3 columns" in said and "left out     c" in said
    assert "Streamed: 2 passes over the training rows, 2 buffers each, which hold 1" in said
    assert len(facts.valid_curve) == facts.config.epochs == 4
    assert f"{facts.train_rows:,} to train" in said
    done("score", tmp_path / "a.flow", rows / "*.parquet", "-o", tmp_path / "s.csv")
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 301


def test_groups_keep_a_table_from_being_streamed(
    rows: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushforward.cli.fit_table._MOST_VALUES", 800)
    words = ["fit", rows, "-o", tmp_path / "a.flow", "--config", folder / "tiny.toml", "--group", "c"]
    assert "Streamed" not in done(*words).out
    refused(*words, "--stream", code=3, says=["column 'c': rows of one group", "--no-stream"])


def test_an_output_among_the_files_and_images_are_refused(rows: Path, folder: Path, pictures: Path) -> None:
    model = folder / "plain.flow"
    for table in (rows, rows / "*.parquet"):
        refused(
            "score", model, table, "-o", rows / "s.parquet", code=5, says=["would be one of the files of"]
        )
    refused(
        "fit",
        pictures / "pets",
        "-o",
        rows.parent / "a.flow",
        "--stream",
        code=2,
        says=["images are read whole"],
    )
