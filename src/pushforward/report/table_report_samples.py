"""The part of a report that holds drawn rows beside real ones, all columns together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..configs.schema import TEMPORAL
from .comparison import Comparison, Matrix, columns_of, most_dependent, without_gaps
from .corner import draw_corner
from .figures import Theme, new_figure
from .html import Picture, Section, Text, number, picture
from .table_report_rows import Rows
from .table_report_text import Chapter, texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..artifact import FittedFlow
    from ..configs import ColumnSchema, TableSchema

_IDENT, _TITLE = "rows", "Drawn rows beside real ones"
_MOST_COLUMNS = 6
_FEWEST = 20
_MOST_TOLD_APART = 4_000
_TOLD_APART_ERRORS, _TOLD_APART = 3.0, 0.55
_WEAK, _WEAK_ERRORS = 0.1, 5.0
_CELL = 1.45  # of the corner plot, in inches
_SMALLEST = 4.4


def together(fitted: FittedFlow, rows: Rows, comparison: Comparison, *, seed: int) -> Chapter:
    """Draw a corner plot, and say whether a classifier tells real rows from drawn ones."""
    schema = fitted.table
    numbers = columns_of(comparison, [j for j, c in enumerate(schema.columns) if not c.labelled])
    good, doubts = _told_apart(fitted, rows, seed=seed)
    dependence, weak = _dependence(numbers)
    doubts += [dependence] if weak else []
    if lost := _overflows(comparison, schema):
        doubts.append(f"{lost} of {len(comparison.drawn):,} drawn rows are not finite: the model overflows.")
    lead = " ".join((*good, *doubts)) or "Rows of the table beside rows drawn from the flow."
    notes = texts(_not_as_they_stand(schema), "" if weak else dependence)
    section = Section(_IDENT, _TITLE, lead, (_corner_plot(numbers), *notes))
    return Chapter(section, tuple(good), tuple(doubts))


def _corner_plot(numbers: Comparison) -> Picture | Text:
    shown = most_dependent(numbers.real, _MOST_COLUMNS)
    whole = without_gaps(numbers, shown)
    if not shown:
        return Text("A corner plot is left out: it is one of numbers, and all columns hold labels.")
    if min(len(whole.real), len(whole.drawn)) < 2:
        return Text("A corner plot is left out: there are too few rows without gaps.")
    return picture(
        partial(_corner, whole, shown),
        f"Corner plot of {', '.join(numbers.names[j] for j in shown)}: real and drawn rows",
        caption="Blue: real; orange: drawn from the flow. Each column by itself, and each pair: where the colours "
        "do not mix, the flow is off.",
        width=min(round(_figure_width(len(shown)) * 100), 960),
    )


def _overflows(comparison: Comparison, schema: TableSchema) -> int:
    """Return how many drawn rows are not finite, gaps aside."""
    finite = ~np.isinf(comparison.drawn) if schema.mixed else np.isfinite(comparison.drawn)
    return int((~finite.all(1)).sum())


def _not_as_they_stand(schema: TableSchema) -> str:
    """Say what the corner plot does to columns that do not hold numbers."""
    sentences = (
        (
            any(c.labelled for c in schema.columns),
            "Columns of labels are not in the plot but in the next part.",
        ),
        (any(c.missing for c in schema.columns), "Rows with gaps are left out of it."),
        (any(c.kind in TEMPORAL for c in schema.columns), "Dates are days since 1970, times are seconds."),
    )
    return " ".join(sentence for holds, sentence in sentences if holds)


def _figure_width(columns: int) -> float:
    return max(_CELL * columns, _SMALLEST) + 1.0


def _corner(comparison: Comparison, shown: list[int], theme: Theme) -> Figure:
    width = _figure_width(len(shown))
    figure = new_figure(width, width - 0.25, theme)
    draw_corner(figure, (0.85, 0.6, width - 1.0, width - 1.0), comparison, shown, theme)
    return figure


def _told_apart(fitted: FittedFlow, rows: Rows, *, seed: int) -> tuple[list[str], list[str]]:
    """Say how often a classifier tells rows of the table from drawn ones."""
    from ..evaluate import classifier_two_sample

    real, drawn = _apart(fitted, rows, seed)
    columns = (*fitted.table.columns, *fitted.table.context)
    there = [sample[np.isfinite(sample).all(1)] for sample in _numbers(columns, real, drawn)]
    if min(map(len, there)) < _FEWEST:
        return [], []
    import torch

    accuracy, error = classifier_two_sample(*(torch.from_numpy(sample) for sample in there), seed=seed)
    share = f"{100 * accuracy:.1f} ± {100 * error:.1f} %"
    text = (
        f"A classifier (nearest neighbours) tells real rows from drawn ones in {share} of the cases, where 50 % is "
        "chance"
    )
    if accuracy > _TOLD_APART and accuracy - 0.5 > _TOLD_APART_ERRORS * error:
        return [], [f"{text}: they differ."]
    return [f"{text}."], []


def _apart(fitted: FittedFlow, rows: Rows, seed: int) -> tuple[Matrix, Matrix]:
    """Return real rows and as many drawn ones, with their conditions, which no real and drawn row share."""
    import torch

    rng = np.random.default_rng(seed)
    places = rng.permutation(rows.judged)[:_MOST_TOLD_APART]
    generator = torch.Generator().manual_seed(seed + 1)
    if rows.context is None:
        drawn = fitted.flow.sample((len(places),), generator=generator)
        return rows.x[places], drawn.double().numpy()
    half = len(places) // 2
    own, others = places[:half], places[half:]
    _, given = rows.tensors(others)
    drawn = fitted.flow.sample((), given, generator=generator)
    return (
        np.hstack([rows.x[own], rows.context[own]]),
        np.hstack([drawn.double().numpy(), rows.context[others]]),
    )


def _numbers(columns: Sequence[ColumnSchema], real: Matrix, drawn: Matrix) -> list[Matrix]:
    """Return both samples as numbers: an indicator of each label and gap, and gaps at the column's mean."""
    parts = []
    both = np.concatenate([real, drawn])
    for j, column in enumerate(columns):
        values = both[:, j]
        gaps = np.isnan(values)
        if column.missing:
            parts.append(gaps)
            values = np.where(gaps, values[~gaps].mean() if not gaps.all() else 0.0, values)
        parts += [both[:, j] == code for code in range(len(column.labels))] if column.labelled else [values]
    joined = np.stack(parts, 1).astype(float)
    return [joined[: len(real)], joined[len(real) :]]


def _dependence(numbers: Comparison) -> tuple[str, bool]:
    """Name the pair of columns whose rank correlation differs most, and say whether that is more than a little."""
    whole = without_gaps(numbers, list(range(len(numbers.names))))
    if len(numbers.names) < 2 or min(len(whole.real), len(whole.drawn)) < _FEWEST:
        return "", False
    real, drawn = (_rank_correlations(x) for x in (whole.real, whole.drawn))
    apart = np.abs(real - drawn)
    i, k = np.unravel_index(int(apart.argmax()), apart.shape)
    names, chance = numbers.names, (1 / len(whole.real) + 1 / len(whole.drawn)) ** 0.5
    text = (
        f"Rank correlations of pairs of columns differ by {apart[i, k]:.2f} at most: {names[k]} and {names[i]} have "
        f"{number(real[i, k], '.2f')} in the table and {number(drawn[i, k], '.2f')} among drawn rows (chance gives "
        f"differences of about {chance:.2f})."
    )
    return text, bool(apart[i, k] > max(_WEAK, _WEAK_ERRORS * chance))


def _rank_correlations(x: Matrix) -> Matrix:
    """Return Spearman's rank correlations, 0 for a column that does not vary."""
    from scipy.stats import rankdata

    ranks = rankdata(x, axis=0)
    ranks -= ranks.mean(0)
    size = np.linalg.norm(ranks, axis=0)
    scaled = ranks / np.where(size > 0, size, 1.0)
    return np.asarray(scaled.T @ scaled)
