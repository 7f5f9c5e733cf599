"""Parameters that are learned as they stand, or given by a network of the context."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .mlp import MLP
from .shapes import need_context


class ParameterSource(nn.Module):
    r"""A vector of parameters :math:`\theta(c) = \theta_0 + g(c)`, with ``g`` an ``MLP`` that starts at zero.

    Without a context it is the learned vector :math:`\theta_0` alone. With it a transform is conditional by an
    argument, and not by another class.

    Args:
        initial: Starting values :math:`\theta_0`, ``(P,)``.
        context_features: Width of the context; 0: none.
        hidden: Hidden widths of the network of the context.

    Shapes:
        ``context (*context_batch, context_features)`` -> ``(*context_batch, P)``; without context ``(P,)``.

    Example:
        >>> import torch
        >>> source = ParameterSource(torch.zeros(3), context_features=2)
        >>> source(torch.randn(7, 2)).shape
        torch.Size([7, 3])
    """

    def __init__(
        self, initial: Tensor, *, context_features: int = 0, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        self.value = nn.Parameter(initial.detach().clone())
        self.network = (
            MLP(0, initial.numel(), context_features=context_features, hidden=hidden)
            if context_features
            else None
        )

    def forward(self, context: Tensor | None = None) -> Tensor:
        """Return the parameters under ``context``."""
        if self.network is None:
            return self.value
        context = need_context(self, context)
        change: Tensor = self.network(context.new_zeros((*context.shape[:-1], 0)), context)
        return self.value + change
