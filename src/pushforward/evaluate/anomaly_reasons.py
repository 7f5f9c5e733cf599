"""Why a row is anomalous: what each of its values adds, given the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..configs import ColumnSchema
from ..flows import Flow, score
from ..surjections import Dequantise
from .quadrature import log_integral, log_sum

_POOL = 4096  # samples whose quantiles are the candidates
_ROUNDS, _FINER = 2, 24  # how often candidates are added around the best one, and how many
_ELEMENTS = 2**22  # of points that are scored together
IMPOSSIBLE_TOGETHER = "impossible together, though each value may be by itself"
"""What is to be said of a row of density 0 in which no column has a gain."""
_WITNESSES = 16  # likely rows that take over the values of a row of which no single change makes a density


@dataclass(frozen=True, slots=True)
class Explanation:
    r"""What the columns contribute to the anomaly of rows; float64.

    Attributes:
        score: Anomaly scores :math:`-\log p(x)` in nats, ``(n,)``.
        gain: Nats that a row's log-density would gain if the column had its most likely value, ``(n, D)``, at least 0;
            ``inf`` where its value cannot be. Free of units, so it compares columns.
        likely: That value, given the row's other values, ``(n, D)``; NaN stands for a gap.
        surprise: :math:`-\log p(x_j \mid x_{-j})` in nats, ``(n, D)``: of a density in the column's units, or of the
            probability of a value that has one. NaN where the other values have density 0 themselves.
    """

    score: Tensor
    gain: Tensor
    likely: Tensor
    surprise: Tensor

    def order(self) -> Tensor:
        """Return the places of the columns of each row, ``(n, D)``, those with the largest gain first."""
        return self.gain.argsort(dim=1, descending=True, stable=True)


def explain(
    flow: Flow,
    x: Tensor,
    context: Tensor | None = None,
    *,
    references: Tensor | None = None,
    columns: Sequence[ColumnSchema] | None = None,
    candidates: int = 64,
    seed: int = 0,
) -> Explanation:
    r"""Say which values make rows anomalous, given their other values.

    With :math:`x_{-j}` for all but column :math:`j`, and a gain and a surprise for each column,

    .. math::

        g_j = \max_v \log p(v, x_{-j}) - \log p(x), \qquad
        -\log p(x_j \mid x_{-j}) = \log \int p(v, x_{-j})\,dv - \log p(x).

    The values :math:`v` are the row's own, quantiles of the references' column, the same for every row, and two rounds
    of finer ones around the best so far. None lies beyond both the references and the row, where a flow guesses.
    Between them :math:`\log p` is taken for linear: exact for exponential tails, and of second order in the spacing.
    For a discrete column the integral is a sum, exact where every value is among the candidates, as the labels of a
    category always are. Gaps and other values with a probability of their own are held against densities per standard
    deviation of the references' column. Any flow will do, also one that has no conditionals of its own; a row costs
    about ``candidates + 48`` densities for each column.

    Where no single change gives a row a density, the values that have none in any of a few likely rows cannot be: their
    gain is infinite, and their likely values are those with all of them replaced. Where there is no such value all
    gains are 0: the row's values cannot be together.

    Args:
        flow: The density of rows, ``event_shape`` ``(D,)``.
        x: Rows in the units of the data, ``(n, D)``.
        context: Their contexts, ``(n, *context_shape)``.
        references: Rows whose columns give the candidates, ``(m, D)``, such as training rows; samples of the flow by
            default.
        columns: The columns' schemas, which say what values are discrete, labels or gaps; by default what the flow
            dequantises is discrete, and gaps are values where references have them.
        candidates: Quantiles of each column to try. All values are tried where a discrete column has no more.
        seed: Seed of the samples.

    Returns:
        Score, gain, most likely value and surprise.

    Raises:
        ValueError: A flow whose points are no rows, rows or references of another shape, fewer than 2 candidates.

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import LULinear
        >>> flow = Flow(LULinear(2), DiagonalNormal((2,)))
        >>> found = explain(flow, torch.tensor([[0.0, 4.0]]))
        >>> found.order().tolist(), round(found.gain[0, 1].item(), 1), abs(found.likely[0, 1].item()) < 0.1
        ([[1, 0]], 8.0, True)
    """
    _check(flow, x, references, columns, candidates)
    x = x.detach()
    pool = (_samples(flow, context, seed) if references is None else references.detach()).double()
    tried = _columns(flow, pool, columns, candidates)
    at_once = max(1, _ELEMENTS // ((candidates + _FINER) * len(tried)))
    parts = []
    for start in range(0, max(len(x), 1), at_once):
        rows = slice(start, start + at_once)
        parts.append(
            _explained(_Rows(flow, x[rows], None if context is None else context[rows]), tried, pool)
        )
    return Explanation(*(torch.cat(same) for same in zip(*parts, strict=True)))


class _Rows:
    """Rows of which one column at a time takes other values."""

    def __init__(self, flow: Flow, x: Tensor, context: Tensor | None) -> None:
        self.x, self._flow, self._context = x, flow, context
        self.log_prob = score(flow, x, context).value.double()

    def take(self, places: Tensor) -> _Rows:
        """Return some of the rows."""
        return _Rows(self._flow, self.x[places], None if self._context is None else self._context[places])

    def with_rows(self, x: Tensor) -> _Rows:
        """Return other rows under the same contexts."""
        return _Rows(self._flow, x, self._context)

    def __len__(self) -> int:
        return len(self.x)

    def with_values(self, column: int, values: Tensor) -> Tensor:
        """Return the log-densities ``(n, k)`` of the rows with each of the values ``(n, k)`` in a column."""
        n, k = values.shape
        points = self.x[:, None].repeat(1, k, 1)
        points[..., column] = values.to(points)
        context = None if self._context is None else self._context.repeat_interleave(k, 0)
        return score(self._flow, points.flatten(0, 1), context).value.double().reshape(n, k)


@dataclass(frozen=True, slots=True)
class _Column:
    """What is tried in a column.

    Attributes:
        place: Its place in a row.
        numbers: Numbers of a density, or of a grid, in order.
        points: Values with a probability of their own, NaN for a gap.
        step: Spacing of the grid; 0: a density.
        spread: What a density is multiplied by to be held against a probability.
    """

    place: int
    numbers: Tensor
    points: Tensor
    step: float
    spread: float

    @property
    def complete(self) -> bool:
        """Whether there are no values of the grid between those that are tried."""
        return self.step > 0 and bool((self.numbers.diff() < 1.5 * self.step).all())

    def holds_point(self, values: Tensor) -> Tensor:
        """Return which values have a probability of their own."""
        gaps = values.isnan() & self.points.isnan().any()
        return torch.isin(values, self.points) | gaps

    def finer(self, values: Tensor, logs: Tensor) -> Tensor:
        """Return values ``(n, _FINER)`` around the best of ordered ones, up to two places to both sides.

        Two, since the row's own value may be among the candidates too.
        """
        best = logs.argmax(1, keepdim=True)
        low = values.gather(1, (best - 2).clamp(min=0))
        high = values.gather(1, (best + 2).clamp(max=values.shape[1] - 1))
        finer = low + (high - low) * (torch.arange(_FINER, dtype=values.dtype) + 0.5) / _FINER
        return (finer / self.step).round() * self.step if self.step else finer

    def log_mass(self, values: Tensor, logs: Tensor) -> Tensor:
        """Return the log of the integral of ordered values' densities, or of the sum of their probabilities."""
        return log_sum(values, logs, self.step) if self.step else log_integral(values, logs)


def _explained(rows: _Rows, columns: Sequence[_Column], pool: Tensor) -> tuple[Tensor, ...]:
    """Return score, gain, likely value and surprise, as an ``Explanation`` has them."""
    gain, likely, surprise = _of_columns(rows, columns)
    stuck = ((rows.log_prob == -torch.inf) & (gain == 0).all(1)).nonzero()[:, 0]
    if len(stuck):
        gain[stuck], likely[stuck] = _impossible(rows.take(stuck), columns, pool)
    return -rows.log_prob, gain, likely, surprise


def _impossible(rows: _Rows, columns: Sequence[_Column], pool: Tensor) -> tuple[Tensor, Tensor]:
    """Return gains and likely values ``(n, D)`` of rows of which no single change makes a density."""
    few = pool[torch.linspace(0, len(pool) - 1, min(_WITNESSES, len(pool))).long()].to(rows.x)
    witnesses = [rows.with_rows(row.expand_as(rows.x)) for row in few]
    cannot_be = torch.stack([_nowhere(rows.x[:, c.place], c.place, witnesses) for c in columns], 1)
    repaired = _likeliest([rows.with_rows(torch.where(cannot_be, w.x, rows.x)) for w in witnesses])
    # Where the other values are impossible together, a likely row says what is likely in the place of these.
    stuck = (repaired.log_prob == -torch.inf)[:, None]
    filled = rows.with_rows(torch.where(stuck, _likeliest(witnesses).x, repaired.x))
    _, likely, _ = _of_columns(filled, columns)
    gain = torch.zeros_like(likely).masked_fill(cannot_be, torch.inf)
    return gain, torch.where(cannot_be, likely, rows.x.double())


def _nowhere(values: Tensor, place: int, witnesses: Sequence[_Rows]) -> Tensor:
    """Return which values ``(n,)`` of a column have no density in any likely row, where there are such."""
    with_it = torch.stack([rows.with_values(place, values[:, None])[:, 0] for rows in witnesses])
    possible = torch.stack([rows.log_prob for rows in witnesses]) > -torch.inf
    return (with_it == -torch.inf).all(0) & possible.any(0)


def _likeliest(candidates: Sequence[_Rows]) -> _Rows:
    """Return for each row the candidate of the highest density."""
    best = torch.stack([rows.log_prob for rows in candidates]).nan_to_num(-torch.inf).argmax(0)
    x = torch.stack([rows.x for rows in candidates])
    return candidates[0].with_rows(x[best, torch.arange(len(best))])


def _of_columns(rows: _Rows, columns: Sequence[_Column]) -> tuple[Tensor, ...]:
    """Return gain, likely value and surprise of each column, ``(n, D)``."""
    found = [_of_column(rows, column) for column in columns]
    return tuple(torch.stack(same, 1) for same in zip(*found, strict=True))


def _of_column(rows: _Rows, column: _Column) -> tuple[Tensor, Tensor, Tensor]:
    own = rows.x[:, column.place].double()
    is_point = column.holds_point(own)
    values, logs = _numbers(rows, column, own, is_point)
    points = column.points.expand(len(rows), -1)
    logs_of_points = rows.with_values(column.place, points)
    # A probability is as it is; a density, per spread of the column, to be held against it.
    own_log = rows.log_prob + torch.where(is_point, 0.0, math.log(column.spread))
    heights = torch.cat([logs + math.log(column.spread), logs_of_points], 1)
    best, place = heights.max(1)
    stays = best == own_log
    gain = torch.where(stays, 0.0, best - own_log)
    likely = torch.where(stays, own, torch.cat([values, points], 1).gather(1, place[:, None])[:, 0])
    total = torch.cat([column.log_mass(values, logs)[:, None], logs_of_points], 1).logsumexp(1)
    cell = math.log(column.step or 1.0)
    surprise = total - rows.log_prob - torch.where(is_point, 0.0, cell)
    return gain, likely, torch.where(total == -torch.inf, torch.nan, surprise)


def _numbers(rows: _Rows, column: _Column, own: Tensor, is_point: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers that are tried in each row, in order, with their log-densities."""
    values = column.numbers.expand(len(rows), -1)
    logs = rows.with_values(column.place, values)
    # In the place of a value that is no number of the density one more of those that are, which adds nothing.
    values = torch.cat([torch.where(is_point, values[:, 0], own)[:, None], values], 1)
    logs = torch.cat([torch.where(is_point, logs[:, 0], rows.log_prob)[:, None], logs], 1)
    for _ in range(0 if column.complete else _ROUNDS):
        values, logs = _sorted(values, logs)
        finer = column.finer(values, logs)
        values = torch.cat([values, finer], 1)
        logs = torch.cat([logs, rows.with_values(column.place, finer)], 1)
    return _sorted(values, logs)


def _sorted(values: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:
    values, order = values.sort(1)
    return values, logs.gather(1, order)


def _check(
    flow: Flow, x: Tensor, references: Tensor | None, columns: Sequence[ColumnSchema] | None, candidates: int
) -> None:
    if len(flow.event_shape) != 1:
        raise ValueError(f"flow must be a density of rows, of event shape (D,), got {flow.event_shape}")
    width = flow.event_shape[0]
    for name, rows in (("x", x), ("references", references)):
        if rows is not None and (rows.ndim != 2 or rows.shape[1] != width):
            raise ValueError(f"{name} must have shape (rows, {width}), got {tuple(rows.shape)}")
    if columns is not None and len(columns) != width:
        raise ValueError(f"columns must be the schemas of the flow's {width} columns, got {len(columns)}")
    if candidates < 2:
        raise ValueError(f"candidates must be at least 2, got {candidates}")


def _samples(flow: Flow, context: Tensor | None, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if flow.context_shape is None or context is None:
        return flow.sample((_POOL,), generator=generator)
    rows = torch.linspace(0, len(context) - 1, _POOL).long()
    return flow.sample((), context[rows], generator=generator)


def _columns(
    flow: Flow, pool: Tensor, schemas: Sequence[ColumnSchema] | None, candidates: int
) -> list[_Column]:
    steps = flow.surjection.steps.tolist() if isinstance(flow.surjection, Dequantise) else []
    steps = steps or [0.0] * pool.shape[1]
    if schemas is None:
        return [_column(j, pool[:, j], step, candidates) for j, step in enumerate(steps)]
    return [_column_of(j, pool[:, j], schema, candidates) for j, schema in enumerate(schemas)]


def _column_of(place: int, pool: Tensor, schema: ColumnSchema, candidates: int) -> _Column:
    gap = [torch.nan] if schema.missing else []
    points = pool.new_tensor([*schema.atoms, *gap])
    if schema.labelled:
        codes = torch.arange(len(schema.labels), dtype=pool.dtype)
        return _Column(place, codes, points, step=1.0, spread=1.0)
    plain = _column(place, pool[~torch.isin(pool, points)], schema.step or 0.0, candidates)
    return replace(plain, points=points)


def _column(place: int, pool: Tensor, step: float, candidates: int) -> _Column:
    finite = pool[pool.isfinite()]
    if len(finite) == 0:
        finite = pool.new_zeros(1)
    spread = step or float(finite.std(correction=0)) or 1.0
    return _Column(place, _quantiles(finite, step, candidates), pool[pool.isnan()][:1], step, spread)


def _quantiles(pool: Tensor, step: float, most: int) -> Tensor:
    """Return values of a column to try, in order: all between the ends of a grid if they are few, else quantiles."""
    low, high = float(pool.min()), float(pool.max())
    if step and high - low < (most - 0.5) * step:
        return low + step * torch.arange(round((high - low) / step) + 1, dtype=pool.dtype)
    levels = torch.linspace(0.0, 1.0, most, dtype=pool.dtype)
    values: Tensor = pool.quantile(levels, interpolation="nearest").unique()
    return values
