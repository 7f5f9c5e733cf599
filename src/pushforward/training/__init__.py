"""From data to a fitted flow."""

from .checkpoints import Checkpoints
from .images import ImageSplit, fit_image_split, fit_images, points_of, split_images
from .loop import EpochRecord, TrainResult, train
from .points import Points
from .step import TrainStep
from .table import TableSplit, fit, fit_split, split_table
from .transport import fit_transport

__all__ = [
    "Checkpoints",
    "EpochRecord",
    "ImageSplit",
    "Points",
    "TableSplit",
    "TrainResult",
    "TrainStep",
    "fit",
    "fit_image_split",
    "fit_images",
    "fit_split",
    "fit_transport",
    "points_of",
    "split_images",
    "split_table",
    "train",
]
