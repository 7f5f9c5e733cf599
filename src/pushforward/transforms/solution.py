"""What a map has to say of one call beside its value."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

PENALTIES = ("kinetic", "jacobian", "acceleration")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of ``Transform.solve``, whose arguments these are."""

    inverse: bool = False
    generator: torch.Generator | None = None
    shared: bool = False
    penalties: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """How much work the solves behind a call took, for each row; 0 for a map in closed form.

    Attributes:
        evaluations: How often the velocity of a row was asked for, of the batch shape.
        accepted: Accepted steps.
        rejected: Rejected steps.
    """

    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Stats:
        """Return those of a map in closed form, of the shape of ``like``."""
        zero = torch.zeros(like.shape, dtype=torch.int32, device=like.device)
        return cls(zero, zero, zero)

    def __add__(self, other: Stats) -> Stats:
        return Stats(
            self.evaluations + other.evaluations,
            self.accepted + other.accepted,
            self.rejected + other.rejected,
        )


@dataclass(frozen=True, slots=True)
class Solution:
    """A point mapped, with its log-determinant, penalties and work.

    Attributes:
        y: The points, ``(*batch, *event_shape)`` of the side mapped to.
        log_abs_det: The log-determinant of the batch shape, exact or an unbiased estimate.
        stats: The work.
        penalties: Integrals along the path that a training may add to its loss, by name, of the batch shape.
    """

    y: Tensor
    log_abs_det: Tensor
    stats: Stats
    penalties: dict[str, Tensor] = field(default_factory=dict)

    def then(self, later: Solution) -> Solution:
        """Return this map followed by another."""
        names = self.penalties.keys() | later.penalties.keys()
        nothing = torch.zeros_like(self.log_abs_det)
        return Solution(
            later.y,
            self.log_abs_det + later.log_abs_det,
            self.stats + later.stats,
            {k: self.penalties.get(k, nothing) + later.penalties.get(k, nothing) for k in sorted(names)},
        )
