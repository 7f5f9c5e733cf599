"""``pushforward score`` of a large table, against the bare forward pass of the same flow on rows in memory."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .figures import MEGABYTES, ROWS, Figure
from .processes import ROOT, Setting

_FEATURES = 8
_PART = 500_000


def streaming(rows: int, setting: Setting, say: Callable[[str], None]) -> Iterator[Figure]:
    """Yield rows per second and peak memory for ``rows`` rows and for a tenth of them.

    The pace of the command is that of the other nine tenths: its time for all rows less that for the first tenth, so
    that the start of the process, which does not depend on rows, is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        say(f"writing {rows:,} rows")
        few, many = rows // 10, rows
        model = _prepare(place, few, many)
        seconds, peaks = {}, {}
        for count in (few, many):
            say(f"scoring {count:,} rows")
            seconds[count], peaks[count] = _score(place, model, count, setting)
        say("the bare forward pass")
        bare, whole = _bare(place / f"{few}.parquet", model, setting.threads)
    task = "streaming score"
    pace = (many - few) / (seconds[many] - seconds[few])
    yield Figure(
        task, "bare forward pass", "pace", ROWS, [bare], note="float32 rows in memory, no preprocessing"
    )
    yield Figure(
        task, "log_prob in memory", "pace", ROWS, [whole], note="float64 rows, in the units of the data"
    )
    note = f"{pace / bare:.2f} of the bare forward pass, {pace / whole:.2f} of log_prob"
    yield Figure(task, "ours", "pace", ROWS, [pace], note=note)
    for count in (few, many):
        yield Figure(task, "ours", f"peak, {count:,} rows", MEGABYTES, [peaks[count] / 1e6])


def _prepare(place: Path, few: int, many: int) -> Path:
    """Write both tables and a fitted flow, and return the path of that."""
    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    import pushforward as pf

    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(_FEATURES)]
    for count in (few, many):
        with pq.ParquetWriter(
            place / f"{count}.parquet", pa.schema([(n, pa.float64()) for n in names])
        ) as file:
            for start in range(0, count, _PART):
                size = min(_PART, count - start)
                file.write_table(pa.table({n: rng.normal(size=size) for n in names}))
    frame = pl.DataFrame({n: rng.normal(size=2000) for n in names})
    fitted = pf.fit(frame, model=pf.MAFConfig(), training=pf.TrainConfig(epochs=2), seed=0)
    model = place / "model.flow"
    pf.save(fitted, model)
    return model


def _score(place: Path, model: Path, rows: int, setting: Setting) -> tuple[float, float]:
    """Return the seconds and the peak resident bytes of the command."""
    words = ["score", str(model), str(place / f"{rows}.parquet"), "-o", str(place / "scores.parquet")]
    start = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "pushforward", *words],
        {**setting.variables, "PYTHONPATH": str(ROOT / "src")},
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"pushforward score ended with status {status}")
    return time.perf_counter() - start, 1024.0 * usage.ru_maxrss


def _bare(table: Path, model: Path, threads: int) -> tuple[float, float]:
    """Return rows per second of the transform and base alone, and of ``log_prob``."""
    import polars as pl
    import torch

    import pushforward as pf

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    flow = pf.load(model).flow
    x = torch.from_numpy(pl.read_parquet(table).to_numpy())
    z = x.float()
    # Chunks of the size that scoring takes.
    chunk = 8192
    bare = _pace(lambda rows: flow.log_prob_preprocessed(z[rows]), len(x), chunk)
    whole = _pace(lambda rows: flow.log_prob(x[rows]), len(x), chunk)
    torch.set_num_threads(before)
    return bare, whole


def _pace(call: Callable[[slice], object], rows: int, chunk: int) -> float:
    import torch

    with torch.no_grad():
        call(slice(0, chunk))
        start = time.perf_counter()
        for first in range(0, rows, chunk):
            call(slice(first, first + chunk))
        return rows / (time.perf_counter() - start)
