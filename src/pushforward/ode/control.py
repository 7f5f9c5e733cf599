"""How long the steps of a solve are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_SAFETY, _LEAST, _MOST = 0.9, 0.2, 10.0


@dataclass(frozen=True, slots=True)
class Fixed:
    """A number of equal steps."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True, slots=True)
class Adaptive:
    r"""Steps as long as the estimated error allows, for each row by itself.

    A step is accepted where the root mean square of :math:`\mathrm{err}_i / (\mathrm{atol} + \mathrm{rtol}
    \max(|u_i|, |u'_i|))` is at most 1.

    Attributes:
        atol: Absolute tolerance.
        rtol: Relative tolerance.
        max_steps: Most attempts for a row; one that needs more is given up.

    References:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.4.
    """

    atol: float = 1e-5
    rtol: float = 1e-5
    max_steps: int = 1000

    def __post_init__(self) -> None:
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")

    def size(self, values: Tensor, *states: Tensor) -> Tensor:
        """Return the size ``(n,)`` of values ``(n, m)`` in units of the tolerance at some states."""
        largest = states[0].abs()
        for state in states[1:]:
            largest = torch.maximum(largest, state.abs())
        return (values / (self.atol + self.rtol * largest)).square().mean(-1).sqrt()

    def factor(self, size: Tensor, order: int) -> Tensor:
        """Return by what to multiply a step whose error has a size; NaN counts as a large one."""
        factor = (_SAFETY * size ** (-1.0 / order)).clamp(_LEAST, _MOST)
        return torch.where(size.isfinite(), factor, _LEAST)


Control = Adaptive | Fixed
