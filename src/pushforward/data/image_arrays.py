"""Images in NumPy files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import _mapped
from .damage import readable
from .images import Images, ImageSet, Pixels, image_set
from .labels import numbered, read_labels
from .npy import ArrayHeader, array_headers, check_numeric

IMAGE_KEYS = ("images", "x_train", "X")
LABEL_KEYS = ("labels", "y_train", "y")
TEST_KEYS = ("x_test", "y_test")

_ROWS = 1024
_SHAPES = "(n, height, width), (n, height, width, 1 or 3) or (n, 1 or 3, height, width)"


def image_key(headers: Mapping[str, ArrayHeader]) -> str | None:
    """Which of the arrays holds the images: that of a known name, or the only one with 3 or 4 axes.

    Example:
        >>> byte = np.dtype(np.uint8)
        >>> image_key({"photos": ArrayHeader((10, 8, 8), byte), "age": ArrayHeader((10,), byte)})
        'photos'
    """
    pictures = [key for key, header in headers.items() if len(header.shape) in (3, 4)]
    named = next((key for key in IMAGE_KEYS if key in pictures), None)
    if named is not None:
        return named
    return pictures[0] if len(pictures) == 1 and pictures[0] != TEST_KEYS[0] else None


def read_arrays(path: Path, labels: Path | None) -> ImageSet:
    """Images of a ``.npy`` or ``.npz`` file; pickled objects are never loaded.

    Args:
        path: The file. In an archive the images are ``images``, ``x_train`` or ``X``, or the only array with 3 or 4
            axes, the labels ``labels``, ``y_train`` or ``y``, and the test images ``x_test`` and ``y_test``.
        labels: A file of labels for these images; those in an archive, and its test images, are then not taken.

    Raises:
        DataError: No array, or no single one, with images; values that are no pixels; labels that do not fit.
    """
    headers = array_headers(path)
    with readable(path):
        if path.suffix.lower() != ".npz":
            check_numeric(headers[""].dtype, "the array", path)
            return ImageSet(_labelled(to_pixels(_mapped(path), path), labels), None, path.name)
        key = image_key(headers)
        if key is None:
            held = ", ".join(f"{name!r} {header.shape}" for name, header in headers.items()) or "nothing"
            raise DataError(
                f"which array holds the images? It holds {held}",
                source=path,
                remedy=f"Save them under the key 'images', with shape {_SHAPES}.",
            )
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:

            def array(key: str) -> NDArray[np.generic]:
                check_numeric(headers[key].dtype, f"array {key!r}", path)
                return archive[key]  # type: ignore[no-any-return]

            def part(key: str, label_keys: Sequence[str]) -> Images:
                pixels = to_pixels(array(key), path, key)
                name = next((name for name in label_keys if name in headers), None)
                if name is None:
                    return Images(pixels)
                return Images(pixels, *numbered(array(name), len(pixels), f"{path}, array {name!r}"))

            if labels is not None:
                return ImageSet(_labelled(to_pixels(array(key), path, key), labels), None, path.name)
            train = part(key, LABEL_KEYS)
            test = part(TEST_KEYS[0], TEST_KEYS[1:]) if TEST_KEYS[0] in headers else None
        return image_set(path.name, path, train, test)


def to_pixels(array: NDArray[np.generic], source: Path, key: str = "") -> Pixels:
    """An array of images as bytes, (n, channels, height, width).

    Args:
        array: (n, height, width), or with an axis of 1 or 3 channels behind these or before them; whole numbers 0 to
            255 of any type.
        source: The file, for messages.
        key: Name of the array in it.

    Raises:
        DataError: Another shape, no images, or values that are no pixels.

    Example:
        >>> to_pixels(np.full((2, 8, 9, 3), 255.0), Path("x.npy")).shape
        (2, 3, 8, 9)
    """
    label = f"array {key!r}" if key else "the array"
    check_numeric(array.dtype, label, source)
    if array.dtype.kind == "b":
        raise DataError(
            f"{label} holds truth values, expected whole numbers 0 to 255",
            source=source,
            remedy="Save it as unsigned bytes, multiplied by 255.",
        )
    last, first = (array.ndim == 4 and array.shape[axis] in (1, 3) for axis in (3, 1))
    if array.ndim not in (3, 4) or (array.ndim == 4 and not (last or first)):
        raise DataError(
            f"{label} has shape {array.shape}, expected {_SHAPES}",
            source=source,
            remedy="Reshape it, or transpose it.",
        )
    if 0 in array.shape:
        raise DataError(
            f"{label} is empty, with shape {array.shape}", source=source, remedy="Give some images."
        )
    if last and first:
        raise DataError(
            f"{label} has shape {array.shape}, in which the channels may stand second or last",
            source=source,
            remedy="Give images whose height and width are other than 1 and 3.",
        )
    if array.ndim == 3:
        array = array[:, None]
    elif last:
        array = array.transpose(0, 3, 1, 2)
    pixels = np.empty(array.shape, np.uint8)
    fraction = array.dtype.kind == "f"
    largest = 0.0
    for start in range(0, len(array), _ROWS):
        block = np.asarray(array[start : start + _ROWS])
        low, high = float(block.min()), float(block.max())
        if not (low >= 0 and high <= 255):
            raise DataError(
                f"{label} holds the value {low if not low >= 0 else high:.6g}, expected whole numbers 0 to 255",
                source=source,
                remedy="Scale its values to 0 to 255, and round them.",
            )
        pixels[start : start + _ROWS] = block
        if fraction and (block != pixels[start : start + _ROWS]).any():
            small = float(np.max(array)) <= 1
            raise DataError(
                f"{label} holds {'fractions between 0 and 1' if small else 'numbers that are not whole'}, "
                "expected whole numbers 0 to 255",
                source=source,
                remedy="Multiply it by 255 and round." if small else "Round it.",
            )
        largest = max(largest, high)
    if fraction and largest <= 1:
        raise DataError(
            f"{label} holds floats of 0 and 1 only, expected whole numbers 0 to 255",
            source=source,
            remedy="Multiply it by 255 and round.",
        )
    return pixels


def _labelled(pixels: Pixels, labels: Path | None) -> Images:
    return Images(pixels) if labels is None else Images(pixels, *read_labels(labels, len(pixels)))
