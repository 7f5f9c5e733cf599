"""A masked network at points that become known element by element, each hidden unit computed once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.sweep import Turns

# Units of so many stages share one product with all that was known before them, so that it runs at full speed.
_AHEAD = 32

_ENCODE: dict[str, Callable[[Tensor], Tensor]] = {"cos": torch.cos, "sin": torch.sin}
_SLOPE: dict[str, Callable[[Tensor], Tensor]] = {"cos": lambda x: -x.sin(), "sin": torch.cos}


@dataclass(frozen=True, slots=True)
class Stage:
    """Elements that depend on the same hidden units, so that they are found together.

    Attributes:
        first: First position in the order.
        end: One more than the last position.
        known: How many of the sorted input columns, and of the units of each hidden layer, see only elements before.
    """

    first: int
    end: int
    known: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the elements of a masked network follow from each other; all that does not change with its weights.

    Attributes:
        stages: In the order of the elements.
        columns: Position and encoding (``"value"``, ``"cos"``, ``"sin"``) of each sorted input column.
        parameters: How many parameters each element has.
        activations: One for each hidden layer.
    """

    stages: tuple[Stage, ...]
    columns: tuple[tuple[int, str], ...]
    parameters: int
    activations: tuple[nn.Module, ...]

    @property
    def plain(self) -> bool:
        """Whether every element is seen as it is, in one column."""
        return all(column == (i, "value") for i, column in enumerate(self.columns))


# From the number of a stage and its elements' parameters, (points, elements, parameters), to the elements.
Find = Callable[[int, Tensor], Tensor]


def stages(features: int, degrees: Sequence[Sequence[int]]) -> tuple[Stage, ...]:
    """Return the stages of a masked network.

    Args:
        features: Number of elements.
        degrees: Sorted degrees of the input columns and of the units of each hidden layer.

    Example:
        >>> stages(3, [[0, 1, 2], [0, 0, 1, 1]])[1]
        Stage(first=1, end=2, known=(1, 2))
        >>> stages(3, [[0, 1, 2], [1]])
        (Stage(first=0, end=2, known=(0, 0)), Stage(first=2, end=3, known=(2, 1)))
    """
    known = [tuple(bisect_left(layer, p) for layer in degrees) for p in range(features)]
    firsts = [p for p in range(features) if p == 0 or known[p][-1] != known[p - 1][-1]]
    return tuple(Stage(p, end, known[p]) for p, end in zip(firsts, [*firsts[1:], features], strict=True))


def turns(stages: Sequence[Stage], positions: Sequence[int]) -> Turns:
    """Return the stages as the kernel takes them.

    Args:
        stages: The stages.
        positions: Position of each element in the order.

    Example:
        >>> turns([Stage(0, 1, (0, 0)), Stage(1, 3, (1, 4))], [1, 0, 2])
        Turns(rows=tensor([[0, 0, 0, 0],
                [0, 1, 0, 0],
                [1, 3, 1, 4]]), order=tensor([1, 0, 2]))
    """
    rows = [[stage.first, stage.end, *stage.known] for stage in stages]
    order = torch.tensor(sorted(range(len(positions)), key=positions.__getitem__), device="cpu")
    in_order = bool((order[1:] > order[:-1]).all())
    return Turns(torch.tensor([[0] * len(rows[0]), *rows], device="cpu"), None if in_order else order)


def sweep(plan: Plan, layers: Sequence[tuple[Tensor, Tensor]], points: int, find: Find) -> Tensor:
    """Find all elements, one stage after the other; for no gradients.

    Args:
        plan: The plan.
        layers: Weight and bias of every layer, with the mask in it and everything sorted; the bias of the first layer
            is ``(units, 1)`` or ``(units, points)``, with the context in it.
        points: Number of points.
        find: Finds the elements of a stage.

    Returns:
        The elements by position, ``(features, points)``.
    """
    *hidden, (last, last_bias) = layers
    features, each = plan.stages[-1].end, plan.parameters
    found = last.new_empty(features, points)
    columns = found if plan.plain else last.new_empty(len(plan.columns), points)
    values = [columns, *(_column(bias).expand(-1, points).clone() for _, bias in hidden)]
    weights = [weight for weight, _ in hidden]
    done, since, ahead, share = [0] * len(values), [0] * len(values), 0, 0
    for number, stage in enumerate(plan.stages):
        if number >= ahead:
            # What is known now counts once for all stages until ``ahead``; a stage alone takes all in its own products.
            ahead = number + 1
            while ahead < len(plan.stages) and plan.stages[ahead].known[-1] - done[-1] <= _AHEAD:
                ahead += 1
            top, share = plan.stages[ahead - 1], stage.first * each
            since = [stage.known[0], *done[1:]] if ahead > number + 1 else [0] * len(values)
            for k, weight in enumerate(weights):
                new = slice(done[k + 1], top.known[k + 1])
                _add(values[k + 1][new], weight[new, : since[k]], values[k][: since[k]])
            output = last_bias[share : top.end * each, None].expand(-1, points).clone()
            _add(output, last[share : top.end * each, : since[-1]], values[-1][: since[-1]])
        for k, weight in enumerate(weights):
            first, end = done[k + 1], stage.known[k + 1]
            if end > first:
                units, below = values[k + 1][first:end], slice(since[k], stage.known[k])
                _add(units, weight[first:end, below], values[k][below])
                _activate(plan.activations[k], units)
                done[k + 1] = end
        first, end, seen = stage.first * each, stage.end * each, slice(since[-1], stage.known[-1])
        parameters = output[first - share : end - share]
        _add(parameters, last[first:end, seen], values[-1][seen])
        x = find(number, parameters.unflatten(0, (-1, each)).permute(2, 0, 1)).t()
        found[stage.first : stage.end] = x
        if columns is not found:
            for column in range(stage.known[0], bisect_left(plan.columns, (stage.end,))):
                position, encoding = plan.columns[column]
                columns[column] = encode(encoding, found[position])
    return found


def sweep_back(
    plan: Plan,
    layers: Sequence[tuple[Tensor, Tensor]],
    x: Tensor,
    slopes: Sequence[Tensor],
    *,
    given: Tensor,
    find: Callable[[Stage, Tensor], Tensor],
) -> list[Tensor]:
    """Go through the stages from the last to the first, with gradients in place of values.

    Args:
        plan: The plan.
        layers: As for ``sweep``.
        x: The elements by position, ``(features, points)``.
        slopes: Slope of the activation of each hidden unit, ``(units, points)`` for each layer.
        given: The gradients of the elements, ``(features, points)``, or many of them under ``torch.vmap``.
        find: From a stage and the gradients ``(elements, points)`` of its elements, with what reaches them through the
            parameters of later ones, the gradients of its own parameters, ``(elements * parameters, points)``.

    Returns:
        The gradients of all hidden units before their activation, for each layer, and of all parameters.
    """
    each, weights = plan.parameters, [weight for weight, _ in layers]
    # Of the input columns, the units of each layer and all parameters: those from ``low`` on have their gradient.
    tops = [len(plan.columns), *plan.stages[-1].known[1:], len(x) * each]
    sizes = [len(plan.columns), *(len(s) for s in slopes), len(x) * each]
    gradients = [given.new_zeros(size, x.shape[1]) for size in sizes]
    low, since, ahead = tops.copy(), tops, len(plan.stages)

    def collect(k: int, first: int, start: int, stop: int) -> Tensor:
        """Add to the rows from ``first`` on what reaches them from some rows of the layer above."""
        rows = gradients[k][first : low[k]]
        _add(rows, weights[k][start:stop, first : low[k]].t(), gradients[k + 1][start:stop])
        return rows

    def units(known: Sequence[int]) -> None:
        for k in range(len(slopes), 0, -1):
            if known[k] < low[k]:
                collect(k, known[k], low[k + 1], since[k + 1]).mul_(slopes[k - 1][known[k] : low[k]])
                low[k] = known[k]

    for number in reversed(range(len(plan.stages))):
        stage = plan.stages[number]
        if number < ahead:
            # As in ``sweep``.
            ahead, since = number, tops
            while ahead and low[-2] - plan.stages[ahead - 1].known[-1] <= _AHEAD:
                ahead -= 1
            if ahead < number:
                since = low.copy()
                for k in range(len(weights)):
                    collect(k, plan.stages[ahead].known[k], since[k + 1], tops[k + 1])
        units(stage.known)
        parts = collect(0, stage.known[0], low[1], since[1])
        reached = given[stage.first : stage.end].clone()
        if plan.plain:
            reached += parts
        else:
            for (position, encoding), part in zip(plan.columns[stage.known[0] : low[0]], parts, strict=True):
                slope = _SLOPE[encoding](x[position]) if encoding in _SLOPE else 1.0
                reached[position - stage.first] += part * slope
        gradients[-1][stage.first * each : stage.end * each] = find(stage, reached)
        low[0], low[-1] = stage.known[0], stage.first * each
    since = tops
    units([0] * len(low))
    return gradients[1:]


def repeat(plan: Plan, layers: Sequence[tuple[Tensor, Tensor]], points: int, find: Find) -> Tensor:
    """Find all elements as ``sweep`` does, by passes over all that is known, which can be differentiated and traced."""
    *hidden, (last, last_bias) = layers
    rows: list[Tensor] = []
    for number, stage in enumerate(plan.stages):
        h = last.new_zeros(points, 0)
        if stage.known[0]:
            h = torch.stack([encode(e, rows[p]) for p, e in plan.columns[: stage.known[0]]], -1)
        for (weight, bias), activation, seen, units in zip(
            hidden, plan.activations, stage.known, stage.known[1:], strict=False
        ):
            h = activation(F.linear(h, weight[:units, :seen]) + _column(bias)[:units].t())
        first, end = stage.first * plan.parameters, stage.end * plan.parameters
        parameters = F.linear(h, last[first:end, : stage.known[-1]], last_bias[first:end])
        rows += find(number, parameters.unflatten(-1, (-1, plan.parameters))).unbind(-1)
    return torch.stack(rows)


def encode(encoding: str, x: Tensor) -> Tensor:
    """Return what a network sees of an element."""
    return _ENCODE[encoding](x) if encoding in _ENCODE else x


def _add(out: Tensor, weight: Tensor, values: Tensor) -> None:
    """Add to some units what they see of some of the units below."""
    if len(out) and len(values):
        out.addmm_(weight, values)


def _activate(activation: nn.Module, values: Tensor) -> None:
    """Apply the activation in place, without a copy where it is a common one."""
    if isinstance(activation, nn.ReLU):
        values.relu_()
    elif isinstance(activation, nn.Tanh):
        values.tanh_()
    else:
        values.copy_(activation(values))


def _column(bias: Tensor) -> Tensor:
    return bias[:, None] if bias.ndim == 1 else bias
