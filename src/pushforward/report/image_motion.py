"""How a flow carries noise to images: samples at several times, as a sheet or a film."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtifactError
from .figures import LIGHT, Theme, new_figure
from .films import DPI, Film, write_film
from .motion import frame_times
from .picture_sheets import write_sheet

if TYPE_CHECKING:
    from ..artifact import FittedFlow

Pixels = NDArray[np.uint8]

_PICTURE = 84  # pixels of a small image in a film


def follow_images(
    fitted: FittedFlow,
    *,
    count: int = 25,
    frames: int = 60,
    classes: Sequence[int] = (),
    seed: int = 0,
    told: Callable[[str], None] = lambda text: None,
) -> tuple[Pixels, tuple[str, ...]]:
    """Follow pictures from base to data.

    Args:
        fitted: A flow of whole images, whose layers keep their shape.
        count: How many pictures.
        frames: How many times, as of ``follow_table``.
        classes: The class of each picture, for a flow that is given it.
        seed: Seed of the pictures.
        told: Is told how far it is.

    Returns:
        The pictures ``(frames, count, channels, height, width)``, from 0 (black) to 255, and a title for each frame.

    Raises:
        ArtifactError: Pictures that are not finite.
        ValueError: Fewer than 2 frames, or layers that change the shape of points.
    """
    import torch

    from ..evaluate.trajectories import follow

    flow, schema = fitted.flow, fitted.images
    times, _, titles = frame_times(flow, frames)
    context = None
    if classes:
        context = torch.nn.functional.one_hot(torch.tensor(list(classes)), len(schema.classes)).float()
    way: list[Pixels] = []
    generator = torch.Generator().manual_seed(seed)
    start = count if context is None else 1
    for x in follow(flow, start, context, times=times.tolist(), generator=generator):
        if not bool(x.isfinite().all()):
            raise ArtifactError(
                f"pictures at {titles[len(way)]} are not finite, so the inverse of the flow overflows. "
                "Fit again, perhaps with a smaller learning rate."
            )
        levels = x.reshape(count, *flow.event_shape).floor().clamp(0, schema.levels - 1)
        way.append((255.0 * levels / (schema.levels - 1)).round().to(torch.uint8).numpy())
        told(f"Pictures: {len(way)} of {len(times)}")
    return np.stack(way), titles


def write_images(
    pictures: Pixels,
    titles: Sequence[str],
    path: Path,
    *,
    rows: Sequence[str] = (),
    seconds: float = 4.0,
    theme: Theme = LIGHT,
) -> None:
    """Write pictures over time: as PNG a sheet with a row for each, as GIF or MP4 all beside each other.

    Args:
        pictures: As of ``follow_images``.
        titles: Of each frame.
        path: Where to.
        rows: What each picture is called in a sheet.
        seconds: As of ``write_motion``.
        theme: Colours.

    Raises:
        OutputError: As ``write_motion``.
    """
    if path.suffix.lower() == ".png":
        write_sheet(path, pictures.swapaxes(0, 1), columns=titles, rows=rows, theme=theme)
        return
    columns = ceil(sqrt(pictures.shape[1]))
    sheets = [_tiled(frame, columns) for frame in pictures]
    tall, wide = sheets[0].shape[:2]
    scale = max(1, round(_PICTURE / max(pictures.shape[3:])))
    width, height = scale * wide / DPI, scale * tall / DPI + 0.3
    figure = new_figure(width, height, theme)
    ax = figure.add_axes((0.0, 0.0, 1.0, (height - 0.3) / height))
    ax.set_axis_off()
    image = ax.imshow(sheets[0], interpolation="nearest", aspect="auto")
    title = figure.text(0.06 / width, 1 - 0.15 / height, "", fontsize=10, color=theme.ink, va="center")

    def show(frame: int) -> None:
        image.set_data(sheets[frame])
        title.set_text(titles[frame])

    write_film(path, Film(figure, len(sheets), show), seconds=seconds)


def _tiled(pictures: Pixels, columns: int) -> Pixels:
    """Return pictures as one in colours, row by row, with white between."""
    n, _, tall, wide = pictures.shape
    sheet = np.full((ceil(n / columns) * (tall + 1) + 1, columns * (wide + 1) + 1, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = 1 + i // columns * (tall + 1), 1 + i % columns * (wide + 1)
        sheet[top : top + tall, left : left + wide] = picture.transpose(1, 2, 0)
    return sheet
