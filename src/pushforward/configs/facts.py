"""What is known about how a flow was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .training import TrainConfig

_ENDINGS = {
    "epochs": "all epochs done",
    "patience": "no better validation loss for long enough",
    "time": "time budget spent",
    "interrupt": "interrupted",
    "diverged": "too many steps were not finite",
    "drift": "memory='constant' became too inexact",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """The record that a saved flow carries of its training.

    Attributes:
        source: Name of the file or data set.
        train_rows: Rows the weights were fitted on.
        valid_rows: Rows the best epoch was chosen on.
        test_rows: Rows never used before the final figures.
        train_log_prob: Mean log-likelihood of the training rows in nats, in the units of the data.
        valid_log_prob: The same for the validation rows.
        test_log_prob: The same for the test rows.
        kind: ``"exact"`` or, with dequantised columns, ``"estimate"``.
        train_curve: Training loss of each epoch: the mean negative log-likelihood in nats, units of the data; the mean
            square of flow matching.
        valid_curve: Validation loss of each epoch.
        best_epoch: The epoch, from 1, whose weights were kept.
        stopped: Why training ended: ``"epochs"``, ``"patience"``, ``"time"``, ``"interrupt"``, after too many steps
            that were not finite ``"diverged"``, or ``"drift"`` where constant memory became too inexact.
        seconds: Wall time of the training.
        config: Settings of the run.
        versions: Versions of the libraries it ran with.
        notes: What happened that should be known: steps skipped, batches cut.
    """

    source: str
    train_rows: int
    valid_rows: int
    test_rows: int
    train_log_prob: float
    valid_log_prob: float
    test_log_prob: float
    kind: str
    train_curve: tuple[float, ...]
    valid_curve: tuple[float, ...]
    best_epoch: int
    stopped: str
    seconds: float
    config: TrainConfig
    versions: dict[str, str]
    notes: tuple[str, ...] = ()

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    @property
    def ending(self) -> str:
        """Why training ended, in words."""
        return _ENDINGS.get(self.stopped, self.stopped)
