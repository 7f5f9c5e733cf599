"""Picture files (PNG, JPEG, ...): checked on the way in, whole or absent on the way out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..configs.images import ImageSchema
from ..errors import DataError, OutputError
from .images import Pixels, channels_first, channels_last, described
from .labels import PICTURE_SUFFIXES
from .names import suggestion
from .writers import as_output_error, atomic_path

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_ALPHA = ("LA", "RGBA", "PA")
_SHOWN = 84  # pixels of a small image in a grid, which is 3 times the size of a handwritten digit


def decode(path: Path) -> Pixels:
    """The pixels of a picture file: grey or coloured, eight bits, as it is to be looked at.

    Of several frames the first is taken. Palettes become the colours that they hold, or grey if these are all grey;
    bilevel pictures become grey; transparency that hides nothing is dropped; and a picture that says how it is to be
    turned is turned.

    Args:
        path: The file: PNG, JPEG, BMP, GIF or WebP.

    Returns:
        The pixels, (1 or 3, height, width).

    Raises:
        DataError: The file cannot be read, is cut short or damaged, is too large, is transparent somewhere, has more
            than eight bits, or other colours than grey or red, green and blue.
    """
    from PIL import Image, ImageOps

    with _decoding(path), path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
        mode = picture.mode
        deep = mode[0] in "IF" or any(";16B" in str(tile[3]) for tile in picture.tile)
        picture.load()
        turned = ImageOps.exif_transpose(picture)
        if deep:
            raise DataError(
                "has more than eight bits for each pixel",
                source=path,
                remedy="Convert it to eight bits first.",
            )
        if mode in _ALPHA or "transparency" in turned.info:
            if np.asarray(turned.convert("RGBA"))[..., 3].min() < 255:
                raise DataError(
                    "is transparent in part", source=path, remedy="Flatten it onto a background first."
                )
            turned.info.pop("transparency", None)
        if mode in ("1", "L", "LA"):
            return channels_first(np.array(turned.convert("L")))
        if mode in ("P", "PA", "RGB", "RGBA"):
            colours = np.array(turned.convert("RGB"))
            # Formats without grey, like GIF, hold grey as a palette; three equal channels would have no density.
            grey = mode in ("P", "PA") and (colours == colours[..., :1]).all()
            return channels_first(np.ascontiguousarray(colours[..., 0]) if grey else colours)
        raise DataError(
            f"has the colours {mode}, expected grey or red, green and blue",
            source=path,
            remedy="Convert it to RGB first.",
        )


def read_picture(path: str | Path, schema: ImageSchema) -> Pixels:
    """Reads one picture as an image of a flow.

    Where the flow's images have fewer than 256 levels, files hold them spread over 0 to 255, as they are written.

    Args:
        path: The file: PNG, JPEG, BMP, GIF or WebP.
        schema: What images have to be.

    Returns:
        The image, (channels, height, width), with values below ``schema.levels``.

    Raises:
        DataError: No such file, a file that cannot be used (`decode`), or another size, colour or values.

    Example:
        >>> import tempfile
        >>> schema = ImageSchema(height=8, width=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path] = write_pictures(np.zeros((1, 1, 8, 9), np.uint8), folder)
        ...     read_picture(path, schema).shape
        (1, 8, 9)
    """
    path = Path(path)
    check_picture(path)
    pixels = decode(path)
    size = (int(pixels.shape[1]), int(pixels.shape[2]))
    if pixels.shape != schema.image_shape:
        wanted = (schema.height, schema.width)
        remedies = []
        if size != wanted:
            remedies.append(f"Resize it to {wanted[0]}x{wanted[1]} (height x width)")
        if len(pixels) != schema.channels:
            remedies.append(
                f"{'C' if not remedies else 'c'}onvert it to {'grey' if schema.channels == 1 else 'RGB'}"
            )
        raise DataError(
            f"is {described(len(pixels), size)}, expected {described(schema.channels, wanted)}",
            source=path,
            remedy=f"{' and '.join(remedies)} first.",
        )
    if schema.levels == 256:
        return pixels
    levels: Pixels = np.rint(pixels * ((schema.levels - 1) / 255)).astype(np.uint8)
    wrong = spread(levels, schema.levels) != pixels
    if wrong.any():
        raise DataError(
            f"holds the value {pixels[wrong][0]}, which is none of the {schema.levels} between 0 and 255",
            source=path,
            remedy=f"Round its values to multiples of 255/{schema.levels - 1}.",
        )
    return levels


def check_picture(path: Path) -> None:
    """Checks that there is a file, of a name that a picture may have.

    Raises:
        DataError: No such file, a folder, or another suffix.
    """
    if path.is_dir():
        raise DataError("is a folder", source=path, remedy="Give the path of one picture.")
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("no such file", source=path, remedy=suggestion(path.name, beside))
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise DataError(
            f"cannot tell the kind of picture from the suffix {path.suffix!r}",
            source=path,
            remedy=f"Known are {', '.join(PICTURE_SUFFIXES)}.",
        )


def write_pictures(
    pixels: Pixels, folder: str | Path, *, names: Sequence[str] | None = None, levels: int = 256
) -> list[Path]:
    """Writes each image as a PNG file, atomically.

    Args:
        pixels: The images, (n, 1 or 3, height, width).
        folder: The folder, which is made if it is absent; files of the same names in it are replaced.
        names: Names of the files; None: ``1.png`` and so on, with zeros before, so that they sort.
        levels: Number of values of a pixel; they are spread over 0 (black) to 255 (white).

    Returns:
        The paths of the files.

    Raises:
        OutputError: The folder cannot be made, or a file not be written.
        ValueError: ``pixels`` or ``names`` are no such images or names.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_pictures(np.zeros((2, 3, 8, 8), np.uint8), folder)]
        ['1.png', '2.png']
    """
    _check_pixels(pixels)
    if names is None:
        digits = len(str(len(pixels)))
        names = [f"{i:0{digits}}.png" for i in range(1, len(pixels) + 1)]
    if len(names) != len(pixels) or len(set(names)) != len(names):
        raise ValueError(f"names: expected {len(pixels)}, each another one, got {len(names)}")
    folder = Path(folder)
    with as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    for image, path in zip(spread(pixels, levels), paths, strict=True):
        _save(image, path)
    return paths


def write_grid(
    pixels: Pixels,
    rows: int,
    columns: int,
    path: str | Path,
    *,
    gap: int = 2,
    scale: int | None = None,
    levels: int = 256,
) -> None:
    """Writes images side by side, row by row, as one PNG file, atomically.

    Args:
        pixels: The images, (n, 1 or 3, height, width), with n at most ``rows * columns``; what they leave is white.
        rows: Number of rows.
        columns: Number of columns.
        path: The file, whose name ends in ``.png``.
        gap: White pixels between images, and around them.
        scale: How many times each image is enlarged; None: small ones so that they can be seen, to about 84 pixels.
        levels: Number of values of a pixel; they are spread over 0 (black) to 255 (white).

    Raises:
        OutputError: Another suffix, or a file that cannot be written.
        ValueError: ``pixels`` are no such images, or too many; numbers that make no grid.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "grid.png"
        ...     write_grid(np.zeros((5, 1, 28, 28), np.uint8), 2, 3, path)
        ...     decode(path).shape
        (1, 174, 260)
    """
    _check_pixels(pixels)
    n, channels, height, width = pixels.shape
    if rows < 1 or columns < 1 or n > rows * columns:
        raise ValueError(f"rows, columns: expected a grid for {n} images, got {rows} x {columns}")
    if gap < 0 or (scale is not None and scale < 1):
        raise ValueError(f"gap, scale: expected at least 0 and 1, got {gap} and {scale}")
    if Path(path).suffix.lower() != ".png":
        raise OutputError(f"{path}: a grid is written as PNG. End the name in .png.")
    if scale is None:
        scale = max(1, round(_SHOWN / max(height, width)))
    tall, wide = height * scale + gap, width * scale + gap
    sheet = np.full((channels, rows * tall + gap, columns * wide + gap), 255, np.uint8)
    for i, image in enumerate(spread(pixels, levels)):
        top, left = i // columns * tall + gap, i % columns * wide + gap
        large = image.repeat(scale, axis=1).repeat(scale, axis=2)
        sheet[:, top : top + height * scale, left : left + width * scale] = large
    _save(sheet, Path(path))


def spread(pixels: Pixels, levels: int) -> Pixels:
    """Values 0 to ``levels - 1``, spread over 0 to 255.

    Raises:
        ValueError: ``levels`` outside 2..256, or values that are no levels.

    Example:
        >>> spread(np.array([0, 8, 16], np.uint8), 17)
        array([  0, 128, 255], dtype=uint8)
    """
    if not 2 <= levels <= 256:
        raise ValueError(f"levels: expected 2..256, got {levels}")
    if levels == 256:
        return pixels
    if pixels.size and pixels.max() >= levels:
        raise ValueError(f"pixels: expected values below {levels}, got {pixels.max()}")
    table: Pixels = np.rint(np.arange(levels) * (255 / (levels - 1))).astype(np.uint8)
    return table[pixels]


def _check_pixels(pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape[2:]:
        raise ValueError(
            "pixels: expected unsigned bytes of shape (n, 1 or 3, height, width), "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )


def _save(image: Pixels, path: Path) -> None:
    """Writes one image, (channels, height, width)."""
    from PIL import Image

    with atomic_path(path) as temporary, as_output_error(path):
        Image.fromarray(channels_last(image)).save(temporary, format="PNG")


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turns what Pillow raises over a bad file, which may be anything, into an error that names it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"is larger than {Image.MAX_IMAGE_PIXELS} pixels",
            source=path,
            remedy="Make it smaller, or cut it up.",
        ) from error
    except PermissionError as error:
        raise DataError("may not be read", source=path, remedy="Check its permissions.") from error
    except UnidentifiedImageError as error:
        raise DataError(
            "is no picture (PNG, JPEG, BMP, GIF or WebP), or damaged",
            source=path,
            remedy="Copy it again, or convert it.",
        ) from error
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise DataError(f"cut short or damaged ({reason})", source=path, remedy="Copy it again.") from error
