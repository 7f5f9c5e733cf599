"""Some elements of a point move under parameters that a perceptron makes of others: one pass of a fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..kernels import perceptron as kernel
from ..kernels.calls import followed, gradients_of_formula, serves
from ..networks import MLP, MaskedMLP
from ..networks.stack import Stairs, as_arguments, for_kernel, formula, in_rows, is_plain
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
    kind = type(network)
    if kind not in {MLP, MaskedMLP} or not is_plain(network, kind) or not serves(x):
        return None
    fused = map.kernel(inverse=inverse)
    if fused is None:
        return None
    if isinstance(network, MLP):
        stack = network.stack(x, context, x.shape[-1] if stay is None else len(stay))
    else:
        stack = cast(MaskedMLP, network).stack(x, context)
    if stack is None:
        return None
    given, seen = stack
    weights, biases, steps = zip(*given, strict=True)
    if len(weights[-1]) != (x.shape[-1] if move is None else len(move)) * map.parameters_each:
        return None
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
        ctx.save_for_backward(x, y if call.part.inverse else None, context, *parameters, *kept)
        return y, log_abs_det

    @staticmethod
    def backward(ctx: Any, g_y: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        call, count = ctx.call, len(ctx.call.steps)
        x, y, context, *rest = ctx.saved_tensors
        weights, biases, kept = rest[:count], rest[count : 2 * count], rest[2 * count :]
        if followed(g_y, g_log):

            def again(
                x: Tensor, context: Tensor | None, _: None, *parameters: Tensor
            ) -> tuple[Tensor, Tensor]:
                result: tuple[Tensor, Tensor] = call.formula(
                    x, context, parameters[:count], parameters[count:]
                )
                return result

            inputs = [x, context, None, *weights, *biases]
            return tuple(gradients_of_formula(ctx, again, inputs, [g_y, g_log]))
        needed = ctx.needs_input_grad
        found = kernel.conditioned_backward(
            y if call.part.inverse else x,
            call.part,
            for_kernel(weights, biases, call.steps),
            kept,
            (g_y, g_log),
            wanted=kernel.Wanted(needed[0], needed[1], any(needed[3:])),
        )
        return as_arguments(found, context, count)
