"""The moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential moving average of parameters, put in their place while it is applied.

    Args:
        parameters: What to average.
        decay: Its decay; 0: no average, and nothing happens.

    Attributes:
        values: The averages.
        updates: How often it has moved.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters] if decay else []
        self.updates = 0

    def next_decay(self) -> float:
        """Return the decay of the next update; young averages forget faster, so that the start leaves no trace."""
        return min(self.decay, (2 + self.updates) / (11 + self.updates))

    def update(self) -> None:
        """Move the average towards the parameters."""
        if self.values:
            torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - self.next_decay())
            self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the parameters the averaged values for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for p, value in zip(self.parameters, self.values, strict=bool(self.values)):
                held = p.detach().clone()
                p.copy_(value)
                value.copy_(held)
