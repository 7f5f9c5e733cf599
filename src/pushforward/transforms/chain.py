"""Maps one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn

from ..kernels.chain import Link
from ..networks.stack import serves
from .base import Transform, merge_context_shapes
from .conditioned import along
from .solution import Request, Solution

# Weights of links in one call, whose gradients are there all at once; more gain nothing by it.
_MOST_TOGETHER = 2**20


class Chain(Transform):
    r"""Composition, first transform first: :math:`f = f_K \circ \dots \circ f_1`.

    The log-determinants add: :math:`\log|\det J_f| = \sum_k \log|\det J_{f_k}|`.

    Args:
        transforms: At least one transform, each taking the shape that the one before it gives.

    Raises:
        ValueError: No transform, or shapes that do not follow from each other.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Chain, Permutation
        >>> t = Chain([Permutation.reverse(3), Permutation.reverse(3)])
        >>> t(torch.tensor([1.0, 2.0, 3.0]))
        (tensor([1., 2., 3.]), tensor(0.))
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        parts = list(transforms)
        if not parts:
            raise ValueError("Chain: at least one transform is needed, got none")
        for i, (a, b) in enumerate(pairwise(parts)):
            if a.latent_shape != b.event_shape:
                raise ValueError(
                    f"Chain: transform {i} ({type(a).__name__}) gives shape {a.latent_shape}, "
                    f"transform {i + 1} ({type(b).__name__}) takes {b.event_shape}"
                )
        super().__init__(
            parts[0].event_shape,
            latent_shape=parts[-1].latent_shape,
            context_shape=merge_context_shapes(parts, "Chain"),
        )
        self.transforms = nn.ModuleList(parts)
        self.exact = all(part.exact for part in parts)
        self.log_det_costs = any(part.log_det_costs for part in parts)

    def __iter__(self) -> Iterator[Transform]:
        for part in self.transforms:
            assert isinstance(part, Transform)
            yield part

    def __len__(self) -> int:
        return len(self.transforms)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._through(x, context, list(self), inverse=False)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._through(y, context, list(self)[::-1], inverse=True)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        if not self.log_det_costs:
            return self._forward(x, context)[0]
        for part in self:
            x = part._encode(x, context)
        return x

    def _decode(self, y: Tensor, context: Tensor | None) -> Tensor:
        if not self.log_det_costs:
            return self._inverse(y, context)[0]
        for part in reversed(list(self)):
            y = part._decode(y, context)
        return y

    def _solve(self, x: Tensor, context: Tensor | None, request: Request) -> Solution:
        parts = list(self)
        first, *rest = reversed(parts) if request.inverse else parts
        solution = first._solve(x, context, request)
        for part in rest:
            solution = solution.then(part._solve(solution.y, context, request))
        return solution

    def _through(
        self, x: Tensor, context: Tensor | None, parts: list[Transform], *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        total: Tensor | None = None
        links: list[Link] = []
        size = 0
        for part in parts:
            # What is among links has the shape of the points before them.
            link = part.link(x, context, inverse=inverse) if links or serves(x) else None
            if link is not None:
                if links and size + link.size() > _MOST_TOGETHER:
                    x, total = _add(x, total, links)
                    links, size = [], 0
                links.append(link)
                size += link.size()
                continue
            x, total = _add(x, total, links)
            links, size = [], 0
            x, log_abs_det = part._inverse(x, context) if inverse else part._forward(x, context)
            total = log_abs_det if total is None else total + log_abs_det
        x, total = _add(x, total, links)
        assert total is not None
        return x, total

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Initialise each transform on what the ones before it make of ``x``."""
        for part in self:
            x = part.initialize(x, context)
        return x


def _add(x: Tensor, total: Tensor | None, links: list[Link]) -> tuple[Tensor, Tensor | None]:
    """Take points through links, if there are any, and add their log-determinants."""
    if not links:
        return x, total
    x, log_abs_det = along(x, links)
    return x, log_abs_det if total is None else total + log_abs_det
