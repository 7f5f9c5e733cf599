"""What all libraries on torch share: a module with a density and a sampler, trained by fused AdamW, eager."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..tasks import Task
from . import Call

LEARNING_RATE = 1e-4


class TorchModel:
    """A flow on torch.

    Args:
        task: What it was built for.
        module: Holds the weights.
        log_prob: ``(n, D) -> (n,)``.
        sample: ``n -> (n, D)``.
        note: How it differs from the task's architecture.
        cannot: Reasons, by the name of a call.
    """

    compiled = False

    def __init__(
        self,
        task: Task,
        module: nn.Module,
        log_prob: Callable[[Tensor], Tensor],
        sample: Callable[[int], object],
        *,
        note: str = "",
        cannot: dict[str, str] | None = None,
    ) -> None:
        self.task, self.module, self.note, self.cannot = task, module, note, cannot or {}
        self._log_prob, self._sample = log_prob, sample
        weights = list(module.parameters())
        self.parameters = sum(p.numel() for p in weights)
        self._optimiser, self._frees_gradients = adam(weights), True

    def calls(self, batch: int) -> dict[str, Call]:
        """Return the calls on ``batch`` rows of a standard normal."""
        x = torch.randn(batch, self.task.features, generator=torch.Generator().manual_seed(0))

        def train() -> Tensor:
            self._optimiser.zero_grad(set_to_none=self._frees_gradients)
            loss = self._loss(x)
            loss.backward()
            self._optimiser.step()
            return loss

        @torch.no_grad()
        def log_prob() -> Tensor:
            return self._log_prob(x)

        @torch.no_grad()
        def sample() -> object:
            return self._sample(batch)

        return {"train": train, "log_prob": log_prob, "sample": sample}

    def _loss(self, x: Tensor) -> Tensor:
        return -self._log_prob(x).mean()

    def keep_gradients(self) -> None:
        """Fill the gradients with zeros before a step, where they were freed so far."""
        self._frees_gradients = False

    def wait(self, result: object) -> None:
        """The CPU has its results at once."""


def adam(weights: Iterable[nn.Parameter], learning_rate: float = LEARNING_RATE) -> torch.optim.Optimizer:
    """Return the optimiser of all libraries on torch."""
    return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0, fused=True)


def mlp(inputs: int, outputs: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """Return a perceptron with ReLU."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class WithContext(nn.Module):
    """A network that is given a context and needs none."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        output: Tensor = self.network(x)
        return output
