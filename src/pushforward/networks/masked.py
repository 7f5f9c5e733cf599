"""A masked network: output i sees only the inputs that come before i in an order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mlp import check_widths, make_activation
from .shapes import need_context


class MaskedLinear(nn.Linear):
    r"""A linear layer whose weight is multiplied by a fixed 0/1 mask: :math:`y = (M \odot W) x + b`.

    The weights that count are drawn from :math:`U(-1/\sqrt{k}, 1/\sqrt{k})` with ``k`` the number of inputs that
    the unit really sees, so that a narrow view does not start with a vanishing signal.

    Args:
        mask: Boolean, ``(out_features, in_features)``.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)
        with torch.no_grad():
            seen = mask.sum(-1, keepdim=True).clamp(min=1)
            self.weight.mul_((mask.shape[1] / seen).sqrt())
            self.weight.mul_(self.mask)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the masked layer to ``x (..., in_features)``."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedMLP(nn.Module):
    r"""MADE's masked perceptron: the parameters of element :math:`i` depend on the elements before it in ``order``.

    Every unit has a degree; a connection exists where the degree does not fall (hidden layers) or strictly grows
    (to the output), so that :math:`\partial g_i / \partial x_j = 0` unless ``order[j] < order[i]``. Hidden units
    are sorted by degree. The last layer starts at zero. The context is seen by every unit. A hidden layer narrower
    than ``D - 1`` (``D`` with a context) has not a unit for every degree, so that some elements do not see some of
    those right before them.

    Args:
        features: Number of elements ``D``.
        parameters: Number of outputs for each element, ``P``.
        context_features: Width of the context; 0: none.
        hidden: Widths of the hidden layers.
        order: Position of each element in the order, a permutation of ``0 .. D-1``; None: as they stand.
        inputs: Which element each input column belongs to, for a point that is encoded by more than one column an
            element; None: one column each.
        activation: One of ``ACTIVATIONS``.

    Shapes:
        ``x (*batch, len(inputs))``, ``context (*context_batch, context_features)`` -> ``(*batch, D, P)``.

    Raises:
        ValueError: An order that is no permutation, impossible widths, an unknown activation.

    References:
        Germain et al., MADE: Masked Autoencoder for Distribution Estimation, 2015, eq. 12-13.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> import torch
        >>> net = MaskedMLP(3, 2, hidden=(16,))
        >>> net(torch.randn(5, 3)).shape
        torch.Size([5, 3, 2])
    """

    order: Tensor

    def __init__(
        self,
        features: int,
        parameters: int,
        *,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        inputs: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_widths(features, parameters, context_features, hidden)
        if not hidden:
            raise ValueError("hidden: a masked network needs at least one hidden layer, got none")
        positions = torch.arange(features) if order is None else torch.as_tensor(list(order))
        if sorted(positions.tolist()) != list(range(features)):
            raise ValueError(f"order must be a permutation of 0..{features - 1}, got {positions.tolist()}")
        columns = torch.arange(features) if inputs is None else torch.as_tensor(list(inputs))
        self.features, self.parameters_each, self.context_features = features, parameters, context_features
        self.register_buffer("order", positions)
        # Degree d: the unit may know the elements at positions 0..d. Degree -1 knows none but the context.
        degrees = positions[columns]
        layers: list[nn.Module] = []
        for width in hidden:
            own = _hidden_degrees(width, features, with_none=context_features > 0)
            layers += [MaskedLinear(own[:, None] >= degrees[None, :]), make_activation(activation)]
            degrees = own
        self.context = nn.Linear(context_features, hidden[0], bias=False) if context_features else None
        self.first, self.hidden = layers[0], nn.Sequential(*layers[1:])
        out = positions.repeat_interleave(parameters)
        self.last = MaskedLinear(out[:, None] > degrees[None, :])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of every element of ``x`` under ``context``."""
        h: Tensor = self.first(x)
        if self.context is not None:
            h = h + self.context(need_context(self, context))
        output: Tensor = self.last(self.hidden(h))
        return output.reshape(*output.shape[:-1], self.features, self.parameters_each)


def _hidden_degrees(width: int, features: int, *, with_none: bool) -> Tensor:
    """Spread degrees evenly and in order over a layer; no unit need know the last element."""
    lowest = -1 if with_none or features == 1 else 0
    count = features - 1 - lowest
    return lowest + (torch.arange(width) * count) // width
