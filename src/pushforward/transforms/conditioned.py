"""Some elements of a point move under parameters that a perceptron makes of others: one pass of a fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..kernels import perceptron as kernel
from ..networks import MLP, MaskedMLP
from ..networks.stack import Stairs, for_kernel, formula, in_rows
from .elementwise import ElementwiseMap


def conditioned(
    x: Tensor,
    context: Tensor | None,
    network: nn.Module,
    map: ElementwiseMap,
    *,
    stay: Tensor | None = None,
    move: Tensor | None = None,
    inverse: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """Return moved points and log-determinants; None where the kernel does not serve.

    Args:
        x: Points, ``(*batch, D)``.
        context: What the network is given beside.
        network: From the elements that stay to ``map.parameters_each`` numbers for each that moves.
        map: How these move.
        stay: Numbers of the elements that the network is given; None: all.
        move: Numbers of those that move; None: all.
        inverse: Move back.
    """
    if not isinstance(network, MLP | MaskedMLP) or network._forward_hooks or network._forward_pre_hooks:
        return None
    stack = network.stack(x, context)
    fused = None if stack is None else map.kernel(inverse=inverse)
    if stack is None or fused is None:
        return None
    given, seen = stack
    weights, biases, steps = zip(*given, strict=True)
    call = _Call(map, kernel.Part(fused, stay, move, inverse), steps)
    batch, flat = x.shape[:-1], x.ndim == 2
    points, seen = x if flat else x.reshape(-1, x.shape[-1]), in_rows(seen, batch)
    if torch.is_grad_enabled():
        y, log_abs_det = _Conditioned.apply(points, seen, call, *weights, *biases)  # type: ignore[no-untyped-call]
    else:
        layers = for_kernel(weights, biases, steps)
        y, log_abs_det, _ = kernel.conditioned_forward(points, call.part, layers, seen, keep=False)
    return (y, log_abs_det) if flat else (y.reshape(x.shape), log_abs_det.reshape(batch))


class _Call(NamedTuple):
    map: ElementwiseMap
    part: kernel.Part
    steps: Sequence[Stairs | None]

    def formula(
        self, x: Tensor, context: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the same in torch, whose gradient has a gradient."""
        stay, move, inverse = self.part.stay, self.part.move, self.part.inverse
        parameters = formula(x if stay is None else x[:, stay], context, weights, biases, self.steps)
        parameters = parameters.reshape(len(x), -1, self.map.parameters_each)
        moved, log_derivative = (self.map.inverse if inverse else self.map.forward)(
            x if move is None else x[:, move], parameters
        )
        return moved if move is None else x.index_copy(1, move, moved), log_derivative.sum(-1)


class _Conditioned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, context: Tensor | None, call: _Call, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        count = len(call.steps)
        layers = for_kernel(parameters[:count], parameters[count:], call.steps)
        y, log_abs_det, kept = kernel.conditioned_forward(x, call.part, layers, context, keep=True)
        ctx.call = call
        ctx.save_for_backward(x, y, context, *parameters, *kept)
        return y, log_abs_det

    @staticmethod
    def backward(ctx: Any, g_y: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        call, count = ctx.call, len(ctx.call.steps)
        x, y, context, *rest = ctx.saved_tensors
        weights, biases, kept = rest[:count], rest[count : 2 * count], rest[2 * count :]
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled():
            # Somebody wants the gradient of this gradient.
            inputs = [x, context, None, *weights, *biases]
            wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
            values = call.formula(x, context, weights, biases)
            found = iter(
                torch.autograd.grad(values, wanted, (g_y, g_log), create_graph=True, materialize_grads=True)
            )
            return tuple(next(found) if need else None for need in needed)
        of_x, of_context, of_weights, of_biases = kernel.conditioned_backward(
            y if call.part.inverse else x,
            call.part,
            for_kernel(weights, biases, call.steps),
            kept,
            (g_y, g_log),
            wanted=kernel.Wanted(needed[0], needed[1], any(needed[3:])),
        )
        if of_context is not None and len(context) == 1:
            of_context = of_context.sum(0, keepdim=True)
        nothing = [None] * count
        return of_x, of_context, None, *(of_weights or nothing), *(of_biases or nothing)
