"""Normalisation of activations with data-dependent initial values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Transform
from .elementwise import check_bound, limit


class ActNorm(Transform):
    r"""A learned affine map of each feature, :math:`y = (x - \mu)\, e^{-s}`, :math:`\log|\det J| = -\sum_i s_i`.

    ``initialize`` sets :math:`\mu` and :math:`s` so that the given batch leaves with mean 0 and variance 1; nothing
    else ever does, in either direction or mode.

    Args:
        features: Number of elements ``D``.
        bound: Largest :math:`|s|`, kept by :math:`s = B \tanh(\tilde s/B)`.

    References:
        Kingma & Dhariwal, Glow, 2018, section 3.1. https://arxiv.org/abs/1807.03039

    Example:
        >>> t = ActNorm(1)
        >>> y = t.initialize(torch.tensor([[1.0], [3.0]]))
        >>> [round(v, 4) for v in y.flatten().tolist()]
        [-1.0, 1.0]
    """

    reversible = True

    def __init__(self, features: int, bound: float = 8.0) -> None:
        super().__init__((features,))
        self.bound = check_bound(bound)
        self.loc = nn.Parameter(torch.zeros(features))
        self.raw_log_scale = nn.Parameter(torch.zeros(features))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Take mean and scale from the batch ``x (n, D)``."""
        with torch.no_grad():
            flat = x.reshape(-1, x.shape[-1])
            std = flat.std(0, correction=0).clamp(min=torch.finfo(x.dtype).eps)
            self.loc.copy_(flat.mean(0))
            self.raw_log_scale.copy_(self.bound * torch.atanh((std.log() / self.bound).clamp(-0.99, 0.99)))
        return super().initialize(x, context)

    def _log_scale(self) -> Tensor:
        return limit(self.raw_log_scale, self.bound)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale()
        return (x - self.loc) * (-log_scale).exp(), -log_scale.sum().expand(x.shape[:-1])

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale()
        return y * log_scale.exp() + self.loc, log_scale.sum().expand(y.shape[:-1])
