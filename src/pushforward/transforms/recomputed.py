"""Transforms whose backward pass recomputes what the ordinary one keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import Inverse, Transform
from .walk import walk


class Recomputed(Transform):
    r"""The same map, with gradients that need memory for one layer at a time, whatever the depth.

    The ordinary backward pass keeps what every layer computed on the way forward. This one keeps the output of a stack
    alone, and goes from its last layer to its first: :math:`x_k = f_k^{-1}(y_k)`, then :math:`f_k(x_k)` once more with
    a graph, then its gradients, and :math:`y_{k-1} = x_k`. A layer that is not ``reversible`` keeps its input, and
    computes the rest again. A coupling needs one pass of its network for both, so that a step costs about 4/3 of the
    ordinary one. Gradients are the ordinary ones up to the rounding of the inverses, which adds up over the layers.

    It has the layers of ``transform`` and no parameters of its own. It can be mapped by ``torch.func.vmap`` over points
    and contexts.

    Args:
        transform: The map, a ``Chain`` as a rule.

    Raises:
        ValueError: Gradients of gradients or those of ``torch.func`` are asked for.

    References:
        Gomez et al., The Reversible Residual Network: Backpropagation Without Storing Activations, 2017, section 3.2.
        https://arxiv.org/abs/1707.04585

    Example:
        >>> from pushforward.transforms import Chain, LULinear
        >>> _ = torch.manual_seed(0)
        >>> chain, x = Chain([LULinear(2), LULinear(2)]), torch.randn(5, 2)
        >>> ordinary, = torch.autograd.grad(chain(x)[0].square().sum(), chain.transforms[0].lower)
        >>> frugal, = torch.autograd.grad(Recomputed(chain)(x)[0].square().sum(), chain.transforms[0].lower)
        >>> torch.allclose(ordinary, frugal, atol=1e-5)
        True
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__(
            transform.event_shape, latent_shape=transform.latent_shape, context_shape=transform.context_shape
        )
        self.transform = transform

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _through(self.transform, x, context)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _through(Inverse(self.transform), y, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Initialise the transform."""
        return self.transform.initialize(x, context)


class Gradients(NamedTuple):
    """What the backward pass of one layer gives.

    Attributes:
        x: The layer's input.
        grad_x: The gradient of ``x``.
        grad_context: The gradient of the context, or None.
        parameters: The trained parameters of the layer, with their gradients; those that it does not use are left out.
    """

    x: Tensor
    grad_x: Tensor
    grad_context: Tensor | None
    parameters: list[tuple[nn.Parameter, Tensor]]


def pull_back(
    part: Transform,
    held: Tensor,
    context: Tensor | None,
    grad_y: Tensor,
    grad_log: Tensor,
    *,
    reverse: bool,
) -> Gradients:
    """Compute one layer again, and take its gradients.

    Args:
        part: The layer.
        held: Its output ``y`` if ``reverse``, else its input ``x``.
        context: Contexts; their gradient is taken if they require one.
        grad_y: The gradient of ``y``.
        grad_log: The gradient of ``log_abs_det``.
        reverse: Recover ``x`` from ``y``.
    """
    with torch.enable_grad():
        given = None if context is None else context.detach().requires_grad_(context.requires_grad)
        if reverse:
            x, y, log_abs_det = part._reverse(held.detach(), given)
        else:
            x = held.detach().requires_grad_()
            y, log_abs_det = part._forward(x, given)
        wanted = [given] if given is not None and given.requires_grad else []
        parameters = list(_trained([part]))
        roots = [(t, g) for t, g in ((y, grad_y), (log_abs_det, grad_log)) if t.requires_grad]
        grad_x, *grads = torch.autograd.grad(
            [t for t, _ in roots], [x, *wanted, *parameters], [g for _, g in roots], allow_unused=True
        )
    grad_context = grads.pop(0) if wanted else None
    found = [(p, g) for p, g in zip(parameters, grads, strict=True) if g is not None]
    return Gradients(x.detach(), grad_x, grad_context, found)


def _through(transform: Transform, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Map forward, the reversible layers between two others as one operation, the others one by one."""
    total = x.new_zeros(x.shape[: x.ndim - len(transform.event_shape)])
    for reversible, run in groupby((part for _, part in walk(transform)), lambda part: part.reversible):
        for parts in [tuple(run)] if reversible else [(part,) for part in run]:
            given = context if any(part.context_shape is not None for part in parts) else None
            x, log_abs_det = _Recompute.apply(parts, x, given, *_trained(parts))  # type: ignore[no-untyped-call]
            total = total + log_abs_det
    return x, total


def _trained(parts: Sequence[Transform]) -> Iterator[nn.Parameter]:
    return iter(dict.fromkeys(p for part in parts for p in part.parameters() if p.requires_grad))


class _Recompute(torch.autograd.Function):
    """Layers that are all reversible, or one that is not; the parameters are arguments so that they get gradients."""

    @staticmethod
    def forward(
        parts: tuple[Transform, ...], x: Tensor, context: Tensor | None, *parameters: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[: x.ndim - len(parts[0].event_shape)])
        for part in parts:
            x, log_abs_det = part._forward(x, context)
            total = total + log_abs_det
        return x, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        parts, x, context, *parameters = inputs
        ctx.parts, ctx.parameters = parts, parameters
        # The parameters among them, so that one that is changed in between is noticed.
        ctx.save_for_backward(output[0] if parts[0].reversible else x, context, *parameters)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # what comes out would count as constant
            raise ValueError(
                "Recomputed has no gradients of gradients, and none in torch.func; use the transform inside it"
            )
        held, context, *_ = ctx.saved_tensors
        if context is not None:
            context = context.detach().requires_grad_(ctx.needs_input_grad[2])
        found: dict[nn.Parameter, Tensor] = {}
        grad_context: Tensor | None = None
        for part in reversed(ctx.parts):
            held, grad_y, change, gradients = pull_back(
                part, held, context, grad_y, grad_log, reverse=part.reversible
            )
            if change is not None:
                grad_context = change if grad_context is None else grad_context + change
            for p, gradient in gradients:
                found[p] = found[p] + gradient if p in found else gradient
        return None, grad_y, grad_context, *(found.get(p) for p in ctx.parameters)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        parts: tuple[Transform, ...],
        x: Tensor,
        context: Tensor | None,
        *parameters: nn.Parameter,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Put the mapped dimension in front: it is one more batch dimension."""
        _, x_dim, context_dim, *parameter_dims = in_dims
        if any(dim is not None for dim in parameter_dims):
            raise ValueError("Recomputed cannot be mapped over parameters; map the transform inside it")
        batch = x.ndim - (x_dim is not None) - len(parts[0].event_shape)
        x = x.expand(info.batch_size, *x.shape) if x_dim is None else x.movedim(x_dim, 0)
        if context is not None and context_dim is not None:
            context = context.movedim(context_dim, 0)
            (event,) = {len(p.context_shape) for p in parts if p.context_shape is not None}
            missing = batch - (context.ndim - 1 - event)
            context = context.reshape(info.batch_size, *(1,) * missing, *context.shape[1:])
        mapped = _Recompute.apply(parts, x, context, *parameters)  # type: ignore[no-untyped-call]
        return mapped, (0, 0)
