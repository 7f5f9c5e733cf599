"""Rows of a table beside rows drawn from a flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data import to_matrix

if TYPE_CHECKING:
    import polars as pl

    from ..artifact import FittedFlow

MOST_ROWS = 2000
_SEED = 0

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of a table beside as many rows drawn from a flow, under the same conditions.

    Attributes:
        names: The columns.
        steps: Spacing of the values of each column; 0 where it is continuous.
        real: Rows of the table, (rows, columns).
        drawn: Rows drawn from the flow, (rows, columns).
        real_log_prob: Log-density of each row of the table, in nats.
        drawn_log_prob: Log-density of each drawn row.
        rows: Rows of the whole table, of which ``real`` may be a part.
        given: The columns that the flow is conditioned on.
    """

    names: tuple[str, ...]
    steps: Matrix
    real: Matrix
    drawn: Matrix
    real_log_prob: Matrix
    drawn_log_prob: Matrix
    rows: int
    given: tuple[str, ...] = ()


def compare(
    fitted: FittedFlow, frame: pl.DataFrame, *, most_rows: int = MOST_ROWS, seed: int = _SEED
) -> Comparison:
    """Draw a row from a flow for each row of a table, and score both.

    Args:
        fitted: The flow.
        frame: A table with the columns it was fitted on, and those it is conditioned on.
        most_rows: Of a longer table that many rows are taken, by chance.
        seed: Seed of that choice and of the draws.

    Raises:
        DataError: A table that the flow cannot take.
    """
    import torch

    from ..flows import score

    schema = fitted.table
    rows = frame.height
    if rows > most_rows:
        frame = frame[np.sort(np.random.default_rng(seed).choice(rows, most_rows, replace=False))]
    real = to_matrix(frame, schema.columns)
    context = torch.from_numpy(to_matrix(frame, schema.context)) if schema.context else None
    generator = torch.Generator().manual_seed(seed)
    drawn = fitted.flow.sample((len(real),) if context is None else (), context, generator=generator)
    logs = [score(fitted.flow, x, context).value.double().numpy() for x in (torch.from_numpy(real), drawn)]
    steps = np.array([column.step or 0.0 for column in schema.columns])
    return Comparison(
        schema.names, steps, real, drawn.double().numpy(), logs[0], logs[1], rows, schema.context_names
    )


def columns_of(comparison: Comparison, columns: list[int]) -> Comparison:
    """Leave out all but some of the columns."""
    return replace(
        comparison,
        names=tuple(comparison.names[j] for j in columns),
        steps=comparison.steps[columns],
        real=comparison.real[:, columns],
        drawn=comparison.drawn[:, columns],
    )


def without_gaps(comparison: Comparison, shown: list[int]) -> Comparison:
    """Leave out rows without a number in one of the columns."""
    real, drawn = (rows[np.isfinite(rows[:, shown]).all(1)] for rows in (comparison.real, comparison.drawn))
    return replace(comparison, real=real, drawn=drawn)


def most_dependent(x: Matrix, most: int) -> list[int]:
    """Return the columns with the largest mean absolute rank correlation with the others, in the table's order.

    Example:
        >>> a = np.arange(9.0)
        >>> most_dependent(np.stack([a, np.cos(9 * a), a**3], 1), 2)
        [0, 2]
    """
    columns = x.shape[1]
    if columns <= most:
        return list(range(columns))
    ranks = x.argsort(0).argsort(0).astype(float)
    ranks -= ranks.mean(0)
    varies = (x != x[:1]).any(0)
    size = np.linalg.norm(ranks, axis=0) + 1e-12
    dependence = np.abs(ranks.T @ ranks) / np.outer(size, size) * np.outer(varies, varies)
    return sorted(np.argsort(-dependence.sum(0), kind="stable")[:most].tolist())


def log_density(fitted: FittedFlow, points: Matrix, steps: Matrix) -> Matrix:
    """Return log-densities of points in nats; a point in the cell of a discrete value has that of the value."""
    import torch

    from ..flows import score

    cells = np.where(steps > 0, steps, 1.0)
    values = np.where(steps > 0, np.floor(points / cells) * cells, points)
    result: Matrix = score(fitted.flow, torch.from_numpy(values)).value.double().numpy()
    return result


def dequantised(fitted: FittedFlow, parts: Sequence[Matrix], *, seed: int) -> list[Matrix]:
    """Return rows with noise within the cells of their discrete values, one source for all parts."""
    import torch

    from ..surjections import Dequantise

    noise = Dequantise([column.step or 0.0 for column in fitted.table.columns])
    generator = torch.Generator().manual_seed(seed)
    return [noise.encode(torch.from_numpy(part), generator=generator)[0].numpy() for part in parts]


def noisy_log_prob(fitted: FittedFlow, rows: Matrix, context: Matrix | None = None) -> Matrix:
    """Return the log-density in nats of rows to whose discrete values noise within their cells was added before.

    The noise then is the same for every model that is held against the flow.
    """
    import torch

    from ..flows import Flow, score

    flow = Flow(
        fitted.flow.transform,
        fitted.flow.base,
        preprocess=fitted.flow.preprocess,
        context_preprocess=fitted.flow.context_preprocess,
        embedding=fitted.flow.embedding,
        context_shape=fitted.flow.context_shape,
        augment=fitted.flow.augment,
    )
    given = None if context is None else torch.from_numpy(context)
    result: Matrix = score(flow, torch.from_numpy(rows), given).value.double().numpy()
    return result


def limits(comparison: Comparison, column: int) -> tuple[float, float]:
    """Return ends of an axis that hold the middle 99 % of the rows, and what lies near; far outliers are outside."""
    both = np.concatenate([comparison.real[:, column], comparison.drawn[:, column]])
    low, high = np.quantile(both, [0.005, 0.995])
    reach = 0.3 * (high - low)
    low, high = max(low - reach, both.min()), min(high + reach, both.max()) + comparison.steps[column]
    margin = 0.03 * (high - low) or max(abs(high), 1.0) * 1e-3
    return float(low - margin), float(high + margin)


def outside(comparison: Comparison, columns: Sequence[int]) -> int:
    """Return how many rows, real and drawn, lie outside the axes of some columns."""
    both = np.concatenate([comparison.real, comparison.drawn])[:, columns]
    low, high = np.array([limits(comparison, column) for column in columns]).T
    return int(((both < low) | (both > high)).any(1).sum())


def edges_of(comparison: Comparison, column: int, low: float, high: float) -> Matrix:
    """Return the edges of a histogram; those of a discrete column are edges of its cells."""
    step = comparison.steps[column]
    count = int(np.clip(np.sqrt(len(comparison.real)), 10, 40))
    if not step:
        return np.linspace(low, high, count + 1)
    first, cells = np.floor(low / step), max(1, int(np.ceil((high - low) / step)) + 1)
    width = max(1, int(np.ceil(cells / count)))
    return np.asarray((first + width * np.arange(int(np.ceil(cells / width)) + 1)) * step)


def spread(values: Matrix, step: float, *, seed: int = 0) -> Matrix:
    """Spread discrete values over their cells."""
    return values + step * np.random.default_rng(seed).random(len(values)) if step else values
