"""A whole perceptron with rectifiers as one operation, by a fused kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels import perceptron as kernel
from ..kernels.tracing import traced

_LEAST = 128  # so few numbers torch's own calls serve as well


class Stairs(NamedTuple):
    """Outside of which entries a masked weight is 0 and need not be read: below a staircase, if it is sorted.

    Attributes:
        reach: Number of columns, from the first on, that hold all entries of each row.
        first: First row that has an entry in each column; the number of rows where none has.
        whole: Whether rows have entries in all columns that they reach, so that the mask is the stairs.
    """

    reach: Tensor
    first: Tensor
    whole: bool


Layer = tuple[Tensor, Tensor, Stairs | None]
Stack = tuple[list[Layer], Tensor | None]


def stairs(mask: Tensor) -> Stairs:
    """Return the stairs of a mask, ``(rows, columns)``.

    Example:
        >>> stairs(torch.tensor([[True, False], [False, False], [True, True]]))
        Stairs(reach=tensor([1, 0, 2]), first=tensor([0, 2]), whole=True)
    """
    mask = mask.cpu()
    rows, columns = mask.shape
    reach = (mask * torch.arange(1, columns + 1)).amax(1)
    first = rows - (mask * torch.arange(rows, 0, -1)[:, None]).amax(0)
    return Stairs(reach, first, bool((mask == _under(reach, columns)).all()))


def _under(reach: Tensor, columns: int) -> Tensor:
    return torch.arange(columns) < reach[:, None]


def serves(x: Tensor, weight: Tensor, activations: Iterable[nn.Module]) -> bool:
    """Return whether ``perceptron`` computes what layers like ``weight``, with these activations, give for points."""
    return (
        x.numel() >= _LEAST
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not traced()
        and all(isinstance(a, nn.ReLU) for a in activations)
        and kernel.available()
    )


def perceptron(x: Tensor, layers: Sequence[Layer], context: Tensor | None = None) -> Tensor:
    r"""Return :math:`W_L\, r(\dots r(W_1 x + b_1 + c) \dots) + b_L` with rectifiers :math:`r(u) = \max(u, 0)`.

    Args:
        x: Points, ``(*batch, inputs)``.
        layers: Weight, bias and, where the weight is masked, its stairs, of each layer. Weights beyond count as 0.
        context: What is added before the first rectifier, ``(*context_batch, width)``.
    """
    batch, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
    context = in_rows(context, batch)
    weights, biases, steps = zip(*layers, strict=True)
    if torch.is_grad_enabled():
        result: Tensor = _Perceptron.apply(x, context, steps, *weights, *biases)[-1]  # type: ignore[no-untyped-call]
    else:
        result = kernel.perceptron_forward(x, for_kernel(weights, biases, steps), context, keep=False)[-1]
    return result.reshape(*batch, len(weights[-1]))


def for_kernel(
    weights: Sequence[Tensor], biases: Sequence[Tensor], steps: Sequence[Stairs | None]
) -> kernel.Layers:
    """Return the layers as the kernel takes them."""
    reach = [None if s is None else s.reach for s in steps]
    return kernel.Layers(weights, biases, reach, [None if s is None else s.first for s in steps])


def in_rows(context: Tensor | None, batch: Sequence[int]) -> Tensor | None:
    """Return the context as a matrix with a row for each point, or with one row for all."""
    if context is None:
        return None
    width = context.shape[-1]
    one = context.numel() == width
    return (context if one else context.expand(*batch, width)).reshape(-1, width)


def formula(
    x: Tensor,
    context: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    steps: Sequence[Stairs | None],
) -> Tensor:
    """Return the same layer after layer."""
    for i, (weight, bias, stair) in enumerate(zip(weights, biases, steps, strict=True)):
        seen = weight if stair is None else weight * _under(stair.reach, weight.shape[1])
        x = F.linear(x if i == 0 else F.relu(x), seen, bias)
        if i == 0 and context is not None:
            x = x + context
    return x


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, context: Tensor | None, steps: Sequence[Stairs | None], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(steps)
        layers = for_kernel(parameters[:count], parameters[count:], steps)
        results = kernel.perceptron_forward(x, layers, context, keep=True)
        ctx.steps = steps
        ctx.mark_non_differentiable(*results[:-1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, context, *parameters, *results[:-1])
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(ctx.steps)
        x, context, *rest = ctx.saved_tensors
        weights, biases, results = rest[:count], rest[count : 2 * count], rest[2 * count :]
        gradient, needed = gradients[-1], ctx.needs_input_grad
        if gradient is None:
            return (None,) * (3 + 2 * count)
        if torch.is_grad_enabled():
            # Somebody wants the gradient of this gradient.
            inputs = [x, context, None, *weights, *biases]
            wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
            value = formula(x, context, weights, biases, ctx.steps)
            found = iter(
                torch.autograd.grad(value, wanted, gradient, create_graph=True, materialize_grads=True)
            )
            return tuple(next(found) if need else None for need in needed)
        layers = for_kernel(weights, biases, ctx.steps)
        which = kernel.Wanted(needed[0], needed[1], any(needed[3:]))
        of_x, of_context, of_weights, of_biases = kernel.perceptron_backward(
            x, layers, results, gradient, wanted=which
        )
        if of_context is not None and len(context) == 1:
            of_context = of_context.sum(0, keepdim=True)
        nothing = [None] * count
        return of_x, of_context, None, *(of_weights or nothing), *(of_biases or nothing)
