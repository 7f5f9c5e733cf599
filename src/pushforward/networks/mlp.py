"""Conditioners: networks from the known part of a point (and a context) to the parameters of a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .shapes import need_context
from .stack import Stack, adds, perceptron, plain_layers, serves

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def make_activation(name: str) -> nn.Module:
    """Return the named activation, or raise a ``ValueError`` that lists the names."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def check_widths(in_features: int, out_features: int, context_features: int, hidden: Sequence[int]) -> None:
    """Refuse sizes that no network can have."""
    if in_features < 0 or out_features < 1 or context_features < 0 or in_features + context_features == 0:
        raise ValueError(
            "in_features + context_features and out_features must be at least 1, got "
            f"{in_features}, {context_features} and {out_features}"
        )
    if any(h < 1 for h in hidden):
        raise ValueError(f"hidden: every width must be at least 1, got {tuple(hidden)}")


class MLP(nn.Module):
    r"""A multi-layer perceptron of a point and a context, whose last layer starts at zero.

    .. math:: g(x, c) = W_L\, a(\dots a(W_1 x + V c + b_1) \dots) + b_L, \qquad W_L = 0,\ b_L = 0 \text{ at first.}

    The context has its own first matrix ``V``, so one context for many points is multiplied once and broadcast.
    A zero output makes every transform that is conditioned on it start near the identity.

    Args:
        in_features: Width of ``x``; may be 0 when there is a context.
        out_features: Width of the output.
        context_features: Width of the context; 0: none.
        hidden: Widths of the hidden layers; none gives an affine map.
        activation: One of ``ACTIVATIONS``.

    Shapes:
        ``x (*batch, in_features)``, ``context (*context_batch, context_features)`` -> ``(*batch, out_features)``.

    Raises:
        ValueError: Impossible widths or an unknown activation.

    Example:
        >>> import torch
        >>> net = MLP(2, 3, context_features=4, hidden=(8,))
        >>> net(torch.randn(5, 2), torch.randn(4)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_widths(in_features, out_features, context_features, hidden)
        self.in_features, self.out_features, self.context_features = (
            in_features,
            out_features,
            context_features,
        )
        first, *rest = (*hidden, out_features)
        self.first = nn.Linear(in_features, first, bias=True) if in_features else None
        self.context = (
            nn.Linear(context_features, first, bias=self.first is None) if context_features else None
        )
        self.rest = nn.ModuleList(
            nn.Sequential(make_activation(activation), nn.Linear(i, o))
            for i, o in zip((first, *rest), rest, strict=False)
        )
        self.zero_output()

    def zero_output(self) -> None:
        """Set the last layer to zero."""
        last = [self.rest[-1][1]] if self.rest else [self.first, self.context]  # type: ignore[index]
        for layer in last:
            for p in layer.parameters() if layer is not None else ():
                nn.init.zeros_(p)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters for points ``x`` under ``context``."""
        stack = self.stack(x.shape, context) if serves(x) else None
        if stack is not None:
            return perceptron(x, *stack)
        if self.first is None:
            assert self.context is not None
            h: Tensor = self.context(need_context(self, context))
        else:
            h = self.first(x)
            if self.context is not None:
                h = h + self.context(need_context(self, context))
        for layer in self.rest:
            h = layer(h)
        return h.expand(*torch.broadcast_shapes(h.shape[:-1], x.shape[:-1]), h.shape[-1])

    def stack(self, shape: Sequence[int], context: Tensor | None) -> Stack | None:
        """Return the layers, and what the context adds, for ``perceptron``; None where that does not serve.

        Args:
            shape: That of the points, ``(*batch, in_features)``.
            context: The context.
        """
        own = self.__dict__["_modules"]  # as in ``plain_layers``
        first, rest, mixes = own.get("first"), own["rest"], own.get("context")
        if first is None or len(rest) == 0:
            return None
        modules = [first]
        for pair in rest:
            modules += pair
        layers = plain_layers(modules, nn.Linear, shape[-1])
        seen = None if mixes is None or layers is None else mixes(need_context(self, context))
        return (layers, seen) if layers is not None and adds(seen, layers, shape[:-1]) else None
