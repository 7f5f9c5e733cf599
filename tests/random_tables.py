"""Random tables with columns of every kind."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st

NAMES = ("a", "^a$", "^.*$", "two words", 'quo"te', "line\nend", "Größe", "列", "[0]", "#", "role")
WORDS = (
    "NA",
    "n/a",
    "None",
    "null",
    "?",
    "-",
    "true",
    "Yes",
    " x",
    "x ",
    "x",
    "ñ",
    "😀",
    "1st",
    "a,b",
    'say "so"',
)
PLAIN_WORDS = ("red", "green", "deep blue", "Größe", "a,b", 'say "so"', "x", "e")
ZONES = ("UTC", "Europe/Paris", "Asia/Kolkata")


def is_label(text: str) -> bool:
    """Whether text is neither a gap nor a number."""
    try:
        float(text)
    except ValueError:
        return bool(text.strip())
    return False


MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
NEW_MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1))
ROUND_MOMENTS = MOMENTS.map(lambda moment: moment.replace(minute=0, second=0, microsecond=0))
SPANS = st.timedeltas(timedelta(days=-30_000), timedelta(days=30_000))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TENTHS = st.integers(-999, 999).map(lambda n: n / 10)
LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Nd", "Nl", "No"])
LABELS = st.sampled_from(WORDS) | st.text(LETTERS, min_size=1, max_size=5).filter(is_label)

VALUES: dict[str, tuple[st.SearchStrategy[Any], tuple[pl.DataType, ...]]] = {
    "label": (LABELS, (pl.String(), pl.Categorical())),
    "truth": (st.booleans(), (pl.Boolean(),)),
    "count": (st.integers(0, 99), (pl.Int8(), pl.UInt16(), pl.Int64(), pl.Float32())),
    "whole": (st.integers(-(2**53) + 1, 2**53 - 1), (pl.Int64(), pl.Int128())),
    "tenth": (TENTHS, (pl.Float64(), pl.Decimal(12, 1))),
    "float": (FLOATS, (pl.Float64(),)),
    "date": (st.dates(date(1000, 1, 1)), (pl.Date(),)),
    "time": (st.times(), (pl.Time(),)),
    "datetime": (MOMENTS | ROUND_MOMENTS, tuple(pl.Datetime(unit) for unit in ("ms", "us", "ns"))),
    "zoned": (MOMENTS | ROUND_MOMENTS, tuple(pl.Datetime("us", zone) for zone in ZONES)),
    "duration": (SPANS, tuple(pl.Duration(unit) for unit in ("ms", "us", "ns"))),
}


@st.composite
def columns(draw: st.DrawFn, kind: str, rows: int, *, plain: bool = False) -> pl.Series:
    """A column of one kind without a name, perhaps with gaps, the first value being none."""
    values, dtypes = VALUES[kind]
    dtypes = tuple(dtype for dtype in dtypes if not plain or dtype != pl.Int128)
    if plain and kind == "label":
        values, dtypes = st.sampled_from(PLAIN_WORDS), (pl.String(),)
    if plain and kind == "zoned":
        values = NEW_MOMENTS  # zones once had offsets of odd seconds, which text does not hold
    gaps = st.none() if draw(st.booleans()) else st.nothing()
    cells = [draw(values), *draw(st.lists(values | gaps, min_size=rows - 1, max_size=rows - 1))]
    dtype = draw(st.sampled_from(dtypes))
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        moments = pl.Series("", cells, pl.Datetime("us"))
        return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
    series = pl.Series("", cells, strict=False).cast(dtype)
    return series.fill_null(float("nan")) if dtype.is_float() and draw(st.booleans()) else series


@st.composite
def frames(draw: st.DrawFn, *, plain: bool = False) -> pl.DataFrame:
    """A table of columns of all kinds; a plain one can be written as CSV without loss but of time zones."""
    rows = draw(st.integers(1, 8))
    kinds = [kind for kind in VALUES if not (plain and kind == "duration")]
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    if plain:
        names = ["number", *names]  # lines of a single column would be blank where its gaps are
    drawn = [draw(columns(draw(st.sampled_from(kinds)), rows, plain=plain)) for _ in names]
    if plain:
        drawn[0] = pl.Series(range(rows))
    return pl.DataFrame([series.alias(name) for name, series in zip(names, drawn, strict=True)])
