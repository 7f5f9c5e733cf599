"""Points on their way and their density, as a picture or a film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .corner import short
from .figures import LIGHT, Theme, cell_centres, cells, dress, new_figure, write_figure
from .films import Film, write_film
from .motion import BASE, Matrix, Motion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_LINES = 120
_TRAIL = 0.12  # of the time, behind each point of a film
_SHADES = "Blues"
_UNKNOWN = 0.4  # of grey, where the density is not known


def draw_still(motion: Motion, theme: Theme = LIGHT) -> Figure:
    """Return one picture: panels in the order of time, and the ways of points as thin lines."""
    if motion.points.shape[2] == 1:
        figure = _draw_over_time(motion, theme).figure
        figure.axes[0].set_title("From base to data", color=theme.ink, fontsize=11, loc="left")
        return figure
    figure = new_figure(12.6, 6.0, theme)
    figure.text(0.3 / 12.6, 5.7 / 6.0, "From base to data", color=theme.ink, fontsize=13, va="center")
    grid = cells(figure, (0.65, 0.95, 6.45, 4.3), 2, 3, gap=0.3)
    for place, frame in enumerate(motion.panels):
        ax = figure.add_subplot(grid[place // 3, place % 3])
        _Plane(ax, motion, theme, size=3.5, trails=False).show(frame)
        low, first = place >= 3, place % 3 == 0
        _dress_plane(ax, motion, theme, title=motion.titles[frame], x=low, y=first)
        ax.tick_params(labelbottom=low, labelleft=first, labelsize=7)
    ax = figure.add_subplot(cells(figure, (7.95, 0.95, 4.3, 4.3))[0])
    _draw_ways(ax, motion, theme)
    _dress_plane(ax, motion, theme, title="Ways of points")
    _add_notes(figure, motion.notes, theme, left=0.65)
    return figure


def write_motion(motion: Motion, path: Path, *, seconds: float = 4.0, theme: Theme = LIGHT) -> None:
    """Write a picture (``.png``) or a film (``.gif``, ``.mp4``), in one step or not at all.

    Args:
        motion: What to show.
        path: Where to.
        seconds: How long a film runs; then its end is held.
        theme: Colours.

    Raises:
        OutputError: Another suffix, a place that cannot be written, or no ``ffmpeg`` for ``.mp4``.
    """
    if path.suffix.lower() == ".png":
        write_figure(path, lambda: draw_still(motion, theme))
        return
    film = _draw_over_time(motion, theme) if motion.points.shape[2] == 1 else _draw_plane(motion, theme)
    write_film(path, film, seconds=seconds)


def _draw_plane(motion: Motion, theme: Theme) -> Film:
    """Return a film of two columns."""
    figure = new_figure(5.4, 5.8, theme)
    ax = figure.add_subplot(cells(figure, (0.8, 0.95, 4.4, 4.4))[0])
    plane = _Plane(ax, motion, theme, size=9.0, trails=True)
    _dress_plane(ax, motion, theme, title=motion.titles[0])
    _add_notes(figure, motion.notes, theme, left=0.25)

    def show(frame: int) -> None:
        plane.show(frame)
        ax.set_title(motion.titles[frame], color=theme.ink, fontsize=11, loc="left")

    return Film(figure, len(motion.times), show)


def _draw_over_time(motion: Motion, theme: Theme) -> Film:
    """Return a film of one column against time, whose last frame is the picture of all."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9.0, 5.0, theme)
    grid = figure.add_gridspec(
        1, 2, left=0.8 / 9, right=8.75 / 9, bottom=0.95 / 5, top=4.5 / 5, width_ratios=(3, 1), wspace=0.12
    )
    ax, side = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    times, ((low, high),) = motion.times, motion.box
    known = sorted(motion.densities)
    if known:
        # A column of shades for each density, in the middle of the time that it stands for.
        field = np.stack([motion.densities[i] / (_peak(motion.densities[i]) or 1.0) for i in known], 1)
        half = 0.5 / max(len(known) - 1, 1)
        ax.imshow(
            field,
            origin="lower",
            extent=(-half, 1 + half, low, high),
            cmap=_shades(theme),
            norm=_norm(),
            aspect="auto",
            interpolation="bilinear" if len(known) == len(times) else "nearest",
        )
    cover = Rectangle(
        (0.0, low), 1.0, high - low, color=theme.background, linewidth=0, zorder=1
    )  # what is to come
    ax.add_patch(cover)
    lines = LineCollection([], colors=theme.drawn, linewidths=0.5, alpha=0.5)
    ax.add_collection(lines)
    dots = ax.scatter([], [], s=8, c=theme.drawn, linewidths=0, alpha=0.8, zorder=3)
    name = short(motion.names[0], 30)
    ax.set(xlim=(0, 1), ylim=(low, high))
    dress(ax, theme, x="share of the layers" if motion.titles[0] == BASE else "t, from base to data", y=name)
    highest = max((_peak(d) for d in motion.densities.values()), default=1.0) or 1.0
    heights = cell_centres(low, high, len(motion.densities[known[0]]) if known else 1)
    if known:
        side.plot(
            motion.densities[known[0]], heights, color=theme.real, linewidth=1.2, label=motion.titles[0]
        )
    (curve,) = side.plot([], [], color=theme.drawn, linewidth=1.4, label=motion.titles[-1])
    edges = np.linspace(low, high, 31)
    side.set(ylim=(low, high), xlim=(0, 1.05 * highest))
    dress(side, theme, x="density")
    side.tick_params(labelleft=False)
    side.xaxis.set_major_locator(MaxNLocator(3))
    names = side.legend(fontsize=8, labelcolor=theme.ink, loc="upper right", frameon=False)
    _add_notes(figure, motion.notes, theme, left=0.8)

    def show(frame: int) -> None:
        t = times[frame]
        done = motion.points[: frame + 1, : _LINES // 2, 0]
        lines.set_segments([np.stack([times[: frame + 1], way], 1) for way in done.T] if frame else [])
        dots.set_offsets(np.stack([np.full(done.shape[1], t), done[-1]], 1))
        cover.set_x(t)
        names.get_texts()[-1].set_text(motion.titles[frame])
        density, strength = _shade(motion, frame)
        if density is not None:
            curve.set_data(density, heights)
            curve.set_alpha(strength)
        else:
            share = np.histogram(motion.points[frame, :, 0], edges, density=True)[0]
            curve.set_data(np.repeat(share, 2), np.repeat(edges, 2)[1:-1])
            side.set_xlim(0, max(side.get_xlim()[1] if frame else 0.0, 1.05 * share.max()))
        ax.set_title(motion.titles[frame], color=theme.ink, fontsize=11, loc="left")

    show(len(times) - 1)
    return Film(figure, len(times), show)


class _Plane:
    """Points and density of two columns on axes, frame by frame."""

    def __init__(self, ax: Axes, motion: Motion, theme: Theme, *, size: float, trails: bool) -> None:
        from matplotlib.collections import LineCollection

        self._motion = motion
        (x0, x1), (y0, y1) = motion.box
        self._image: AxesImage = ax.imshow(
            np.zeros((2, 2)),
            origin="lower",
            extent=(x0, x1, y0, y1),
            cmap=_shades(theme),
            norm=_norm(),
            aspect="auto",
            interpolation="bilinear",
        )
        self._trails: LineCollection | None = None
        if trails:
            self._trails = LineCollection([], colors=theme.drawn, linewidths=0.7, alpha=0.35)
            ax.add_collection(self._trails)
        self._dots: PathCollection = ax.scatter([], [], s=size, c=theme.drawn, alpha=0.75, linewidths=0)
        ax.set(xlim=(x0, x1), ylim=(y0, y1))

    def show(self, frame: int) -> None:
        """Move all to a frame."""
        motion = self._motion
        density, strength = _shade(motion, frame)
        self._image.set_visible(density is not None and strength > 0)
        if density is not None:
            self._image.set_data(density / (_peak(density) or 1.0))
            self._image.set_alpha(strength)
        self._dots.set_offsets(motion.points[frame])
        if self._trails is not None:
            start = int(np.searchsorted(motion.times, motion.times[frame] - _TRAIL))
            lines = motion.points[start : frame + 1].transpose(1, 0, 2)
            self._trails.set_segments(list(lines) if lines.shape[1] > 1 else [])


def _shade(motion: Motion, frame: int) -> tuple[Matrix | None, float]:
    """Return the density of a frame and how strongly to show it: less the farther the points are from it."""
    if not motion.densities:
        return None, 0.0
    known = np.array(sorted(motion.densities))
    nearest = int(known[np.abs(known - frame).argmin()])
    gap = int(np.diff(known).max()) if len(known) > 1 else 1
    return motion.densities[nearest], max(0.0, 1.0 - 2.0 * abs(nearest - frame) / gap)


def _peak(density: Matrix) -> float:
    """Return the largest density that is known, 0 where none is."""
    return float(np.nanmax(density, initial=0.0))


def _shades(theme: Theme) -> Colormap:
    """Return the colours of densities, grey where they are not known."""
    from matplotlib import colormaps

    return colormaps[_SHADES].with_extremes(bad=(theme.faint, _UNKNOWN))


def _norm() -> Normalize:
    from matplotlib.colors import PowerNorm

    # Lower densities are to be seen too, and the darkest shade is not to hide a point.
    return PowerNorm(0.6, vmin=0.0, vmax=1.35)


def _draw_ways(ax: Axes, motion: Motion, theme: Theme) -> None:
    """Draw the ways of some points, with their beginnings and ends."""
    from matplotlib.collections import LineCollection

    some = motion.points[:, :_LINES]
    lines = LineCollection(list(some.transpose(1, 0, 2)), colors=theme.faint, linewidths=0.6, alpha=0.55)
    ax.add_collection(lines)
    for frame, colour, label in ((0, theme.real, "base"), (-1, theme.drawn, "data")):
        ax.scatter(some[frame, :, 0], some[frame, :, 1], s=9, c=colour, linewidths=0, label=label, zorder=3)
    (x0, x1), (y0, y1) = motion.box
    ax.set(xlim=(x0, x1), ylim=(y0, y1))
    ax.legend(
        fontsize=8,
        labelcolor=theme.ink,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        frameon=False,
        borderaxespad=0.2,
        handletextpad=0.1,
        columnspacing=1.0,
    )


def _dress_plane(
    ax: Axes, motion: Motion, theme: Theme, *, title: str, x: bool = True, y: bool = True
) -> None:
    across, up = (short(name, 30) for name in motion.names)
    dress(ax, theme, title=title, x=across if x else "", y=up if y else "")


def _add_notes(figure: Figure, notes: Sequence[str], theme: Theme, *, left: float) -> None:
    """Write what is shown below everything, from a place in inches on."""
    from textwrap import wrap

    width, height = figure.get_size_inches()
    lines = wrap(". ".join(note[0].upper() + note[1:] for note in notes) + ".", int((width - left) * 15))
    for i, line in enumerate(lines):
        figure.text(
            left / width, (0.08 + 0.15 * (len(lines) - 1 - i)) / height, line, color=theme.faint, fontsize=7.5
        )
