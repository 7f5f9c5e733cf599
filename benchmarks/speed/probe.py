"""One process of one library for what a warm worker cannot show: the first result, and the memory of a step.

python -m benchmarks.speed.probe THREADS LIBRARY first TASK CALL
python -m benchmarks.speed.probe THREADS LIBRARY memory TASK
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path

from .libraries import build
from .processes import from_text, settle
from .tasks import Task

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_STEPS = 3


def first(library: str, task: Task, call: str) -> None:
    """Build a flow and make one call."""
    model = build(library, task)
    model.wait(model.calls(task.batch)[call]())


def memory(library: str, task: Task) -> dict[str, float]:
    """Return how far a training step rises above what stays between steps, in bytes, and its seconds.

    What stays are weights, the optimiser's state, code and the libraries' own buffers, and on torch the gradients: they
    are not freed between these steps. Every larger block is mapped and unmapped on its own in the steps that count, so
    that the resident memory is what is in use.
    """
    model = build(library, task)
    step = model.calls(task.batch)["train"]
    model.wait(step())
    seconds = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        model.wait(step())
        seconds.append(time.perf_counter() - start)
    model.keep_gradients()
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 2**16)
    libc.mallopt(_TRIM_THRESHOLD, 2**16)
    model.wait(step())
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    model.wait(step())
    return {"bytes": _status("VmHWM") - before, "seconds": min(seconds)}


def _status(name: str) -> float:
    """Return a line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Measure, and print one line."""
    threads, library, what, text, *rest = sys.argv[1:]
    settle(int(threads), library)
    task = from_text(text)
    if what == "first":
        first(library, task, *rest)
        print("done", flush=True)
    else:
        print(json.dumps(memory(library, task)), flush=True)


if __name__ == "__main__":
    main()
