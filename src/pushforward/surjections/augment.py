"""Extra elements, so that a flow can go round what it cannot go through."""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor

from .base import Surjection


class Augment(Surjection):
    r"""Appends ``extra`` standard normal elements: :math:`z = (x, e)`, :math:`e \sim N(0, I)`, :math:`w = -\log q(e)`.

    A density :math:`p(x, e)` of both gives :math:`\log p(x) \ge E_q[\log p(x, e) - \log q(e)]`, a bound that more
    draws tighten. A coupling that moves ``e`` given ``x``, as the first layer of the flow, makes of :math:`q` any
    :math:`q(e \mid x)`.

    Args:
        features: Number of elements of ``x``.
        extra: Number of elements to append.

    References:
        Huang, Dinh & Courville, Augmented Normalizing Flows, 2020, eq. 6. https://arxiv.org/abs/2002.07101
        Dupont, Doucet & Teh, Augmented Neural ODEs, 2019. https://arxiv.org/abs/1904.01681

    Example:
        >>> z, log_weight = Augment(2, 1).encode(torch.zeros(5, 2), generator=torch.Generator().manual_seed(0))
        >>> z.shape, log_weight.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, features: int, extra: int) -> None:
        super().__init__()
        if features < 1 or extra < 1:
            raise ValueError(f"features and extra must be at least 1, got {features} and {extra}")
        self.features, self.extra = features, extra
        self.event_shape, self.latent_shape = (features,), (features + extra,)

    def encode(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Append elements to ``x (*batch, features)``."""
        batch = x.shape[:-1]
        place = x.device if generator is None else generator.device
        e = torch.randn((*(() if shared else batch), self.extra), generator=generator, device=place).to(x)
        e = e.expand(*batch, self.extra)
        log_q = -0.5 * e.square().sum(-1) - 0.5 * self.extra * log(2 * pi)
        return torch.cat([x, e], -1), -log_q

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Leave out what was appended."""
        return z[..., : self.features]
