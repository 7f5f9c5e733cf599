"""pushforward, by its public interface."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.configs import MODELS, IAFConfig, MAFConfig, NSFConfig, RealNVPConfig, TrainConfig
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow, build_flow
from pushforward.networks import MLP
from pushforward.training import TrainStep
from pushforward.training.average import Average
from pushforward.training.compiled import CompiledStep, pays
from pushforward.training.flat import FlatParameters, with_flat_weights
from pushforward.training.points import Batch
from pushforward.transforms import Chain, Coupling, RationalQuadraticSpline
from pushforward.transforms.flat import links_of

from ..tasks import Task
from . import Call
from .torch_model import LEARNING_RATE, TorchModel, adam

_STEPS = 50_000  # of a training long enough to be compiled


def build(task: Task) -> TorchModel:
    """Build a task's flow."""
    torch.manual_seed(0)
    flow = make(task)
    if pays(flow, TrainConfig(), task.batch, _STEPS):
        return CompiledModel(task, flow)
    return TrainedModel(task, flow)


class TrainedModel(TorchModel):
    """A flow with the steps of the trainer: weights, gradients and moments side by side in vectors.

    Fused layers are laid out once, for densities and samples by ``Flow.compile``, which compiles nothing there.

    Args:
        task: What it was built for.
        flow: The flow.
        module: What is trained, if that is not the flow itself.
        note: How it differs from the task's architecture.
    """

    def __init__(self, task: Task, flow: Flow, *, module: Flow | None = None, note: str = "") -> None:
        super().__init__(task, module or flow, flow.log_prob, lambda n: flow.sample((n,)), note=note)
        if links_of(flow.transform) is not None:
            flow.compile()
        flat = FlatParameters(flow.parameters())
        self.vectors = flat.vectors
        self._loss_of = TrainStep(module or with_flat_weights(flow, flat) or flow)
        self._optimiser, self._frees_gradients = adam(self.vectors), False

    def _loss(self, x: Tensor) -> Tensor:
        loss: Tensor = self._loss_of(x, None, None)
        return loss


class CompiledModel(TrainedModel):
    """A flow whose steps, densities and samples are compiled, as the trainer does by itself and ``Flow.compile``."""

    compiled = True

    def __init__(self, task: Task, flow: Flow) -> None:
        super().__init__(task, flow, note="compiled, as in a long training")
        flow.compile()

    def calls(self, batch: int) -> dict[str, Call]:
        """Return the calls on ``batch`` rows of a standard normal."""
        x = torch.randn(batch, self.task.features, generator=torch.Generator().manual_seed(0))
        step = CompiledStep(
            TrainStep(self.module),
            self.vectors[0],
            self._optimiser,
            Average([], 0.0),
            TrainConfig().clip_norm,
        )
        rows = Batch(x, None, None, torch.arange(batch))
        return super().calls(batch) | {"train": lambda: step(rows, LEARNING_RATE)[0]}


def make(task: Task) -> Flow:
    """Return the flow alone."""
    sizes = {"layers": task.layers, "hidden": task.hidden}
    match task.family:
        case "maf":
            return build_flow(MAFConfig(**sizes), task.features)
        case "iaf":
            return build_flow(IAFConfig(**sizes), task.features)
        case "realnvp":
            return build_flow(RealNVPConfig(**sizes), task.features)
        case "spline-autoregressive":
            return build_flow(NSFConfig(**sizes, bins=task.bins), task.features)
        case "spline-coupling":
            return _spline_coupling(task)
    return build_flow(MODELS[task.family.removeprefix("our ")](), task.features)


def _spline_coupling(task: Task) -> Flow:
    """Return what the peers have: couplings in alternating masks, without the linear maps of our model between."""
    features = task.features
    layers = []
    for layer in range(task.layers):
        mask = [i % 2 == layer % 2 for i in range(features)]
        stay = sum(mask)
        network = MLP(stay, (features - stay) * task.parameters_each, hidden=task.hidden)
        layers.append(Coupling(mask, RationalQuadraticSpline(task.bins), network))
    return Flow(Chain(layers), DiagonalNormal((features,)))
