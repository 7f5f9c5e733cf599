"""A whole perceptron with rectifiers as one operation: products into memory that is used again, nothing copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Blocks
from .tracing import traced

Layer = tuple[Tensor, Tensor, "Blocks | None"]


def serves(x: Tensor, activations: Iterable[nn.Module]) -> bool:
    """Return whether ``perceptron`` computes what layers with these activations give for points ``x``."""
    return (
        x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not traced()
        and all(isinstance(a, nn.ReLU) for a in activations)
    )


def perceptron(x: Tensor, layers: Sequence[Layer], context: Tensor | None = None) -> Tensor:
    r"""Return :math:`W_L\, r(\dots r(W_1 x + b_1 + c) \dots) + b_L` with rectifiers :math:`r(u) = \max(u, 0)`.

    Args:
        x: Points, ``(*batch, inputs)``.
        layers: Weight, bias and, where the weight has such, blocks outside of which it counts as 0, of each layer.
        context: What is added before the first rectifier, ``(*context_batch, width)``.
    """
    batch, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
    shape = (*batch, len(layers[-1][0]))
    if context is not None:
        width = context.shape[-1]
        one = context.numel() == width
        context = (context if one else context.expand(*batch, width)).reshape(-1, width)
    weights, biases = [w for w, _, _ in layers], [b for _, b, _ in layers]
    blocks = [s for _, _, s in layers]
    if not torch.is_grad_enabled():
        return _forward(x, context, weights, biases, blocks)[-1].reshape(shape)
    result: Tensor = _Perceptron.apply(x, context, blocks, *weights, *biases)[-1]  # type: ignore[no-untyped-call]
    return result.reshape(shape)


def _formula(
    x: Tensor, context: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = F.linear(x if i == 0 else F.relu(x), weight, bias)
        if i == 0 and context is not None:
            x = x + context
    return x


def _forward(
    x: Tensor,
    context: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    blocks: Sequence[Blocks | None],
) -> list[Tensor]:
    """Return what every layer gives, after the rectifier."""
    results = [x.new_empty(len(x), len(w)) for w in weights]
    for i, (weight, bias, stairs, out) in enumerate(zip(weights, biases, blocks, results, strict=True)):
        if stairs is None:
            torch.addmm(bias, x, weight.t(), out=out)
        else:
            for first, end, seen in stairs.rows:
                torch.addmm(bias[first:end], x[:, :seen], weight[first:end, :seen].t(), out=out[:, first:end])
        if i == 0 and context is not None:
            out.add_(context)
        x = out.relu_() if i < len(weights) - 1 else out
    return results


def _below(gradient: Tensor, weight: Tensor, stairs: Blocks | None) -> Tensor:
    """Return the gradient of what a layer is given."""
    if stairs is None:
        return gradient @ weight
    below = gradient.new_empty(len(gradient), weight.shape[1])
    for first, end, row in stairs.columns:
        torch.mm(gradient[:, row:], weight[row:, first:end], out=below[:, first:end])
    below[:, stairs.columns[-1][1] :] = 0.0
    return below


def _of_weight(gradient: Tensor, given: Tensor, stairs: Blocks | None) -> Tensor:
    if stairs is None:
        return gradient.t() @ given
    found = gradient.new_zeros(gradient.shape[1], given.shape[1])
    for first, end, seen in stairs.rows:
        torch.mm(gradient[:, first:end].t(), given[:, :seen], out=found[first:end, :seen])
    return found


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, context: Tensor | None, blocks: Sequence[Blocks | None], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(blocks)
        return tuple(_forward(x, context, parameters[:count], parameters[count:], blocks))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, context, ctx.blocks, *parameters = inputs
        ctx.mark_non_differentiable(*output[:-1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, context, *parameters, *output[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(ctx.blocks)
        x, context, *rest = ctx.saved_tensors
        weights, biases, results = rest[:count], rest[count : 2 * count], rest[2 * count :]
        gradient = gradients[-1]
        if gradient is None:
            return (None,) * (3 + 2 * count)
        if torch.is_grad_enabled():
            # Somebody wants the gradient of this gradient.
            inputs = [x, context, None, *weights, *biases]
            wanted = [t for t, need in zip(inputs, ctx.needs_input_grad, strict=True) if need]
            value = _formula(x, context, weights, biases)
            found = iter(
                torch.autograd.grad(value, wanted, gradient, create_graph=True, materialize_grads=True)
            )
            return tuple(next(found) if need else None for need in ctx.needs_input_grad)
        given, gradient = [x, *results], gradient.contiguous()
        of_weights, of_biases = [], []
        for i in range(count - 1, -1, -1):
            of_weights.append(_of_weight(gradient, given[i], ctx.blocks[i]))
            of_biases.append(gradient.sum(0))
            if i:
                gradient = _below(gradient, weights[i], ctx.blocks[i])
                torch.ops.aten.threshold_backward.grad_input(gradient, given[i], 0.0, grad_input=gradient)
        of_x = _below(gradient, weights[0], ctx.blocks[0]) if ctx.needs_input_grad[0] else None
        of_context = gradient if ctx.needs_input_grad[1] else None
        if of_context is not None and len(context) == 1:
            of_context = of_biases[-1][None]
        return of_x, of_context, None, *reversed(of_weights), *reversed(of_biases)
