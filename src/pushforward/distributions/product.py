"""Independent groups of elements, each with its own distribution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks.shapes import Shape
from .base import Distribution


class Product(Distribution):
    r"""Independent groups of the elements of one vector, each group with its own distribution.

    .. math:: \log p(x; c) = \sum_g \log p_g(x_{I_g}; c)

    For instance a normal distribution for the columns of a table that are unbounded, and a uniform one on
    :math:`[-\pi, \pi]` for those that are angles. It has ``rsample`` and temperature where all parts have it.

    Args:
        parts: The distributions :math:`p_g`, each of a vector.
        indices: For each part the elements :math:`I_g` that it takes, in its own order; all elements
            ``0 .. D-1`` once.

    Shapes:
        ``x (*batch, D)``, ``context (*context_batch, *context_shape)`` -> ``(*batch,)``.

    Raises:
        ValueError: No part, not as many groups of indices as parts, a part whose event is no vector of the
            length of its indices, elements missing or doubled, parts of different dtypes or context shapes.

    Example:
        >>> import torch
        >>> from pushforward.distributions import DiagonalNormal, Product, Uniform
        >>> base = Product([DiagonalNormal((2,)), Uniform(torch.zeros(1), torch.ones(1))], [[0, 2], [1]])
        >>> base.log_prob(torch.tensor([[0.0, 0.5, 0.0], [0.0, 1.5, 0.0]]))
        tensor([-1.8379,    -inf])
    """

    order: Tensor

    def __init__(self, parts: Sequence[Distribution], indices: Sequence[Sequence[int]]) -> None:
        if not parts or len(parts) != len(indices):
            raise ValueError(
                "Product: parts and indices must be of one length, at least 1, "
                f"got {len(parts)} and {len(indices)}"
            )
        for i, (part, group) in enumerate(zip(parts, indices, strict=True)):
            if part.event_shape != (len(group),):
                raise ValueError(
                    f"Product: part {i} ({type(part).__name__}) has the event shape {part.event_shape}, "
                    f"its indices are {len(group)}"
                )
        order = list(itertools.chain.from_iterable(indices))
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"Product: indices must be each of 0..{len(order) - 1} once, got {order}")
        dtypes = {p.dtype for p in parts}
        if len(dtypes) > 1:
            raise ValueError(f"Product: all parts must have the same dtype, got {sorted(map(str, dtypes))}")
        contexts = {p.context_shape for p in parts if p.context_shape is not None}
        if len(contexts) > 1:
            raise ValueError(f"Product: all parts must take the same context shape, got {sorted(contexts)}")
        super().__init__((len(order),), context_shape=contexts.pop() if contexts else None)
        self.parts = nn.ModuleList(parts)
        self.sizes = [len(group) for group in indices]
        self.has_rsample = all(p.has_rsample for p in parts)
        self.has_temperature = all(p.has_temperature for p in parts)
        self.register_buffer("order", torch.tensor(order))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        groups = torch.split_with_sizes(x.index_select(-1, self.order), self.sizes, -1)
        values = [p._log_prob(g, context) for p, g in zip(self._parts(), groups, strict=True)]
        return torch.stack(values).sum(0)

    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        groups = torch.cat([p._sample(shape, context, temperature, generator) for p in self._parts()], -1)
        return torch.empty_like(groups).index_copy(-1, self.order, groups)

    def _parts(self) -> list[Distribution]:
        return [p for p in self.parts if isinstance(p, Distribution)]
