"""From data to a fitted flow."""

from .checkpoints import Checkpoints
from .images import ImageSplit, fit_image_split, fit_images, points_of, split_images
from .loop import EpochRecord, TrainResult, train
from .points import Points
from .smoothed import fit_smoothed, smoothed_training, smoothing_noise
from .step import TrainStep
from .streamed import fit_stream, fit_streamed, streamed_training
from .streamed_split import StreamedSplit, stream_table
from .table import TableSplit, fit, fit_split, split_table
from .transport import fit_transport

__all__ = [
    "Checkpoints",
    "EpochRecord",
    "ImageSplit",
    "Points",
    "StreamedSplit",
    "TableSplit",
    "TrainResult",
    "TrainStep",
    "fit",
    "fit_image_split",
    "fit_images",
    "fit_smoothed",
    "fit_split",
    "fit_stream",
    "fit_streamed",
    "fit_transport",
    "points_of",
    "smoothed_training",
    "smoothing_noise",
    "split_images",
    "split_table",
    "stream_table",
    "streamed_training",
    "train",
]
