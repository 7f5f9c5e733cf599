"""Outputs are whole or absent, read back exactly, and what cannot be written is known before."""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pushforward.data import TableWriter, atomic_path, check_writable, read_table, writers
from pushforward.errors import OutputError

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=5).filter(
    lambda name: "\r" not in name and "\0" not in name
) | st.sampled_from(["0", "1.5", "NA", " a", "^x$", 'a"b', "a,b", "a;b", "a\tb"])
VALUES = {
    pl.Float64(): st.floats(),
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.Boolean(): st.booleans(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@st.composite
def tables(draw: st.DrawFn) -> list[pl.DataFrame]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    types = [draw(st.sampled_from(list(VALUES))) for _ in names]
    chunks = []
    for rows in draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)):
        values = [draw(st.lists(VALUES[t] | st.none(), min_size=rows, max_size=rows)) for t in types]
        chunks.append(
            pl.DataFrame([pl.Series(n, v, t) for n, v, t in zip(names, values, types, strict=True)])
        )
    return chunks


@given(chunks=tables(), suffix=st.sampled_from([".csv", ".parquet", ".CSV"]))
@settings(max_examples=100, deadline=None)
def test_what_is_written_in_chunks_is_read_back_exactly(
    folder: Path, chunks: list[pl.DataFrame], suffix: str
) -> None:
    path = folder / f"t{suffix}"
    path.unlink(missing_ok=True)
    with TableWriter(path) as writer:
        for chunk in chunks:
            writer.write(chunk)
    whole = pl.concat(chunks)
    if whole.height == 0:
        if suffix == ".parquet":
            assert pl.read_parquet(path).schema == whole.schema
        return
    read = read_table(path)
    if suffix != ".parquet":  # of text the type follows from the values: compare these, bit by bit
        read = read.select(pl.nth(i).cast(dtype) for i, dtype in enumerate(whole.dtypes))
    assert_frame_equal(read, whole, check_exact=True)
    assert not list(folder.glob(".*"))


def test_parquet_is_written_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with TableWriter(path) as writer:
        for _ in range(3):
            writer.write(pl.DataFrame({"a": np.zeros(10)}))
    assert pq.ParquetFile(path).num_row_groups == 3


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_categories_are_written_as_text(tmp_path: Path, suffix: str) -> None:
    path, dtype = tmp_path / f"t{suffix}", pl.Enum(["low", "high"])
    chunks = [["low", "high"], ["high", "high", None], ["low"] * 5]
    with TableWriter(path) as writer:
        for chunk in chunks:
            number = pl.Series("number", range(len(chunk)), pl.Int16)
            writer.write(pl.DataFrame([pl.Series("kind", chunk, dtype), number]))
    kinds = [kind for chunk in chunks for kind in chunk]
    read = read_table(path)
    assert_frame_equal(read.select("kind"), pl.DataFrame({"kind": kinds}))
    assert read["number"].to_list() == [i for chunk in chunks for i in range(len(chunk))]


@pytest.mark.parametrize(("distinct", "bytes_each"), [(10_000, 8), (50, 1)])
def test_numbers_take_their_own_width_and_less_where_they_repeat(
    tmp_path: Path, distinct: int, bytes_each: int
) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "t.parquet"
    values = rng.normal(size=distinct)[rng.permutation(10_000) % distinct]
    with TableWriter(path) as writer:
        writer.write(pl.DataFrame({"a": values}))
    assert path.stat().st_size < 1.15 * bytes_each * len(values)
    assert read_table(path)["a"].to_list() == values.tolist()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("chunks", [0, 1, 2])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_there_was(
    tmp_path: Path, suffix: str, chunks: int, error: type[BaseException]
) -> None:
    path = tmp_path / f"t{suffix}"
    for before in (None, "the old result"):
        if before is not None:
            path.write_text(before)
        with pytest.raises(error), TableWriter(path) as writer:
            for _ in range(chunks):
                writer.write(pl.DataFrame({"a": [1.0]}))
            raise error
        assert [p.name for p in tmp_path.iterdir()] == ([path.name] if before else [])
        assert before is None or path.read_text() == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_is_said_and_leaves_what_there_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_text("the old result")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with (
            pytest.raises(OutputError, match=rf"t\{suffix}: cannot be written \(.*File too large.*make room"),
            TableWriter(path) as writer,
        ):
            for _ in range(100):
                writer.write(pl.DataFrame({"a": np.random.default_rng(0).normal(size=10_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "the old result"


def test_a_failing_rename_is_said_and_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writers, "_synchronise", refuse)
    message = r"a\.bin: cannot be written \(Input/output error\)"
    with pytest.raises(OutputError, match=message), atomic_path(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"1")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_work_itself_is_not_taken_for_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.bin"):
        (tmp_path / "absent").read_text()
    assert not list(tmp_path.iterdir())


def test_a_replaced_file_keeps_its_permissions_and_a_new_one_has_the_usual_ones(tmp_path: Path) -> None:
    plain, output = tmp_path / "plain", tmp_path / "output"
    plain.touch()
    for mode in (stat.S_IMODE(plain.stat().st_mode), 0o640, 0o604):
        with atomic_path(output) as temporary:
            assert temporary.parent == output.parent
            temporary.write_text("x")
        assert stat.S_IMODE(output.stat().st_mode) == mode or mode != stat.S_IMODE(plain.stat().st_mode)
        output.chmod(mode)
        with atomic_path(output) as temporary:
            temporary.write_text("y")
        assert stat.S_IMODE(output.stat().st_mode) == mode


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "store" / "real.csv")
    check_writable(link)
    with atomic_path(link) as temporary:
        temporary.write_text("x")
    assert link.is_symlink()
    assert (tmp_path / "store" / "real.csv").read_text() == "x"


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("x")
    check_writable(tmp_path / "old.csv")
    check_writable(tmp_path / "new.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "x"


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.csv")
    cases = {
        tmp_path: "is a folder. Give the path of a file",
        tmp_path / "no" / "a.csv": rf"there is no folder {re.escape(str(tmp_path / 'no'))}\. Create it first",
        tmp_path / "file" / "a.csv": r"file is not a folder\. Choose another path",
        tmp_path / "pipe.csv": "is a device or pipe, which cannot be replaced",
        tmp_path / ("a" * 300): r"cannot be written \(File name too long\)",
    }
    for path, message in cases.items():
        for use in (check_writable, lambda path: atomic_path(path).__enter__()):
            with pytest.raises(OutputError, match=rf"^{re.escape(str(path))}: .*{message}"):
                use(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "pipe.csv"]


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbid)  # by hand: nothing is forbidden to root
    with pytest.raises(OutputError, match=r"a\.csv: cannot be written \(Permission denied\).*permissions"):
        check_writable(tmp_path / "a.csv")


def test_misuse_of_a_writer(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"t\.xlsx: .*suffix '\.xlsx'\. End the name in \.csv or \.parquet"):
        TableWriter(tmp_path / "t.xlsx")
    with pytest.raises(ValueError, match="expected to be entered"):
        TableWriter(tmp_path / "t.csv").write(pl.DataFrame({"a": [1]}))
    message = "frame: expected the first chunk's columns .*'a'.*, got .*'b'"
    with pytest.raises(ValueError, match=message), TableWriter(tmp_path / "t.csv") as writer:
        writer.write(pl.DataFrame({"a": [1]}))
        writer.write(pl.DataFrame({"b": [1]}))
    message = r"t\.csv: nothing was written, since there were no rows"
    with pytest.raises(OutputError, match=message), TableWriter(tmp_path / "t.csv"):
        pass
    assert not list(tmp_path.iterdir())
