"""The gradient of a solve: by its own steps, with or without keeping what they computed, or by the adjoint equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..configs.continuous import GRADIENTS
from .control import Adaptive, Fixed
from .loop import Plan, Solved, Steps, System, adapt, march, one_step
from .tableau import Tableau

__all__ = ["GRADIENTS", "Followed", "solve"]


class Followed(System, Protocol):
    """A system whose derivatives are followed."""

    @property
    def moving(self) -> int:
        """How many numbers of a state, from the first on, act; the others are integrals."""
        ...

    def row_tensors(self) -> list[Tensor]:
        """Return what belongs to the rows and takes a gradient: contexts."""
        ...

    def shared_tensors(self) -> list[Tensor]:
        """Return what belongs to all rows and takes a gradient: parameters."""
        ...

    def with_rows(self, tensors: Sequence[Tensor]) -> Self:
        """Return the system with other ``row_tensors``."""
        ...


def solve(system: Followed, u: Tensor, plan: Plan, *, gradient: str = "checkpointed") -> Solved:
    r"""Integrate :math:`du/dt = f(t, u)`.

    The gradients by ``"checkpointed"`` and ``"backprop"`` are those of the discrete solution, lengths of steps held
    constant: the first keeps the states at the steps and computes the rest again, the second keeps everything and can
    itself be differentiated. ``"adjoint"`` integrates :math:`da/dt = -a^\top \partial f/\partial u` backwards from
    the end alone, to the same tolerance: constant memory, and a gradient that is exact to that tolerance only.

    Args:
        system: What is integrated.
        u: States to begin with, ``(n, m)``.
        plan: How.
        gradient: One of ``GRADIENTS``.

    References:
        Chen et al., Neural Ordinary Differential Equations, 2018, algorithm 1. https://arxiv.org/abs/1806.07366
        Zhuang et al., Adaptive Checkpoint Adjoint Method, 2020. https://arxiv.org/abs/2006.02493
    """
    shared, own = system.shared_tensors(), system.row_tensors()
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (u, *own, *shared))
    if isinstance(plan.control, Fixed) and (not wanted or gradient == "backprop"):
        return march(system, u, plan)
    if wanted and gradient != "backprop":
        found: list[Solved] = []
        rule = _Rule(system, plan, gradient == "adjoint", found)
        end = _Solve.apply(rule, u, *own, *shared)  # type: ignore[no-untyped-call]
        (solved,) = found
        return Solved(end, solved.evaluations, solved.accepted, solved.rejected, solved.status)
    with torch.no_grad():
        solved = _forward(system, u.detach(), plan, record=wanted)
    if wanted:
        solved.u = _again(system, plan.method, u, solved)
    return solved


def _forward(system: System, u: Tensor, plan: Plan, *, record: bool) -> Solved:
    solver = adapt if isinstance(plan.control, Adaptive) else march
    return solver(system, u, plan, record=record)


def _again(system: System, method: Tableau, u: Tensor, solved: Solved) -> Tensor:
    """Take the same steps once more, followed by autograd; where a solve was given up the end stays NaN."""
    steps, end = solved.steps, solved.u
    assert steps is not None
    u, system = u[steps.order], system.take(steps.order)
    done: list[Tensor] = []
    first = None
    for t, h, _ in steps.parts:
        if len(t) < len(u):
            done.append(u[len(t) :])
            u, system = u[: len(t)], system.take(slice(len(t)))
            first = None if first is None else first[: len(t)]
        u, stages = one_step(system, method, t, h, u, first=first)
        first = stages[-1] if method.fsal else None
    sorted_ends = torch.cat([u, *reversed(done)])
    back = torch.empty_like(steps.order)
    back[steps.order] = torch.arange(len(back), device=back.device)
    return torch.where(end.isnan(), end, sorted_ends[back])


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a solve with a gradient of its own needs besides tensors."""

    system: Followed
    plan: Plan
    adjoint: bool
    found: list[Solved]


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rule: _Rule, u: Tensor, *tensors: Tensor) -> Tensor:
        solved = _forward(rule.system, u, rule.plan, record=not rule.adjoint)
        ctx.rule, ctx.steps = rule, solved.steps
        ctx.save_for_backward(solved.u)
        rule.found.append(solved)
        return solved.u

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of this solve cannot be differentiated itself; build the transform with "
                "gradient='backprop' for that"
            )
        rule: _Rule = ctx.rule
        (end,) = ctx.saved_tensors
        # A solve that was given up is NaN whatever it began with.
        gradient = torch.where(end.isnan(), 0.0, gradient)
        if rule.adjoint:
            end = end.nan_to_num(nan=0.0)
            return (None, *_by_adjoint(rule, end, gradient))
        return (None, *_by_steps(rule, ctx.steps, gradient))


class _Total:
    """Gradients of what belongs to the rows, and of what belongs to all of them, as they add up."""

    def __init__(self, system: Followed) -> None:
        self.shared = [t for t in system.shared_tensors() if t.requires_grad]
        self._kept = [t.requires_grad for t in system.shared_tensors()]
        self._own = [torch.zeros_like(t) for t in system.row_tensors()]
        self._sums = [torch.zeros_like(t) for t in self.shared]

    def add(self, gradients: Sequence[Tensor | None], rows: Tensor) -> None:
        """Add gradients, those of the rows first."""
        for total, gradient in zip(self._own, gradients[: len(self._own)], strict=True):
            if gradient is not None:
                total.index_add_(0, rows, gradient)
        for total, gradient in zip(self._sums, gradients[len(self._own) :], strict=True):
            if gradient is not None:
                total.add_(gradient)

    def result(self) -> list[Tensor | None]:
        """Return all of them in the order of ``row_tensors`` and ``shared_tensors``."""
        sums = iter(self._sums)
        return [*self._own, *(next(sums) if kept else None for kept in self._kept)]


def _fresh(system: Followed) -> tuple[Followed, list[Tensor]]:
    """Return a system whose own tensors are leaves."""
    own = [t.detach().requires_grad_() for t in system.row_tensors()]
    return system.with_rows(own), own


def _by_steps(rule: _Rule, steps: Steps, gradient: Tensor) -> list[Tensor | None]:
    """Pull a gradient back through the steps, computing each anew."""
    system, total = rule.system.take(steps.order), _Total(rule.system)
    g = gradient[steps.order]
    for t, h, u in reversed(steps.parts):
        rows = slice(len(t))
        part, own = _fresh(system.take(rows))
        with torch.enable_grad():
            start = u.detach().requires_grad_()
            new, _ = one_step(part, rule.plan.method, t, h, start)
        pulled = torch.autograd.grad(new, [start, *own, *total.shared], g[rows], allow_unused=True)
        assert pulled[0] is not None
        g[rows] = pulled[0]
        total.add(pulled[1:], steps.order[rows])
    at_start = torch.empty_like(g)
    at_start[steps.order] = g
    return [at_start, *total.result()]


@dataclass(frozen=True, slots=True)
class _Backwards:
    """States with their adjoints, which move by ``(v, -a dv/dx - g dr/dx)``.

    Here ``r`` are the rates of integrals and ``g`` their gradients.
    """

    system: Followed
    integrals: Tensor

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        x = u[:, : self.system.moving].detach().requires_grad_()
        with torch.enable_grad():
            du = self.system(t, self.whole(x))
        (pulled,) = torch.autograd.grad(du, x, self.weights(u))
        return torch.cat([du[:, : x.shape[1]].detach(), -pulled], 1)

    def whole(self, x: Tensor) -> Tensor:
        """Return states of the system; its integrals do not act on anything."""
        return torch.cat([x, torch.zeros_like(self.integrals)], 1)

    def weights(self, u: Tensor) -> Tensor:
        """Return the gradient of the derivatives."""
        return torch.cat([u[:, self.system.moving :], self.integrals], 1)

    def take(self, rows: Tensor | slice) -> _Backwards:
        return _Backwards(self.system.take(rows), self.integrals[rows])


def _by_adjoint(rule: _Rule, end: Tensor, gradient: Tensor) -> list[Tensor | None]:
    """Integrate states and adjoints backwards; gradients of the tensors are integrals along the way."""
    d, method = rule.system.moving, rule.plan.method
    back = _Backwards(rule.system, gradient[:, d:])
    start = torch.cat([end[:, :d], gradient[:, :d]], 1)
    plan = replace(rule.plan, t0=rule.plan.t1, t1=rule.plan.t0, controlled=2 * d)
    solved = _forward(back, start, plan, record=True)
    total, steps = _Total(rule.system), solved.steps
    assert steps is not None
    back = back.take(steps.order)
    wanted = bool(total.shared or rule.system.row_tensors())
    for t, h, u in steps.parts if wanted else ():
        rows = slice(len(t))
        part = back.take(rows)
        _, stages = one_step(part, method, t, h, u)
        for i, (row, b, c) in enumerate(zip(method.a, method.b, method.c, strict=True)):
            if b == 0.0:
                continue
            at = u
            for w, k in zip(row, stages[:i], strict=True):
                at = torch.add(at, w * h[:, None] * k)
            inner, own = _fresh(part.system)
            with torch.enable_grad():
                du = inner(t + c * h, part.whole(at[:, :d]))
            pulled = torch.autograd.grad(
                du, [*own, *total.shared], -b * h[:, None] * part.weights(at), allow_unused=True
            )
            total.add(pulled, steps.order[rows])
    return [torch.cat([solved.u[:, d:], gradient[:, d:]], 1), *total.result()]
