"""Transforms whose backward pass recomputes what the ordinary one keeps."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from .base import Inverse, Transform
from .chain import Chain
from .spatial import MultiScale
from .walk import walk


def recomputed(transform: Transform) -> Transform:
    """Return the same map, of the same layers, with constant memory: ``Recomputed``, in several scales each by itself.

    Between two scales the points are kept.

    Example:
        >>> from pushforward.transforms import Chain, MultiScale, Permutation, Squeeze
        >>> [type(t).__name__ for t in recomputed(Chain([MultiScale([Squeeze((1, 2, 2))]), Permutation([0, 1, 2, 3])]))]
        ['MultiScale', 'Recomputed']
    """
    if isinstance(transform, MultiScale):
        return MultiScale([recomputed(transform.scale(i)) for i in range(len(transform.scales))])
    if not (isinstance(transform, Chain) and any(isinstance(part, MultiScale) for part in transform)):
        return Recomputed(transform)
    parts: list[Transform] = []
    for several, group in groupby(transform, lambda part: isinstance(part, MultiScale)):
        run = list(group)
        parts += map(recomputed, run) if several else [Recomputed(Chain(run))]
    return Chain(parts)


class Recomputed(Transform):
    r"""The same map, with gradients that need memory for one layer at a time, whatever the depth.

    The ordinary backward pass keeps what every layer computed on the way forward. This one keeps the output of a stack
    alone, and goes from its last layer to its first: :math:`x_k = f_k^{-1}(y_k)`, then :math:`f_k(x_k)` once more with
    a graph, then its gradients, and :math:`y_{k-1} = x_k`. A layer that is not ``reversible`` keeps its input, and
    computes the rest again. A coupling needs one pass of its network for both, so that a step costs about 4/3 of the
    ordinary one where networks are large. Gradients are the ordinary ones up to the rounding of the inverses, which
    adds up over the layers. ``torch.autocast`` has no effect here.

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


def _through(transform: Transform, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Map forward, with a tape for the layers between two that are not reversible."""
    total = x.new_zeros(x.shape[: x.ndim - len(transform.event_shape)])
    for reversible, run in groupby((part for _, part in walk(transform)), lambda part: part.reversible):
        parts, tape = list(run), _Tape()
        for i, part in enumerate(parts):
            keep = _NOTHING if reversible else _INPUT
            if reversible and i == len(parts) - 1:
                keep = _OUTPUT
            given = None if part.context_shape is None else context
            x, log_abs_det = _Recompute.apply(part, tape, keep, x, given, *_trained(part))  # type: ignore[no-untyped-call]
            total = total + log_abs_det
    return x, total


def _trained(part: Transform) -> list[nn.Parameter]:
    return [p for p in part.parameters() if p.requires_grad]


_NOTHING, _INPUT, _OUTPUT = range(3)


class _Tape:
    """The point between two layers that the backward pass has come to."""

    point: Tensor


class _Recompute(torch.autograd.Function):
    """One layer, which keeps its input, its output, or nothing where the layer after it recovers its output.

    Its parameters are arguments so that they get gradients.
    """

    @staticmethod
    def forward(
        part: Transform, tape: _Tape, keep: int, x: Tensor, context: Tensor | None, *parameters: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        # Networks in a lower precision would not give twice the same.
        with torch.autocast(x.device.type, enabled=False):
            return part._forward(x, context)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        part, tape, keep, x, context, *parameters = inputs
        ctx.part, ctx.tape, ctx.keep = part, tape, keep
        kept = {_NOTHING: None, _INPUT: x, _OUTPUT: output[0]}[keep]
        # The parameters among them, so that one that is changed in between is noticed.
        ctx.save_for_backward(kept, context, *parameters)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # what comes out would count as constant
            raise ValueError(
                "Recomputed has no gradients of gradients, and none in torch.func; use the transform inside it"
            )
        kept, context, *_ = ctx.saved_tensors
        with torch.enable_grad(), torch.autocast(grad_log.device.type, enabled=False):
            if context is not None:
                context = context.detach().requires_grad_(ctx.needs_input_grad[4])
            if ctx.keep == _INPUT:
                x = kept.detach().requires_grad_()
                y, log_abs_det = ctx.part._forward(x, context)
            else:
                y = ctx.tape.point if kept is None else kept
                x, y, log_abs_det = ctx.part._reverse(y.detach(), context)
            ctx.tape.point = x.detach()
            contexts = [context] if ctx.needs_input_grad[4] else []
            roots = [(t, g) for t, g in ((y, grad_y), (log_abs_det, grad_log)) if t.requires_grad]
            grad_x, *gradients = torch.autograd.grad(
                [t for t, _ in roots],
                [x, *contexts, *_trained(ctx.part)],
                [g for _, g in roots],
                allow_unused=True,
            )
        grad_context = gradients.pop(0) if contexts else None
        return None, None, None, grad_x, grad_context, *gradients

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Put the mapped dimension in front: it is one more batch dimension."""
        part, tape, keep, x, context, *parameters = inputs
        _, _, _, x_dim, context_dim, *parameter_dims = in_dims
        if any(dim is not None for dim in parameter_dims):
            raise ValueError("Recomputed cannot be mapped over parameters; map the transform inside it")
        batch = x.ndim - (x_dim is not None) - len(part.event_shape)
        x = x.expand(info.batch_size, *x.shape) if x_dim is None else x.movedim(x_dim, 0)
        if context is not None and context_dim is not None:
            assert part.context_shape is not None
            context = context.movedim(context_dim, 0)
            missing = batch - (context.ndim - 1 - len(part.context_shape))
            context = context.reshape(info.batch_size, *(1,) * missing, *context.shape[1:])
        mapped = _Recompute.apply(part, tape, keep, x, context, *parameters)  # type: ignore[no-untyped-call]
        return mapped, (0, 0)
