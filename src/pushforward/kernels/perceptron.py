"""The perceptron's fused kernel, alone or with the elementwise map that it gives parameters to: calls with tensors."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .build import library
from .calls import LONG, POINTER

# Elsewhere, as with Apple's matrix units, torch's own products are the faster ones.
_MACHINES = {"x86_64", "AMD64"}
_LARGE = 31 * 2**20  # bytes; glibc learns from no block above 32 MiB


@dataclass(frozen=True, slots=True)
class Map:
    """A kernel's elementwise map.

    Attributes:
        forward: Address of the function that maps.
        gradient: Address of that of its gradient.
        how: What both are given beside numbers.
        owner: What must live as long as ``how``.
    """

    forward: int
    gradient: int
    how: ctypes.Structure
    owner: Any = None


@dataclass(frozen=True, slots=True)
class Part:
    """Which elements of a point move, under parameters that the perceptron makes of which others.

    Attributes:
        map: How they move.
        stay: Numbers of those that the perceptron is given, int64; None: all.
        move: Numbers of those that move, int64; None: all.
        inverse: Whether ``map`` is the inverse of the model's own direction.
    """

    map: Map
    stay: Tensor | None
    move: Tensor | None
    inverse: bool


class _Part(ctypes.Structure):
    """``part`` of the C source."""

    _fields_: ClassVar = [
        *((name, POINTER) for name in ("how", "map", "gradient", "stay", "move")),
        ("features", LONG),
        ("moves", LONG),
        *((name, POINTER) for name in ("fixed", "y", "log_abs_det", "at", "g_y", "g_log")),
    ]


def available() -> bool:
    """Return whether there is a kernel on this machine."""
    return _kernel() is not None


def address(function: Any) -> int:
    """Return the address of a function of a loaded library."""
    value = ctypes.cast(function, POINTER).value
    assert value is not None
    return value


class Layers(NamedTuple):
    """The layers of a perceptron.

    Attributes:
        weights: ``(outputs, inputs)`` of every layer.
        biases: ``(outputs,)`` of every layer.
        reach: How many of its first columns each row of a masked weight has, int64; None: all. The others count as 0.
        first: The first row that has each column of a masked weight, int64; None: row 0.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    reach: Sequence[Tensor | None]
    first: Sequence[Tensor | None]


class Wanted(NamedTuple):
    """Whether the gradients of points, of what the first layer gives, of weights and biases are wanted."""

    x: bool
    first: bool
    parameters: bool


Gradients = tuple[Tensor | None, Tensor | None, list[Tensor] | None, list[Tensor] | None]


def perceptron_forward(
    x: Tensor,
    layers: Layers,
    context: Tensor | None,
    *,
    keep: bool,
) -> list[Tensor]:
    """Return what every layer gives, after the rectifier; the last alone unless ``keep``.

    Args:
        x: Points, ``(points, inputs)``, float32 as everything else, on the CPU.
        layers: Weights and biases.
        context: What is added before the first rectifier, ``(points, width)`` or ``(1, width)``; None: nothing.
        keep: Return what the hidden layers give as well.
    """
    results = [x.new_empty(len(x), len(w)) for w in layers.weights[0 if keep else -1 :]]
    _forward(x.contiguous(), layers, context, results, None)
    return results


def conditioned_forward(
    x: Tensor,
    part: Part,
    layers: Layers,
    context: Tensor | None,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return mapped points, log-determinants, and for ``keep`` what each layer was given, and what the last gave.

    Args:
        x: Points, ``(points, features)``.
        part: What moves.
        layers: Weights and biases.
        context: What is added before the first rectifier.
        keep: Return what the gradient needs.
    """
    x = x.contiguous()
    y, log_abs_det = torch.empty_like(x), x.new_empty(len(x))
    results = [x.new_empty(len(x), len(w)) for w in layers.weights] if keep else []
    fixed = x if part.stay is None else x.new_empty(len(x), len(part.stay)) if keep else None
    given = _part(part, x, fixed=None if part.stay is None else fixed, y=y, log_abs_det=log_abs_det)
    _forward(x, layers, context, results, given)
    return y, log_abs_det, [] if fixed is None or not keep else [fixed, *results]


def perceptron_backward(
    x: Tensor,
    layers: Layers,
    results: Sequence[Tensor],
    gradient: Tensor,
    *,
    wanted: Wanted,
) -> Gradients:
    """Return the gradients that are wanted.

    Args:
        x: Points, ``(points, inputs)``.
        layers: Weights.
        results: What the layers gave, after the rectifier.
        gradient: Of what the last layer gave.
        wanted: Which.
    """
    of_x = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted.x else None
    return _backward(x, layers, results, gradient.contiguous(), g_x=of_x, wanted=wanted)


def conditioned_backward(
    at: Tensor,
    part: Part,
    layers: Layers,
    kept: Sequence[Tensor],
    gradients: tuple[Tensor, Tensor],
    *,
    wanted: Wanted,
) -> Gradients:
    """Return the gradients that are wanted.

    Args:
        at: Points in the map's own direction: what went in, or came out of the inverse.
        part: What moves.
        layers: Weights.
        kept: What ``conditioned_forward`` kept.
        gradients: Of mapped points and log-determinants.
        wanted: Which.
    """
    at, (g_y, g_log) = at.contiguous(), (g.contiguous() for g in gradients)
    of_x = torch.empty_like(at) if wanted.x else None
    given = _part(part, at, at=at, g_y=g_y, g_log=g_log)
    return _backward(kept[0], layers, kept[1:], given, g_x=of_x, wanted=wanted)


def _part(part: Part, x: Tensor, **tensors: Tensor | None) -> _Part:
    moves = x.shape[1] if part.move is None else len(part.move)
    return _Part(
        ctypes.addressof(part.map.how), part.map.forward, part.map.gradient, _pointer(part.stay), _pointer(part.move),
        x.shape[1], moves, **{name: _pointer(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip


def _forward(
    x: Tensor,
    layers: Layers,
    context: Tensor | None,
    results: Sequence[Tensor],
    part: _Part | None,
) -> None:
    weights, biases = _contiguous(layers.weights), _contiguous(layers.biases)
    context = None if context is None else context.contiguous()
    row = 0 if context is None or len(context) == 1 else context.shape[1]
    missing: list[Tensor | None] = [None] * (len(weights) - len(results))
    _check(
        _loaded().perceptron_forward(
            x.data_ptr(), len(x), len(weights), _widths(weights), _pointers(weights), _pointers(biases),
            _pointers(layers.reach), _pointer(context), row, _pointers([*missing, *results]), _reference(part),
        )
    )  # fmt: skip


def _backward(
    x: Tensor,
    layers: Layers,
    results: Sequence[Tensor],
    of: Tensor | _Part,
    *,
    g_x: Tensor | None,
    wanted: Wanted,
) -> Gradients:
    x, weights = x.contiguous(), _contiguous(layers.weights)
    gradient, part = (of, None) if isinstance(of, Tensor) else (None, of)
    g_first = x.new_empty(len(x), len(weights[0])) if wanted.first else None
    g_weights = [torch.empty_like(w) for w in weights] if wanted.parameters else None
    g_biases = [w.new_empty(len(w)) for w in weights] if wanted.parameters else None
    _check(
        _loaded().perceptron_backward(
            x.data_ptr(), len(x), len(weights), _widths(weights), _pointers(weights), _pointers(layers.reach),
            _pointers(layers.first), _pointers(results), _pointer(gradient), _pointer(g_x), _pointer(g_first),
            g_weights and _pointers(g_weights), g_biases and _pointers(g_biases), _reference(part),
        )
    )  # fmt: skip
    return g_x, g_first, g_weights, g_biases


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def _widths(weights: Sequence[Tensor]) -> Any:
    return (LONG * (len(weights) + 1))(weights[0].shape[1], *(len(w) for w in weights))


def _reference(part: _Part | None) -> Any:
    return None if part is None else ctypes.addressof(part)


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
        # An allocator that sees a large block come and go (glibc's) keeps what is freed, up to twice its size. Else
        # every step gives its memory back to the system, and the next waits for a thousand fresh pages.
        torch.empty(_LARGE, dtype=torch.uint8, device="cpu")
        sizes: list[Any] = [LONG, LONG, POINTER]
        pointers: list[Any] = [POINTER] * 10
        loaded.perceptron_forward.argtypes = [POINTER, *sizes, *pointers[:4], LONG, POINTER, POINTER]
        loaded.perceptron_backward.argtypes = [POINTER, *sizes, *pointers]
        loaded.perceptron_forward.restype = loaded.perceptron_backward.restype = ctypes.c_int32
    return loaded
