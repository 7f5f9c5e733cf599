"""Interleaved rounds: in each, every library is timed once in turn, and only one process computes at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from .figures import Figure
from .processes import Worker
from .tasks import Task

_BURST = (
    0.05  # seconds of calls in a row that a round takes at least, so that the clock and the pipe do not count
)


# Threads of the process that computed before wait for more by turning round, for some 20 ms, before they sleep.
_SETTLE = 0.05


@dataclass(frozen=True)
class Effort:
    """How much time a cell gets.

    Attributes:
        rounds: Most rounds.
        seconds: Slow calls get as many rounds as fit, and at least one.
    """

    rounds: int = 15
    seconds: float = 6.0

    def bursts(self, seconds: float) -> tuple[int, int]:
        """Return the rounds and the calls in each, for a call that takes so long."""
        times = max(1, math.ceil(_BURST / max(seconds, 1e-9)))
        return max(1, min(self.rounds, int(self.seconds / (times * seconds)))), times


def time_task(
    task: Task, workers: Sequence[Worker], effort: Effort, say: Callable[[str], None]
) -> tuple[list[Figure], dict[str, int]]:
    """Time a task's calls in every worker.

    Args:
        task: What to build.
        workers: The processes, by library.
        effort: How often.
        say: Told what goes on.

    Returns:
        The figures in milliseconds, and the number of weights by library.
    """
    built = {}
    for worker in workers:
        say(f"{task.name}: building {worker.library}")
        built[worker.library] = worker.ask(do="build", task=asdict(task))
    figures: list[Figure] = []
    for call in task.calls:
        able = []
        for worker in workers:
            answer = built[worker.library]
            reason = answer.get("cannot_any") or answer["cannot"].get(call)
            if reason:
                figures.append(Figure(task.name, worker.library, call, reason=reason))
            else:
                able.append(worker)
        times = _rounds(call, able, {w.library: built[w.library]["compiled"] for w in able}, effort, say)
        figures += [
            Figure(task.name, name, call, values=[1e3 * s for s in seconds], note=built[name]["note"])
            for name, seconds in times.items()
        ]
    return figures, {name: answer["parameters"] for name, answer in built.items() if "parameters" in answer}


def _rounds(
    call: str,
    workers: Sequence[Worker],
    compiled: dict[str, bool],
    effort: Effort,
    say: Callable[[str], None],
) -> dict[str, list[float]]:
    """Return the seconds of a call in each round, by library."""
    result: dict[str, list[float]] = {}
    plan: dict[str, tuple[int, int]] = {}
    for worker in workers:
        name = worker.library
        say(f"  {call}: warming up {name}")
        first = worker.ask(do="time", call=call, times=1)["seconds"]
        if first > effort.seconds and not compiled[name]:
            result[name], plan[name] = [first], (0, 1)  # so slow that what is cold in it does not count
        else:
            second = worker.ask(do="time", call=call, times=1)["seconds"]
            result[name], plan[name] = [], effort.bursts(second)
            if second > effort.seconds:
                result[name], plan[name] = [second], (0, 1)
    for turn in range(max((rounds for rounds, _ in plan.values()), default=0)):
        start = turn % len(workers)
        for worker in (*workers[start:], *workers[:start]):
            rounds, times = plan[worker.library]
            if turn < rounds:
                time.sleep(_SETTLE)
                result[worker.library].append(worker.ask(do="time", call=call, times=times)["seconds"])
    return result
