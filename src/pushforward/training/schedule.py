"""The learning rate and the time budget of a run."""

from __future__ import annotations

import math
import time

from ..configs import TrainConfig


class Schedule:
    """A linear warm-up and a cosine to 0, driven by whichever of steps and time is further on.

    Args:
        config: Settings of the run.
        total: Steps of the whole run.
        started: When the run began, on the monotonic clock.

    Attributes:
        steps: Steps done.
    """

    def __init__(self, config: TrainConfig, total: int, started: float) -> None:
        self.budget, self.warmup, self.total = config.max_seconds, config.warmup, total
        self.started, self.steps = started, 0
        self._pace = time.monotonic(), 0

    def resume(self, steps: int, seconds: float) -> None:
        """Go on after so many steps, which took so long."""
        self.started, self.steps = time.monotonic() - seconds, steps
        self._pace = time.monotonic(), steps

    def seconds(self) -> float:
        """Return how long the run has taken, without the time between an end and a resumption."""
        return time.monotonic() - self.started

    def progress(self) -> float:
        """Return how much of the run is behind us, from 0 to 1."""
        done = self.steps / self.total
        if self.budget is not None:
            done = max(done, self.seconds() / self.budget)
        return min(done, 1.0)

    def factor(self) -> float:
        """Return the factor of the learning rate."""
        done = self.progress()
        if done < self.warmup:
            return (done + 1 / self.total) / (self.warmup + 1 / self.total)
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))

    def over(self) -> bool:
        """Return whether the time budget is spent."""
        return self.budget is not None and self.seconds() >= self.budget

    def left(self) -> float:
        """Return the seconds that the run may still take."""
        began, before = self._pace
        by_steps = (time.monotonic() - began) / max(self.steps - before, 1) * (self.total - self.steps)
        if self.budget is None:
            return by_steps
        return max(0.0, min(by_steps, self.budget - self.seconds()))
