"""Logistic distribution with independent elements."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.shapes import Shape
from .base import Distribution


class Logistic(Distribution):
    r"""The standard logistic distribution of each element, with tails heavier than those of the normal.

    .. math:: \log p(x) = -\sum_i \left[\log(1 + e^{x_i}) + \log(1 + e^{-x_i})\right]

    Args:
        event_shape: Shape of one ``x``.

    Shapes:
        ``x (*batch, *event_shape)`` -> ``(*batch,)``.

    References:
        Dinh, Krueger, Bengio, NICE: Non-linear Independent Components Estimation, 2015, section 3.4.
        https://arxiv.org/abs/1410.8516

    Example:
        >>> import torch
        >>> Logistic((2,)).log_prob(torch.tensor([[0.0, 0.0], [3.0, -10000.0]]))
        tensor([-2.7726e+00, -1.0003e+04])
    """

    has_rsample = True
    has_temperature = True
    loc: Tensor

    def __init__(self, event_shape: Shape) -> None:
        super().__init__(event_shape)
        self.register_buffer("loc", torch.zeros(self.event_shape))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        z = x - self.loc
        return self._sum_event(F.logsigmoid(z) + F.logsigmoid(-z))

    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        # A ratio of exponentials, for the logit of a uniform number may be infinite and has unequal tails.
        one, two = (self._empty(shape).exponential_(generator=generator) for _ in range(2))
        return self.loc + temperature * (one.log() - two.log())
