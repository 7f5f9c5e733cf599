"""Products with masked matrices whose zeros lie together: done in blocks that leave most of the zeros out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.tracing import traced

# Products run at full speed where a block begins at a multiple of this.
_ALIGNED = 16
# More blocks leave out more zeros, in products that are too small to run at full speed.
_BLOCKS = 4
# Narrower matrices, and products with fewer multiplications, are done faster in one piece.
_NARROW = 256
_FEW = 2**24


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where a matrix whose rows and columns are sorted may differ from zero: a staircase.

    Attributes:
        rows: Blocks of rows as (first, end, number of columns, from the first on, that they see).
        columns: Blocks of columns as (first, end, first row that sees them), of those that any row sees.
    """

    rows: tuple[tuple[int, int, int], ...]
    columns: tuple[tuple[int, int, int], ...]


def staircase(mask: Tensor) -> tuple[Tensor, Tensor, Blocks | None]:
    """Sort the rows and columns of a mask by how much they see and are seen, and cut it into blocks.

    Args:
        mask: Boolean, ``(rows, columns)``.

    Returns:
        The sorted rows, the sorted columns, and the blocks of the sorted matrix, outside of which the mask is False;
        None where one product is as good.

    Example:
        >>> rows, columns, blocks = staircase(torch.ones(256, 256, dtype=torch.bool).tril())
        >>> blocks.rows
        ((0, 64, 64), (64, 128, 128), (128, 192, 192), (192, 256, 256))
        >>> blocks.columns
        ((0, 64, 0), (64, 128, 64), (128, 192, 128), (192, 256, 192))
    """
    rows = mask.sum(1).argsort(stable=True)
    columns = mask.sum(0).argsort(descending=True, stable=True)
    m, n = mask.shape
    if min(m, n) < _NARROW:
        return rows, columns, None
    last = torch.arange(1, n + 1, device=mask.device) * mask[rows][:, columns]
    reach = last.amax(1).cummax(0).values.tolist()
    edges = sorted({round(m * i / _BLOCKS / _ALIGNED) * _ALIGNED for i in range(_BLOCKS)} | {m})
    by_row, by_column, seen = [], [], 0
    for first, end in pairwise(edges):
        width = min(n, -(-reach[end - 1] // _ALIGNED) * _ALIGNED)
        by_row.append((first, end, width))
        if width > seen:
            by_column.append((seen, width, first))
            seen = width
    blocks = Blocks(tuple(by_row), tuple(by_column))
    worth = 0 < sum((end - first) * width for first, end, width in by_row) < 0.9 * m * n
    return rows, columns, blocks if worth else None


def pays(points: int, mask: Tensor) -> bool:
    """Return whether so many points are enough for a product in blocks to be faster than one product."""
    return points * mask.shape[0] * mask.shape[1] >= _FEW


def block_product(x: Tensor, weight: Tensor, bias: Tensor, blocks: Blocks) -> Tensor:
    r"""Return :math:`x W^\top + b` for points ``(n, columns)``, taking what lies outside of the blocks as 0."""
    if traced() or not torch.is_grad_enabled():
        return _product(x, weight, bias, blocks)
    product: Tensor = _BlockProduct.apply(x, weight, bias, blocks)  # type: ignore[no-untyped-call]
    return product


def _product(x: Tensor, weight: Tensor, bias: Tensor, blocks: Blocks) -> Tensor:
    return torch.cat([F.linear(x[:, :seen], weight[i:j, :seen], bias[i:j]) for i, j, seen in blocks.rows], 1)


class _BlockProduct(torch.autograd.Function):
    """The product by blocks, and its gradients by blocks: autograd alone would add up a whole gradient a block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, blocks: Blocks) -> Tensor:
        ctx.blocks = blocks
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias, blocks)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            parts = [gradient[:, row:] @ weight[row:, i:j] for i, j, row in ctx.blocks.columns]
            unseen = x.shape[1] - ctx.blocks.columns[-1][1]
            of_x = torch.cat([*parts, x.new_zeros(len(x), unseen)] if unseen else parts, 1)
        if ctx.needs_input_grad[1]:
            of_weight = torch.cat(
                [
                    F.pad(gradient[:, i:j].t() @ x[:, :seen], (0, x.shape[1] - seen))
                    for i, j, seen in ctx.blocks.rows
                ]
            )
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias, None


def permutation(order: Tensor) -> Tensor | None:
    """Return an order of entries with its inverse, ``(2, n)``; None where everything stands in order already."""
    in_order = bool((order[1:] > order[:-1]).all())
    return None if in_order else torch.stack([order, order.argsort()])


def sort(x: Tensor, order: Tensor | None, dim: int = -1) -> Tensor:
    """Return the entries of ``x`` along ``dim`` in the order that ``permutation`` gave."""
    return x if order is None else _sorted(x, order[0], order[1], dim)


def restore(x: Tensor, order: Tensor | None, dim: int = -1) -> Tensor:
    """Undo ``sort``."""
    return x if order is None else _sorted(x, order[1], order[0], dim)


class _Sorted(torch.autograd.Function):
    """Take entries in another order; the gradient takes them back, where autograd would add them up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        ctx.save_for_backward(order, back)
        return x.index_select(dim, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        order, back = ctx.saved_tensors
        return _sorted(gradient, back, order, ctx.dim), None, None, None


def _sorted(x: Tensor, order: Tensor, back: Tensor, dim: int) -> Tensor:
    if traced() or not torch.is_grad_enabled():
        return x.index_select(dim, order)
    result: Tensor = _Sorted.apply(x, order, back, dim)  # type: ignore[no-untyped-call]
    return result
