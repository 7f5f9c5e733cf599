"""Training rows of a table on disk: each once a pass, the same whenever they are asked for, and none held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pushforward.configs import ColumnSchema, TableSchema
from pushforward.data import infer_schema
from pushforward.data import survey as surveys
from pushforward.data.shuffled import MatrixRows, ShuffledTable
from pushforward.data.splits import RowSplit
from pushforward.data.stored import StoredTable
from pushforward.data.survey import survey
from pushforward.errors import DataError

SCHEMA = TableSchema(columns=(ColumnSchema(name="place"),), context=(ColumnSchema(name="c"),))


def write(folder: Path, rows: int, *, group: int = 37, kind: str = "parquet") -> Path:
    frame = pl.DataFrame({"place": np.arange(rows, dtype=float), "w": np.arange(rows) % 3}).with_columns(
        c=2 * pl.col("place")
    )
    if kind == "csv":
        frame.write_csv(folder / "t.csv")
        return folder / "t.csv"
    for number, start in enumerate(range(0, rows, 250)):
        frame[start : start + 250].write_parquet(folder / f"{number}.parquet", row_group_size=group)
    return folder


def shuffled(path: Path, *, most: int = 100, seed: int = 0, share: float = 0.1) -> ShuffledTable:
    table = StoredTable(path, ["place", "c", "w"])
    return ShuffledTable(
        table, SCHEMA, RowSplit(seed, share, share), rows_per_buffer=most, seed=seed, weights="w"
    )


def places(rows: MatrixRows) -> list[int]:
    assert rows.context is not None and rows.weights is not None
    x = rows.x[:, 0]
    assert np.array_equal(rows.context[:, 0], 2 * x) and np.array_equal(rows.weights, x % 3)
    assert np.array_equal(rows.numbers, x + 1)
    return x.astype(int).tolist()


@pytest.mark.parametrize(("kind", "group"), [("parquet", 37), ("parquet", 1000), ("csv", 0)])
def test_a_pass_has_every_training_row_once(tmp_path: Path, kind: str, group: int) -> None:
    path = write(tmp_path, 900, group=group, kind=kind)
    rows = shuffled(path)
    table = rows.table
    training = {
        before + i
        for file, before in enumerate(table.numbered())
        for i in np.flatnonzero(
            RowSplit(0, 0.1, 0.1).training(file, 0, sum(g.rows for g in table.groups if g.file == file))
        )
    }
    assert len(training) == rows.training_rows
    assert rows.rows * rows.buffers <= rows.training_rows < rows.rows * (rows.buffers + 1)
    turns = []
    for turn in range(3):
        seen = [place for k in range(rows.buffers) for place in places(rows.buffer(turn * rows.buffers + k))]
        assert len(set(seen)) == len(seen) == rows.rows * rows.buffers
        assert set(seen) <= training
        turns.append(seen)
    assert (turns[0] != turns[1]) == (kind == "parquet")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_buffer_is_the_same_in_any_order_of_asking(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, 700, kind=kind)
    rows = shuffled(path)
    expected = [places(rows.buffer(k)) for k in range(3 * rows.buffers)]
    for k in np.random.default_rng(0).permutation(len(expected))[:8]:
        assert places(rows.buffer(int(k))) == expected[k]
        assert places(shuffled(path).buffer(int(k))) == expected[k]
    if kind == "parquet":
        assert places(shuffled(path, seed=1).buffer(0)) != expected[0]


def test_numbers_depend_on_seed_file_and_row_alone_and_are_uniform() -> None:
    split, rng = RowSplit(3, 0.1, 0.2), np.random.default_rng(0)
    whole = split.numbers(5, 0, 200_000)
    for _ in range(20):
        first, rows = int(rng.integers(150_000)), int(rng.integers(1, 50_000))
        assert np.array_equal(split.numbers(5, first, rows), whole[first : first + rows])
    assert split.numbers(5, 0, 0).shape == (0,)
    grid = np.linspace(0, 1, 21)[1:]
    assert np.abs((whole[:, None] < grid).mean(0) - grid).max() < 5 / np.sqrt(len(whole))
    assert abs(np.corrcoef(whole[:-1], whole[1:])[0, 1]) < 0.02
    for other in (RowSplit(4, 0.1, 0.2).numbers(5, 0, 200_000), split.numbers(6, 0, 200_000)):
        assert abs(np.corrcoef(whole, other)[0, 1]) < 0.02


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_parts_and_training_rows_are_disjoint_and_all(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "SAMPLE", 100)
    path = write(tmp_path, 900, kind=kind)
    found = survey(StoredTable(path), seed=7)
    rows = ShuffledTable(found.valid.table, SCHEMA, found.split, rows_per_buffer=10_000, seed=7, weights="w")
    valid, test, train = found.valid.numbers, found.test.numbers, rows.buffer(0).numbers
    assert sorted([*valid, *test, *train]) == list(range(1, 901))
    assert set(found.sample.numbers[: found.drawn]) <= set(train)
    assert 60 < found.drawn < 140
    for picked in (found.valid, found.test, found.sample):
        assert np.array_equal(picked.frame["place"].to_numpy() + 1, picked.numbers)


def test_a_sample_knows_what_only_the_whole_table_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "SAMPLE", 500)
    rng, rows = np.random.default_rng(1), 20_000
    rare = rng.permutation(rows)[:4]
    frame = pl.DataFrame(
        {
            "label": np.array(["often", "seldom"])[(rng.random(rows) < 0.01).astype(int)],
            "whole": rng.integers(5, size=rows).astype(float),
            "count": rng.integers(0, 3, rows),
            "gap": rng.normal(size=rows),
            "day": pl.Series(rng.integers(0, 999, rows)).cast(pl.Int32).cast(pl.Date),
        }
    ).with_row_index()
    frame = frame.with_columns(
        label=pl.when(pl.col("index") == rare[0]).then(pl.lit("once")).otherwise("label"),
        whole=pl.when(pl.col("index") == rare[1]).then(0.5).otherwise("whole"),
        count=pl.when(pl.col("index") == rare[2]).then(-7).otherwise("count"),
        gap=pl.when(pl.col("index") == rare[3]).then(None).otherwise("gap"),
    ).drop("index")
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=3000)
    found = survey(StoredTable(tmp_path / "t.parquet"), seed=0)
    assert found.sample.frame.height < 1000
    assert infer_schema(found.sample.frame) == infer_schema(frame)


def test_errors_name_the_file_and_the_row_there(tmp_path: Path) -> None:
    for number in range(2):
        pl.DataFrame({"place": [0.5, 1.5, 2.5] * 20, "c": [1.0] * 60, "w": [1] * 60}).write_parquet(
            tmp_path / f"{number}.parquet", row_group_size=7
        )
    bad = pl.read_parquet(tmp_path / "1.parquet").with_columns(
        c=pl.Series([*[1.0] * 30, None, *[1.0] * 29]), w=pl.Series([*[1] * 10, -1, *[1] * 49])
    )
    bad.with_columns(c=1.0).write_parquet(tmp_path / "1.parquet", row_group_size=7)
    with pytest.raises(DataError, match=r"1\.parquet, row 11, column 'w': weights must not be negative"):
        shuffled(tmp_path, share=0.0, most=200).buffer(0)
    bad.with_columns(w=pl.lit(1, pl.Int64)).write_parquet(tmp_path / "1.parquet", row_group_size=7)
    with pytest.raises(DataError, match=r"1\.parquet, row 31, column 'c': missing value"):
        shuffled(tmp_path, share=0.0, most=200).buffer(0)
    picked = survey(StoredTable(tmp_path), seed=0).sample

    def refuse(index: int) -> Callable[[], None]:
        with picked.named():
            raise DataError("missing value, the only one in rows 1 to 99", row=index + 1, column="c")

    file, row = picked.places[5]
    with pytest.raises(DataError, match=rf"{file}\.parquet, row {row}, column 'c': missing value$"):
        refuse(5)


def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 40)
    with pytest.raises(ValueError, match="rows_per_buffer: expected at least 1, got 0"):
        shuffled(path, most=0)
    with pytest.raises(DataError, match="no rows to train on"):
        shuffled(path, share=0.5)
