"""From data to a fitted flow."""

from .loop import EpochRecord, TrainResult, TrainStep, train
from .points import Points
from .table import TableSplit, fit, fit_split, split_table

__all__ = [
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
