"""Time from the start of a process: to the end of an import, and to the first result."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from .figures import SECONDS, Figure
from .libraries import LIBRARIES
from .processes import ROOT, FailedError, Setting, as_text, run
from .tasks import Task

_LIMIT = 300.0
# Beside the libraries: what they stand on, and ours at its first use, since importing it alone imports nothing else.
_OTHERS = {
    "pushforward, with a model": ("torch", "from pushforward import build_flow"),
    "python": ("torch", "pass"),
    "torch": ("torch", "import torch"),
    "jax": ("jax", "import jax"),
}


def imports(libraries: Sequence[str], setting: Setting, rounds: int) -> list[Figure]:
    """Return the seconds of a process that imports a library and does nothing else."""
    statements = {
        name: (LIBRARIES[name].environment, f"import {LIBRARIES[name].imports}")
        for name in libraries
        if LIBRARIES[name].distribution
    }
    environments = {environment for environment, _ in statements.values()}
    statements |= {name: found for name, found in _OTHERS.items() if found[0] in environments}
    seconds: dict[str, list[float]] = {name: [] for name in statements}
    for turn in range(rounds + 1):
        for name, (environment, statement) in statements.items():
            start = time.perf_counter()
            subprocess.run(
                [setting.pythons[environment], "-c", statement],
                cwd=ROOT, env=setting.variables, check=True, capture_output=True,
            )  # fmt: skip
            if turn:  # the first one read the files from disk
                seconds[name].append(time.perf_counter() - start)
    return [Figure("import", name, "import", SECONDS, values) for name, values in seconds.items()]


def first_results(
    task: Task, libraries: Sequence[str], setting: Setting, rounds: int, say: Callable[[str], None]
) -> Iterator[Figure]:
    """Yield the seconds from the start of a process to the end of its first log_prob, and of its first step."""
    libraries = [name for name in libraries if LIBRARIES[name].distribution]
    title = f"first result, {task.name}"
    for call in ("log_prob", "train"):
        seconds: dict[str, list[float]] = {name: [] for name in libraries}
        reasons: dict[str, str] = {}
        for _ in range(rounds):
            for name in libraries:
                if name in reasons:
                    continue
                say(f"first {call} of {name}")
                start = time.perf_counter()
                try:
                    run(setting.command(name, "probe", "first", as_text(task), call), setting, limit=_LIMIT)
                except FailedError as why:
                    reasons[name] = str(why)
                    continue
                seconds[name].append(time.perf_counter() - start)
        for name in libraries:
            yield Figure(title, name, call, SECONDS, seconds[name], reasons.get(name, ""))
