"""From data to a fitted flow."""

from .checkpoints import Checkpoints
from .loop import EpochRecord, TrainResult, train
from .points import Points
from .step import TrainStep
from .table import TableSplit, fit, fit_split, split_table

__all__ = [
    "Checkpoints",
    "EpochRecord",
    "Points",
    "TableSplit",
    "TrainResult",
    "TrainStep",
    "fit",
    "fit_split",
    "split_table",
    "train",
]
