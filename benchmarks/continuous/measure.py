"""Calls to time, in turns; and before that, whether they agree and what they evaluate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .libraries import Library, Loss
from .problem import Problem

Step = Callable[[], object]

CALLS = {
    "train": "training step",
    "log_prob": "log_prob",
    "sample": "sample",
    "matching": "flow matching step",
    "matching_ot": "the same, exact OT",
}
_TRIALS = 3  # of each way to the same thing, to find the fastest
_FAR = 3.0  # times the fastest at first, beyond which a way is not tried again
_LEARNING_RATE = 1e-7  # so small that the field, and with it the work, stays what it is


@dataclass(frozen=True)
class Way:
    """One way to do a call, and what it is called."""

    name: str
    step: Step


def ways(library: Library, x: Tensor) -> dict[str, list[Way]]:
    """Return what can be timed of a library, by the name of the call."""
    adam = torch.optim.Adam(library.module.parameters(), lr=_LEARNING_RATE, fused=True)

    def descends(loss: Loss) -> Step:
        def step() -> None:
            adam.zero_grad()
            loss(x).backward()
            adam.step()

        return step

    def likelihood(log_prob: Callable[[Tensor], Tensor]) -> Loss:
        return lambda x: -log_prob(x).mean()

    found = {
        "train": [Way(name, descends(likelihood(f))) for name, f in library.train.items()],
        "log_prob": [Way(name, without_gradient(f, x)) for name, f in library.log_prob.items()],
        "sample": [Way("", without_gradient(library.sample, len(x)))] if library.sample else [],
        "matching": [Way("", descends(library.matching))] if library.matching else [],
        "matching_ot": [Way("", descends(library.matching_ot))] if library.matching_ot else [],
    }
    return {call: some for call, some in found.items() if some}


def without_gradient(call: Callable[[Any], object], argument: object) -> Step:
    def step() -> object:
        with torch.no_grad():
            return call(argument)

    return step


def fastest(some: list[Way]) -> tuple[Way, dict[str, float]]:
    """Return the fastest of the ways, and the seconds of each; all are warm after it."""
    seconds = {way.name: _seconds(way.step) for way in some}
    if len(some) == 1:
        return some[0], {}
    near = [way for way in some if seconds[way.name] < _FAR * min(seconds.values())]
    times = [{way.name: _seconds(way.step) for way in near} for _ in range(_TRIALS)]
    seconds |= {way.name: statistics.median(trial[way.name] for trial in times) for way in near}
    return min(near, key=lambda way: seconds[way.name]), seconds


def agreement(library: Library, problem: Problem) -> dict[str, dict[str, dict[str, float]]]:
    """Return how far the log-densities (nats) and the gradients (relative) are from the truth, by way."""
    result: dict[str, dict[str, dict[str, float]]] = {"log_prob": {}, "gradient": {}}
    for name, log_prob in library.log_prob.items():
        with torch.no_grad():
            off = (log_prob(problem.x).double() - problem.log_prob).abs()
        result["log_prob"][name] = {"max": off.max().item(), "rms": off.square().mean().sqrt().item()}
    parameters = list(library.module.parameters())
    for name, log_prob in library.train.items():
        found = torch.autograd.grad(-log_prob(problem.x).mean(), parameters)
        gradient = torch.cat([g.flatten() for g in library.weights(found)]).double()
        off = (gradient - problem.gradient).norm() / problem.gradient.norm()
        result["gradient"][name] = {"relative": off.item()}
    return result


def evaluations(library: Library, call: str, step: Step) -> float | None:
    """Return how often a call evaluates the field, with or without derivatives; None where that cannot be seen."""
    if call in library.evaluations:
        return library.evaluations[call]()
    count = 0

    def seen(*_: object) -> None:
        nonlocal count
        count += 1

    hook = library.field.register_forward_pre_hook(seen)
    step()
    hook.remove()
    return count or None


def rounds(steps: dict[str, Step], number: int, seconds: float) -> dict[str, list[float]]:
    """Return the seconds of a call in each round, by library; every round begins with another library."""
    names = list(steps)
    result: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(number):
        start = turn % len(names)
        for name in (*names[start:], *names[:start]):
            result[name].append(_clock(steps[name], seconds))
    return result


def _clock(step: Step, seconds: float) -> float:
    """Return the seconds of one call, the median over some."""
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        times.append(_seconds(step))
    return statistics.median(times)


def _seconds(step: Step) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun
