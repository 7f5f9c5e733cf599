"""A whole perceptron with rectifiers as one operation, by a fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels import calls as kernels
from ..kernels import perceptron as kernel


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
    reach = (mask * torch.arange(1, columns + 1, device="cpu")).amax(1)
    first = rows - (mask * torch.arange(rows, 0, -1, device="cpu")[:, None]).amax(0)
    return Stairs(reach, first, bool((mask == _under(reach, columns)).all()))


def _under(reach: Tensor, columns: int) -> Tensor:
    return torch.arange(columns, device=reach.device) < reach[:, None]


def serves(
    x: Tensor, layers: Sequence[nn.Module], kind: type[nn.Module], activations: Sequence[nn.Module]
) -> bool:
    """Return whether ``perceptron`` may compute what layers of this kind give for points: nobody follows a call."""
    return (
        kernels.serves(x)
        and not torch.is_autocast_enabled("cpu")
        and all(is_plain(activation, nn.ReLU) for activation in activations)
        and all(is_plain(layer, kind) for layer in layers)
        and kernel.available()
    )


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a call of the module is the ``forward`` of this kind, and nothing else."""
    return (
        type(module).forward is kind.forward
        and "forward" not in module.__dict__
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
    )


def fits(inputs: int, layers: Sequence[Layer], context: Tensor | None, batch: Sequence[int]) -> bool:
    """Return whether layers, and what the context adds, are of the shapes and kinds of a perceptron of so many inputs.

    Where they are not, torch's own calls say what is wrong, or know how to go on.
    """
    for weight, bias, _ in layers:
        if bias is None or not (kernels.plain(weight) and kernels.plain(bias)):
            return False
        if weight.shape[1] != inputs or bias.shape != weight.shape[:1]:
            return False
        inputs = len(weight)
    if context is None:
        return True
    return (
        kernels.plain(context)
        and context.shape[-1] == len(layers[0][0])
        and torch.broadcast_shapes(context.shape[:-1], batch) == tuple(batch)
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
        result: Tensor = _Perceptron.apply(x, context, steps, *weights, *biases)  # type: ignore[no-untyped-call]
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
    ) -> Tensor:
        count = len(steps)
        layers = for_kernel(parameters[:count], parameters[count:], steps)
        *hidden, result = kernel.perceptron_forward(x, layers, context, keep=True)
        ctx.steps = steps
        ctx.save_for_backward(x, context, *parameters, *hidden)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.steps)
        x, context, *rest = ctx.saved_tensors
        weights, biases, hidden = rest[:count], rest[count : 2 * count], rest[2 * count :]
        if kernels.followed(gradient):

            def again(x: Tensor, context: Tensor | None, _: None, *parameters: Tensor) -> Tensor:
                return formula(x, context, parameters[:count], parameters[count:], ctx.steps)

            inputs = [x, context, None, *weights, *biases]
            return tuple(kernels.gradients_of_formula(ctx, again, inputs, [gradient]))
        needed = ctx.needs_input_grad
        layers = for_kernel(weights, biases, ctx.steps)
        which = kernel.Wanted(needed[0], needed[1], any(needed[3:]))
        found = kernel.perceptron_backward(x, layers, hidden, gradient, wanted=which)
        return as_arguments(found, context, count)


def as_arguments(found: kernel.Gradients, context: Tensor | None, count: int) -> tuple[Tensor | None, ...]:
    """Return the gradients of point, context, nothing, weights and biases, in the order of the arguments."""
    of_x, of_context, of_weights, of_biases = found
    if of_context is not None and context is not None and len(context) == 1:
        of_context = of_context.sum(0, keepdim=True)
    nothing = [None] * count
    return of_x, of_context, None, *(of_weights or nothing), *(of_biases or nothing)
