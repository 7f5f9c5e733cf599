"""The matrix products of an autoregressive inverse that computes every hidden unit once, when it becomes known."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..tasks import Task
from . import Call, Cannot
from .floor_flows import Floor


def build(task: Task) -> Once:
    """Build the products of a task."""
    if not task.autoregressive:
        raise Cannot("only for autoregressive inverses")
    return Once(task)


class Once(Floor):
    """Rows of the weights in as many groups as there are elements, one group after the other."""

    note = "rows of the weights in D groups, each against all inputs"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        sequential = "log_prob" if task.family == "iaf" else "sample"
        self.cannot = {call: "no inverse" for call in task.calls if call != sequential}

    def calls(self, batch: int) -> dict[str, Call]:
        """Return the products on ``batch`` rows."""
        inputs = [torch.randn(batch, weight.shape[1]) for weight in self.weights]
        each = len(self.task.dense())
        groups = [weight.tensor_split(self.task.features) for weight in self.weights]
        layers = [
            (inputs[start : start + each], list(zip(*groups[start : start + each], strict=True)))
            for start in range(0, len(groups), each)
        ]

        def once() -> Tensor:
            for own, steps in layers:
                for step in steps:
                    for x, rows in zip(own, step, strict=True):
                        if len(rows):
                            y = linear(x, rows)
            return y

        return {"log_prob" if self.task.family == "iaf" else "sample": once}
