"""One solve of a system of rows, each with steps of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch
from torch import Tensor

from .control import Adaptive, Control, Fixed
from .tableau import Tableau

# Rows that are done are carried along until there are this many of them.
_CARRIED = 0.25


class System(Protocol):
    """What is integrated: rows that do not see each other."""

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        """Return the derivatives ``(n, m)`` of states ``(n, m)`` at times ``(n,)``."""
        ...

    def take(self, rows: Tensor | slice) -> Self:
        """Return the system of some of the rows."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How a system is solved.

    Attributes:
        method: The method.
        control: How long its steps are.
        t0: Time to begin at.
        t1: Time to end at, which may be earlier.
        controlled: How many of the numbers of a state, from the first on, tolerances are about; those that move
            themselves are among them, the others are integrals.
    """

    method: Tableau
    control: Control
    t0: float
    t1: float
    controlled: int


@dataclass(slots=True)
class Steps:
    """The accepted steps of a solve, rows with most steps first.

    Attributes:
        order: The row of each place, ``(n,)``.
        parts: Of each step: times, lengths and states ``(k, m)`` at its start, of the ``k`` first places.
    """

    order: Tensor
    parts: list[tuple[Tensor, Tensor, Tensor]]


@dataclass(slots=True)
class Solved:
    """What a solve found.

    Attributes:
        u: The states at the end, ``(n, m)``; NaN where the solve was given up.
        evaluations: How often the derivative of each row was asked for, ``(n,)``.
        accepted: Accepted steps of each row.
        rejected: Rejected steps of each row.
        status: 0; 1 where a row needed too many steps, 2 where it is not finite, 3 where a step became too short.
        steps: The accepted steps, where they were asked for.
    """

    u: Tensor
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor
    status: Tensor
    steps: Steps | None = None


def one_step(
    system: System, method: Tableau, t: Tensor, h: Tensor, u: Tensor, *, first: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return the states after one step, and the stages.

    Args:
        system: What is integrated.
        method: The method.
        t: Times ``(n,)``.
        h: Lengths ``(n,)``.
        u: States ``(n, m)``.
        first: The first stage, where it is known.
    """
    stages = [system(t, u) if first is None else first]
    long = h[:, None]
    at = u
    for row, c in zip(method.a[1:], method.c[1:], strict=True):
        at = u + long * _combined(row, stages)
        stages.append(system(t + c * h, at))
    # With a last stage that is the next one's first, its place is the end of the step.
    return (at if method.fsal else u + long * _combined(method.b, stages)), stages


def _combined(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    terms = [(w, k) for w, k in zip(weights, stages, strict=True) if w != 0.0]
    (w, total), *rest = terms
    total = w * total
    for w, k in rest:
        total = torch.add(total, k, alpha=w)
    return total


def march(system: System, u: Tensor, plan: Plan, *, record: bool = False) -> Solved:
    """Solve with equal steps; every operation can be followed by autograd. Arguments as of ``adapt``."""
    method, control, t0, t1 = plan.method, plan.control, plan.t0, plan.t1
    assert isinstance(control, Fixed)
    method = method.without_estimate()
    h = u.new_full((len(u),), (t1 - t0) / control.steps)
    t = u.new_full((len(u),), t0)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for i in range(control.steps):
        if record:
            parts.append((t + i * h, h, u))
        u, _ = one_step(system, method, t + i * h, h, u)
    count = torch.full((len(u),), control.steps, dtype=torch.int32, device=u.device)
    zero = torch.zeros_like(count)
    steps = Steps(torch.arange(len(u), device=u.device), parts) if record else None
    return Solved(u, count * len(method.b), count, zero, zero, steps)


@dataclass(slots=True)
class _Rows:
    """The rows that a solve is still busy with."""

    place: Tensor
    t: Tensor
    h: Tensor
    u: Tensor
    first: Tensor
    live: Tensor
    grows: Tensor

    def take(self, places: Tensor) -> _Rows:
        return _Rows(*(getattr(self, name)[places] for name in self.__slots__))


@dataclass(slots=True)
class _Record:
    """The accepted steps in the order of time."""

    place: list[Tensor] = field(default_factory=list)
    t: list[Tensor] = field(default_factory=list)
    h: list[Tensor] = field(default_factory=list)
    u: list[Tensor] = field(default_factory=list)


def adapt(system: System, u: Tensor, plan: Plan, *, record: bool = False) -> Solved:
    """Solve with steps as long as the tolerance allows, without gradient.

    Args:
        system: What is integrated.
        u: States to begin with, ``(n, m)``.
        plan: How; with a method that has an error estimate.
        record: Whether to keep the accepted steps.
    """
    method, control, t0, t1, controlled = plan.method, plan.control, plan.t0, plan.t1, plan.controlled
    assert isinstance(control, Adaptive) and method.e is not None
    n, sign = len(u), 1.0 if t1 >= t0 else -1.0
    order = method.order
    each = len(method.b) - method.fsal
    shortest = 10 * torch.finfo(u.dtype).eps * max(abs(t0), abs(t1), abs(t1 - t0))
    accepted, rejected, status = (torch.zeros(n, dtype=torch.int32, device=u.device) for _ in range(3))
    end = torch.full_like(u, torch.nan)
    kept = _Record()
    if n == 0:
        return Solved(u, accepted, accepted, rejected, status, Steps(accepted.long(), []) if record else None)
    t = u.new_full((n,), t0)
    first = system(t, u)
    h = sign * _first_length(system, u, first, plan)
    status = torch.where(_finite(u) & _finite(first), 0, 2).to(torch.int32)
    rows = _Rows(torch.arange(n, device=u.device), t, h, u, first, status == 0, torch.ones_like(status == 0))
    busy = system
    for _ in range(control.max_steps):
        living = int(rows.live.sum())
        if living == 0:
            break
        if living <= (1 - _CARRIED) * len(rows.place):
            places = rows.live.nonzero().flatten()
            rows, busy = rows.take(places), busy.take(places)
        left = t1 - rows.t
        last = left.abs() <= rows.h.abs() * (1 + 1e-6)
        h = torch.where(last, left, rows.h)
        new, stages = one_step(busy, method, rows.t, h, rows.u, first=rows.first)
        error = h[:, None] * _combined(method.e, [k[:, :controlled] for k in stages])
        size = control.size(error, rows.u[:, :controlled], new[:, :controlled])
        ending = stages[-1] if method.fsal else busy(rows.t + h, new)
        good = (size <= 1.0) & _finite(new) & _finite(ending)
        ok = rows.live & good
        # What was followed from an error beyond all bounds is tried again, shorter.
        factor = control.factor(torch.where(good | (size > 1.0), size, torch.inf), order)
        factor = torch.where(rows.grows, factor, factor.clamp(max=1.0))
        if record:
            for name, value in (("place", rows.place), ("t", rows.t), ("h", h), ("u", rows.u)):
                getattr(kept, name).append(value[ok])
        accepted[rows.place] += ok.int()
        rejected[rows.place] += (rows.live & ~good).int()
        rows.t = torch.where(ok, torch.where(last, t1, rows.t + h), rows.t)
        rows.u = torch.where(ok[:, None], new, rows.u)
        rows.first = torch.where(ok[:, None], ending, rows.first)
        rows.h = torch.where(rows.live, h * factor, rows.h)
        rows.grows = good
        done = ok & last
        end[rows.place[done]] = rows.u[done]
        short = rows.live & ~good & (rows.h.abs() < shortest)
        status[rows.place[short]] = 3
        rows.live = rows.live & ~done & ~short
    status[rows.place[rows.live]] = 1
    # Two for the first length, of which one is the first stage too.
    evaluations = (accepted + rejected) * each + 2
    return Solved(end, evaluations, accepted, rejected, status, _in_order(kept, accepted) if record else None)


def _finite(values: Tensor) -> Tensor:
    return values.isfinite().all(-1)


def _first_length(system: System, u: Tensor, first: Tensor, plan: Plan) -> Tensor:
    """Return the length of the first step, by Hairer, Norsett & Wanner, section II.4."""
    control, controlled, span = plan.control, plan.controlled, plan.t1 - plan.t0
    assert isinstance(control, Adaptive)
    sign = 1.0 if span >= 0 else -1.0
    near = u[:, :controlled]
    d0, d1 = control.size(near, near), control.size(first[:, :controlled], near)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    ahead = system(plan.t0 + sign * h0, u + sign * h0[:, None] * first)
    d2 = control.size((ahead - first)[:, :controlled], near) / h0
    largest = torch.maximum(d1, d2)
    h1 = torch.where(
        (largest > 1e-15) & d2.isfinite(),
        (0.01 / largest) ** (1.0 / plan.method.order),
        (1e-3 * h0).clamp(min=1e-6),
    )
    return torch.minimum(100 * h0, h1).clamp(max=abs(span))


def _in_order(kept: _Record, accepted: Tensor) -> Steps:
    """Sort the steps: by row first, then side by side, rows with most steps first."""
    order = torch.argsort(accepted, descending=True, stable=True)
    if not kept.place:
        return Steps(order, [])
    place = torch.cat(kept.place)
    by_row = torch.argsort(place, stable=True)
    t, h, u = (torch.cat(values)[by_row] for values in (kept.t, kept.h, kept.u))
    start = torch.cumsum(accepted, 0) - accepted
    counts, starts = accepted[order], start[order]
    return Steps(order, [(t[at], h[at], u[at]) for at in _places(counts, starts)])


def _places(counts: Tensor, starts: Tensor) -> Iterator[Tensor]:
    """Yield, for each number of a step, where the steps of the rows that have so many are."""
    for i in range(int(counts[0]) if len(counts) else 0):
        yield starts[: int((counts > i).sum())] + i
