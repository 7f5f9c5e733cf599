"""Reading in chunks holds a chunk in memory, and not what was read before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from pushforward.data import iter_table


def test_row_groups_that_were_read_are_let_go(tmp_path: Path) -> None:
    rows, path = 200_000, tmp_path / "t.parquet"
    x = np.random.default_rng(0).normal(size=(rows, 4))
    pl.DataFrame(x, schema=["a", "b", "c", "d"]).write_parquet(path, row_group_size=5_000)
    before, most, seen = pa.total_allocated_bytes(), 0, 0
    for frame in iter_table(path, None, 5_000):
        most, seen = max(most, pa.total_allocated_bytes() - before), seen + frame.height
    assert seen == rows
    assert most < x.nbytes / 4
