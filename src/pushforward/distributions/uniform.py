"""Uniform distribution on a box."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.shapes import Shape
from .base import Distribution
from .constraints import check_values, register


class Uniform(Distribution):
    r"""The uniform distribution on the closed box :math:`[a_1, b_1] \times \dots \times [a_n, b_n]`.

    .. math:: \log p(x) = -\sum_i \log(b_i - a_i) \text{ on the box}, \quad -\infty \text{ outside}

    Both ends belong to it, so that an observation that stands exactly on a bound has a density.

    Args:
        low: Lower ends :math:`a`, ``event_shape``.
        high: Upper ends :math:`b`, ``event_shape``, of the same dtype.

    Shapes:
        ``x (*batch, *event_shape)`` -> ``(*batch,)``.

    Raises:
        ValueError: Ends that differ in shape or dtype, are not floating, not in order or not finite.

    References:
        Durkan et al., Neural Spline Flows, 2019, section 3.1, whose splines live on such a box.
        https://arxiv.org/abs/1906.04032

    Example:
        >>> import torch
        >>> base = Uniform(torch.tensor([0.0, -1.0]), torch.tensor([2.0, 1.0]))
        >>> base.log_prob(torch.tensor([[1.0, 0.5], [3.0, 0.5]]))
        tensor([-1.3863,    -inf])
    """

    has_rsample = True
    has_temperature = False
    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__(tuple(low.shape))
        if high.shape != low.shape or high.dtype != low.dtype:
            raise ValueError(
                "Uniform: high must have the shape and dtype of low, "
                f"{tuple(low.shape)} {low.dtype}, got {tuple(high.shape)} {high.dtype}"
            )
        width = high - low
        expected = f"above low, {low.tolist()}, by a finite width"
        check_values("Uniform", "high", high, expected, (width > 0) & width.isfinite())
        register(self, "low", low, trainable=False)
        register(self, "high", high, trainable=False)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        outside = (x < self.low) | (x > self.high)
        # 0 * x keeps a NaN.
        value = 0 * x - torch.log(self.high - self.low)
        return self._sum_event(value.masked_fill(outside, -torch.inf))

    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        # Unlike low + width * u, lerp cannot round to a point beyond the upper end.
        return torch.lerp(self.low, self.high, self._empty(shape).uniform_(generator=generator))
