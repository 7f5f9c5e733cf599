"""What a table's columns are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from ..configs.schema import ColumnSchema, TableSchema
from ..errors import DataError
from .columns import CELL_LIMIT, Place, Values, cleaned, not_a_number, on_grid
from .kinds import kind_of, labels_of, read_kind
from .matrix import check_height
from .names import listed, suggestion
from .texts import are_codes, as_time, hidden_numbers

_DECIMALS = range(7)
_CLOCK = (86400.0, 3600.0, 60.0, 1.0)
_ATOM_SHARE, _ATOM_ROWS, _ATOM_TIMES = 0.05, 10, 10
_EDGE_SHARE, _EDGE_ROWS = 0.01, 10
_AMOUNTS = (
    '; or, if these are amounts, run "pushforward schema" with that option, and in its file put step = 1.0 '
    '(role = "given" to condition on them) in the place of role = "drop"'
)
_ORDINAL = 32
_MOST_LABELS, _FEW_LABELS = 1000, 20

Ends = tuple[float | None, float | None]


def infer_schema(
    frame: pl.DataFrame,
    *,
    condition: Sequence[str] = (),
    exclude: Sequence[str] = (),
    bounds: Mapping[str, Ends] | None = None,
    periodic: Mapping[str, tuple[float, float]] | None = None,
    mixed: bool | None = None,
    source: str | Path | None = None,
) -> TableSchema:
    """Finds out which columns are continuous and which are discrete, and how finely.

    Values that repeat would let a flow's likelihood grow without limit: it can put ever narrower peaks on
    them. So discrete columns are recognised, and dequantised by the flow, where a value ``x`` stands for the
    cell ``[x, x + step)``:

    - a column of whole numbers below 2**44, however stored, has step 1; larger ones are continuous;
    - a column has step ``10**-k``, for the smallest k from 0 to 6 whose multiples hold all values to rounding,
      if at least half of the rows share their value with another row (a measurement written with six digits
      but hardly ever repeated is continuous);
    - any other column of numbers is continuous, and so is a periodic one; a value that fills 5 % of the rows, and
      ten times as many as others do, is an atom, with a probability of its own.

    Text is a number or a date where all of it reads as such, else a category; truth values are categories too, and so
    is text of whole numbers that are rather codes: with zeros in front, or from 2**53 on. Codes that are given ends are
    numbers.
    Dates and times are numbers of days or seconds. Gaps (nulls and NaN) have a probability in the columns that
    have any. Columns conditioned on have no density, hence no step.

    Args:
        frame: The table.
        condition: Names of the columns to condition on, in the order the flow takes them.
        exclude: Names of columns to leave out; of any type.
        bounds: Lower and upper end (None: open-ended) of a column's support. A continuous column lives
            strictly between them. For a discrete column they bound the values, ends included, and are kept as
            declared: the support of the dequantised column is ``[low, high + step)``.
        periodic: Ends of a circle, for angles and times of day: values lie in ``[low, high)``.
        mixed: Whether the model takes columns of other kinds than numbers: None, all kinds, as they are found;
            True, also where there are none, and discrete columns get the ends that they show; False, numbers
            without gaps alone.
        source: Where the table comes from, for messages.

    Returns:
        The modelled columns in the table's order, and the columns conditioned on.

    Raises:
        DataError: No rows, no column to model, an unknown name or one in two roles, ends out of order, or a
            column that `to_matrix` refuses.

    References:
        Theis et al., A note on the evaluation of generative models, 2016, section 3.1.
        https://arxiv.org/abs/1511.01844

    Example:
        >>> frame = pl.DataFrame({"count": [3, 1, 2], "size": [0.31, 2.7, 1.9], "day": [1, 2, 3]})
        >>> schema = infer_schema(frame, condition=["day"], bounds={"size": (0.0, None)})
        >>> [(c.name, c.low, c.step) for c in schema.columns], schema.context_names
        ([('count', None, 1.0), ('size', 0.0, None)], ('day',))
    """
    bounds, periodic = bounds or {}, periodic or {}
    _check_roles(
        frame.columns,
        condition=condition,
        exclude=exclude,
        bounds=bounds,
        periodic=periodic,
        source=source,
    )
    modelled = [name for name in frame.columns if name not in {*condition, *exclude}]
    if not modelled:
        raise DataError(
            "no column is left to model", source=source, remedy="Exclude or condition on fewer columns."
        )
    check_height(frame, source)
    if "" in modelled:
        raise _nameless(frame, source)
    if frame.width == 1:
        _check_apart(frame.to_series(), Place(source, modelled[0]))
    declared = _Declared(bounds, periodic)
    columns = [_infer(frame[name], Place(source, name), declared, mixed) for name in modelled]
    context = [_infer_given(frame[name], Place(source, name), mixed) for name in condition]
    try:
        schema = TableSchema(columns=tuple(columns), context=tuple(context))
    except ValueError as error:
        raise DataError(str(error), source=source) from error
    if mixed is False or (mixed is None and not schema.mixed):
        return schema
    return replace(schema, columns=tuple(_with_edges(c, frame[c.name], source) for c in columns))


def _nameless(frame: pl.DataFrame, source: str | Path | None) -> DataError:
    place = frame.columns.index("")
    if cleaned(frame.to_series(place)).null_count() == frame.height:
        problem, remedy = "has neither name nor values", "Leave out separators at the ends of lines."
    else:
        problem = "has no name"
        remedy = "Name it; or, if it numbers the rows, write the table without it (index=False in pandas)."
    return DataError(f"column number {place + 1} {problem}", source=source, remedy=remedy)


def _check_apart(series: pl.Series, place: Place) -> None:
    """Refuses a table of a single column, if that looks like several with a separator that was not recognised."""
    if series.dtype != pl.String:
        return
    texts = series.alias("").drop_nulls()
    for separator in ",;|\t":
        times = place.column.count(separator)
        if times and bool((texts.str.count_matches(separator, literal=True) == times).all()):
            raise place.error(
                f"the only column has {separator!r} in its name and values, as if that separated columns",
                None,
                "Separate columns by commas in a .csv, by tabs in a .tsv.",
            )


@dataclass(frozen=True, slots=True)
class _Declared:
    bounds: Mapping[str, Ends]
    periodic: Mapping[str, tuple[float, float]]


def _infer(series: pl.Series, place: Place, declared: _Declared, mixed: bool | None) -> ColumnSchema:
    """What a modelled column is."""
    name, low, high = place.column, *declared.bounds.get(place.column, (None, None))
    with_ends = name in declared.bounds or name in declared.periodic
    found = _kind(series, place, mixed, amounts=with_ends)
    if found.labelled:
        if with_ends:
            raise place.error("labels have no ends", None, "Leave out --bounds or --periodic for it.")
        return found
    if name in declared.periodic:
        low, high = declared.periodic[name]
        read_kind(series, found, place)
        return _made(place, found, low=low, high=high, periodic=True)
    values = read_kind(series, found, place)
    there = Values(values.numbers[~np.isnan(values.numbers)], values.rounding)
    step = _step(there) if found.kind != "datetime" else _clock_step(there)
    atoms = () if mixed is False or step is not None else _atoms(there, low, high)
    return _made(place, found, low=low, high=high, step=step, atoms=atoms)


def _made(place: Place, found: ColumnSchema, **fields: object) -> ColumnSchema:
    try:
        return replace(found, **fields)  # type: ignore[arg-type]
    except ValueError as error:
        raise DataError(str(error), source=place.source) from error


def _infer_given(series: pl.Series, place: Place, mixed: bool | None) -> ColumnSchema:
    """What a column conditioned on is: it has no density, hence no step and no atoms; truth values are 0 and 1."""
    if series.dtype == pl.Boolean and not series.null_count():
        return ColumnSchema(name=place.column)
    found = _kind(series, place, mixed)
    read_kind(series, found, place)
    return found


def _kind(series: pl.Series, place: Place, mixed: bool | None, *, amounts: bool = False) -> ColumnSchema:
    """What kind of values a column has, and whether it has gaps; what looks like codes is none if it is amounts."""
    series = cleaned(series)
    if mixed is False:
        if isinstance(series.dtype, pl.String) and not amounts and are_codes(series):
            raise place.error(
                "whole numbers written as codes, with zeros in front or beyond 2**53",
                None,
                f"Leave it out with --drop{_as_amounts(series)}. The model mixed can learn codes.",
            )
        return _plain_kind(series, place.column)
    missing = series.null_count() > 0
    if series.null_count() == len(series):
        raise place.error("holds no value at all", None, "Leave it out with --drop.")
    if isinstance(series.dtype, pl.String):
        return _kind_of_text(series, place, missing, amounts)
    if isinstance(series.dtype, pl.Boolean):
        return ColumnSchema(name=place.column, kind="boolean", missing=missing)
    return replace(_plain_kind(series, place.column), missing=missing)


def _kind_of_text(texts: pl.Series, place: Place, missing: bool, amounts: bool) -> ColumnSchema:
    """Numbers or times, where all of it reads as such; else labels, unless most of it reads as numbers or dates."""
    numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
    if numbers.count() == texts.count():
        if amounts or not are_codes(texts):
            return ColumnSchema(name=place.column, missing=missing)
        return _category(texts, place, missing)
    times = as_time(texts)
    if times is not None:
        return replace(_plain_kind(times, place.column), missing=missing)
    remedy = "Write a number, or nothing where it is missing; or leave the column out with --drop."
    hidden = hidden_numbers(texts, as_labels=True)
    if hidden is not None:
        raise place.error(hidden.problem, hidden.place, hidden.remedy)
    if 2 * numbers.count() > texts.count():
        raise not_a_number(texts, (numbers.is_null() & texts.is_not_null()).arg_max() or 0, place, remedy)
    return _category(texts, place, missing)


def _category(texts: pl.Series, place: Place, missing: bool) -> ColumnSchema:
    return ColumnSchema(name=place.column, kind="category", categories=_labels(texts, place), missing=missing)


def _plain_kind(series: pl.Series, name: str) -> ColumnSchema:
    """What kind of numbers a column has, for models of numbers alone; what is none is refused when it is read."""
    if series.dtype.is_temporal():
        kind, zone = kind_of(series.dtype)
        return ColumnSchema(name=name, kind=kind, timezone=zone)
    return ColumnSchema(name=name)


def _labels(texts: pl.Series, place: Place) -> tuple[str, ...]:
    """The labels of a column of text, sorted.

    Raises:
        DataError: So many that they rather name the rows, or are numbers with a unit.
    """
    labels = labels_of(texts).drop_nulls()
    distinct = labels.unique().sort().to_list()
    if len(distinct) <= _FEW_LABELS or (len(distinct) <= _MOST_LABELS and 2 * len(distinct) <= len(labels)):
        return tuple(distinct)
    hidden = hidden_numbers(texts)
    if hidden is not None:
        raise place.error(hidden.problem, hidden.place, hidden.remedy)
    raise place.error(
        f"holds {len(distinct):,} different texts in {len(labels):,} rows, such as {distinct[0][:40]!r}: "
        "names of rows, not labels",
        None,
        f"Leave it out with --drop{_as_amounts(texts)}.",
    )


def _as_amounts(texts: pl.Series) -> str:
    """How codes, unless they are too large for a grid, become numbers."""
    fit = are_codes(texts) and not (texts.str.strip_chars().cast(pl.Float64).abs() >= CELL_LIMIT).any()
    return _AMOUNTS if fit else ""


def _atoms(there: Values, low: float | None, high: float | None) -> tuple[float, ...]:
    """Values that fill a good part of the rows of a continuous column, within its support.

    Those stored in 32 bits are the shortest decimals that mean them, as text would have them.
    """
    numbers = there.numbers
    values, counts = np.unique(numbers, return_counts=True)
    # Rounded measurements repeat too, but none of them stands out.
    enough = (counts >= max(_ATOM_ROWS, _ATOM_SHARE * len(numbers))) & (
        counts >= _ATOM_TIMES * np.median(counts)
    )
    found = [float(str(np.float32(v))) if there.single else float(v) for v in values[enough]]
    return tuple(v for v in found if (low is None or v >= low) and (high is None or v <= high))


def _with_edges(column: ColumnSchema, series: pl.Series, source: str | Path | None) -> ColumnSchema:
    """A discrete column with the ends that its values show.

    At a hard edge many rows hold the last value: 10, and a hundredth of all. Counts from 0 or 1 end there; grades, of
    at most 32 levels, may end on both sides.
    """
    if column.step is None or column.bounded or column.kind != "number":
        return column
    numbers, _ = on_grid(read_kind(series, column, Place(source, column.name)), column.step)
    values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    enough = max(_EDGE_ROWS, _EDGE_SHARE * int(counts.sum()))
    ordinal = len(values) <= _ORDINAL
    low = float(values[0]) if counts[0] >= enough and (ordinal or values[0] in (0.0, 1.0)) else None
    high = float(values[-1]) if counts[-1] >= enough and ordinal and len(values) > 1 else None
    return replace(column, low=low, high=high)


def _check_roles(
    known: Sequence[str],
    *,
    condition: Sequence[str],
    exclude: Sequence[str],
    bounds: Mapping[str, Ends],
    periodic: Mapping[str, tuple[float, float]],
    source: str | Path | None,
) -> None:
    roles = {
        "conditioned on": list(condition),
        "excluded": list(exclude),
        "given bounds": list(bounds),
        "declared periodic": list(periodic),
    }
    taken: dict[str, str] = {}
    for role, names in roles.items():
        for name in names:
            if name not in known:
                raise DataError(
                    f"no such column, to be {role}; the table has {listed(known)}",
                    source=source,
                    column=name,
                    remedy=suggestion(name, known),
                )
            if name in taken:
                raise DataError(
                    f"the column cannot be both {taken[name]} and {role}"
                    if taken[name] != role
                    else f"{role} twice",
                    source=source,
                    column=name,
                    remedy="Name it once.",
                )
            taken[name] = role


def _clock_step(values: Values) -> float | None:
    """The longest of day, hour, minute and second whose multiples all moments are, or None."""
    return next((step for step in _CLOCK if on_grid(values, step)[1].all()), None)


def _step(values: Values) -> float | None:
    """Spacing of the grid that a column lives on, or None if it is continuous."""
    numbers = values.numbers
    largest = float(np.abs(numbers).max())
    if bool((numbers == np.floor(numbers)).all()):
        return 1.0 if largest < CELL_LIMIT else None
    counts = np.unique(numbers, return_counts=True)[1]
    if 2 * int(counts[counts > 1].sum()) < len(numbers):
        return None
    for k in _DECIMALS:
        step = 10.0**-k
        # Where rounding alone covers an eighth of a cell, lying on the grid says nothing.
        if largest > step * min(CELL_LIMIT, 1 / (64 * values.rounding)):
            return None
        nearest, fits = on_grid(values, step)
        if fits.all():
            return step if nearest.any() else None  # all of it so small that it is 0 but for rounding
    return None
