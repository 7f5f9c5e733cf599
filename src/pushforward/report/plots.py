"""How a fitted flow meets a table, as one figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .comparison import (
    Comparison,
    columns_of,
    compare,
    limits,
    log_density,
    most_dependent,
    without_gaps,
)
from .corner import draw_corner, draw_histogram, draw_marginal, short
from .figures import (
    LIGHT,
    Theme,
    cell_centres,
    cells,
    draw_curves,
    draw_density,
    dress,
    legend,
    new_figure,
    write_figure,
)

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..artifact import FittedFlow

_MOST_COLUMNS = 6
_CELLS = 160
_MARGIN = 0.8  # for tick labels and the names of axes, in inches


def plot_fit(fitted: FittedFlow, frame: pl.DataFrame, path: Path) -> None:
    """Draw real against sampled rows, the course of the training and the log-densities, as one file.

    Of many rows 2000 are shown, of many columns the six that depend most on others. For a flow of two columns without
    condition there is also a map of its density; for one of a single column, its curve. The rows of a conditional flow
    are drawn under the conditions of the table's rows. Columns of labels are left out, and rows with gaps in those
    shown. Values of dequantised columns are spread over their cells.
    Far outliers are counted, not drawn.

    Args:
        fitted: The flow.
        frame: A table with the columns it was fitted on, and those it is conditioned on.
        path: Where to; the suffix, ``.png``, ``.pdf`` or ``.svg``, tells the format. An existing file is replaced
            in one step or not at all.

    Raises:
        OutputError: Another suffix, or a place that cannot be written.
        DataError: A table that the flow cannot take.
        ValueError: A table without numbers, or with gaps in nearly all rows.
    """
    write_figure(path, lambda: fit_figure(fitted, compare(fitted, frame)))


def fit_figure(fitted: FittedFlow, comparison: Comparison, theme: Theme = LIGHT) -> Figure:
    """Return the figure that ``plot_fit`` writes."""
    facts, whole, kinds = fitted.facts, comparison, fitted.table.columns
    comparison = columns_of(whole, [j for j, column in enumerate(kinds) if not column.labelled])
    columns = len(comparison.names)
    shown = most_dependent(comparison.real, _MOST_COLUMNS)
    comparison = without_gaps(comparison, shown)
    if not columns or min(len(comparison.real), len(comparison.drawn)) < 2:
        raise ValueError("there is no picture of this table: it has no numbers, or too few rows without gaps")
    plain = not (fitted.table.context or fitted.table.mixed)
    with_map = columns == 2 and plain
    size = max(1.7 * len(shown), 4.6)  # of the corner plot, in inches
    width = 2 * size + 2 * _MARGIN if with_map else max(10.8, size + _MARGIN)
    below = size + 1.35 if columns > 1 else 0.6
    figure = new_figure(width, below + 2.9, theme)
    panels = 2 if columns > 1 else 3
    grid = cells(figure, (_MARGIN, below, width - 1.25 * _MARGIN, 2.5), 1, panels, gap=_MARGIN)
    axes = [figure.add_subplot(grid[k]) for k in range(panels)]
    if columns > 1:
        corner = size if with_map else width - 1.25 * _MARGIN
        draw_corner(figure, (_MARGIN, 0.65, corner, size), comparison, shown, theme)
    if with_map:
        place = cells(figure, (size + 2 * _MARGIN, 0.65, width - size - 2.25 * _MARGIN, size - 0.25))[0]
        _draw_map(figure.add_subplot(place), fitted, comparison, theme)
    draw_curves(
        axes[0], facts.train_curve, facts.valid_curve, facts.best_epoch, theme, what=loss_name(fitted)
    )
    axes[0].set_title("Training", color=theme.ink, fontsize=10, loc="left")
    draw_log_probs(axes[1], whole, theme)
    if columns == 1:
        name = short(comparison.names[0], 30)
        draw_marginal(axes[2], comparison, 0, theme, density=fitted if plain else None)
        dress(axes[2], theme, title=f"Density of {name}", x=name)
        axes[2].set_ylim(0, 1.25 * axes[2].get_ylim()[1])
        legend(axes[2], theme, loc="upper left")
    return figure


def loss_name(fitted: FittedFlow) -> str:
    """Return what the losses of a training are."""
    from ..objectives import objective_of

    return "mean −log p, nats" if objective_of(fitted.model).in_nats else "mean square of flow matching"


def draw_log_probs(ax: Axes, comparison: Comparison, theme: Theme) -> None:
    """Draw the log-densities of real and drawn rows as two histograms; far outliers are counted, not drawn."""
    parts = [
        ("real", comparison.real_log_prob, theme.real),
        ("drawn", comparison.drawn_log_prob, theme.drawn),
    ]
    finite = np.concatenate([values[np.isfinite(values)] for _, values, _ in parts])
    if len(finite):
        quarter, middle = np.quantile(finite, [0.25, 0.5])
        low = max(float(finite.min()), float(middle - 12 * max(middle - quarter, 1e-6)))
        edges = np.linspace(low, max(float(finite.max()), low + 1e-6), 41)
        for name, values, colour in parts:
            far = int((values < low).sum())
            label = name + (f" ({far} further left)" if far else "")
            draw_histogram(ax, values, edges, weight=1 / len(values), colour=colour, label=label)
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    dress(ax, theme, title="Log-density of each row", x="log p, nats", y="share of rows")
    legend(ax, theme, loc="upper left")


def _draw_map(ax: Axes, fitted: FittedFlow, comparison: Comparison, theme: Theme) -> None:
    (x0, x1), (y0, y1) = limits(comparison, 0), limits(comparison, 1)
    centres = np.meshgrid(cell_centres(x0, x1, _CELLS), cell_centres(y0, y1, _CELLS))
    points = np.stack(centres, -1).reshape(-1, 2)
    density = np.exp(log_density(fitted, points, comparison.steps))
    draw_density(ax, density.reshape(_CELLS, _CELLS), (x0, x1, y0, y1), theme)
    dress(
        ax,
        theme,
        title="Density of the flow",
        x=short(comparison.names[0], 30),
        y=short(comparison.names[1], 30),
    )
