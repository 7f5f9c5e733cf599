"""Chains of maps under parameters that perceptrons give, by a fused kernel, with their gradient."""

from __future__ import annotations

import ctypes
import functools
import platform
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .build import library
from .calls import LONG, POINTER, followed, gradients_of_formula

# Elsewhere, as with Apple's matrix units, torch's own products are the faster ones.
_MACHINES = {"x86_64", "AMD64"}
_LARGE = 31 * 2**20  # bytes; glibc learns from no block above 32 MiB
_LINK, _LAYER = 13, 7  # words of ``link`` and ``layer`` of the C source


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


class Stairs(NamedTuple):
    """Outside of which entries a masked weight is 0 and need not be read: below a staircase, if it is sorted.

    Attributes:
        reach: Number of columns, from the first on, that hold all entries of each row, int64.
        first: First row that has an entry in each column, int64; the number of rows where none has.
        whole: Whether rows have entries in all columns that they reach, so that the mask is the stairs.
    """

    reach: Tensor
    first: Tensor
    whole: bool


class Layer(NamedTuple):
    """Weight, bias and, where the weight is masked, its stairs: what lies beyond counts as 0."""

    weight: Tensor
    bias: Tensor
    stairs: Stairs | None = None


class Move(NamedTuple):
    """Which elements of a point a map moves, under parameters that a perceptron makes of which others.

    Attributes:
        map: How they move.
        formula: The same in torch, ``(points, parameters) -> (values, log-derivatives)``.
        parameters_each: How many parameters the map takes for each element.
        stay: Numbers of those that the perceptron is given, int64; None: all.
        move: Numbers of those that move, int64; None: all.
        inverse: Whether the map is the inverse of the model's own direction.
    """

    map: Map
    formula: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    parameters_each: int
    stay: Tensor | None
    move: Tensor | None
    inverse: bool


class Link(NamedTuple):
    """A perceptron, and the map that it gives parameters to.

    Attributes:
        layers: From the first to the last, with rectifiers between them.
        context: What is added before the first rectifier, ``(points, width)`` or ``(1, width)``; None: nothing.
        move: The map; None: there is none, and the chain has no other link.
    """

    layers: Sequence[Layer]
    context: Tensor | None
    move: Move | None


def available() -> bool:
    """Return whether there is a kernel on this machine."""
    return _kernel() is not None


def address(function: Any) -> int:
    """Return the address of a function of a loaded library."""
    value = ctypes.cast(function, POINTER).value
    assert value is not None
    return value


def chain(x: Tensor, links: Sequence[Link]) -> tuple[Tensor, Tensor | None]:
    r"""Take points through links, one after the other, in one call of a kernel.

    A link gives some elements of a point to a perceptron, :math:`W_L\, r(\dots r(W_1 x + b_1 + c) \dots) + b_L` with
    rectifiers :math:`r(u) = \max(u, 0)`, whose numbers are the parameters under which some elements move.

    Args:
        x: Points, ``(points, D)``, float32 as everything else, on the CPU.
        links: What to take them through.

    Returns:
        Points and the sums of log-derivatives, ``(points,)``; what the perceptron gives, and None, for one link that
        moves nothing.
    """
    tensors: list[Tensor | None] = []
    for layers, context, _ in links:
        tensors.append(context)
        for weight, bias, _ in layers:
            tensors += (weight, bias)
    if torch.is_grad_enabled():
        result: tuple[Tensor, Tensor | None] = _Chain.apply(x, _forms(links), *tensors)  # type: ignore[no-untyped-call]
        return result
    return _forward(x, _forms(links), tensors, keep=False)[:2]


def formula(x: Tensor, links: Sequence[Link]) -> tuple[Tensor, Tensor | None]:
    """Return the same, layer after layer in torch, whose gradient has a gradient."""
    total = None
    for layers, context, move in links:
        seen = x if move is None or move.stay is None else x[:, move.stay]
        for i, (weight, bias, stairs) in enumerate(layers):
            seen = F.linear(seen if i == 0 else F.relu(seen), _folded(weight, stairs), bias)
            if i == 0 and context is not None:
                seen = seen + context
        if move is None:
            return seen, None
        moved, log_derivative = move.formula(
            x if move.move is None else x[:, move.move], seen.reshape(len(x), -1, move.parameters_each)
        )
        x = moved if move.move is None else x.index_copy(1, move.move, moved)
        total = log_derivative.sum(-1) if total is None else total + log_derivative.sum(-1)
    return x, total


def _folded(weight: Tensor, stairs: Stairs | None) -> Tensor:
    return weight if stairs is None else weight * under(stairs.reach, weight.shape[1])


def under(reach: Tensor, columns: int) -> Tensor:
    """Return the mask of rows of so many columns that reach so far."""
    return torch.arange(columns, device=reach.device) < reach[:, None]


class _Form(NamedTuple):
    """A link without its tensors, which autograd must see; of these a link has its context, then weights and biases."""

    stairs: Sequence[Stairs | None]
    move: Move | None


def _forms(links: Sequence[Link]) -> list[_Form]:
    return [_Form([stairs for _, _, stairs in layers], move) for layers, _, move in links]


def _links(forms: Sequence[_Form], tensors: Sequence[Tensor | None]) -> list[Link]:
    given: Iterator[Any] = iter(tensors)
    return [
        Link(context=next(given), layers=[Layer(next(given), next(given), s) for s in stairs], move=move)
        for stairs, move in forms
    ]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forms: Sequence[_Form], *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        y, log_abs_det, kept = _forward(x, forms, tensors, keep=True)
        last = forms[-1].move
        ctx.forms = forms
        ctx.save_for_backward(x, kept, y if last is not None and last.inverse else None, *tensors)
        return y, log_abs_det

    @staticmethod
    def backward(ctx: Any, g_y: Tensor, g_log: Tensor | None) -> tuple[Tensor | None, ...]:
        x, kept, y, *tensors = ctx.saved_tensors
        gradients = [g_y] if g_log is None else [g_y, g_log]
        if not followed(*gradients):
            return _backward(x, (ctx.forms, tensors), (kept, y), (g_y, g_log), ctx.needs_input_grad)

        def again(x: Tensor, _: None, *tensors: Tensor | None) -> tuple[Tensor, ...]:
            values = formula(x, _links(ctx.forms, tensors))
            return tuple(value for value in values if value is not None)

        return tuple(gradients_of_formula(ctx, again, [x, None, *tensors], gradients))


def _forward(
    x: Tensor, forms: Sequence[_Form], tensors: Sequence[Tensor | None], *, keep: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    x, (points, features) = x.contiguous(), x.shape
    table = _Table(forms, tensors, features)
    moves = forms[-1].move is not None
    y = x.new_empty(points, features if moves else table.outputs)
    log_abs_det = x.new_empty(points) if moves else None
    kept = x.new_empty(points * (table.kept_each - (0 if moves else table.outputs))) if keep else None
    _check(
        _loaded().chain_forward(
            table.address, len(forms), x.data_ptr(), points, features, _pointer(kept), y.data_ptr(),
            _pointer(log_abs_det),
        )
    )  # fmt: skip
    return y, log_abs_det, kept


def _backward(
    x: Tensor,
    links: tuple[Sequence[_Form], Sequence[Tensor | None]],
    kept: tuple[Tensor, Tensor | None],
    gradients: tuple[Tensor, Tensor | None],
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the arguments of ``_Chain``, those that are needed."""
    forms, tensors = links
    x, (points, features) = x.contiguous(), x.shape
    g_y, g_log = (None if g is None else g.contiguous() for g in gradients)
    g_x = torch.empty_like(x) if needed[0] else None
    found, place = _room(tensors), 0
    for stairs, _ in forms:
        context, weight, end = tensors[place], tensors[place + 1], place + 1 + 2 * len(stairs)
        if not any(needed[3 + place : 2 + end]):
            found[place + 1 : end] = [None] * (end - place - 1)
        if context is not None and weight is not None:
            found[place] = x.new_empty(points, len(weight)) if needed[2 + place] else None
        place = end
    table = _Table(forms, tensors, features, found)
    pointers = [_pointer(t) for t in (*kept, g_y, g_log, g_x)]
    _check(_loaded().chain_backward(table.address, len(forms), x.data_ptr(), points, features, *pointers))
    return g_x, None, *(_summed(g, t) for g, t in zip(found, tensors, strict=True))


def _room(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return tensors like these, all in one block of memory; None for None."""
    some = [t for t in tensors if t is not None]
    block = some[0].new_empty(sum([t.numel() for t in some]))
    room = iter(torch._C._nn.unflatten_dense_tensors(block, some))
    return [None if t is None else next(room) for t in tensors]


def _summed(gradient: Tensor | None, tensor: Tensor | None) -> Tensor | None:
    """Return the gradient of one row that was the context of all points."""
    if gradient is None or tensor is None or gradient.shape == tensor.shape:
        return gradient
    return gradient.sum(0, keepdim=True)


class _Table:
    """Links as the kernel reads them: words for each link, and then for each layer.

    Args:
        forms: The links.
        tensors: Their tensors.
        features: Number of elements of a point.
        found: Where the gradients of the tensors go; None: nowhere.

    Attributes:
        address: Where it is.
        outputs: How many numbers the last layer gives.
        kept_each: How many numbers the kernel keeps of a point where it keeps what every layer gives.
    """

    def __init__(
        self,
        forms: Sequence[_Form],
        tensors: Sequence[Any],
        features: int,
        found: Sequence[Tensor | None] | None = None,
    ) -> None:
        heads: list[int] = []
        rows: list[int] = []
        self._owned: list[Tensor] = []  # what lives as long as its address is used
        own, place, kept = self._own, 0, features * (len(forms) - 1)
        for stairs, move in forms:
            context, inputs = tensors[place], tensors[place + 1].shape[1]
            heads += (len(stairs), _LINK * len(forms) + len(rows))
            if move is None:
                heads += (0, 0, 0, 0, 0, 0, inputs, 0)
            else:
                how, stay, moved = move.map, move.stay, move.move
                heads += (ctypes.addressof(how.how), how.forward, how.gradient, move.inverse)
                heads += (
                    _address(stay),
                    _address(moved),
                    inputs,
                    features if moved is None else moved.numel(),
                )
                kept += 0 if stay is None else inputs
            heads += (
                (0, 0) if context is None else (own(context), context.shape[1] if len(context) > 1 else 0)
            )
            heads.append(0 if found is None else _address(found[place]))
            place += 1
            for each in stairs:
                bias = tensors[place + 1]
                self.outputs = outputs = bias.numel()
                rows += (outputs, own(tensors[place]), own(bias))
                rows += (0, 0) if each is None else (each.reach.data_ptr(), each.first.data_ptr())
                rows += (0, 0) if found is None else (_address(found[place]), _address(found[place + 1]))
                kept += outputs
                place += 2
        self.kept_each = kept
        self._words = array("q", heads + rows)
        self.address = self._words.buffer_info()[0]

    def _own(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._owned.append(tensor)
        return tensor.data_ptr()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(status: int) -> None:
    if status:
        raise MemoryError("there is not enough memory for the products of a network's layers")


def _loaded() -> ctypes.CDLL:
    kernel = _kernel()
    assert kernel is not None
    return kernel


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    loaded = library("chain.c") if platform.machine() in _MACHINES else None
    if loaded is not None:
        # An allocator that sees a large block come and go (glibc's) keeps what is freed, up to twice its size. Else
        # every step gives its memory back to the system, and the next waits for a thousand fresh pages.
        torch.empty(_LARGE, dtype=torch.uint8, device="cpu")
        begin: list[Any] = [POINTER, LONG, POINTER, LONG, LONG]
        pointers: list[Any] = [POINTER] * 5
        loaded.chain_forward.argtypes = [*begin, *pointers[:3]]
        loaded.chain_backward.argtypes = [*begin, *pointers]
        loaded.chain_forward.restype = loaded.chain_backward.restype = ctypes.c_int32
    return loaded
