"""Systems of equations with rows that do not see each other, for tests of solvers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.ode import Adaptive, Control, Plan, tableau

Rates = Callable[..., Tensor]


class Equations:
    """``du/dt = f(t, u, *own, *shared)``, which counts for each row how often it was asked."""

    def __init__(
        self,
        rates: Rates,
        own: Sequence[Tensor] = (),
        shared: Sequence[Tensor] = (),
        *,
        moving: int = 0,
        ids: Tensor | None = None,
        seen: dict[int, int] | None = None,
    ) -> None:
        self.rates, self.own, self.shared, self.moving, self.ids = rates, list(own), list(shared), moving, ids
        self.seen = {} if seen is None else seen

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        for i in range(len(u)) if self.ids is None else self.ids.tolist():
            self.seen[i] = self.seen.get(i, 0) + 1
        assert t.shape == (len(u),)
        return self.rates(t[:, None], u, *self.own, *self.shared)

    def _with(self, own: Sequence[Tensor], ids: Tensor | None) -> Equations:
        return Equations(self.rates, own, self.shared, moving=self.moving, ids=ids, seen=self.seen)

    def take(self, rows: Tensor | slice) -> Equations:
        return self._with([t[rows] for t in self.own], None if self.ids is None else self.ids[rows])

    def row_tensors(self) -> list[Tensor]:
        return self.own

    def shared_tensors(self) -> list[Tensor]:
        return self.shared

    def with_rows(self, tensors: Sequence[Tensor]) -> Equations:
        return self._with(tensors, self.ids)


@dataclass(frozen=True)
class Problem:
    """Equations whose solution from time 0 on is known."""

    rates: Rates
    solution: Callable[[float, Tensor], Tensor]


def _turned(t: float, u: Tensor) -> Tensor:
    c, s = math.cos(3 * t), math.sin(3 * t)
    return u @ torch.tensor([[c, s], [-s, c]], dtype=u.dtype)


PROBLEMS = {
    "decay": Problem(lambda t, u: -2 * u, lambda t, u: u * math.exp(-2 * t)),
    "rotation": Problem(lambda t, u: torch.stack([-3 * u[:, 1], 3 * u[:, 0]], 1), _turned),
    "logistic": Problem(lambda t, u: 3 * u * (1 - u), lambda t, u: u / (u + (1 - u) * math.exp(-3 * t))),
    "forced": Problem(lambda t, u: torch.cos(2 * t) * u, lambda t, u: u * math.exp(math.sin(2 * t) / 2)),
    "bent": Problem(lambda t, u: -2 * t * u.square(), lambda t, u: u / (1 + u * t * t)),
}


def starts() -> Tensor:
    return torch.tensor([[0.3, 0.8], [1.5, 0.6], [0.05, 1.0]], dtype=torch.float64)


def plan(
    method: str = "dopri5",
    control: Control | None = None,
    *,
    ends: tuple[float, float] = (0.0, 1.0),
    m: int = 2,
) -> Plan:
    return Plan(tableau(method), Adaptive(1e-9, 1e-9) if control is None else control, *ends, controlled=m)
