"""Sheets of pictures: rows and columns of images with words above and beside them, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import atomic_path
from ..errors import OutputError
from .figures import LIGHT, Theme, new_figure

Sheet = NDArray[np.uint8]

_SHOWN = 84  # pixels of a small image, which is 3 times the size of a handwritten digit
_GAP, _DPI = 4, 100
_TEXT, _LETTER = 8.5, 7.5  # points, and how many pixels a letter of that size is wide, or less


def write_sheet(
    path: str | Path,
    pictures: Sheet,
    *,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    scale: int | None = None,
    theme: Theme = LIGHT,
) -> None:
    """Write rows of pictures as one PNG file, atomically.

    Args:
        path: The file, whose name ends in ``.png``.
        pictures: The pictures, (rows, columns, 1 or 3, height, width), from 0 (black) to 255.
        columns: What stands above each column; nothing by default.
        rows: What stands before each row; nothing by default.
        scale: How many times each picture is enlarged; None: small ones so that they can be seen.
        theme: Colours.

    Raises:
        OutputError: Another suffix, or a file that cannot be written.
        ValueError: Pictures of another shape, or words for another number of rows or columns.
    """
    path = Path(path)
    if (
        pictures.dtype != np.uint8
        or pictures.ndim != 5
        or pictures.shape[2] not in (1, 3)
        or 0 in pictures.shape
    ):
        raise ValueError(
            "pictures: expected unsigned bytes of shape (rows, columns, 1 or 3, height, width), "
            f"got {pictures.dtype} of shape {pictures.shape}"
        )
    for name, words, count in (("columns", columns, pictures.shape[1]), ("rows", rows, pictures.shape[0])):
        if words and len(words) != count:
            raise ValueError(f"{name}: expected words for {count}, got {len(words)}")
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path}: a sheet of pictures is written as PNG. End the name in .png.")
    scale = max(1, round(_SHOWN / max(pictures.shape[3:]))) if scale is None else scale
    sheet, tall, wide = _laid_out(pictures, scale)
    left = round(_LETTER * max(map(len, rows))) + 2 * _GAP if rows else 0
    top = 4 * _GAP if columns else 0
    width, height = left + sheet.shape[1], top + sheet.shape[0]
    figure = new_figure(width / _DPI, height / _DPI, theme)
    figure.figimage(sheet, left, 0, origin="upper")
    for i, words in enumerate(columns):
        at = (left + _GAP + i * (wide + _GAP) + wide / 2) / width
        figure.text(at, 1 - top / height, words, fontsize=_TEXT, color=theme.ink, ha="center", va="bottom")
    for i, words in enumerate(rows):
        at = 1 - (top + _GAP + i * (tall + _GAP) + tall / 2) / height
        figure.text(
            (left - _GAP) / width, at, words, fontsize=_TEXT, color=theme.ink, ha="right", va="center"
        )
    with atomic_path(path) as temporary:
        figure.savefig(
            temporary, format="png", dpi=_DPI, facecolor=figure.get_facecolor(), metadata={"Software": None}
        )


def _laid_out(pictures: Sheet, scale: int) -> tuple[Sheet, int, int]:
    """Return one coloured picture of all, with white between, and height and width of each in it."""
    large = pictures.repeat(scale, axis=3).repeat(scale, axis=4)
    rows, columns, _, tall, wide = large.shape
    sheet = np.full((rows * (tall + _GAP) + _GAP, columns * (wide + _GAP) + _GAP, 3), 255, np.uint8)
    for i in range(rows):
        for j in range(columns):
            top, left = _GAP + i * (tall + _GAP), _GAP + j * (wide + _GAP)
            # Grey is one channel for three.
            sheet[top : top + tall, left : left + wide] = large[i, j].transpose(1, 2, 0)
    return sheet, tall, wide
