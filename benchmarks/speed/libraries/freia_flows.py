"""FrEIA."""

from __future__ import annotations

import math

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, PermuteRandom

from ..tasks import Task
from . import Cannot
from .torch_model import TorchModel, mlp


def build(task: Task) -> TorchModel:
    """Build a task's flow."""
    if task.family != "realnvp":
        raise Cannot("affine couplings only" if task.layers else "no such model, or not the same")
    torch.manual_seed(0)
    flow = SequenceINN(task.features)
    for layer in range(task.layers):
        flow.append(AffineCouplingOneSided, subnet_constructor=lambda i, o: mlp(i, o, task.hidden))
        flow.append(PermuteRandom, seed=layer)

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        z, log_abs_det = flow(x)
        normal = -0.5 * z.square().sum(-1) - 0.5 * task.features * math.log(2 * math.pi)
        result: torch.Tensor = normal + log_abs_det
        return result

    def sample(n: int) -> object:
        return flow(torch.randn(n, task.features), rev=True)[0]

    return TorchModel(task, flow, log_prob, sample, note="random permutations, arctan-bounded scales")
