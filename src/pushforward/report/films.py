"""Films as GIF or MP4, and what the name of one may end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data import atomic_path
from ..errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

FILMS = (".gif", ".mp4")
DPI = 100
_HELD, _FIRST = 1.2, 0.4  # seconds that the last and the first frame stay
_SHORTEST = 0.02  # seconds of a frame of a GIF; viewers slow shorter ones down
_COLOURS = 128

SUFFIXES = (".png", *FILMS)
"""What the name of a picture or film may end in."""


@dataclass(frozen=True, slots=True)
class Film:
    """A figure with a number of frames.

    Attributes:
        figure: The figure.
        frames: How many frames it has.
        show: Changes the figure to a frame.
    """

    figure: Figure
    frames: int
    show: Callable[[int], None]


def check_film(path: Path, frames: int, seconds: float) -> None:
    """Check that a film can be made, before the work.

    Raises:
        OutputError: Another suffix, or no ``ffmpeg`` for ``.mp4``.
        ValueError: More frames in a second than there can be.
    """
    suffix = path.suffix.lower()
    if suffix not in FILMS:
        raise OutputError(f"{path}: a film is a GIF or an MP4. End the name in {' or '.join(FILMS)}.")
    if suffix == ".mp4":
        from matplotlib.animation import FFMpegWriter

        if not FFMpegWriter.isAvailable():
            raise OutputError(
                f"{path}: MP4 needs the program ffmpeg, which is not here. Install it, or end the name in .gif."
            )
    if seconds / frames < _SHORTEST:
        raise ValueError(
            f"a film has at most {1 / _SHORTEST:.0f} frames in a second, got {frames} in {seconds:g} seconds"
        )


def write_film(path: Path, film: Film, *, seconds: float) -> None:
    """Write a film, in one step or not at all; its ends are held a little.

    Args:
        path: Where to; the suffix, ``.gif`` or ``.mp4``, tells the format.
        film: What to show.
        seconds: How long it runs from the first frame to the last.

    Raises:
        OutputError: As ``check_film``, or a place that cannot be written.
        ValueError: As ``check_film``.
    """
    check_film(path, film.frames, seconds)
    with atomic_path(path) as temporary:
        (_write_gif if path.suffix.lower() == ".gif" else _write_mp4)(temporary, film, seconds)


def _write_gif(path: Path, film: Film, seconds: float) -> None:
    from PIL import Image

    frames = [_picture(film, i) for i in range(film.frames)]
    # One palette for all, of frames beside each other, so that colours do not flicker.
    some = [frames[i] for i in sorted({0, len(frames) // 2, 3 * len(frames) // 4, len(frames) - 1})]
    sheet = Image.fromarray(np.concatenate([np.asarray(frame) for frame in some]))
    colours = sheet.quantize(_COLOURS, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colours[: 3 * _COLOURS], 255, 255, 255])
    indexed = [_indexed(frame, palette) for frame in frames]
    ends = [round(100 * seconds * i / film.frames) for i in range(film.frames + 1)]
    lengths = [10 * (b - a) for a, b in pairwise(ends)]
    lengths[0] += round(1000 * _FIRST)
    lengths[-1] += round(1000 * _HELD)
    indexed[0].save(
        path, format="GIF", save_all=True, append_images=indexed[1:], duration=lengths, loop=0, optimize=False
    )


def _indexed(frame: Image, palette: Image) -> Image:
    """Return a frame in the colours of a palette, the last of which is white."""
    from PIL import Image

    places = np.array(frame.quantize(palette=palette, dither=Image.Dither.NONE))
    # Pillow takes a colour near to it, which for paper is seen.
    places[(np.asarray(frame) == 255).all(-1)] = _COLOURS
    result = Image.fromarray(places)
    result.putpalette(palette.getpalette() or [])
    return result


def _picture(film: Film, frame: int) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    film.show(frame)
    film.figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(film.figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels[..., :3].copy())


def _write_mp4(path: Path, film: Film, seconds: float) -> None:
    from matplotlib.animation import FFMpegWriter

    rate = film.frames / seconds
    writer = FFMpegWriter(
        fps=rate,  # type: ignore[arg-type]
        codec="h264",
        extra_args=["-crf", "18", "-fflags", "+bitexact"],
    )
    last = film.frames - 1
    shown = [0] * round(_FIRST * rate) + list(range(film.frames)) + [last] * round(_HELD * rate)
    with writer.saving(film.figure, str(path), 2 * DPI):
        for frame in shown:
            film.show(frame)
            writer.grab_frame(facecolor=film.figure.get_facecolor())
