"""The part of a report about each column by itself: probability integral transforms, and shares of labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..evaluate.calibration import Calibration, calibrate
from ..evaluate.verdict import KS_DISTANCE, KS_LEVEL
from .comparison import Matrix
from .corner import short
from .figures import Theme, dress, legend, one_axes
from .html import Gallery, Picture, Section, Table, Text, picture
from .table_report_rows import Places, Rows, thinned
from .table_report_text import Chapter, left_out, p_relation, p_text, rows_text, some, texts
from .table_report_values import value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..artifact import FittedFlow
    from ..configs import ColumnSchema

_IDENT, _TITLE = "columns", "Each column by itself"
_FEWEST = 8
_DRAWS, _SLOW_DRAWS = 10_000, 2_000
_OWN_DRAWS, _OWN_ROWS = 99, 1_000
"""Draws of each row of a conditional flow, and rows that have them."""
_MOST_PICTURES, _MOST_LABELS = 12, 8
_BAND = 2.58  # standard errors: 99 % of the bars of a right model are inside
_SIZE, _MARGINS, _LABEL_MARGINS = (2.7, 1.6), (0.5, 0.42, 0.1, 0.08), (0.95, 0.42, 0.1, 0.08)
_LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class _Column:
    """One column, real and drawn.

    Attributes:
        schema: The column.
        real: Its values in the table.
        drawn: Those drawn.
        pit: Ranks of the real values among the drawn ones; none for a column of labels.
        distance: Kolmogorov-Smirnov distance of the ranks; of labels, and of gaps where that is more, the largest
            difference of shares.
        p_value: Corrected for the number of tests.
        size: Size of the sample that the distance is as uncertain as.
        fits: Whether the distance is small or within chance.
    """

    schema: ColumnSchema
    real: Matrix
    drawn: Matrix
    pit: Matrix
    distance: float
    p_value: float
    size: float
    fits: bool


def marginals(fitted: FittedFlow, rows: Rows, *, seed: int) -> Chapter:
    """Test whether each column is distributed among the draws as in the table."""
    schema, judged = fitted.table, rows.judged
    if rows.context is not None and schema.mixed:
        return left_out(
            _IDENT, _TITLE, "with conditions, draws that hold labels or gaps are not compared row by row"
        )
    if len(judged) < _FEWEST:
        return left_out(_IDENT, _TITLE, f"too few rows ({len(judged)})")
    judged, drawn = _draws(fitted, rows, seed)
    if not len(drawn):
        return left_out(_IDENT, _TITLE, "no drawn row is finite")
    columns = _columns(schema.columns, rows.x[judged], drawn, calibrate(rows.x[judged], drawn, seed=seed))
    wrong = [c.schema.name for c in columns if not c.fits]
    ranked = sorted(range(len(columns)), key=lambda j: (columns[j].fits, -columns[j].distance))
    shown = sorted(ranked[:_MOST_PICTURES])
    given = ", each under its own conditions" if rows.context is not None else ""
    lead = (
        f"Where {rows_text(len(judged), 'real value')} of each column lie among values drawn from the flow{given}. "
        + ("All columns agree." if not wrong else f"Off: {some(wrong)}.")
    )
    how = (
        "The bars are shares of the real rows by their rank among drawn ones (probability integral transform, ties "
        "broken by chance). Right is flat; the grey band holds 99 % of the bars by chance. A hump in the middle: "
        "the flow is too wide; high ends: too narrow; a slope: shifted."
    )
    fewer = (
        f"Shown are {len(shown)} of {len(columns)} columns, those furthest off."
        if len(ranked) > len(shown)
        else ""
    )
    good = (f"The distribution of each column by itself agrees with the table ({len(columns)} tested).",)
    doubt = f"{len(wrong)} of {len(columns)} columns are off by themselves: {some(wrong)}."
    return Chapter(
        Section(
            _IDENT,
            _TITLE,
            lead,
            (
                *texts(how, fewer),
                Gallery(tuple(_picture(columns[j]) for j in shown)),
                _table(columns),
                _reading(),
            ),
        ),
        () if wrong else good,
        (doubt,) if wrong else (),
    )


def _draws(fitted: FittedFlow, rows: Rows, seed: int) -> tuple[Places, Matrix]:
    """Return the places of the rows to judge, and draws: shared, or under the conditions of each row its own."""
    import torch

    generator, judged = torch.Generator().manual_seed(seed + 2), rows.judged
    if rows.context is not None:
        judged = thinned(judged, _OWN_ROWS)
        _, given = rows.tensors(judged)
        drawn = fitted.flow.sample((_OWN_DRAWS,), given, generator=generator).double().numpy()
        return judged, drawn[np.isfinite(drawn).all((1, 2))]
    count = _SLOW_DRAWS if fitted.flow.transform.log_det_costs else _DRAWS
    drawn = fitted.flow.sample((count,), generator=generator).double().numpy()
    return judged, drawn if fitted.table.mixed else drawn[np.isfinite(drawn).all(1)]


def _columns(
    schemas: tuple[ColumnSchema, ...], real: Matrix, drawn: Matrix, found: Calibration
) -> list[_Column]:
    numbers_with_gaps = sum(schema.missing and not schema.labelled for schema in schemas)
    tests = len(schemas) + numbers_with_gaps
    columns = []
    for j, schema in enumerate(schemas):
        ours, theirs = real[:, j], drawn[..., j].reshape(-1)
        # The calibration has multiplied by the number of columns already.
        numbers = not schema.labelled and found.effective[j] > 0
        results = [(found.distances[j], found.p_values[j] * tests / len(schemas))] if numbers else []
        if not numbers or schema.missing:
            distance, p_value = _shares_apart(_shares(schema, ours), _shares(schema, theirs))
            results.append((distance, p_value * tests))
        fits = not any(d > KS_DISTANCE and p < KS_LEVEL for d, p in results)
        distance, p_value = max(results)
        columns.append(
            _Column(
                schema,
                ours,
                theirs,
                found.pit[:, j],
                distance,
                min(1.0, p_value),
                found.effective[j],
                fits,
            )
        )
    return columns


def _shares(schema: ColumnSchema, values: Matrix) -> Matrix:
    """Return how often each label stands, of a number how often there is one, and last how often there is a gap."""
    gaps = int(np.isnan(values).sum())
    if not schema.labelled:
        return np.array([len(values) - gaps, gaps], dtype=float)
    return np.array([*((values == code).sum() for code in range(len(schema.labels))), gaps], dtype=float)


def _shares_apart(real: Matrix, drawn: Matrix) -> tuple[float, float]:
    """Return the largest difference of shares, and the p-value of a chi-square test that there is none."""
    from scipy.stats import chi2_contingency

    counts = np.stack([real, drawn])
    counts = counts[:, counts.sum(0) > 0]
    shares = counts / counts.sum(1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).max())
    return distance, float(chi2_contingency(counts).pvalue) if counts.shape[1] > 1 else 1.0


def _picture(column: _Column) -> Picture:
    name = column.schema.name
    what = "Largest difference of shares" if column.schema.labelled else "Distance"
    draw = partial(_draw_labels if column.schema.labelled else _draw_pit, column)
    return picture(
        draw,
        f"{'Shares of the labels' if column.schema.labelled else 'Ranks of real values'} of {name}",
        title=name,
        caption=f"{what} {column.distance:.3f}, p {p_relation(column.p_value)}",
        width=340,
    )


def _draw_pit(column: _Column, theme: Theme) -> Figure:
    figure, ax = one_axes(*_SIZE, theme, margins=_MARGINS)
    ranks = column.pit[~np.isnan(column.pit)]
    bins = int(np.clip(len(ranks) ** 0.5 / 2, 5, 20))
    heights, edges = np.histogram(ranks, bins, (0.0, 1.0))
    error = _BAND * ((bins - 1) / max(column.size, 1.0)) ** 0.5  # of bars whose mean is 1
    colour = theme.real if column.fits else theme.mark
    ax.axhspan(max(0.0, 1 - error), 1 + error, color=theme.faint, alpha=0.25, linewidth=0)
    ax.axhline(1.0, color=theme.faint, linewidth=0.8)
    ax.stairs(heights * bins / max(len(ranks), 1), edges, fill=True, color=colour, alpha=0.35)
    ax.stairs(heights * bins / max(len(ranks), 1), edges, color=colour, linewidth=1.2)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, max(2.0, 1.1 * heights.max(initial=0) * bins / max(len(ranks), 1)))
    dress(ax, theme, x="rank", y="share / even")
    return figure


def _draw_labels(column: _Column, theme: Theme) -> Figure:
    figure, ax = one_axes(*_SIZE, theme, margins=_LABEL_MARGINS)
    labels = [*column.schema.labels, "missing"]
    counts = [_shares(column.schema, values) for values in (column.real, column.drawn)]
    order = [k for k in np.argsort(-counts[0], kind="stable") if counts[0][k] + counts[1][k] > 0]
    order = order[:_MOST_LABELS]
    places = np.arange(len(order))
    for shift, values, colour, name in (
        (-0.2, counts[0], theme.real, "real"),
        (0.2, counts[1], theme.drawn, "drawn"),
    ):
        share = values[order] / values.sum()
        error = _BAND * (share * (1 - share) / values.sum()) ** 0.5
        ax.barh(places + shift, share, height=0.38, color=colour, label=name, xerr=error, ecolor=theme.faint)
    dress(ax, theme, x="share of rows")
    ax.set_xlim(0, 1.6 * ax.get_xlim()[1])  # room for the legend
    _name_bars(ax, places, [short(labels[k], 12) for k in order], theme)
    return figure


def _name_bars(ax: Axes, places: Places, names: list[str], theme: Theme) -> None:
    ax.set_yticks(places, names, fontsize=8, color=theme.ink)
    ax.set_ylim(len(places) - 0.4, -0.6)
    legend(ax, theme, loc="upper right")


def _table(columns: list[_Column]) -> Table:
    rows = [
        (
            c.schema.name,
            _kind(c.schema),
            "agrees" if c.fits else "off",
            f"{c.distance:.3f}",
            p_text(c.p_value),
            _spread(c.schema, c.real),
            _spread(c.schema, c.drawn),
        )
        for c in columns
    ]
    return Table(
        ("Column", "Values", "Verdict", "Distance", "p", "Real", "Drawn"),
        tuple(rows),
        caption="Every column; real and drawn: values that 5, 50 and 95 % of the rows stay below, or the commonest "
        "labels",
        text_columns=frozenset({0, 1, 2}),
        strong=frozenset(k for k, c in enumerate(columns) if not c.fits),
    )


def _reading() -> Text:
    return Text(
        "Distance: by how much the probability of staying below a value is wrong, at most (Kolmogorov-Smirnov; for "
        "labels and gaps, by how much a share is). p: its chance if the flow were right, corrected for the number "
        f"of tests. Off is a distance above {KS_DISTANCE} with p below {KS_LEVEL}: with many rows even a difference "
        "too small to matter has a small p."
    )


def _kind(schema: ColumnSchema) -> str:
    if schema.labelled or schema.kind != "number":
        return f"{schema.kind}, with gaps" if schema.missing else schema.kind
    text = (
        "continuous"
        if schema.step is None
        else "whole numbers"
        if schema.step == 1
        else f"steps of {schema.step:g}"
    )
    text = "circle" if schema.periodic else text
    return f"{text}, with gaps" if schema.missing else text


def _spread(schema: ColumnSchema, values: Matrix) -> str:
    """Return what 5, 50 and 95 % of the values stay below, or the commonest labels; and the share of gaps."""
    there = values[~np.isnan(values)]
    gaps = f"; {100 * (1 - len(there) / len(values)):.1f} % missing" if schema.missing else ""
    if not len(there):
        return "all missing"
    if schema.labelled:
        counts = _shares(schema, values)[:-1]
        best = np.argsort(-counts, kind="stable")[:2]
        return ", ".join(f"{schema.labels[k]} {100 * counts[k] / len(there):.0f} %" for k in best) + gaps
    return " / ".join(value_text(schema, float(q)) for q in np.quantile(there, _LEVELS)) + gaps
