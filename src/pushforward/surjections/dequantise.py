"""Discrete columns as continuous ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import isfinite
from typing import Self

import torch
from torch import Tensor

from ..networks.shapes import check_event
from .base import Surjection

# Roundings, in units of the dtype's epsilon, that may separate a quotient z / step from the true one.
_ROUNDINGS = 4


class Dequantise(Surjection):
    r"""Uniform dequantisation, :math:`z_i = x_i + \delta_i u_i` with :math:`u_i \sim U(0, 1)`.

    The column has step :math:`\delta_i`; a continuous column (step 0) passes unchanged.

    The likelihood is :math:`p(x) = E_u[p(x + \delta u)]`, with respect to steps times counting measure: for integers it
    is the probability of the value, in general a density in the units of the data. Without the noise a density could
    grow without bound on values that repeat.

    A step is taken for the fraction that its digits mean (0.15 for 3/20), so that a decoded value is the double
    nearest to the decimal number. Like ``Preprocess``, it keeps float64 on the CPU whatever the flow is moved or cast
    to: a step of 0.1 that has been a float32 misses the cells of large values.

    Args:
        steps: Spacing of the values of each column, 0 where it is continuous.

    Shapes:
        ``x (*batch, D)`` -> ``z (*batch, D)``, log-weight ``batch``.

    Raises:
        ValueError: No step, a negative, infinite or NaN one; points of another length or without a floating dtype.

    References:
        Theis et al., A note on the evaluation of generative models, 2016, section 3.1. https://arxiv.org/abs/1511.01844

    Example:
        >>> surjection = Dequantise([1.0, 0.0])
        >>> z, log_weight = surjection.encode(torch.tensor([[2.0, 0.5]]), generator=torch.Generator().manual_seed(0))
        >>> surjection.decode(z)
        tensor([[2.0000, 0.5000]])
    """

    numerator: Tensor
    denominator: Tensor

    def __init__(self, steps: Sequence[float]) -> None:
        super().__init__()
        if not steps or not all(isfinite(s) and s >= 0 for s in steps):
            raise ValueError(f"steps must be finite, at least 0 and at least one, got {list(steps)}")
        ratios = torch.tensor([_ratio(float(s)) for s in steps], dtype=torch.float64)
        self.register_buffer("numerator", ratios[:, 0].clone())
        self.register_buffer("denominator", ratios[:, 1].clone())

    @property
    def steps(self) -> Tensor:
        """Spacing of the values of each column, float64, ``(D,)``; 0 where it is continuous."""
        return self.numerator / self.denominator

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return self

    def encode(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Add noise within the cell of each discrete value; the log-weight is 0."""
        self._check("x", x)
        shape = x.shape[-1:] if shared else x.shape
        noise = torch.rand(shape, dtype=x.dtype, device=x.device, generator=generator)
        # Noise at the very end of a cell could be rounded into the next one.
        margin = (2 * _ROUNDINGS * torch.finfo(x.dtype).eps * (self._quotient(x).abs() + 1.0)).clamp(max=0.5)
        noise = torch.maximum(torch.minimum(noise, 1.0 - margin), margin)
        return x + self.steps.to(x) * noise, x.new_zeros(x.shape[:-1])

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Round down to the grid of each discrete column."""
        self._check("z", z)
        quotient = self._quotient(z)
        cell = torch.floor(quotient + _ROUNDINGS * torch.finfo(z.dtype).eps * quotient.abs())
        value = cell * self.numerator.to(z) / self.denominator.to(z)
        return torch.where(self.numerator.to(z) > 0, value, z)

    def _quotient(self, x: Tensor) -> Tensor:
        """Return ``x`` in steps; as it is where the column is continuous."""
        numerator = torch.where(self.numerator > 0, self.numerator, 1.0)
        return x * self.denominator.to(x) / numerator.to(x)

    def _check(self, name: str, x: Tensor) -> None:
        if x.shape[-1:] != self.numerator.shape or not x.is_floating_point():
            raise ValueError(
                f"Dequantise: {name} must have shape (..., {len(self.numerator)}) and a floating dtype, "
                f"got {tuple(x.shape)} and {x.dtype}"
            )


class DequantisePixels(Surjection):
    r"""Uniform dequantisation of images, :math:`z = x + u` with :math:`u \sim U(0, 1)` at every pixel.

    The likelihood :math:`p(x) = E_u[p(x + u)]` is the probability of the image. ``decode`` rounds down, and brings what
    lies beyond the levels to the nearest one.

    Args:
        event_shape: Shape of an image.
        levels: Number of levels; pixels are 0 to ``levels - 1``.

    Shapes:
        ``x (*batch, *event_shape)`` -> ``z`` of the same shape, log-weight ``batch``.

    Raises:
        ValueError: Fewer than 2 levels; points of another shape or without a floating dtype.

    References:
        Theis et al., A note on the evaluation of generative models, 2016, section 3.1. https://arxiv.org/abs/1511.01844

    Example:
        >>> surjection = DequantisePixels((1, 2, 2), levels=256)
        >>> z, log_weight = surjection.encode(torch.full((1, 2, 2), 7.0), generator=torch.Generator().manual_seed(0))
        >>> surjection.decode(z).flatten(), log_weight
        (tensor([7., 7., 7., 7.]), tensor(0.))
    """

    def __init__(self, event_shape: Sequence[int], levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.event_shape, self.levels = tuple(event_shape), levels

    def encode(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Add noise within the cell of each level; the log-weight is 0."""
        check_event(self, "x", x, self.event_shape)
        if not x.is_floating_point():
            raise ValueError(f"DequantisePixels: x must be of a floating dtype, got {x.dtype}")
        shape = self.event_shape if shared else x.shape
        # In single precision the end of a cell must not be rounded into the next one.
        noise = torch.rand(shape, dtype=x.dtype, device=x.device, generator=generator).clamp(max=1 - 2**-15)
        return x + noise, x.new_zeros(x.shape[: x.ndim - len(self.event_shape)])

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Round down to a level."""
        check_event(self, "z", z, self.event_shape)
        return z.floor().clamp(0, self.levels - 1)


def _ratio(step: float) -> tuple[float, float]:
    """Return numerator and denominator of the simple fraction that a step means, or the step over 1."""
    fraction = Fraction(step).limit_denominator(10**9)
    return (fraction.numerator, fraction.denominator) if float(fraction) == step else (step, 1.0)
