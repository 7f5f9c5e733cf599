"""Whatever bytes a file holds, a reader gives a table or says what is wrong with the file."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pushforward.data import infer_schema, iter_table, read_table, to_frame, to_matrix
from pushforward.data.readers import SUFFIXES
from pushforward.errors import DataError
from random_tables import frames

QUICK = settings(max_examples=150, deadline=2000, derandomize=True)
TEXT = st.text(st.sampled_from([*"0123456789.,;\t\n\r\"' -+eExXaNé", "\0", "\ufeff", "\u2028"]), max_size=80)


def survive(path: Path) -> None:
    """Read a file in every way; only errors that name it are allowed."""
    try:
        whole = read_table(path)
    except DataError as error:
        assert path.name in str(error), error
        return
    assert whole.height > 0
    assert_frame_equal(pl.concat(iter_table(path, None, 3)), whole)
    for mixed in (None, True, False):
        try:
            columns = infer_schema(whole, mixed=mixed, source=path).columns
            matrix = to_matrix(whole, columns, source=path)
        except DataError as error:
            assert path.name in str(error), error
            continue
        assert to_frame(matrix, columns).shape == whole.shape


def mutated(blob: bytes, rng: random.Random) -> bytes:
    """A file with some bytes changed, cut out, doubled, or overwritten by numbers that matter."""
    work = bytearray(blob)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        place = rng.randrange(len(work)) if work else 0
        kind = rng.randrange(5)
        if kind == 0 and work:
            work[place] = rng.randrange(256)
        elif kind == 1:
            del work[place : place + rng.randrange(1, 9)]
        elif kind == 2:
            work[place:place] = work[place : place + rng.randrange(1, 30)]
        elif kind == 3:
            number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 10**11])
            raw = number.to_bytes(8, "little")[: rng.choice([1, 2, 4, 8])]
            work[place : place + len(raw)] = raw
        else:
            work = work[: rng.randrange(len(work) + 1)]
    return bytes(work)


def valid(suffix: str) -> bytes:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=9), "n": rng.poisson(3.0, 9), "t": ["x", None, "é"] * 3})
    array, memory = rng.normal(size=(9, 2)), io.BytesIO()
    if suffix == ".parquet":
        frame.write_parquet(memory, row_group_size=4)
    elif suffix == ".npy":
        np.save(memory, array)
    elif suffix == ".npz":
        np.savez_compressed(memory, X=array, y=array[0])
    else:
        memory.write(frame.write_csv(separator="\t" if "tsv" in suffix else ",").encode())
    return gzip.compress(memory.getvalue()) if suffix.endswith(".gz") else memory.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(st.binary(max_size=60))
@settings(QUICK, max_examples=40)
def test_random_bytes(folder: Path, suffix: str, content: bytes) -> None:
    starts = {".parquet": b"PAR1", ".npy": b"\x93NUMPY", ".npz": b"PK\x03\x04"}
    path = folder / f"t{suffix}"
    path.write_bytes(starts.get(suffix, b"") + content)
    survive(path)
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(content, mtime=0))
        survive(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@given(TEXT)
@QUICK
def test_random_text(folder: Path, suffix: str, text: str) -> None:
    (folder / f"t{suffix}").write_text(text, newline="")
    survive(folder / f"t{suffix}")


def written(frame: pl.DataFrame, suffix: str) -> bytes:
    memory = io.BytesIO()
    if suffix == ".parquet":
        frame.cast({pl.Int128: pl.Int64}).write_parquet(memory, row_group_size=3)
    else:
        frame.cast({pl.Duration: pl.Int64}).write_csv(memory, separator="\t" if "tsv" in suffix else ",")
    return gzip.compress(memory.getvalue(), mtime=0) if suffix.endswith(".gz") else memory.getvalue()


@given(
    frames(), st.sampled_from([suffix for suffix in SUFFIXES if ".np" not in suffix]), st.integers(0, 2**20)
)
@settings(QUICK, max_examples=60)
def test_tables_of_all_kinds_whole_and_damaged(
    folder: Path, frame: pl.DataFrame, suffix: str, seed: int
) -> None:
    path, blob = folder / f"t{suffix}", written(frame, suffix)
    path.write_bytes(blob)
    survive(path)
    for i in range(3):
        path.write_bytes(mutated(blob, random.Random(seed + i)))
        survive(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files(folder: Path, suffix: str) -> None:
    rng, blob, path = random.Random(0), valid(suffix), folder / f"t{suffix}"
    path.write_bytes(blob)
    assert read_table(path).height == 9
    for _ in range(250):
        path.write_bytes(mutated(blob, rng))
        survive(path)
