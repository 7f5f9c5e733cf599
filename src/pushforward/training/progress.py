"""How far a training run has come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Progress:
    """What a run counts and remembers beside its tensors, all of which a checkpoint keeps under the same names.

    Attributes:
        epoch: The epoch, counted from 1.
        batch: How many batches of it are done.
        counted: How many of these were not skipped.
        shift_sum: Sum of their mean log-determinants of preprocessing.
        skipped: How many steps have been skipped, in all epochs.
        best_epoch: The epoch with the best validation loss; 0: none yet.
        best_loss: That loss.
        stopped: Why the run has ended, as of ``TrainResult``; empty while it goes on.
        train_curve: Training loss of each epoch.
        valid_curve: Validation loss of each epoch.
        notes: What should be known.
    """

    epoch: int = 1
    batch: int = 0
    counted: int = 0
    shift_sum: float = 0.0
    skipped: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    stopped: str = ""
    train_curve: list[float] = field(default_factory=list)
    valid_curve: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Progress:
        """Return what a checkpoint has kept, with other things beside it.

        Raises:
            KeyError: Something is missing.
        """
        return cls(**{own.name: kept[own.name] for own in fields(cls)})
