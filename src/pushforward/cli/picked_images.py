"""Pictures that an argument names, what a flow takes of them, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ArtifactError, DataError
from .files import NUMBERED
from .image_files import images_for
from .options import UsageError, closest
from .text import listing

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ..artifact import FittedFlow
    from ..data import Images
    from ..training.points import Points


@dataclass(frozen=True, slots=True)
class Picked:
    """Whole pictures of the size of a flow.

    Attributes:
        pixels: ``(n, channels, height, width)``, from 0 to ``levels - 1``.
        names: What to call each.
    """

    pixels: Tensor
    names: tuple[str, ...]


def pick(fitted: FittedFlow, arguments: Sequence[str]) -> Picked:
    """Read the pictures that arguments name.

    Each is a picture, or images of a set, folder or file by their numbers, counted from 1: ``mnist:12``,
    ``folder:1-8``. Of a set with official test images these are meant. A file whose name itself ends so comes first.

    Raises:
        DataError: A picture that cannot be read or does not fit, or a number that no image has.
        UsageError: A set without a number, or numbers in the wrong order.
    """
    pixels: list[NDArray[np.uint8]] = []
    names: list[str] = []
    sets: dict[str, Images] = {}
    for argument in arguments:
        match = None if Path(argument).exists() else NUMBERED.fullmatch(argument)
        if match is None:
            pixels.append(_picture(fitted, Path(argument))[None])
            names.append(Path(argument).name)
            continue
        source, first = match[1], int(match[2])
        last = first if match[3] is None else int(match[3])
        if source not in sets:
            sets[source] = images_for(fitted, Path(source))
        images = sets[source]
        if not 1 <= first <= last:
            raise UsageError(
                f"{argument}: expected a number from 1, or two in order such as {source}:1-8, "
                f"got {argument[len(source) + 1 :]}"
            )
        if last > len(images):
            raise DataError(
                f"there is no image {max(first, last):,}, for there are {len(images):,}",
                source=source,
                remedy=f"Give a number from 1 to {len(images)}.",
            )
        chosen = slice(first - 1, last)
        pixels.append(images.pixels[chosen])
        names += images.names[chosen] or (f"{Path(source).name}:{i}" for i in range(first, last + 1))
    return Picked(torch.from_numpy(np.concatenate(pixels)), tuple(names))


def name_of(images: Images, place: int, source: Path, number: int) -> str:
    """Return what to call an image: its file, or its number as ``pick`` reads it."""
    return images.names[place] if images.names else f"{source.name}:{number}"


def points_for(fitted: FittedFlow, images: Images, source: Path) -> Points:
    """Return what a flow takes of images: the part that it models, and what it is given.

    Raises:
        DataError: A flow that is given the class, and images without labels or with a class that it does not know.
    """
    from ..data import Images
    from ..training.images import points_of

    schema = fitted.images
    if schema.given == "class":
        if images.labels is None:
            raise DataError(
                "the images have no labels, and the flow is given the class",
                source=source,
                remedy="Sort them into a folder for each class, or give --labels FILE.",
            )
        strange = [name for name in images.classes if name not in schema.classes]
        if strange:
            raise DataError(
                f"the flow does not know the class {strange[0]!r}, it was fitted to {listing(schema.classes)}",
                source=source,
                remedy="Give images of these classes.",
            )
        # A part of the classes is numbered otherwise.
        numbers = np.array([schema.classes.index(name) for name in images.classes], np.int64)
        images = Images(images.pixels, numbers[images.labels], schema.classes, images.levels, images.names)
    try:
        return points_of(images, schema)
    except DataError as error:
        raise DataError(error.problem, source=source, remedy=error.remedy) from error


def class_number(fitted: FittedFlow, model: Path, name: str | None) -> int | None:
    """Return the number of the class that ``--class`` names, for a flow that is given one.

    Raises:
        UsageError: A class for a flow without one, none for one with, or one that it does not know.
    """
    schema = fitted.images
    if schema.given != "class":
        if name is not None:
            raise UsageError(f"--class: {model} is not given the class, so there is nothing for it to do")
        return None
    if name is None:
        raise UsageError(f"{model}: is given the class. Name one with --class: {listing(schema.classes)}")
    if name not in schema.classes:
        raise UsageError(
            f"--class: {model} does not know {name!r}, but {listing(schema.classes)}.{closest(name, schema.classes)}"
        )
    return schema.classes.index(name)


def shown(pixels: Tensor, levels: int) -> NDArray[np.uint8]:
    """Return pixels from 0 to ``levels - 1`` as bytes from black to white; what is not finite is black."""
    share = pixels.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0) / (levels - 1)
    return np.asarray((255.0 * share.clamp(0.0, 1.0)).round().to(torch.uint8).numpy())


def _picture(fitted: FittedFlow, path: Path) -> NDArray[np.uint8]:
    from ..data import holds_images, read_picture
    from ..data.labels import PICTURE_SUFFIXES

    if path.suffix.lower() not in PICTURE_SUFFIXES and holds_images(path):
        raise UsageError(f"{path}: holds many images. Say which one, such as {path}:1")
    return read_picture(path, fitted.images)


def check_finite(model: Path, x: Tensor, what: str) -> None:
    """Check that pictures of a flow are some: the inverse of a badly trained model can overflow."""
    if not bool(x.isfinite().all()):
        raise ArtifactError(
            f"{model}: {what} are not finite, so its inverse overflows. pushforward reconstruct {model} IMAGES shows "
            "where; fit again, perhaps with a smaller learning rate."
        )
