"""Chains of maps under parameters that perceptrons give, by a fused kernel, with their gradient."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .calls import POINTER, followed, gradients_of_formula
from .table import Form, Table, backward, forward


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
    """One layer of a perceptron.

    Attributes:
        weight: Its weight, ``(outputs, inputs)``.
        bias: Its bias, ``(outputs,)``.
        stairs: Where the weight is masked, its stairs: what lies beyond counts as 0.
        factor: The mask in numbers, where it is not the stairs alone.
    """

    weight: Tensor
    bias: Tensor
    stairs: Stairs | None = None
    factor: Tensor | None = None

    def folded(self) -> Tensor:
        """Return the weight with its factor in it."""
        return self.weight if self.factor is None else self.weight * self.factor


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

    def size(self) -> int:
        """Return the number of weights, whose gradients take as much memory."""
        return sum([layer.weight.numel() for layer in self.layers])


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
    tensors = _tensors(links)
    if torch.is_grad_enabled():
        result: tuple[Tensor, Tensor | None] = _Chain.apply(x, forms_of(links), None, *tensors)  # type: ignore[no-untyped-call]
        return result
    return forward(x, Table(forms_of(links), tensors, x.shape[1]), keep=False)[:2]


def reverse(y: Tensor, there: Link, back: Link) -> tuple[Tensor, Tensor, Tensor]:
    """Return where points come from, as a leaf, and what a link makes of it, in one pass of its perceptron.

    Args:
        y: Points that the link gave, ``(points, D)``.
        there: The link.
        back: Its inverse, whose perceptron is given the same elements, since they stay.
    """
    tensors, y = _tensors([there]), y.detach().contiguous()
    with torch.no_grad():
        x, minus_log, kept = forward(y, Table(forms_of([back]), _tensors([back]), y.shape[1]), keep=True)
        assert minus_log is not None
    x.requires_grad_()
    again: tuple[Tensor, Tensor] = _Chain.apply(
        x, forms_of([there]), (y.view_as(y), -minus_log, kept), *tensors
    )  # type: ignore[no-untyped-call]
    return x, *again


def _tensors(links: Sequence[Link]) -> list[Tensor | None]:
    tensors: list[Tensor | None] = []
    for layers, context, _ in links:
        tensors.append(context)
        for layer in layers:
            tensors += (layer.folded(), layer.bias)
    return tensors


def formula(x: Tensor, links: Sequence[Link]) -> tuple[Tensor, Tensor | None]:
    """Return the same, layer after layer in torch, whose gradient has a gradient."""
    total = None
    for layers, context, move in links:
        seen = x if move is None or move.stay is None else x[:, move.stay]
        for i, layer in enumerate(layers):
            seen = F.linear(seen if i == 0 else F.relu(seen), _masked(layer), layer.bias)
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


def _masked(layer: Layer) -> Tensor:
    weight = layer.folded()
    return weight if layer.stairs is None else weight * under(layer.stairs.reach, weight.shape[1])


def under(reach: Tensor, columns: int) -> Tensor:
    """Return the mask of rows of so many columns that reach so far."""
    return torch.arange(columns, device=reach.device) < reach[:, None]


def forms_of(links: Sequence[Link]) -> list[Form]:
    """Return what links are beside their tensors."""
    return [Form([layer.stairs for layer in layers], move) for layers, _, move in links]


def _links(forms: Sequence[Form], tensors: Sequence[Tensor | None]) -> list[Link]:
    given: Iterator[Any] = iter(tensors)
    return [
        Link(context=next(given), layers=[Layer(next(given), next(given), s) for s in stairs], move=move)
        for stairs, move in forms
    ]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        forms: Sequence[Form],
        known: tuple[Tensor, Tensor | None, Tensor | None] | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        table = Table(forms, tensors, x.shape[1])
        y, log_abs_det, kept = known or forward(x, table, keep=True)
        ctx.forms = forms
        ctx.save_for_backward(x, kept, y if table.needs_result else None, *tensors)
        return y, log_abs_det

    @staticmethod
    def backward(ctx: Any, g_y: Tensor, g_log: Tensor | None) -> tuple[Tensor | None, ...]:
        x, kept, y, *tensors = ctx.saved_tensors
        gradients = [g_y] if g_log is None else [g_y, g_log]
        if not followed(*gradients):
            return _backward(x, (ctx.forms, tensors), (kept, y), (g_y, g_log), ctx.needs_input_grad)

        def again(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
            tensors = rest[2:]
            values = formula(x, _links(ctx.forms, tensors))
            return tuple(value for value in values if value is not None)

        return tuple(gradients_of_formula(ctx, again, [x, None, None, *tensors], gradients))


def _backward(
    x: Tensor,
    links: tuple[Sequence[Form], Sequence[Tensor | None]],
    kept: tuple[Tensor, Tensor | None],
    gradients: tuple[Tensor, Tensor | None],
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the arguments of ``_Chain``, those that are needed."""
    forms, tensors = links
    found, place = _room(tensors), 0
    for stairs, _ in forms:
        context, weight, end = tensors[place], tensors[place + 1], place + 1 + 2 * len(stairs)
        if not any(needed[4 + place : 3 + end]):
            found[place + 1 : end] = [None] * (end - place - 1)
        if context is not None and weight is not None:
            found[place] = x.new_empty(len(x), len(weight)) if needed[3 + place] else None
        place = end
    table = Table(forms, tensors, x.shape[1], found)
    g_x = backward(x, table, kept, gradients, wanted=needed[0])
    return g_x, None, None, *(_summed(g, t) for g, t in zip(found, tensors, strict=True))


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
