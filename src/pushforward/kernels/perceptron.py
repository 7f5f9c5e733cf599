"""The perceptron's fused kernel: calls with tensors."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .build import library
from .calls import LONG, POINTER

# Elsewhere, as with Apple's matrix units, torch's own products are the faster ones.
_MACHINES = {"x86_64", "AMD64"}


def available() -> bool:
    """Return whether there is a kernel on this machine."""
    return _kernel() is not None


def perceptron_forward(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    reach: Sequence[Tensor | None],
    context: Tensor | None,
    *,
    keep: bool,
) -> list[Tensor]:
    """Return what every layer gives, after the rectifier; the last alone unless ``keep``.

    Args:
        x: Points, ``(points, inputs)``, float32 as everything else, on the CPU.
        weights: ``(outputs, inputs)`` of every layer.
        biases: ``(outputs,)`` of every layer.
        reach: How many of its first columns each row of a weight has, int64; None: all.
        context: What is added before the first rectifier, ``(points, width)`` or ``(1, width)``; None: nothing.
        keep: Return what the hidden layers give as well.
    """
    x, weights, biases = x.contiguous(), *_contiguous(weights, biases)
    results = [x.new_empty(len(x), len(w)) for w in (weights if keep else weights[-1:])]
    context = None if context is None else context.contiguous()
    row = 0 if context is None or len(context) == 1 else context.shape[1]
    hidden: list[Tensor | None] = [None] * (len(weights) - len(results))
    _check(
        _loaded().perceptron_forward(
            x.data_ptr(), len(x), len(weights), _widths(x, weights), _pointers(weights), _pointers(biases),
            _pointers(reach), _pointer(context), row, _pointers([*hidden, *results]),
        )
    )  # fmt: skip
    return results


def perceptron_backward(
    x: Tensor,
    weights: Sequence[Tensor],
    first: Sequence[Tensor | None],
    results: Sequence[Tensor],
    gradient: Tensor,
    *,
    of_x: bool,
    of_first: bool,
    of_parameters: bool,
) -> tuple[Tensor | None, Tensor | None, list[Tensor] | None, list[Tensor] | None]:
    """Return the gradients of points, of what the first layer gives, of weights and of biases; None: not wanted.

    Args:
        x: Points, ``(points, inputs)``.
        weights: ``(outputs, inputs)`` of every layer.
        first: The first row that has each column of a weight, int64; None: row 0.
        results: What the hidden layers gave, after the rectifier.
        gradient: Of what the last layer gave.
        of_x: Whether the gradient of the points is wanted.
        of_first: Whether that of what the first layer gives is.
        of_parameters: Whether those of weights and biases are.
    """
    x, gradient, weights = x.contiguous(), gradient.contiguous(), _contiguous(weights)[0]
    g_x = torch.empty_like(x) if of_x else None
    g_first = x.new_empty(len(x), len(weights[0])) if of_first else None
    g_weights = [torch.empty_like(w) for w in weights] if of_parameters else None
    g_biases = [w.new_empty(len(w)) for w in weights] if of_parameters else None
    _check(
        _loaded().perceptron_backward(
            x.data_ptr(), len(x), len(weights), _widths(x, weights), _pointers(weights), _pointers(first),
            _pointers(results), gradient.data_ptr(), _pointer(g_x), _pointer(g_first),
            g_weights and _pointers(g_weights), g_biases and _pointers(g_biases),
        )
    )  # fmt: skip
    return g_x, g_first, g_weights, g_biases


def _contiguous(*lists: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[t.contiguous() for t in tensors] for tensors in lists]


def _widths(x: Tensor, weights: Sequence[Tensor]) -> Any:
    return (LONG * (len(weights) + 1))(x.shape[1], *(len(w) for w in weights))


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    return (POINTER * len(tensors))(*(_pointer(t) for t in tensors))


def _check(status: int) -> None:
    if status:
        raise MemoryError("there is not enough memory for the products of a network's layers")


def _loaded() -> ctypes.CDLL:
    kernel = _kernel()
    assert kernel is not None
    return kernel


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    loaded = library("perceptron.c") if platform.machine() in _MACHINES else None
    if loaded is not None:
        sizes = [LONG, LONG, POINTER]
        loaded.perceptron_forward.argtypes = [POINTER, *sizes, *[POINTER] * 4, LONG, POINTER]
        loaded.perceptron_backward.argtypes = [POINTER, *sizes, *[POINTER] * 8]
        loaded.perceptron_forward.restype = loaded.perceptron_backward.restype = ctypes.c_int32
    return loaded
