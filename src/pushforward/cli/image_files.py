"""Saved flows of images, and the images that they are used on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import ImageSchema, TableSchema
from ..errors import ArtifactError, DataError
from .files import load_model

if TYPE_CHECKING:
    from ..artifact import FittedFlow
    from ..data import Images


def load_table_model(path: Path) -> FittedFlow:
    """Load the saved flow of a table.

    Raises:
        ArtifactError: It is that of images, or as of ``load_model``.
    """
    fitted = load_model(path)
    if not isinstance(fitted.schema, TableSchema):
        raise ArtifactError(
            f"{path}: is a flow of images, and this needs that of a table. pushforward info {path} shows what it is."
        )
    return fitted


def load_image_model(path: Path) -> FittedFlow:
    """Load a saved flow of images.

    Raises:
        ArtifactError: It is that of a table, or as of ``load_model``.
    """
    fitted = load_model(path)
    if not isinstance(fitted.schema, ImageSchema):
        raise ArtifactError(
            f"{path}: is the flow of a table, and this needs one of images. pushforward info {path} shows what it is."
        )
    return fitted


def images_for(fitted: FittedFlow, path: Path, *, labels: Path | None = None) -> Images:
    """Read images that a flow can be used on; of a set with official test images, these.

    Raises:
        DataError: They cannot be read, or have another size, another number of channels, or more levels.
    """
    from ..data import read_images

    schema, found = fitted.images, read_images(path, labels=labels)
    images = found.train if found.test is None else found.test
    if (images.channels, *images.size) != schema.image_shape:
        colours = {1: "grey", 3: "coloured"}
        raise DataError(
            f"the images are {colours[images.channels]}, {images.size[0]} x {images.size[1]} pixels, and the flow was "
            f"fitted to {colours[schema.channels]} ones of {schema.height} x {schema.width}",
            source=path,
            remedy="Give images of that kind.",
        )
    if images.pixels.size and int(images.pixels.max()) >= schema.levels:
        raise DataError(
            f"a pixel has the value {int(images.pixels.max())}, and the flow was fitted to values 0 to "
            f"{schema.levels - 1}",
            source=path,
            remedy="Give images with these levels.",
        )
    return images
