"""pushforward with ``memory="constant"``: the same flow, trained as ``TrainConfig(memory="constant")`` trains it."""

from __future__ import annotations

import torch

from pushforward.training.drift import with_constant_memory

from ..tasks import Task
from . import Cannot
from .ours_flows import TrainedModel, make
from .torch_model import TorchModel


def build(task: Task) -> TorchModel:
    """Build a flow of many layers; elsewhere its time is no news."""
    if not task.name.startswith("depth"):
        raise Cannot("only for memory against depth")
    torch.manual_seed(0)
    flow = make(task)
    return TrainedModel(task, flow, module=with_constant_memory(flow), note='memory="constant"')
