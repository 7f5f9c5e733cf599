"""normflows."""

from __future__ import annotations

import warnings

import normflows as nf
import torch
from normflows.flows.base import Flow, Reverse
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

from ..tasks import Task
from . import Cannot
from .torch_model import TorchModel, WithContext, mlp

_BOUND = 5.0


def build(task: Task) -> TorchModel:
    """Build a task's flow."""
    warnings.filterwarnings("ignore", "Inputs to the softmax are not scaled down")
    torch.manual_seed(0)
    layers = [part for layer in range(task.layers) for part in _layer(task, layer)]
    if not layers:
        raise Cannot("no such model, or not the same")
    flow = nf.NormalizingFlow(nf.distributions.base.DiagGaussian(task.features, trainable=False), layers)
    return TorchModel(task, flow, flow.log_prob, flow.sample)


def _layer(task: Task, layer: int) -> list[Flow]:
    """Return one layer with the permutation after it; ``forward`` is from latent to data there."""
    features, mix = task.features, nf.flows.Permute(task.features, mode="swap")
    match task.family:
        case "realnvp":
            inputs = (features + 1) // 2
            return [nf.flows.AffineCouplingBlock(mlp(inputs, 2 * (features - inputs), task.hidden)), mix]
        case "spline-coupling":
            mask = (torch.arange(features) % 2 == layer % 2).int()
            return [Reverse(_coupling(task, mask))]
        case "maf":
            return [Reverse(nf.flows.MaskedAffineAutoregressive(features, **_masked(task))), mix]
        case "iaf":
            return [nf.flows.MaskedAffineAutoregressive(features, **_masked(task)), mix]
        case "spline-autoregressive":
            spline = MaskedPiecewiseRationalQuadraticAutoregressive(
                features, **_masked(task), num_bins=task.bins, tails="linear", tail_bound=_BOUND
            )
            return [Reverse(spline), mix]
    return []


def _coupling(task: Task, mask: torch.Tensor) -> PiecewiseRationalQuadraticCoupling:
    return PiecewiseRationalQuadraticCoupling(
        mask,
        lambda inputs, outputs: WithContext(mlp(inputs, outputs, task.hidden)),
        num_bins=task.bins,
        tails="linear",
        tail_bound=_BOUND,
    )


def _masked(task: Task) -> dict[str, int | bool]:
    # One block after the first layer is a second hidden layer.
    return {
        "hidden_features": task.hidden[0],
        "num_blocks": len(task.hidden) - 1,
        "use_residual_blocks": False,
    }
