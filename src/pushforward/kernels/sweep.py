"""The inverse of an autoregressive transform, element after element, by a fused kernel."""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from . import table
from .build import library
from .calls import LONG, POINTER
from .chain import Link, forms_of


class Turns(NamedTuple):
    """In which order the elements of a masked perceptron are found.

    Attributes:
        rows: A row of zeros, and then one for each turn, in which some elements are found together: the first of their
            positions, one more than the last, and how many elements and units of each hidden layer see only elements
            before; int64.
        order: The element at each position, int64; None: as they stand.
    """

    rows: Tensor
    order: Tensor | None


def available() -> bool:
    """Return whether there is a kernel on this machine."""
    return _kernel() is not None


def sweep(y: Tensor, link: Link, turns: Turns) -> tuple[Tensor, Tensor]:
    r"""Find :math:`x_i = f^{-1}(y_i; g_i(x_{<i}, c))` for one element after the other, each hidden unit computed once.

    Args:
        y: Points, ``(points, D)``, float32 as everything else, on the CPU.
        link: A masked perceptron, and the inverse map that it gives parameters to.
        turns: The order.

    Returns:
        The elements, ``(points, D)``, and the sums of their log-derivatives, ``(points,)``; without a gradient.
    """
    kernel, y, (points, features) = _kernel(), y.contiguous(), y.shape
    assert kernel is not None
    tensors = [link.context, *(t for layer in link.layers for t in (layer.folded(), layer.bias))]
    one = table.Table(forms_of([link]), tensors, features)
    order = None if turns.order is None else turns.order.data_ptr()
    x, log_abs_det = torch.empty_like(y), y.new_empty(points)
    status = kernel.sweep(
        one.address, turns.rows.data_ptr(), len(turns.rows) - 1, order, y.data_ptr(), points, features, x.data_ptr(),
        log_abs_det.data_ptr(),
    )  # fmt: skip
    if status:
        raise MemoryError("there is not enough memory for the values of a network's units")
    return x, log_abs_det


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    loaded = library("sweep.c") if table.available() else None
    if loaded is not None:
        loaded.sweep.argtypes = [POINTER, POINTER, LONG, POINTER, POINTER, LONG, LONG, POINTER, POINTER]
        loaded.sweep.restype = ctypes.c_int32
    return loaded
