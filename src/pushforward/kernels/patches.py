"""The square around each pixel of an image as a row, and its adjoint, as functions with a gradient."""

from __future__ import annotations

import functools
from ctypes import CDLL
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .build import library
from .calls import LONG, POINTER, serves


def squares(x: Tensor, side: int, beside: Tensor | None = None, *, count: int | None = None) -> Tensor:
    """Return the square around each pixel, with zeros beyond the edges.

    Args:
        x: Images with channels last, ``(*batch, H, W, C)``.
        side: Side of the square, odd.
        beside: What stands in each row after the square, ``(*batch, H, W, m)``.
        count: How many numbers of the square are wanted, from the first on; None: all.

    Returns:
        ``(*batch, H, W, count + m)``: rows of the square, then its columns, then channels.

    Example:
        >>> squares(torch.tensor([[[1.0], [2.0]]]), 3)[0, 0]
        tensor([0., 0., 0., 0., 1., 2., 0., 0., 0.])
    """
    count = side**2 * x.shape[-1] if count is None else count
    if _can(x) and (beside is None or _can(beside)) and _kernel() is not None:
        rows: Tensor = _Squares.apply(x, beside, side, count)  # type: ignore[no-untyped-call]
        return rows
    p, (h, w) = side // 2, x.shape[-3:-1]
    padded = F.pad(x, (0, 0, p, p, p, p))
    seen = torch.cat([padded[..., i : i + h, j : j + w, :] for i in range(side) for j in range(side)], -1)
    if count < seen.shape[-1]:
        seen = seen[..., :count]
    return seen if beside is None else torch.cat([seen, beside], -1)


def gather(y: Tensor, channels: int, side: int, *, count: int | None = None) -> Tensor:
    """Add up what each pixel writes into the square around it: the adjoint of ``squares``.

    Args:
        y: What the pixels write, ``(*batch, H, W, at least count)``.
        channels: Channels of the image.
        side: Side of the square, odd.
        count: As of ``squares``.

    Returns:
        Images with channels last, ``(*batch, H, W, channels)``.
    """
    count = side**2 * channels if count is None else count
    if _can(y) and _kernel() is not None:
        image: Tensor = _Gather.apply(y, channels, side, count)  # type: ignore[no-untyped-call]
        return image
    p, (h, w) = side // 2, y.shape[-3:-1]
    written = F.pad(y if count == y.shape[-1] else y[..., :count], (0, side**2 * channels - count))
    parts = written.reshape(*written.shape[:-1], side, side, channels)
    total = y.new_zeros((*y.shape[:-3], h, w, channels))
    for i in range(side):
        for j in range(side):
            # What falls beyond the edges is cut off, and what comes from there is nothing.
            part = F.pad(parts[..., i, j, :], (0, 0, j, side - 1 - j, i, side - 1 - i))
            total = total + part[..., p : p + h, p : p + w, :]
    return total


def _can(x: Tensor) -> bool:
    # Gradients of many gradients at once have no numbers of their own.
    return serves(x) and torch._C._has_storage(x)


class _Squares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, beside: Tensor | None, side: int, count: int) -> Tensor:
        ctx.channels, ctx.side, ctx.count, ctx.beside = x.shape[-1], side, count, beside is not None
        out = x.new_empty((*x.shape[:-1], count if beside is None else count + beside.shape[-1]))
        if beside is not None:
            out[..., count:] = beside
        _call("squares", x.contiguous(), out, (x.shape[-1], side, count, out.shape[-1]))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[0]
        g_x = gather(gradient, ctx.channels, ctx.side, count=ctx.count) if wanted else None
        return g_x, gradient[..., ctx.count :] if ctx.beside else None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, channels: int, side: int, count: int) -> Tensor:
        ctx.side, ctx.count, ctx.rest = side, count, y.shape[-1] - count
        out = y.new_empty((*y.shape[:-1], channels))
        _call("gather", y.contiguous(), out, (channels, side, count, y.shape[-1]))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows = squares(gradient, ctx.side, count=ctx.count)
        return F.pad(rows, (0, ctx.rest)) if ctx.rest else rows, None, None, None


def _call(name: str, x: Tensor, out: Tensor, how: tuple[int, int, int, int]) -> None:
    """Call a kernel with channels, side, count and stride."""
    kernel = _kernel()
    assert kernel is not None
    h, w = x.shape[-3:-1]
    images = x.shape[:-3].numel()
    getattr(kernel, name)(x.data_ptr(), images, h, w, *how, out.data_ptr())


@functools.cache
def _kernel() -> CDLL | None:
    loaded = library("patches.c")
    if loaded is not None:
        for function in (loaded.squares, loaded.gather):
            function.argtypes, function.restype = [POINTER, *[LONG] * 7, POINTER], None
    return loaded
