"""Columns of every kind as numbers, and back: labels by their places, dates and times by their units, gaps as NaN."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs.schema import TRUTHS, ColumnSchema
from .columns import Place, Values, cleaned, read_column
from .names import suggestion
from .texts import as_time, first_unlike

_SHOWN = 12
_DAY = 86400.0
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # of the years 1 and 9999, which ISO 8601 ends with
_VAST = 2.0**62
_EPSILON = float(np.finfo(np.float64).eps)


def read_kind(series: pl.Series, column: ColumnSchema, place: Place) -> Values:
    """The values of a column of any kind as numbers; gaps are NaN where the column may have them.

    Raises:
        DataError: A gap in a column without any, a label that the column does not have, text that is no number, date
            or time, and what `read_column` refuses.
    """
    if column.kind == "number":
        return read_column(series, place, gaps=column.missing)
    series = cleaned(series)
    if column.labelled:
        return Values(_places(series, column, place), _EPSILON)
    numbers = read_column(_seconds(series, column, place), place, gaps=column.missing).numbers
    return Values(numbers, _EPSILON / 16)  # nearest to whole microseconds: one off a full hour is off it


def labels_of(series: pl.Series) -> pl.Series:
    """The values of a column as labels: text as it stands, whole numbers without a decimal point.

    Example:
        >>> labels_of(pl.Series([1.0, 2.5, None])).to_list()
        ['1', '2.5', None]
    """
    labels = series.cast(pl.String)
    if series.dtype.is_float():
        whole = (series == series.floor()) & (series.abs() < _VAST)
        digits = series.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.select(pl.when(whole).then(digits).otherwise(labels)).to_series()
    return labels.str.to_lowercase() if series.dtype == pl.Boolean else labels


def kind_of(dtype: pl.DataType) -> tuple[str, str | None]:
    """The kind of a column with dates or times, and its timezone.

    Example:
        >>> kind_of(pl.Datetime("ms", "Europe/Paris"))
        ('datetime', 'Europe/Paris')
    """
    if isinstance(dtype, pl.Datetime):
        return "datetime", dtype.time_zone
    return type(dtype).__name__.lower(), None


def write_kind(values: NDArray[np.float64], column: ColumnSchema) -> pl.Series:
    """Numbers as a column of their kind, gaps as nulls.

    What no calendar holds becomes the nearest moment that it does hold.

    Example:
        >>> column = ColumnSchema(name="c", kind="category", categories=("x", "y"), missing=True)
        >>> write_kind(np.array([1.0, np.nan, 0.0]), column).to_list()
        ['y', None, 'x']
    """
    return _written(pl.Series(values, nan_to_null=True), column).alias(column.name)


def _written(series: pl.Series, column: ColumnSchema) -> pl.Series:
    if column.labelled:
        return _labelled(series, column)
    if column.kind == "date":
        return _whole(series, _FIRST_DAY, _LAST_DAY).cast(pl.Int32).cast(pl.Date)
    if column.kind == "datetime":
        first, last = _FIRST_DAY * _DAY * 1e6, (_LAST_DAY + 1) * _DAY * 1e6 - 1
        moments = _whole(series * 1e6, first, last).cast(pl.Datetime("us"))
        if column.timezone is None:
            return moments
        return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(column.timezone)
    if column.kind == "time":
        last = _DAY - column.step if column.step else _DAY - 1e-9
        return _whole(series * 1e9, 0.0, last * 1e9).cast(pl.Time)
    if column.kind == "duration":
        return _whole(series * 1e6, -_VAST, _VAST).cast(pl.Duration("us"))
    return _whole(series, -_VAST, _VAST) if column.integer else series


def _labelled(series: pl.Series, column: ColumnSchema) -> pl.Series:
    labels = pl.Series(column.labels).gather(series.cast(pl.Int64))
    if column.kind == "boolean":
        return labels == TRUTHS[1]
    own = pl.Series(column.categories)
    numbers = own.cast(pl.Int64, strict=False).cast(pl.String)
    return labels.cast(pl.Int64) if bool((numbers == own).fill_null(False).all()) else labels


def _whole(series: pl.Series, low: float, high: float) -> pl.Series:
    return series.clip(low, high).round().cast(pl.Int64)


def _places(series: pl.Series, column: ColumnSchema, place: Place) -> NDArray[np.float64]:
    """The places of labels; NaN for gaps, where the column may have them."""
    labels = _as_labels(series, column, place)
    gaps = labels.is_null()
    if gaps.any() and not column.missing:
        raise place.error(
            "missing value, but the column had none when the flow was fitted",
            gaps.arg_max(),
            "Leave out the row, or fit again on data with gaps.",
        )
    places = {label: float(k) for k, label in enumerate(column.labels)}
    numbers = labels.replace_strict(places, default=None, return_dtype=pl.Float64)
    unknown = numbers.is_null() & ~gaps
    if unknown.any():
        row = unknown.arg_max() or 0
        label = str(labels[row])
        shown = ", ".join(map(repr, column.labels[:_SHOWN])) + ("" if len(places) <= _SHOWN else ", ...")
        close = suggestion(label, list(column.labels))
        raise place.error(
            f"unknown label {label[:60]!r}; known are {shown}",
            row,
            close or "Leave out the row, or fit again on data that have it.",
        )
    return numbers.to_numpy()


def _as_labels(series: pl.Series, column: ColumnSchema, place: Place) -> pl.Series:
    dtype = series.dtype
    if not (dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.String, pl.Boolean, pl.Null)):
        raise _other_kind(series, column, place)
    labels = labels_of(series)
    if column.kind == "boolean":
        return labels.str.to_lowercase().replace({"0": TRUTHS[0], "1": TRUTHS[1]})
    if dtype == pl.Boolean:  # text of truth values alone, which has lost its capitals
        return labels.replace({label.lower(): label for label in column.categories})
    return labels


def _seconds(series: pl.Series, column: ColumnSchema, place: Place) -> pl.Series:
    """Days of dates; seconds of times, durations, and of datetimes since 1970; numbers are taken for such."""
    if series.dtype == pl.String:
        series = _parsed(series, column, place)
    dtype = series.dtype
    if dtype.is_numeric() or dtype == pl.Null:
        return series
    if not dtype.is_temporal():
        raise _other_kind(series, column, place)
    kind, zone = kind_of(dtype)
    if kind != column.kind and not (kind == "date" and column.kind == "datetime"):
        raise _other_kind(series, column, place)
    if (zone is None) != (column.timezone is None):
        have, had = ("no timezone", "one") if zone is None else ("a timezone", "none")
        raise place.error(
            f"the datetimes have {have}, but the column had {had} when the flow was fitted",
            None,
            "Convert them to datetimes like those, or fit again.",
        )
    if kind == "date":
        days = series.cast(pl.Int32).cast(pl.Float64)
        return days if column.kind == "date" else days * _DAY
    if kind == "time":
        unit = 1e9
    else:  # in nanoseconds the moments of today are more than a float64 holds
        series, unit = series.dt.cast_time_unit("us"), 1e6
    # NumPy divides; polars multiplies by the inverse, and whole seconds would not stay whole.
    return pl.Series(series.cast(pl.Int64).cast(pl.Float64).to_numpy() / unit)


def _parsed(texts: pl.Series, column: ColumnSchema, place: Place) -> pl.Series:
    if not texts.is_not_null().any():
        return texts.cast(pl.Float64)
    parsed = as_time(texts)
    if parsed is None:
        bad = first_unlike(texts, column)
        raise place.error(
            f"{str(texts[bad])[:60]!r} is no {column.kind}",
            bad,
            "Write it in ISO 8601, or leave the row out.",
        )
    return parsed


def _other_kind(series: pl.Series, column: ColumnSchema, place: Place) -> Exception:
    problem = f"holds {series.dtype}, but the column is of kind {column.kind}"
    return place.error(problem, None, "Convert the column, or fit again.")
