"""What tests of fused kernels share: everything that a call gives, its gradients included, to be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pushforward.networks import CircularFeatures, MaskedMLP
from pushforward.transforms import Autoregressive, ElementwiseMap


def autoregressive(
    map_: ElementwiseMap,
    order: Sequence[int],
    hidden: Sequence[int],
    *,
    context: int = 0,
    angles: Sequence[int] = (),
    activation: str = "relu",
) -> Autoregressive:
    """Return an autoregressive transform in the given order, that sees some elements as angles."""
    network = MaskedMLP(
        len(order),
        map_.parameters_each,
        context_features=context,
        hidden=hidden,
        order=order,
        inputs=[*range(len(order)), *angles],
        activation=activation,
    )
    return Autoregressive(map_, CircularFeatures(network, len(order), angles) if angles else network)


def randomise(module: nn.Module, scale: float = 1.0) -> None:
    """Draw all weights, such that what layers give is of the size of ``scale``."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)


def everything(
    call: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor], parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Return values with and without a gradient, and the gradients of inputs and parameters."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    values = as_tuple(call(*inputs))
    with torch.no_grad():
        quiet = as_tuple(call(*inputs))
    loss = torch.stack([(torch.arange(v.numel()).cos().reshape(v.shape).to(v) * v).sum() for v in values])
    return [*values, *quiet, *torch.autograd.grad(loss.sum(), [*inputs, *parameters])]


def as_tuple(values: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return one tensor or many as many."""
    return values if isinstance(values, tuple) else (values,)


def doubled(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors in float64, where there is no kernel."""
    return [t.detach().double() for t in tensors]


def same(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float = 2e-5) -> None:
    """Check that tensors agree, to a tolerance relative to the largest number of each."""
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, b.detach().abs().max().item())
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * scale)
