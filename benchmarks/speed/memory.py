"""Peak memory of a training step against depth: processes of their own for each library and depth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from .figures import MEGABYTES, Figure
from .libraries import LIBRARIES
from .processes import FailedError, Setting, as_text, run
from .tasks import Task

_LIMIT = 150.0
_REPEATS = 5  # processes: what their allocators find to use again differs by some megabytes; XLA takes too long for it


def memory(
    tasks: Sequence[Task], libraries: Sequence[str], setting: Setting, say: Callable[[str], None]
) -> Iterator[Figure]:
    """Yield the peaks beyond weights, gradients and optimiser state, and the milliseconds of a step."""
    for name in libraries:
        if name.startswith("floor"):
            continue
        for task in tasks:
            say(f"memory of {name}, {task.layers} layers")
            columns = (f"{task.layers} layers", f"step of {task.layers}")
            repeats = _REPEATS if LIBRARIES[name].environment == "torch" else 1
            command = setting.command(name, "probe", "memory", as_text(task))
            try:
                found = [json.loads(run(command, setting, limit=_LIMIT)) for _ in range(repeats)]
            except FailedError as why:
                for column in columns:
                    yield Figure("memory", name, column, reason=str(why))
                continue
            note = (
                ""
                if LIBRARIES[name].environment == "torch"
                else "with the gradients of the layers that are done"
            )
            yield Figure("memory", name, columns[0], MEGABYTES, [f["bytes"] / 1e6 for f in found], note=note)
            yield Figure("memory", name, columns[1], values=[1e3 * f["seconds"] for f in found])
