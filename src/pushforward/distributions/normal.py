"""Normal distribution with independent elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..networks import ParameterSource
from ..networks.shapes import Shape
from .base import Distribution
from .constraints import bounded_log_scale

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def normal_log_density(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log-density of each element."""
    z = (x - loc) * torch.exp(-log_scale)
    return -0.5 * z.square() - log_scale - HALF_LOG_TWO_PI


class DiagonalNormal(Distribution):
    r"""A normal distribution with independent elements: standard, learned, or given by the context.

    .. math:: \log p(x; c) = \sum_i -\tfrac12 \left(\frac{x_i - \mu_i(c)}{\sigma_i(c)}\right)^2
        - \log \sigma_i(c) - \tfrac12 \log 2\pi

    The learned log-scale is bounded softly at 20 in size, so that no scale under- or overflows. Learned or
    not, it begins as the standard normal.

    Args:
        event_shape: Shape of one ``x``.
        trainable: Learn location and scale; otherwise they are 0 and 1.
        context_features: Width of the context, from which a network then gives location and scale, learned
            whatever ``trainable`` is; 0: none.

    Shapes:
        ``x (*batch, *event_shape)``, ``context (*context_batch, context_features)`` -> ``(*batch,)``.

    Raises:
        ValueError: A negative ``context_features``.

    References:
        Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference, 2021, section 2.1.
        https://arxiv.org/abs/1912.02762

    Example:
        >>> import torch
        >>> base = DiagonalNormal((2,))
        >>> base.log_prob(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
        tensor([-1.8379, -4.3379])
        >>> base.sample((3,), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """

    has_rsample = True
    has_temperature = True
    loc: Tensor
    log_scale: Tensor

    def __init__(self, event_shape: Shape, *, trainable: bool = False, context_features: int = 0) -> None:
        super().__init__(event_shape, context_shape=(context_features,) if context_features else None)
        self.source: ParameterSource | None = None
        if trainable or context_features:
            initial = torch.zeros(2 * math.prod(self.event_shape))
            self.source = ParameterSource(initial, context_features=context_features)
        else:
            self.register_buffer("loc", torch.zeros(self.event_shape))
            self.register_buffer("log_scale", torch.zeros(self.event_shape))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._sum_event(normal_log_density(x, *self._location_and_log_scale(context)))

    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        loc, log_scale = self._location_and_log_scale(context)
        return loc + temperature * torch.exp(log_scale) * self._empty(shape).normal_(generator=generator)

    def _location_and_log_scale(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.source is None:
            return self.loc, self.log_scale
        both = self.source(context).unflatten(-1, (2, *self.event_shape))
        loc, raw = both.unbind(-1 - len(self.event_shape))
        return loc, bounded_log_scale(raw)
