"""What all pictures share: two sets of colours, plain axes, and no global state.

Figures are made without ``pyplot``, and every colour is set on the artist that has it, so that nothing of the
caller's matplotlib changes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..data import atomic_path
from ..errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

_FORMATS: dict[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""What the name of a figure may end in, and the metadata that would make equal figures differ."""

_BEGINNING = 0.1  # the share of a training curve that may run off the top of its picture


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a picture, as matplotlib reads them.

    Attributes:
        background: Of the figure and the axes.
        ink: Text and what matters.
        faint: Ticks, frames, what matters less.
        real: Rows of the data.
        drawn: Rows drawn from a flow.
        mark: What stands out.
        density: Name of the colour map of densities.
    """

    background: str
    ink: str
    faint: str
    real: str
    drawn: str
    mark: str
    density: str


LIGHT = Theme("#ffffff", "#1c2126", "#68727d", "#0b6fb8", "#d9730d", "#b3261e", "viridis")
DARK = Theme("#15191e", "#e8eaed", "#98a2ad", "#5fb2ea", "#f0a04b", "#ff8a80", "viridis")


def new_figure(width: float, height: float, theme: Theme = LIGHT) -> Figure:
    """Return an empty figure of that size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=theme.background)


def cells(
    figure: Figure,
    box: tuple[float, float, float, float],
    rows: int = 1,
    columns: int = 1,
    *,
    gap: float = 0.2,
) -> GridSpec:
    """Divide a box of a figure into cells, all lengths in inches.

    Places are given and not found out by a layout engine, which would take longer than the drawing.

    Args:
        figure: The figure.
        box: Left, bottom, width and height of the box, from the figure's lower left.
        rows: How many cells on top of each other.
        columns: How many side by side.
        gap: Between cells.
    """
    width, height = figure.get_size_inches()
    left, bottom, across, up = box
    return figure.add_gridspec(
        rows,
        columns,
        left=left / width,
        right=(left + across) / width,
        bottom=bottom / height,
        top=(bottom + up) / height,
        wspace=gap * columns / (across - gap * (columns - 1)),
        hspace=gap * rows / (up - gap * (rows - 1)),
    )


def one_axes(
    width: float, height: float, theme: Theme, *, margins: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
    """Return a figure and its only axes, with margins on the left, below, on the right and above, in inches."""
    left, bottom, right, top = margins
    figure = new_figure(width, height, theme)
    box = (left, bottom, width - left - right, height - bottom - top)
    return figure, figure.add_subplot(cells(figure, box)[0])


def dress(ax: Axes, theme: Theme, *, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes their colours and labels, a frame on two sides only, and few ticks."""
    from matplotlib.ticker import MaxNLocator

    ax.set_facecolor(theme.background)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)
    ax.tick_params(colors=theme.faint, labelcolor=theme.ink, labelsize=8, length=3)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.get_offset_text().set(color=theme.faint, fontsize=7)
    if title:
        ax.set_title(title, color=theme.ink, fontsize=10, loc="left")
    ax.set_xlabel(x, color=theme.ink, fontsize=9)
    ax.set_ylabel(y, color=theme.ink, fontsize=9)


def legend(ax: Axes, theme: Theme, *, loc: Literal["upper left", "upper right"], columns: int = 1) -> None:
    """Add a legend without a frame."""
    box = ax.legend(
        fontsize=8,
        labelcolor=theme.ink,
        loc=loc,
        ncols=columns,
        edgecolor="none",
        facecolor=theme.background,
    )
    box.get_frame().set_alpha(0.8)


def draw_curves(
    ax: Axes,
    train: Sequence[float],
    valid: Sequence[float],
    best_epoch: int,
    theme: Theme,
    *,
    floor: float | None = None,
    floor_label: str = "",
    what: str = "mean −log p, nats",
) -> None:
    """Draw the losses of each epoch, the best epoch, and the loss that no model can go below, if it is known.

    The first losses may be far above the others; then they run off the top.

    Args:
        ax: Where to draw.
        train: Training loss of each epoch.
        valid: Validation loss of each epoch.
        best_epoch: The epoch, from 1, whose weights were kept; 0: none.
        theme: Colours.
        floor: The entropy.
        floor_label: What to call it.
        what: What the losses are.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(1, len(valid) + 1)
    marker = "." if len(valid) < 3 else None
    ax.plot(epochs, train, color=theme.faint, linewidth=1.2, marker=marker, label="training")
    ax.plot(epochs, valid, color=theme.real, linewidth=1.6, marker=marker, label="validation")
    if 1 <= best_epoch <= len(valid):
        at = valid[best_epoch - 1]
        ax.axvline(best_epoch, color=theme.mark, linewidth=0.8, linestyle=":")
        ax.plot(
            [best_epoch],
            [at],
            "o",
            color=theme.mark,
            markersize=5,
            label=f"best: {at:.4g}, epoch {best_epoch}",
        )
    if floor is not None:
        ax.axhline(floor, color=theme.ink, linewidth=0.9, linestyle="--", label=floor_label)
    later = int(_BEGINNING * len(valid))
    shown = [v for curve in (train, valid) for v in curve[later:] if math.isfinite(v)]
    shown += [] if floor is None else [floor]
    if shown and max(shown) > min(shown):
        extent = max(shown) - min(shown)  # and room for the legend
        ax.set_ylim(min(shown) - 0.06 * extent, max(shown) + 0.35 * extent)
    dress(ax, theme, x="epoch", y=what)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(ax, theme, loc="upper right")


def draw_density(
    ax: Axes,
    density: NDArray[np.float64],
    extent: tuple[float, float, float, float],
    theme: Theme,
    *,
    highest: float | None = None,
) -> None:
    """Draw a density on a regular grid of cells as a heat map from 0.

    Args:
        ax: Where to draw.
        density: Values at the centres of the cells, (rows from the lowest y, columns).
        extent: Ends ``(x0, x1, y0, y1)``.
        theme: Colours.
        highest: The value of the brightest colour; by default what 99.5 % of the cells stay below.
    """
    values = np.nan_to_num(density, nan=0.0, posinf=0.0)
    top = float(np.quantile(values, 0.995)) if highest is None else highest
    ax.imshow(
        values,
        origin="lower",
        extent=extent,
        cmap=theme.density,
        vmin=0.0,
        vmax=top if top > 0 else 1.0,
        aspect="auto",
        interpolation="nearest",
    )


def cell_centres(low: float, high: float, cells: int) -> NDArray[np.float64]:
    """Return the centres of equal cells between two ends.

    Example:
        >>> cell_centres(0.0, 1.0, 2)
        array([0.25, 0.75])
    """
    width = (high - low) / cells
    return np.asarray(low + width * (np.arange(cells) + 0.5), dtype=np.float64)


def png(figure: Figure, *, dpi: int = 160) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None}
    )
    return stream.getvalue()


def write_figure(path: str | Path, draw: Callable[[], Figure]) -> None:
    """Write a figure as ``.png``, ``.pdf`` or ``.svg``, by its suffix, in one step or not at all.

    Args:
        path: Where to.
        draw: Makes the figure, once it is known that it can be written.

    Raises:
        OutputError: Another suffix, or a place that cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise OutputError(
            f"{path}: cannot tell the format from the suffix {path.suffix!r}. End the name in {', '.join(_FORMATS)}."
        )
    with atomic_path(path) as temporary:
        figure = draw()
        figure.savefig(
            temporary, format=suffix[1:], dpi=150, facecolor=figure.get_facecolor(), metadata=_FORMATS[suffix]
        )
