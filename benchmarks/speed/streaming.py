"""``pushforward score`` of a large table, against the bare forward pass of the same flow on rows in memory."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from .figures import MEGABYTES, ROWS, Figure
from .processes import ROOT, Setting, run

_FEATURES = 8
_PART = 500_000
_CHUNK = 8192
_LIMIT = 600.0
# A process of its own, since the peak of a child begins with the memory of whoever started it.
_MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(json.dumps([seconds, 1024.0 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def streaming(rows: int, setting: Setting, rounds: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Yield rows per second and peak memory for ``rows`` rows and for a tenth of them.

    The pace of the command is that of the other nine tenths: its time for all rows less that for the first tenth, so
    that the start of the process, which does not depend on rows, is left out. Each round measures everything once.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        say(f"writing {rows:,} rows")
        few, many = rows // 10, rows
        model = _prepare(place, few, many)
        bare, whole = _in_memory(place / f"{few}.parquet", model, setting.threads)
        paces: dict[str, list[float]] = {"bare": [], "whole": [], "command": []}
        peaks: dict[int, list[float]] = {few: [], many: []}
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            paces["bare"].append(bare())
            paces["whole"].append(whole())
            seconds = {}
            for count in (few, many):
                seconds[count], peak = _score(place, model, count, setting)
                peaks[count].append(peak / 1e6)
            paces["command"].append((many - few) / (seconds[many] - seconds[few]))
    task = "streaming score"
    note = "float32 rows in memory, no preprocessing"
    yield Figure(task, "bare forward pass", "pace", ROWS, paces["bare"], note=note)
    note = "float64 rows, in the units of the data"
    yield Figure(task, "log_prob in memory", "pace", ROWS, paces["whole"], note=note)
    of_bare, of_whole = (_median_ratio(paces["command"], paces[other]) for other in ("bare", "whole"))
    note = f"{of_bare:.2f} of the bare forward pass, {of_whole:.2f} of log_prob"
    yield Figure(task, "ours", "pace", ROWS, paces["command"], note=note)
    for count in (few, many):
        yield Figure(task, "ours", f"peak, {count:,} rows", MEGABYTES, peaks[count])


def _median_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the median over rounds, each of which compares what was measured one after the other."""
    return median(one / other for one, other in zip(ours, others, strict=True))


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
    command = ["env", f"PYTHONPATH={ROOT / 'src'}", sys.executable, "-m", "pushforward", *words]
    seconds, peak = json.loads(run([sys.executable, "-c", _MEASURE, *command], setting, limit=_LIMIT))
    return seconds, peak


def _in_memory(table: Path, model: Path, threads: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return what measures rows per second of the transform and base alone, and of ``log_prob``."""
    import polars as pl
    import torch

    import pushforward as pf

    torch.set_num_threads(threads)
    flow = pf.load(model).flow
    x = torch.from_numpy(pl.read_parquet(table).to_numpy())
    z = x.float()
    return (
        lambda: _pace(lambda rows: flow.log_prob_preprocessed(z[rows]), len(x)),
        lambda: _pace(lambda rows: flow.log_prob(x[rows]), len(x)),
    )


def _pace(call: Callable[[slice], object], rows: int) -> float:
    import torch

    with torch.no_grad():
        call(slice(0, _CHUNK))
        start = time.perf_counter()
        for first in range(0, rows, _CHUNK):
            call(slice(first, first + _CHUNK))
        return rows / (time.perf_counter() - start)
