"""The bare matrix products of a task's dense layers: no bias, no activation, no map, no optimiser."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..tasks import Task
from . import Call, Cannot


def build(task: Task) -> Floor:
    """Build the products of a task."""
    return Floor(task)


class Floor:
    """Forward products, and for a step those for the gradients of inputs and weights as well.

    An autoregressive inverse takes them once for each element, as all peers do it.
    """

    compiled = False
    note = "F.linear of every dense layer, masks as zeros; a step: two more products each"

    def __init__(self, task: Task) -> None:
        if not task.layers:
            raise Cannot("no sizes")
        self.task, self.cannot = task, dict[str, str]()
        generator = torch.Generator().manual_seed(0)
        self.weights = [
            torch.randn(outputs, inputs, generator=generator) / inputs**0.5
            for _ in range(task.layers)
            for inputs, outputs in task.dense()
        ]
        self.parameters = sum(weight.numel() for weight in self.weights)

    def calls(self, batch: int) -> dict[str, Call]:
        """Return the products on ``batch`` rows."""
        inputs = [torch.randn(batch, weight.shape[1]) for weight in self.weights]
        gradients = [torch.randn(batch, weight.shape[0]) for weight in self.weights]

        def forward() -> Tensor:
            for x, weight in zip(inputs, self.weights, strict=True):
                y = linear(x, weight)
            return y

        def train() -> Tensor:
            y = forward()
            for x, gradient, weight in zip(inputs, gradients, self.weights, strict=True):
                gradient @ weight
                gradient.T @ x
            return y

        def one_by_one() -> Tensor:
            for _ in range(self.task.features):
                y = forward()
            return y

        density, sample = forward, forward
        if self.task.family == "iaf":
            density = one_by_one
        elif self.task.autoregressive:
            sample = one_by_one
        return {"train": train, "log_prob": density, "sample": sample}

    def keep_gradients(self) -> None:
        """There are none."""

    def wait(self, result: object) -> None:
        """The CPU has its results at once."""
