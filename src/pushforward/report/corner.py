"""A corner plot: the marginals of columns and every pair of them, for real and drawn rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .comparison import Comparison, Matrix, edges_of, limits, log_density, outside, spread
from .figures import Theme, cell_centres, cells, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..artifact import FittedFlow

_SHUFFLE_SEED = 0
_GAP, _LABELS = 0.13, 0.3  # between the cells and from a cell to its label, in inches


def draw_corner(
    figure: Figure,
    box: tuple[float, float, float, float],
    comparison: Comparison,
    shown: list[int],
    theme: Theme,
) -> None:
    """Draw the marginals of some columns on the diagonal, and below it every pair of them.

    Args:
        figure: Where to draw.
        box: Left, bottom, width and height in the figure, in inches, without the labels on the left and below.
        comparison: The rows.
        shown: The columns.
        theme: Colours.
    """
    n = len(shown)
    grid = cells(figure, box, n, n, gap=_GAP)
    ends = [limits(comparison, j) for j in shown]
    for i, row in enumerate(shown):
        for k, column in enumerate(shown[: i + 1]):
            ax = figure.add_subplot(grid[i, k])
            if k == i:
                draw_marginal(ax, comparison, row, theme)
            else:
                _draw_pair(ax, comparison, column, row, theme)
                ax.set_ylim(ends[i])
            ax.set_xlim(ends[k])
            last, first = i == n - 1, k == 0
            dress(
                ax,
                theme,
                x=short(comparison.names[column], 16) if last else "",
                y=short(comparison.names[row], 20) if first and k != i else "",
            )
            _thin_ticks(ax, show_x=last, show_y=first, marginal=k == i)
            ax.xaxis.set_label_coords(0.5, -_LABELS * n / box[3])
            ax.yaxis.set_label_coords(-1.4 * _LABELS * n / box[2], 0.5)
    _explain(figure, box, comparison, shown, theme)


def _explain(
    figure: Figure,
    box: tuple[float, float, float, float],
    comparison: Comparison,
    shown: list[int],
    theme: Theme,
) -> None:
    """Say in the empty corner what the colours are and what is not shown."""
    from textwrap import wrap

    rows, hidden = len(comparison.real), len(comparison.names) - len(shown)
    notes = [f"{rows:,} real rows" + (f" of {comparison.rows:,}" if comparison.rows > rows else "")]
    notes[0] += f" and {rows:,} drawn from the flow"
    if comparison.given:
        notes.append(f"given {short(', '.join(comparison.given), 60)} of the real rows")
    if hidden:
        notes.append(f"{len(shown)} of {len(comparison.names)} columns, those that depend most on others")
        notes.append(f"{hidden} more not shown")
    if far := outside(comparison, shown):
        notes.append(f"{far} row{'s' if far > 1 else ''} outside the axes")
    if comparison.steps[shown].any():
        notes.append("values of dequantised columns are spread over their cells")
    lines = [("● real", theme.real), ("● drawn from the flow", theme.drawn)]
    lines += [(line, theme.faint) for note in notes for line in wrap(note, 32 if len(shown) < 4 else 70)]
    width, height = figure.get_size_inches()
    for place, (line, colour) in enumerate(lines):
        x, y = (box[0] + box[2]) / width, (box[1] + box[3] - 0.19 * place) / height
        figure.text(x, y, line, color=colour, fontsize=9, ha="right", va="top")


def draw_marginal(
    ax: Axes, comparison: Comparison, column: int, theme: Theme, *, density: FittedFlow | None = None
) -> None:
    """Draw histograms of one column, scaled as densities; with a flow of that column alone also its density."""
    low, high = limits(comparison, column)
    edges = edges_of(comparison, column, low, high)
    parts = (("real", comparison.real, theme.real), ("drawn", comparison.drawn, theme.drawn))
    for name, rows, colour in parts:
        values = spread(rows[:, column], comparison.steps[column])
        weight = 1 / (len(values) * (edges[1] - edges[0]))
        draw_histogram(ax, values, edges, weight=weight, colour=colour, label=name)
    if density is not None:
        at = cell_centres(low, high, 400)
        values = np.exp(log_density(density, at[:, None], comparison.steps[[column]]))
        ax.plot(at, values, color=theme.ink, linewidth=1.0, label="density of the flow")
        ax.set_xlim(low, high)


def draw_histogram(
    ax: Axes, values: Matrix, edges: Matrix, *, weight: float, colour: str, label: str
) -> None:
    """Draw how many values lie between any two edges, each counting for ``weight``."""
    heights = weight * np.histogram(values, edges)[0]
    ax.stairs(heights, edges, fill=True, color=colour, alpha=0.25)
    ax.stairs(heights, edges, color=colour, linewidth=1.2, label=label)


def _draw_pair(ax: Axes, comparison: Comparison, across: int, up: int, theme: Theme) -> None:
    """Scatter both sets in one shuffled order, so that neither hides the other."""
    from matplotlib.colors import to_rgba_array

    both = np.concatenate([comparison.real, comparison.drawn])
    # As numbers, since matplotlib would read the name of every point's colour.
    colours = to_rgba_array([theme.real, theme.drawn])
    colours = colours.repeat([len(comparison.real), len(comparison.drawn)], axis=0)
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(both))
    size = float(np.clip(6000 / len(both), 4.0, 9.0))
    ax.scatter(
        spread(both[:, across], comparison.steps[across])[order],
        spread(both[:, up], comparison.steps[up], seed=1)[order],
        s=size,
        c=colours[order],
        alpha=float(np.clip(900 / len(both), 0.35, 0.75)),
        linewidths=0,
        rasterized=True,
    )


def _thin_ticks(ax: Axes, *, show_x: bool, show_y: bool, marginal: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(
        labelsize=7, labelbottom=show_x, labelleft=show_y and not marginal, left=not marginal, length=2
    )
    ax.xaxis.label.set_fontsize(8)
    ax.yaxis.label.set_fontsize(8)
    ax.xaxis.get_offset_text().set_visible(show_x)
    ax.yaxis.get_offset_text().set_visible(show_y and not marginal)


def short(name: str, most: int) -> str:
    """Cut a long name and keep matplotlib from reading mathematics into a dollar sign."""
    name = name if len(name) <= most else name[: most - 1] + "…"
    return name.replace("$", r"\$")
