"""pushforward beside its peers in one run: ``make bench`` sets up the environments and runs all of it.

    python -m benchmarks.speed --only maf,toy --libraries ours,zuko,floor --rounds 5
    python -m benchmarks.speed --only models --threads 1
    python -m benchmarks.speed --quick

Every library runs in a process of its own, confined to as many cores as threads; one computes at a time. A task is
built and warmed up everywhere, then timed in interleaved rounds. A cell is the median of the rounds ± half the distance
between the quartiles, and in brackets its ratio to the fastest peer. Beside the peers stand the bare matrix products of
the task's dense layers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .chart import chart
from .environment import environment
from .figures import Figure
from .libraries import LIBRARIES
from .memory import memory
from .processes import FailedError, Setting, Worker, default_pythons
from .quality import time_to_quality
from .startup import first_results, imports
from .streaming import streaming
from .table import table
from .tasks import DEFAULT_TASKS, GROUPS, TASKS, Task, deep, quick
from .timing import Effort, time_task

EXTRAS = ("memory", "streaming", "import", "first", "quality")


def main() -> None:
    """Measure what was asked for, print it, and write it where that was asked for."""
    options = _options()
    setting = Setting({**default_pythons(), "jax": options.jax_python}, options.threads)
    libraries = [name for name in options.libraries if _there(name, setting)]
    facts = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n", flush=True)
    figures: list[Figure] = []
    tasks, parameters, versions = [_of(name, options) for name in options.only if name in TASKS], {}, {}

    def keep() -> None:
        """Write what there is so far, so that it stays where the run is interrupted."""
        if options.output:
            record = {
                "environment": {**facts, "versions": dict(sorted(versions.items()))},
                "tasks": {task.name: task.describe for task in tasks},
                "parameters": parameters,
                "figures": [f.record(figures) for f in figures],
            }
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(as_json(record))
        if options.chart and tasks:
            title = f"{facts['processor']}, {options.threads} threads, float32, {facts['date']}"
            chart(figures, options.chart, title)

    for task, found, counts, known in _timed(tasks, libraries, setting, options):
        figures += found
        parameters[task.name] = counts
        versions |= known
        _show(task.describe, found)
        keep()
    for heading, measure in _extras(libraries, setting, options).items():
        if heading in options.only:
            found = list(measure())
            figures += found
            for title in dict.fromkeys(f.task for f in found):
                _show(title, [f for f in found if f.task == title])
            keep()


def as_json(record: dict[str, Any]) -> str:
    """Return a record with one figure a line, so that two runs can be compared by eye."""
    figures = ",\n".join("  " + json.dumps(figure) for figure in record["figures"])
    head = json.dumps({key: value for key, value in record.items() if key != "figures"}, indent=1)
    return f'{head[:-2]},\n "figures": [\n{figures}\n ]\n}}\n'


def _timed(
    tasks: Iterable[Task], libraries: list[str], setting: Setting, options: argparse.Namespace
) -> Iterator[tuple[Task, list[Figure], dict[str, int], dict[str, str]]]:
    """Yield the figures of each task, its numbers of weights, and versions."""
    effort = Effort(options.rounds, 0.5 if options.quick else options.seconds)
    workers: list[Worker] = []
    try:
        for task in tasks:
            if not workers:
                workers = [Worker(name, setting) for name in libraries]
            known: dict[str, str] = {}
            for worker in workers:
                known |= worker.ask(do="versions")
            yield task, *time_task(task, workers, effort, _say), known
    finally:
        for worker in workers:
            worker.close()


def _extras(
    libraries: list[str], setting: Setting, options: argparse.Namespace
) -> dict[str, Callable[[], Iterable[Figure]]]:
    """Return what is measured in processes of its own, by its name as an option."""
    small: bool = options.quick
    depths = [quick(deep(2))] if small else [deep(8), deep(32), deep(128)]
    first = quick(TASKS["maf"]) if small else TASKS["maf"]
    repeats = 1 if small else 3
    return {
        "memory": lambda: memory(depths, libraries, setting, _say),
        "streaming": lambda: streaming(20_000 if small else options.rows, setting, 1 if small else 5, _say),
        "import": lambda: imports(libraries, setting, repeats),
        "first": lambda: first_results(first, libraries, setting, repeats, _say),
        "quality": lambda: time_to_quality(libraries, setting, options.quick, _say),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*TASKS, *GROUPS, *EXTRAS]
    parser.add_argument(
        "--only", default=",".join([*DEFAULT_TASKS, *EXTRAS]), help=f"among {', '.join(names)}"
    )
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help=f"among {', '.join(LIBRARIES)}")
    parser.add_argument("--rounds", type=int, default=15, help="most rounds of a cell")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="budget of a cell; slow calls get fewer rounds"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the streamed table")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to try the harness; the figures mean nothing"
    )
    parser.add_argument(
        "--jax-python", default=default_pythons()["jax"], help="interpreter with FlowJAX and bijx"
    )
    parser.add_argument("--output", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--chart", type=Path, help="where to draw them")
    options = parser.parse_args()
    asked = [name for part in options.only.split(",") for name in _members(part)]
    options.only, options.libraries = asked, options.libraries.split(",")
    for given, known in ((asked, names), (options.libraries, list(LIBRARIES))):
        unknown = sorted(set(given) - set(known))
        if unknown:
            parser.error(f"expected names among {', '.join(known)}, got {', '.join(unknown)}")
    return options


def _members(name: str) -> list[str]:
    return [task.name for task in GROUPS[name]] if name in GROUPS else [name]


def _of(name: str, options: argparse.Namespace) -> Task:
    return quick(TASKS[name]) if options.quick else TASKS[name]


def _there(name: str, setting: Setting) -> bool:
    """Whether a library's environment exists; the others are measured without it."""
    if Path(setting.python(name)).exists():
        return True
    print(f"{name} is left out: no {setting.python(name)}; make bench sets it up", file=sys.stderr)
    return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(title: str, figures: list[Figure]) -> None:
    print(f"### {title}\n\n{table(figures)}\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except FailedError as failure:
        sys.exit(str(failure))
