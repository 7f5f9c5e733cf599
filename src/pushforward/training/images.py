"""From images to a fitted flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..artifact import FittedFlow
from ..configs import (
    SMALL,
    ImageModelConfig,
    ImageSchema,
    TrainConfig,
    default_image_model,
    default_image_training,
)
from ..data import check_enough, split_rows
from ..errors import DataError
from ..flows import image_flow
from .checkpoints import Checkpoints, checkpoints_in
from .loop import EpochRecord, TrainResult
from .points import Points
from .record import check_batch_size, train_and_record
from .seeded import seeded

if TYPE_CHECKING:
    from ..data import Images, ImageSet

_MOST_VALID = 5_000
MOST_SCORED = 5_000
"""How many training images the record of a fit scores at most."""
MOST_ESTIMATED = 256
"""How many images of each part the record of a fit scores at most where each takes the solve of an equation."""
_VALID_SHARE, _TEST_SHARE = 0.1, 0.1


@dataclass(frozen=True, slots=True)
class ImageSplit:
    """Images as training, validation and test points, with the schema that all of them meet."""

    schema: ImageSchema
    train: Points
    valid: Points
    test: Points


def split_images(images: ImageSet, *, given: str = "", pixels: str = "equalise", seed: int = 0) -> ImageSplit:
    """Split images for a fit.

    A tenth of the images, of which at most 5,000 are used, chooses the best epoch; the official test images are the
    test where a set has them, else another tenth is.

    Args:
        images: What ``read_images`` returned.
        given: What the density is conditioned on, as of ``ImageSchema``.
        pixels: How pixels come to the line, as of ``ImageSchema``.
        seed: Seed of the split.

    Raises:
        DataError: Fewer than 20 images.
        ValueError: A condition that these images do not have.
    """
    train = images.train
    check_enough(train, images.name)
    schema = ImageSchema(
        height=train.size[0],
        width=train.size[1],
        channels=train.channels,
        levels=train.levels,
        classes=train.classes,
        given=given,
        pixels=pixels,
    )
    share = _TEST_SHARE if images.test is None else 0.0
    rows = split_rows(len(train), seed=seed, fractions=(1 - _VALID_SHARE - share, _VALID_SHARE, share))
    fitted, valid, test = (points_of(train.take(np.sort(part)), schema, np.sort(part)) for part in rows)
    if images.test is not None:
        test = points_of(images.test, schema)
    return ImageSplit(schema, fitted, valid.spread(_MOST_VALID), test)


def points_of(images: Images, schema: ImageSchema, rows: np.ndarray | None = None) -> Points:
    """Return the part of images that is modelled, with what is given.

    Args:
        images: Images that meet the schema.
        schema: What is modelled and what is given.
        rows: Which of all images these are, counted from 0.

    Raises:
        DataError: Images without labels where the class is given.
    """
    pixels = torch.from_numpy(images.pixels)
    down, across = schema.event_box
    number = None if rows is None else torch.from_numpy(rows) + 1
    return Points(pixels[:, :, down, across].contiguous(), conditions(images, schema), None, number)


def conditions(images: Images, schema: ImageSchema) -> Tensor | None:
    """Return what is given of images, ``(n, *context_shape)``, or None.

    A class is a vector with 1 at its place, a picture its pixels; at a quarter of the size they are rounded means.
    """
    if schema.given == "":
        return None
    if schema.given == "class":
        if images.labels is None:
            raise DataError(
                "the images have no labels, and the model is conditioned on the class",
                remedy="Give labels, or fit without --given class.",
            )
        return torch.nn.functional.one_hot(torch.from_numpy(images.labels), len(schema.classes)).float()
    return condition_of_pixels(torch.from_numpy(images.pixels), schema)


def condition_of_pixels(pixels: Tensor, schema: ImageSchema) -> Tensor:
    """Return the picture that is given of whole images ``(n, channels, height, width)``."""
    if schema.given_box is not None:
        down, across = schema.given_box
        return pixels[:, :, down, across].float()
    return shrunk(pixels)


def whole_images(pixels: Tensor, given: Tensor | None, schema: ImageSchema) -> Tensor:
    """Return whole images ``(*batch, *image_shape)`` of what is modelled and the half that is given.

    Args:
        pixels: What is modelled, ``(*batch, *event_shape)``.
        given: What was given, as ``conditions`` returns it; of anything but a half it is not looked at.
        schema: The images.

    Example:
        >>> schema = ImageSchema(height=2, width=2, given="left")
        >>> whole_images(torch.ones(1, 2, 1), torch.zeros(1, 2, 1), schema)
        tensor([[[0., 1.],
                 [0., 1.]]])
    """
    if schema.given_box is None or given is None:
        return pixels
    result = pixels.new_zeros((*pixels.shape[:-3], *schema.image_shape))
    for (down, across), part in ((schema.event_box, pixels), (schema.given_box, given)):
        result[..., down, across] = part.to(pixels)
    return result


def shrunk(pixels: Tensor, factor: int = SMALL) -> Tensor:
    """Return images at a fraction of their size: rounded means of squares."""
    return torch.nn.functional.avg_pool2d(pixels.float(), factor).round()


def fit_images(
    images: ImageSet,
    *,
    model: ImageModelConfig | None = None,
    training: TrainConfig | None = None,
    given: str = "",
    pixels: str = "equalise",
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> FittedFlow:
    """Fit a density to images.

    Args:
        images: What ``read_images`` returned.
        model: The model; chosen from the images by default.
        training: Settings of the training; chosen from the number of images by default, with ``seed``.
        given: What the density is conditioned on: ``"class"``, a half, or ``"small"``; nothing by default.
        pixels: How pixels come to the line: ``"equalise"``, ``"logit"`` or ``"scale"``.
        seed: Seed of the split and, by default, of the training.
        checkpoint: As of ``fit``.
        resume: As of ``fit``.
        on_epoch: As of ``fit``.
        on_note: As of ``fit``.

    Returns:
        The fitted flow. The log-likelihoods in its record are bounds, the mean log-density under one draw of the noise
        of dequantisation, in nats and of all pixels; ``bits_per_dim`` brings them to the field's unit. Of training and
        validation images no more than 5,000 are scored.

    Raises:
        DataError: Images that cannot be used as they are.
        ValueError: A model or a condition that cannot be had for such images.
        TrainingError: Training that cannot go on.
        OutputError: As of ``fit``.
        ArtifactError: As of ``fit``.
        TerminatedError: As of ``fit``.

    Example:
        >>> from pushforward.configs import ImageGlowConfig
        >>> from pushforward.data import Images, ImageSet
        >>> pictures = np.random.default_rng(0).integers(0, 17, (60, 1, 8, 8)).astype(np.uint8)
        >>> fitted = fit_images(
        ...     ImageSet(Images(pictures, levels=17), None, "noise"),
        ...     model=ImageGlowConfig(scales=1, steps=1, hidden_channels=8),
        ...     training=TrainConfig(epochs=1, batch_size=16),
        ... )
        >>> fitted.facts.kind, fitted.facts.train_rows
        ('bound', 48)
    """
    checkpoints = checkpoints_in(checkpoint, resume=resume, on_note=on_note)
    return fit_image_split(
        split_images(images, given=given, pixels=pixels, seed=seed),
        model=model,
        training=training,
        seed=seed,
        source=images.name,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_note=on_note,
    )


def fit_image_split(
    split: ImageSplit,
    *,
    model: ImageModelConfig | None = None,
    training: TrainConfig | None = None,
    seed: int = 0,
    source: str = "",
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_trained: Callable[[TrainResult], None] | None = None,
) -> FittedFlow:
    """Fit a density to images that have been split: the second half of ``fit_images``, whose arguments it takes."""
    images = len(split.train)
    model = model or default_image_model(images)
    training = training or default_image_training(images, seed, model)
    check_batch_size(training, images, of="training images", unit="images", source=source)
    with seeded(training.seed):
        flow = image_flow(model, split.schema)
    slow = not flow.transform.exact
    return train_and_record(
        flow,
        (split.train, split.valid, split.test),
        model=model,
        schema=split.schema,
        training=training,
        source=source,
        num_samples=1,
        most=MOST_ESTIMATED if slow else MOST_SCORED,
        most_of_test=MOST_ESTIMATED if slow else None,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_note=on_note,
        on_trained=on_trained,
    )
