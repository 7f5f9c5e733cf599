"""Mixture of normal distributions with independent elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..networks.shapes import Shape
from .base import Distribution
from .constraints import LOG_SCALE_BOUND, bounded_log_scale, register
from .normal import normal_log_density


class GaussianMixture(Distribution):
    r"""A mixture of ``K`` normal distributions of the whole event, each with independent elements.

    .. math:: \log p(x) = \log \sum_k w_k \prod_i \mathcal{N}(x_i; \mu_{ki}, \sigma_{ki}^2)

    The locations are drawn so that the mixture has, on average, mean 0 and variance 1 at first, half of the
    variance between the components; the weights begin equal. The log-scales are bounded softly at 20 in size.

    Args:
        event_shape: Shape of one ``x``.
        components: Number of components ``K``.
        trainable: Learn weights, locations and scales.
        generator: Source of the first locations, on the CPU; None: torch's own.

    Shapes:
        ``x (*batch, *event_shape)`` -> ``(*batch,)``; memory grows with ``K`` times the size of ``x``.

    Raises:
        ValueError: Fewer than one component.

    References:
        Izmailov et al., Semi-Supervised Learning with Normalizing Flows, 2020, which has such a base.
        https://arxiv.org/abs/1912.13025

    Example:
        >>> import torch
        >>> base = GaussianMixture((2,), 3, generator=torch.Generator().manual_seed(0))
        >>> base.log_prob(torch.zeros(4, 2)).shape
        torch.Size([4])
    """

    has_rsample = False
    has_temperature = False
    logits: Tensor
    loc: Tensor
    raw_log_scale: Tensor

    def __init__(
        self,
        event_shape: Shape,
        components: int,
        *,
        trainable: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(event_shape)
        if components < 1:
            raise ValueError(f"GaussianMixture: components must be at least 1, got {components}")
        shape = (components, *self.event_shape)
        raw = LOG_SCALE_BOUND * math.atanh(-0.5 * math.log(2) / LOG_SCALE_BOUND)
        loc = torch.randn(shape, generator=generator) * math.sqrt(0.5)
        register(self, "logits", torch.zeros(components), trainable=trainable)
        register(self, "loc", loc, trainable=trainable)
        register(self, "raw_log_scale", torch.full(shape, raw), trainable=trainable)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        each = normal_log_density(
            x.unsqueeze(-1 - len(self.event_shape)), self.loc, bounded_log_scale(self.raw_log_scale)
        )
        return torch.logsumexp(self._sum_event(each) + torch.log_softmax(self.logits, -1), -1)

    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        ends = torch.softmax(self.logits, -1).cumsum(-1)
        u = torch.rand(shape, generator=generator, dtype=ends.dtype, device=ends.device)
        # The last end may be rounded to below 1.
        k = torch.searchsorted(ends, u, right=True).clamp(max=len(ends) - 1)
        scale = torch.exp(bounded_log_scale(self.raw_log_scale))
        return self.loc[k] + scale[k] * self._empty(shape).normal_(generator=generator)
