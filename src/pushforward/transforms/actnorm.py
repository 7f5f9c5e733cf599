"""Normalisation of activations with data-dependent initial values."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .base import Shape, Transform
from .elementwise import check_bound, limit


class ActNorm(Transform):
    r"""A learned affine map of each feature, :math:`y = (x - \mu)\, e^{-s}`, :math:`\log|\det J| = -\sum_i s_i`.

    Of an image the features are its channels, and the sum is over all pixels.

    ``initialize`` sets :math:`\mu` and :math:`s` so that the given batch leaves with mean 0 and variance 1; nothing
    else ever does, in either direction or mode.

    Args:
        features: Number of elements ``D``, or of channels.
        bound: Largest :math:`|s|`, kept by :math:`s = B \tanh(\tilde s/B)`.
        size: Rows and columns of an image; (): points are vectors.

    References:
        Kingma & Dhariwal, Glow, 2018, section 3.1. https://arxiv.org/abs/1807.03039

    Example:
        >>> t = ActNorm(1)
        >>> y = t.initialize(torch.tensor([[1.0], [3.0]]))
        >>> [round(v, 4) for v in y.flatten().tolist()]
        [-1.0, 1.0]
    """

    reversible = True

    def __init__(self, features: int, bound: float = 8.0, *, size: Shape = ()) -> None:
        super().__init__((features, *size))
        self.bound = check_bound(bound)
        self.loc = nn.Parameter(torch.zeros(features))
        self.raw_log_scale = nn.Parameter(torch.zeros(features))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Take mean and scale from the batch ``x (n, D, *size)``."""
        with torch.no_grad():
            flat = x.movedim(-len(self.event_shape), -1).reshape(-1, self.event_shape[0])
            std = flat.std(0, correction=0).clamp(min=torch.finfo(x.dtype).eps)
            self.loc.copy_(flat.mean(0))
            self.raw_log_scale.copy_(self.bound * torch.atanh((std.log() / self.bound).clamp(-0.99, 0.99)))
        return super().initialize(x, context)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return location and log-scale as they broadcast to points, and the log-determinant of the inverse."""
        dims = len(self.event_shape)
        log_scale, shape = limit(self.raw_log_scale, self.bound), (-1, *(1,) * (dims - 1))
        total = math.prod(self.event_shape[1:]) * log_scale.sum()
        return self.loc.view(shape), log_scale.view(shape), total.expand(x.shape[: x.ndim - dims])

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        loc, log_scale, total = self._parts(x)
        return (x - loc) * (-log_scale).exp(), -total

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        loc, log_scale, total = self._parts(y)
        return y * log_scale.exp() + loc, total
