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

    Where the flow's images have fewer than 256 levels, picture files hold them spread over 0 to 255, as they are
    written; arrays and IDX files hold the levels themselves.

    Raises:
        DataError: They cannot be read, or have another size, another number of channels, or other levels.
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
    if images.names and images.levels == 256 and schema.levels < 256:
        return _gathered(images, schema.levels, path)
    if images.pixels.size and int(images.pixels.max()) >= schema.levels:
        raise DataError(
            f"a pixel has the value {int(images.pixels.max())}, and the flow was fitted to values 0 to "
            f"{schema.levels - 1}",
            source=path,
            remedy="Give images with these levels.",
        )
    return images


def _gathered(images: Images, levels: int, path: Path) -> Images:
    """Return images of picture files with the levels that are spread over 0 to 255 in these.

    Raises:
        DataError: A value that is none of them.
    """
    import numpy as np

    from ..data import Images
    from ..data.pictures import spread

    none = 255  # no level, for there are fewer
    table = np.full(256, none, np.uint8)
    table[spread(np.arange(levels, dtype=np.uint8), levels)] = np.arange(levels)
    pixels = table[images.pixels]
    wrong = pixels == none
    if wrong.any():
        first = int(wrong.any((1, 2, 3)).argmax())
        raise DataError(
            f"{images.names[first]} holds the value {images.pixels[first][wrong[first]][0]}, which is none of the "
            f"{levels} between 0 and 255",
            source=path,
            remedy=f"Round its values to multiples of 255/{levels - 1}.",
        )
    return Images(pixels, images.labels, images.classes, levels, images.names)
