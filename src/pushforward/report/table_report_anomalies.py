"""The part of a report about the least likely rows of a table, and the values that make them so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..evaluate import Explanation, explain
from ..evaluate.anomaly_reasons import IMPOSSIBLE_TOGETHER
from .html import Section, Table, Text, number
from .table_report_rows import PARTS, Rows
from .table_report_text import Chapter, left_out, rows_text
from .table_report_values import value_text

if TYPE_CHECKING:
    from ..artifact import FittedFlow

_IDENT, _TITLE = "anomalies", "The most anomalous rows"
_LISTED, _REASONS = 10, 3
_SLOW_LISTED = 5
_LEAST_GAIN = 0.5  # nats
_MOST_COLUMNS = 60
_REFERENCES = 4_096


def anomalies(fitted: FittedFlow, rows: Rows, *, seed: int) -> Chapter:
    """List the least likely rows with the values that fit the others of their row least."""
    ranked = np.argsort(rows.log_prob, kind="stable")
    known = ranked[rows.log_prob[ranked] < np.inf]  # a density of 0 is one, an overflow is none
    if not len(known):
        return left_out(_IDENT, _TITLE, "the log-density of no row is a number")
    slow = fitted.flow.transform.log_det_costs
    listed = known[: _SLOW_LISTED if slow else _LISTED]
    with_reasons = len(fitted.table.columns) <= _MOST_COLUMNS
    reasons = _reasons(fitted, rows, listed, seed) if with_reasons else [""] * len(listed)
    parts = [PARTS[rows.part[k]] if rows.origin == "split" else "" for k in listed]
    head = [
        "Row",
        "log p, nats",
        "Part",
        "Values that fit the others least (usual value: nats gained)",
    ]
    cells = [
        (f"{rows.numbers[k]:,}", number(float(rows.log_prob[k]), ".1f"), part, reason)
        for k, part, reason in zip(listed, parts, reasons, strict=True)
    ]
    kept = [k for k in range(len(head)) if any(row[k] for row in cells)]
    middle = float(np.median(rows.log_prob[known]))
    table = Table(
        tuple(head[k] for k in kept),
        tuple(tuple(row[k] for k in kept) for row in cells),
        caption=f"The {len(cells)} least likely of {rows_text(len(rows))}; the median row has "
        f"{number(middle, '.1f')} nats",
        text_columns=frozenset(k for k, place in enumerate(kept) if place >= 2),
    )
    lead = (
        "The rows that the flow finds least likely. These are candidates: rare is not wrong, and a flow that is "
        "off finds rows rare that are not."
    )
    how = (
        "A value in the list is one that the flow would not expect beside the other values of its row. “Usual” is "
        "the value that makes the row most likely, the others as they are, and the nats are by how much. A value is "
        "“impossible” where the flow gives it no probability, here or in any likely row."
        if with_reasons
        else f"Reasons are left out: with {len(fitted.table.columns)} columns they take too long."
    )
    if rows.origin != "other":
        how += " Training rows have been seen by the flow, which makes them look more usual than they are."
    return Chapter(Section(_IDENT, _TITLE, lead, (Text(how), table)))


def _reasons(fitted: FittedFlow, rows: Rows, listed: np.ndarray, seed: int) -> list[str]:
    references = np.random.default_rng(seed).permutation(len(rows))[:_REFERENCES]
    x, context = rows.tensors(listed)
    found = explain(
        fitted.flow,
        x,
        context,
        references=rows.tensors(references)[0],
        columns=fitted.table.columns,
        seed=seed,
    )
    return [_sentence(fitted, rows, found, place, int(k)) for place, k in enumerate(listed)]


def _sentence(fitted: FittedFlow, rows: Rows, found: Explanation, place: int, row: int) -> str:
    texts = []
    for j in found.order()[place, :_REASONS].tolist():
        column, gain = fitted.table.columns[j], float(found.gain[place, j])
        if gain < _LEAST_GAIN:
            break
        value, usual = value_text(column, rows.x[row, j]), value_text(column, float(found.likely[place, j]))
        gained = "impossible" if gain == np.inf else number(gain, "+.1f")
        texts.append(f"{column.name} {value} (usual {usual}: {gained})")
    if not texts and found.score[place] == np.inf:
        return IMPOSSIBLE_TOGETHER
    return "; ".join(texts) or "no single value; the row is rare as a whole"
