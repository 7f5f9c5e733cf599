"""Columns of every kind as numbers, and back: labels by their places, dates and times by their units, gaps as NaN."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs.schema import TRUTHS, ColumnSchema
from .columns import Place, Values, read_column
from .names import suggestion

_SHOWN = 12
_DAY = 86400.0
_FORMATS = {
    "date": ("%Y-%m-%d",),
    "datetime": (
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H:%M:%S%.fZ",
        "%Y-%m-%d %H:%M:%S%.f%:z",
        "%Y-%m-%dT%H:%M:%S%.f%:z",
    ),
    "time": ("%H:%M:%S%.f", "%H:%M"),
}


def read_kind(series: pl.Series, column: ColumnSchema, place: Place) -> Values:
    """The values of a column of any kind as numbers; gaps are NaN where the column may have them.

    Raises:
        DataError: A gap in a column without any, a label that the column does not have, text that is no number, date
            or time, and what `read_column` refuses.
    """
    series = series.alias("")
    if column.labelled:
        return Values(_places(series, column, place), float(np.finfo(np.float64).eps))
    if column.kind != "number":
        series = _seconds(series, column, place)
    return read_column(series, place, gaps=column.missing)


def labels_of(series: pl.Series) -> pl.Series:
    """The values of a column as labels: text as it stands, whole numbers without a decimal point.

    Example:
        >>> labels_of(pl.Series([1.0, 2.5, None])).to_list()
        ['1', '2.5', None]
    """
    if series.dtype.is_float():
        whole = series.is_finite().all() and bool((series.drop_nulls() == series.drop_nulls().floor()).all())
        if whole:
            series = series.cast(pl.Int64, strict=False)
    labels = series.cast(pl.String)
    return labels.str.to_lowercase() if series.dtype == pl.Boolean else labels


def as_time(series: pl.Series) -> pl.Series | None:
    """Text as dates, datetimes or times of day, where all of it reads as such in ISO 8601; else None.

    Example:
        >>> as_time(pl.Series(["2024-02-29", None])).dtype, as_time(pl.Series(["2024-02-30"])) is None
        (Date, True)
    """
    texts = series.cast(pl.String).str.strip_chars()
    given = texts.is_not_null()
    if not given.any():
        return None
    kinds = {"date": pl.Date, "datetime": pl.Datetime("us"), "time": pl.Time}
    for kind, formats in _FORMATS.items():
        for text_format in formats:
            zoned = text_format.endswith(("%:z", "Z"))
            dtype = pl.Datetime("us", "UTC") if text_format.endswith("%:z") else kinds[kind]
            first = texts.filter(given).head(1).str.strptime(dtype, text_format, strict=False)
            if first.is_null().any():
                continue
            parsed = texts.str.strptime(dtype, text_format, strict=False)
            if not bool((parsed.is_null() & given).any()):
                if zoned and parsed.dtype.time_zone is None:  # type: ignore[attr-defined]
                    return parsed.dt.replace_time_zone("UTC")
                return parsed
    return None


def kind_of(dtype: pl.DataType) -> tuple[str, str | None]:
    """The kind of a column with dates or times, and its timezone.

    Example:
        >>> kind_of(pl.Datetime("ms", "Europe/Paris"))
        ('datetime', 'Europe/Paris')
    """
    if isinstance(dtype, pl.Datetime):
        return "datetime", dtype.time_zone
    return {pl.Date: "date", pl.Time: "time", pl.Duration: "duration"}[type(dtype)], None


def write_kind(values: NDArray[np.float64], column: ColumnSchema) -> pl.Series:
    """Numbers as a column of their kind, gaps as nulls.

    Example:
        >>> column = ColumnSchema(name="c", kind="category", categories=("x", "y"), missing=True)
        >>> write_kind(np.array([1.0, np.nan, 0.0]), column).to_list()
        ['y', None, 'x']
    """
    series = pl.Series(column.name, values, nan_to_null=True)
    if column.labelled:
        places = series.cast(pl.Int64)
        labels = pl.Series(column.name, list(column.labels)).gather(places)
        if column.kind == "boolean":
            return labels == TRUTHS[1]
        numbers = labels.cast(pl.Int64, strict=False)
        own = pl.Series(column.categories)
        written_as_numbers = bool(
            (own.cast(pl.Int64, strict=False).cast(pl.String) == own).fill_null(False).all()
        )
        return numbers if written_as_numbers else labels
    if column.kind == "date":
        return series.round().cast(pl.Int32).cast(pl.Date)
    if column.kind == "datetime":
        moments = (series * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us"))
        if column.timezone is None:
            return moments
        return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(column.timezone)
    if column.kind == "time":
        return (series.clip(0.0, _DAY - 1e-6) * 1e9).round().cast(pl.Int64).cast(pl.Time)
    if column.kind == "duration":
        return (series * 1e6).round().cast(pl.Int64).cast(pl.Duration("us"))
    return series.cast(pl.Int64) if column.integer else series


def _places(series: pl.Series, column: ColumnSchema, place: Place) -> NDArray[np.float64]:
    """The places of labels; NaN for gaps, where the column may have them."""
    if column.kind == "boolean" and series.dtype.is_numeric():
        series = series.replace_strict({0: False, 1: True}, default=series, return_dtype=pl.String)
    labels = labels_of(series)
    if column.kind == "boolean":
        labels = labels.str.to_lowercase()
    if series.dtype == pl.String:
        labels = pl.select(pl.when(labels.str.strip_chars() != "").then(labels)).to_series()
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


def _seconds(series: pl.Series, column: ColumnSchema, place: Place) -> pl.Series:
    """Days of dates; seconds of times, durations, and of datetimes since 1970."""
    dtype = series.dtype
    if isinstance(dtype, pl.String):
        blank = pl.select(pl.when(series.str.strip_chars() != "").then(series)).to_series()
        parsed = as_time(blank) if blank.is_not_null().any() else blank.cast(pl.Float64)
        if parsed is None:
            bad = _first_bad(blank, column)
            raise place.error(
                f"{str(blank[bad])[:60]!r} is no {column.kind}",
                bad,
                "Write it in ISO 8601, or leave the row out.",
            )
        series, dtype = parsed, parsed.dtype
    if not dtype.is_temporal():
        return series  # numbers in the units of the kind
    kind, _ = kind_of(dtype)
    if kind != column.kind and not (kind == "date" and column.kind == "datetime"):
        raise place.error(
            f"holds {dtype}, but the column is of kind {column.kind}",
            None,
            "Convert the column, or fit again.",
        )
    if kind == "date":
        days = series.cast(pl.Int32).cast(pl.Float64)
        return days if column.kind == "date" else days * _DAY
    if kind == "time":
        return series.cast(pl.Int64).cast(pl.Float64) / 1e9
    if kind == "datetime" and dtype.time_zone is not None:  # type: ignore[attr-defined]
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    unit = {"ms": 1e3, "us": 1e6, "ns": 1e9}[dtype.time_unit]  # type: ignore[attr-defined]
    return series.cast(pl.Int64).cast(pl.Float64) / unit


def _first_bad(texts: pl.Series, column: ColumnSchema) -> int:
    """The first text that is none of the kind: the first which, alone, does not read as the first of all does."""
    given = texts.is_not_null()
    reads = [
        texts.str.strip_chars()
        .str.strptime(
            {"date": pl.Date, "time": pl.Time}.get(column.kind, pl.Datetime("us")), text_format, strict=False
        )
        .is_not_null()
        for text_format in _FORMATS.get(column.kind, ())
        if not text_format.endswith("z")
    ]
    best = max(reads, key=lambda fits: int(fits.sum() or 0), default=~given)
    return int((given & ~best).arg_max() or 0)
