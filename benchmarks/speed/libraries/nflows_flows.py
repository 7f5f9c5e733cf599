"""nflows."""

from __future__ import annotations

import warnings
from functools import partial

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import (
    AffineCouplingTransform,
    CompositeTransform,
    InverseTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    ReversePermutation,
    Transform,
)

from ..tasks import Task
from . import Cannot
from .torch_model import TorchModel, WithContext, mlp

_BOUND = 5.0


def build(task: Task) -> TorchModel:
    """Build a task's flow."""
    warnings.filterwarnings("ignore", "Inputs to the softmax are not scaled down")
    torch.manual_seed(0)
    flow = Flow(CompositeTransform(_layers(task)), StandardNormal([task.features]))
    return TorchModel(task, flow, flow.log_prob, flow.sample)


def _layers(task: Task) -> list[Transform]:
    result: list[Transform] = []
    for layer in range(task.layers):
        if task.autoregressive:
            result += [_autoregressive(task), ReversePermutation(task.features)]
        else:
            result.append(_coupling(task, layer))
    if not result:
        raise Cannot("no such model, or not the same")
    return [InverseTransform(CompositeTransform(result))] if task.family == "iaf" else result


def _coupling(task: Task, layer: int) -> Transform:
    mask = torch.arange(task.features) % 2 == layer % 2

    def network(inputs: int, outputs: int) -> WithContext:
        return WithContext(mlp(inputs, outputs, task.hidden))

    if task.spline:
        return PiecewiseRationalQuadraticCouplingTransform(
            mask, network, num_bins=task.bins, tails="linear", tail_bound=_BOUND
        )
    return AffineCouplingTransform(mask, network)


def _autoregressive(task: Task) -> Transform:
    # One block after the first layer is a second hidden layer.
    network = {"hidden_features": task.hidden[0], "num_blocks": len(task.hidden) - 1}
    masked = partial(
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        num_bins=task.bins, tails="linear", tail_bound=_BOUND,
    ) if task.spline else MaskedAffineAutoregressiveTransform  # fmt: skip
    return masked(task.features, **network, use_residual_blocks=False)
