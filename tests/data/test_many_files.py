"""Parquet files in one folder, or that match a pattern, are one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pushforward.data import holds_images, iter_table, read_table
from pushforward.data.parquet import would_join
from pushforward.data.stored import StoredTable, table_values
from pushforward.errors import DataError


def frames(rows: tuple[int, ...] = (7, 1, 12), seed: int = 0) -> list[pl.DataFrame]:
    rng = np.random.default_rng(seed)
    return [
        pl.DataFrame({"a": rng.normal(size=n), "n": rng.integers(9, size=n), "t": rng.choice(["x", "y"], n)})
        for n in rows
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "parts"
    path.mkdir()
    for number, frame in enumerate(frames()):
        frame.write_parquet(path / f"part-{number}.parquet", row_group_size=5)
    (path / "_SUCCESS").touch()
    (path / ".part-9.parquet").write_bytes(b"half written")
    return path


def test_integers_of_128_bits_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"b": [1], "a": pl.Series([2**70], dtype=pl.Int128)}).write_parquet(path)
    for columns in (None, ["b"]):
        with pytest.raises(
            DataError, match=r"t\.parquet, column 'a': holds integers of 128 bits.* as 64-bit"
        ):
            read_table(path, columns)


@pytest.mark.parametrize("pattern", ["", "*.parquet", "part-?.parquet", "*"])
def test_they_are_read_in_the_order_of_their_names(folder: Path, pattern: str) -> None:
    path, whole = folder / pattern, pl.concat(frames())
    assert read_table(path).equals(whole)
    assert read_table(str(path), ["t", "a"]).equals(whole.select("t", "a"))
    for rows in (1, 3, 8, 100):
        chunks = list(iter_table(path, None, rows))
        assert pl.concat(chunks).equals(whole)
        assert all(chunk.height == rows for chunk in chunks[:-1])
    assert not holds_images(path)
    assert table_values(path) == whole.height * whole.width


def test_row_groups_can_be_read_in_any_order(folder: Path) -> None:
    table, whole = StoredTable(folder, ["n"]), pl.concat(frames())["n"]
    groups = [table.groups[place] for place in np.random.default_rng(0).permutation(len(table.groups))]
    assert sum(group.rows for group in groups) == table.rows == len(whole)
    before = table.numbered()
    for chunk in table.chunks(groups):
        start = before[chunk.file] + chunk.first
        assert chunk.frame["n"].equals(whole[start : start + chunk.frame.height])


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"a": [0.5], "t": ["x"]}, r"column 'n': the column is missing, but there in part-0\.parquet"),
        (
            {"a": [0.5], "n": [1], "t": ["x"], "m": [2]},
            r"column 'm': the column is there, but not in part-0\.parquet",
        ),
        ({"a": [0.5], "n": ["1"], "t": ["x"]}, r"column 'n': holds String, but Int64 in part-0\.parquet"),
    ],
)
def test_files_whose_columns_differ_are_refused(
    folder: Path, other: dict[str, list[object]], problem: str
) -> None:
    pl.DataFrame(other).write_parquet(folder / "part-8.parquet")
    with pytest.raises(DataError, match=rf"part-8\.parquet, {problem}"):
        read_table(folder)
    # Of columns that are not read nothing is asked, and their order does not matter.
    assert read_table(folder, ["a"]).height == 21


def test_a_bad_file_among_them_is_named(folder: Path) -> None:
    path = folder / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    for read in (read_table, StoredTable):
        with pytest.raises(DataError, match=r"part-1\.parquet: cut short or damaged"):
            read(folder)


def test_without_parquet_files_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder without Parquet files"):
        read_table(tmp_path)
    with pytest.raises(DataError, match=r"no Parquet file matches\. Put the pattern in quotes"):
        read_table(tmp_path / "*.parquet")
    assert holds_images(tmp_path)


def test_an_output_must_not_become_one_of_them(folder: Path) -> None:
    assert would_join(folder / "scores.parquet", folder)
    assert would_join(folder / "scores.parquet", folder / "*.parquet")
    assert not would_join(folder / "scores.csv", folder)
    assert not would_join(folder.parent / "scores.parquet", folder)
    assert not would_join(folder / "scores.parquet", folder / "part-*.parquet")


def test_text_and_arrays_are_one_group(tmp_path: Path) -> None:
    frame = frames((30,))[0]
    frame.write_csv(tmp_path / "t.csv")
    np.save(tmp_path / "t.npy", frame["a"].to_numpy())
    for name, columns in (("t.csv", ["a", "n"]), ("t.npy", ["x0"])):
        table = StoredTable(tmp_path / name, columns)
        assert (table.rows, len(table.groups), table.any_order) == (30, 1, False)
        read = pl.concat([chunk.frame for chunk in table.chunks()])
        assert np.allclose(read.to_series(0).to_numpy(), frame["a"].to_numpy())
