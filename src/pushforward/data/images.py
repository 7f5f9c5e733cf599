"""Images in memory: pixels, labels and the names of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Size = tuple[int, int]

ENOUGH = 20
"""How many images a fit needs at least."""

CLASSES = 1000
"""How many classes numbered labels may have."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images of one size.

    Attributes:
        pixels: The pixels, (n, channels, height, width), with 1 channel (grey) or 3 (red, green, blue).
        labels: The class of each image, (n,), or None.
        classes: Names of the labels 0, 1, ...; none without labels.
        levels: Number of values of a pixel, which are 0 to ``levels - 1``.
        names: Names of the files, where each image has its own; else none.

    Raises:
        ValueError: Arrays of another shape or type, or names whose number does not fit.

    Example:
        >>> images = Images(np.zeros((3, 1, 8, 8), np.uint8), np.array([0, 1, 1]), ("cat", "dog"))
        >>> len(images), images.size, images.take(np.array([2])).labels
        (3, (8, 8), array([1]))
    """

    pixels: Pixels
    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    levels: int = 256
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] not in (1, 3):
            raise ValueError(
                "pixels: expected unsigned bytes of shape (n, 1 or 3, height, width), "
                f"got {self.pixels.dtype} of shape {self.pixels.shape}"
            )
        if self.labels is not None and (self.labels.dtype != np.int64 or self.labels.shape != (len(self),)):
            raise ValueError(
                f"labels: expected 64-bit integers of shape ({len(self)},), "
                f"got {self.labels.dtype} of shape {self.labels.shape}"
            )
        if self.names and len(self.names) != len(self):
            raise ValueError(f"names: expected {len(self)}, one for each image, got {len(self.names)}")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for coloured ones."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> Size:
        """Height and width."""
        return int(self.pixels.shape[2]), int(self.pixels.shape[3])

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Images:
        """The images of these rows, in this order, with all that belongs to them."""
        labels = None if self.labels is None else self.labels[rows]
        names = tuple(self.names[i] for i in np.arange(len(self))[rows]) if self.names else ()
        return Images(self.pixels[rows], labels, self.classes, self.levels, names)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images to fit to, and those that are kept for the test where a set has them.

    Attributes:
        train: The images to fit to.
        test: The official test images, of the same size, channels, levels and classes; or None.
        name: Name of the set, for records and messages.
    """

    train: Images
    test: Images | None
    name: str


def check_enough(images: Images, source: str | Path) -> None:
    """Checks that there are images enough to fit a flow to.

    Args:
        images: The images.
        source: Where they come from, for the message.

    Raises:
        DataError: Fewer than 20.

    Example:
        >>> check_enough(Images(np.zeros((1, 1, 8, 8), np.uint8)), "a.png")
        Traceback (most recent call last):
        pushforward.errors.DataError: a.png: one image, and at least 20 are needed to fit. Give a folder of ...
    """
    if len(images) < ENOUGH:
        count = "one image" if len(images) == 1 else f"{len(images)} images"
        raise DataError(
            f"{count}, and at least {ENOUGH} are needed to fit",
            source=source,
            remedy="Give a folder of images, or an array of them.",
        )


def image_set(name: str, source: Path, train: Images, test: Images | None) -> ImageSet:
    """Train and test images as one set, once they are seen to be of one kind.

    Numbered classes are those of both parts. Labels of the test images are left out when the others have none.

    Raises:
        DataError: Another size or number of channels, or train images with labels and test images without.
    """
    if test is None:
        return ImageSet(train, None, name)
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError(
            f"the train images are {described(train.channels, train.size)}, "
            f"the test images {described(test.channels, test.size)}",
            source=source,
            remedy="Bring them to one size and one number of channels.",
        )
    if train.labels is not None and test.labels is None:
        raise DataError(
            "the train images have labels, the test images have none",
            source=source,
            remedy="Add the labels of the test images, or give the train images alone.",
        )
    labels = None if train.labels is None else test.labels
    classes = () if labels is None else max(train.classes, test.classes, key=len)
    return ImageSet(
        Images(train.pixels, train.labels, classes, train.levels, train.names),
        Images(test.pixels, labels, classes, test.levels, test.names),
        name,
    )


def described(channels: int, size: Size) -> str:
    """Words for a kind of image: height, width and colour.

    Example:
        >>> described(1, (28, 20))
        '28x20 grey'
    """
    return f"{size[0]}x{size[1]} {'grey' if channels == 1 else 'coloured'}"


def resized(images: Images, size: Size | None) -> Images:
    """The images at another height and width, by Lanczos' filter, which averages where it makes them smaller."""
    if size is None or size == images.size:
        return images
    pixels = np.empty((len(images), images.channels, *size), np.uint8)
    for old, new in zip(images.pixels, pixels, strict=True):
        new[:] = brought_to(old, size)
    # The filter overshoots at edges, past a white that is less than 255 too.
    np.minimum(pixels, images.levels - 1, out=pixels)
    return Images(pixels, images.labels, images.classes, images.levels, images.names)


def brought_to(image: Pixels, size: Size | None) -> Pixels:
    """One image (channels, height, width) at another height and width, as `resized`."""
    if size is None or image.shape[1:] == size:
        return image
    from PIL import Image

    picture = Image.fromarray(channels_last(image))
    return channels_first(np.asarray(picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)))


def channels_last(image: Pixels) -> Pixels:
    """One image (channels, height, width) as (height, width) or (height, width, channels), as Pillow has it."""
    return np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def channels_first(array: Pixels) -> Pixels:
    """Pixels (height, width) or (height, width, channels) as (channels, height, width).

    Example:
        >>> channels_first(np.zeros((4, 5, 3), np.uint8)).shape
        (3, 4, 5)
    """
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
