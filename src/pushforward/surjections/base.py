"""The contract of stochastic maps that are a function in one direction only."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Surjection(nn.Module, ABC):
    r"""A random encoding :math:`z \sim q(z \mid x)` with a deterministic decoding :math:`x = s(z)`.

    Under a density :math:`p(z)` the likelihood is :math:`p(x) = E_q[p(z)\, e^{w(x, z)}]` with the log-weight
    :math:`w`: one draw gives an unbiased estimate of the likelihood and, by Jensen's inequality, a lower bound of its
    logarithm on average. It is not a ``Transform``, since it has no exact log-determinant.

    References:
        Nielsen et al., SurVAE Flows, 2020, section 3. https://arxiv.org/abs/2007.02731
    """

    @abstractmethod
    def encode(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Draw ``z`` for ``x (*batch, *event)``; return it with the log-weight, which has the batch shape.

        With ``shared`` one draw of noise serves all rows of the call, so that an estimate for a row depends neither
        on the order of the rows nor on how they are chunked; without it each row has its own.
        """

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the ``x`` that ``z`` stands for."""
