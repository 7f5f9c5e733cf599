"""Fuzz the readers of tables: ``python fuzz/readers.py SECONDS``; the first byte of an input says its suffix."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import atheris
import numpy as np
import polars as pl

with atheris.instrument_imports(include=["pushforward", "numpy.lib", "csv", "zipfile"]):
    from pushforward.data import infer_schema, iter_table, read_table, to_frame, to_matrix
    from pushforward.data.readers import SUFFIXES

from harness import run

from pushforward.errors import DataError


def seeds() -> dict[str, bytes]:
    """A small valid table for every suffix."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "a": rng.normal(size=4),
            "n": rng.poisson(3.0, 4),
            "t": ["x", None, "é", "true"],
            "ok": [True, None, False, True],
            "day": pl.Series([0, 1, None, 19_000]).cast(pl.Int32).cast(pl.Date),
            "at": pl.Series([None, 1, 10**15, 10**12]).cast(pl.Datetime("us", "UTC")),
            "hour": ["10:00", "23:59", "00:00", None],
            "price": ["1,5", "12 kg", "50%", "$3"],
        }
    )
    array = rng.normal(size=(3, 2))
    found = {}
    for i, suffix in enumerate(SUFFIXES):
        memory = io.BytesIO()
        if suffix == ".parquet":
            frame.write_parquet(memory, compression="uncompressed")
        elif suffix == ".npy":
            np.save(memory, array)
        elif suffix == ".npz":
            np.savez(memory, X=array, y=array[0])
        else:
            memory.write(frame.write_csv(separator="\t" if "tsv" in suffix else ",").encode())
        content = memory.getvalue()
        found[suffix] = bytes([i]) + (gzip.compress(content) if suffix.endswith(".gz") else content)
    return found


def check(data: bytes, folder: Path) -> None:
    """Read a table in every way: a matrix, or words."""
    if not data:
        return
    path = folder / f"t{SUFFIXES[data[0] % len(SUFFIXES)]}"
    path.write_bytes(data[1:])
    try:
        whole = read_table(path)
        rows = sum(frame.height for frame in iter_table(path, None, 2))
        if rows != whole.height:
            raise AssertionError(f"{whole.height} rows in one piece, {rows} in chunks")
        columns = infer_schema(whole, source=path).columns
        to_frame(to_matrix(whole, columns, source=path), columns)
    except DataError as error:
        if path.name not in str(error):
            raise


if __name__ == "__main__":
    run("readers", seeds(), check)
