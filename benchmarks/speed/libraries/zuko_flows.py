"""zuko."""

from __future__ import annotations

import torch
import zuko.flows as zf
from zuko.distributions import DiagNormal
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import Flow, UnconditionalDistribution
from zuko.transforms import MonotonicRQSTransform

from ..tasks import Task
from . import Cannot
from .torch_model import TorchModel


def build(task: Task) -> TorchModel:
    """Build a task's flow."""
    torch.manual_seed(0)
    flow = make(task)
    return TorchModel(task, flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def make(task: Task) -> Flow:
    """Return the flow alone."""
    sizes = {"transforms": task.layers, "hidden_features": task.hidden}
    match task.family:
        case "maf":
            return zf.MAF(task.features, **sizes)
        case "realnvp":
            return zf.RealNVP(task.features, **sizes)
        case "spline-autoregressive":
            return zf.NSF(task.features, bins=task.bins, **sizes)
        case "spline-coupling":
            return _flow(task, [_coupling(task, layer) for layer in range(task.layers)])
        case "iaf":
            layers = [_autoregressive(task, layer).inv for layer in range(task.layers)]
            return _flow(task, layers)
    raise Cannot("no such model, or not the same")


def _coupling(task: Task, layer: int) -> GeneralCouplingTransform:
    k = task.bins
    return GeneralCouplingTransform(
        task.features,
        mask=torch.arange(task.features) % 2 == layer % 2,
        univariate=MonotonicRQSTransform,
        shapes=[(k,), (k,), (k - 1,)],
        hidden_features=task.hidden,
    )


def _autoregressive(task: Task, layer: int) -> MaskedAutoregressiveTransform:
    order = torch.arange(task.features)
    return MaskedAutoregressiveTransform(
        task.features, order=order.flip(0) if layer % 2 else order, hidden_features=task.hidden
    )


def _flow(task: Task, layers: list[torch.nn.Module]) -> Flow:
    zeros = torch.zeros(task.features)
    return Flow(layers, UnconditionalDistribution(DiagNormal, loc=zeros, scale=zeros + 1, buffer=True))
