"""What text in a table stands for: dates and times in ISO 8601, and numbers in a dress that hides them."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from ..configs.schema import ColumnSchema

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


class Hidden(NamedTuple):
    """A text that hides a number or date.

    Attributes:
        place: Where it stands, counted from 0.
        problem: What is wrong with it.
        remedy: What to do about it.
    """

    place: int
    problem: str
    remedy: str


class _Dress(NamedTuple):
    """How a number may be written so that it does not read as one.

    Attributes:
        pattern: What the text matches.
        remedy: What to do about it.
        label: Whether few such texts may just as well be labels, such as 1st and 2nd.
    """

    pattern: str
    remedy: str
    label: bool = False


_DRESSES = (
    _Dress(
        r"^[-+]?\d{1,3}([,' \u00a0\u202f]\d{3})+(\.\d+)?$",
        "Write decimal points, not commas, and no separators of thousands.",
    ),
    _Dress(
        r"^[-+]?\d{1,3}(\.\d{3})+,\d+$", "Write decimal points, not commas, and no separators of thousands."
    ),
    _Dress(r"^[-+]?\d*,\d+$", "Write decimal points, not commas."),
    _Dress(r"^[-+]?\d[\d.,]*\s*%$", "Write the number alone, without the percent sign.", label=True),
    _Dress(
        r"^[-+]?\d[\d.,]*\s*[^\W\d]{1,4}[²³]?$|^[-+]?\d[\d.,]*\s*[$€£¥°]\w?$|^[$€£¥]\s*\d[\d.,]*$",
        "Write the number alone, without its unit.",
        label=True,
    ),
)
_DATE = r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b|^\d{1,2}[-/.]\d{1,2}[-/.]\d{4}\b|^\d{1,2}/\d{1,2}/\d{2}\b"


def hidden_numbers(texts: pl.Series, *, as_labels: bool = False) -> Hidden | None:
    """The first text that hides a number or date, where more than half of all do.

    Args:
        texts: The texts, gaps as nulls.
        as_labels: Whether what may be a label is taken for one.

    Example:
        >>> hidden_numbers(pl.Series(["1,5", "2,25", None]))
        Hidden(place=0, problem="text where a number is expected: '1,5'", remedy='Write decimal points, not commas.')
        >>> hidden_numbers(pl.Series(["1st", "2nd"]), as_labels=True) is None
        True
    """
    bare = texts.str.strip_chars()
    if _most(bare.str.contains(_DATE), texts):
        index = _first_odd_date(bare)
        remedy = "Write all dates in one form of ISO 8601, such as 2024-02-29 or 2024-02-29 18:30:00."
        return Hidden(
            index, f"no date of ISO 8601, or of another form than most: {texts[index][:60]!r}", remedy
        )
    for dress in _DRESSES:
        worn = bare.str.contains(dress.pattern)
        if not (as_labels and dress.label) and _most(worn, texts):
            index = int(worn.fill_null(False).arg_max() or 0)
            return Hidden(index, f"text where a number is expected: {texts[index][:60]!r}", dress.remedy)
    return None


def are_codes(texts: pl.Series) -> bool:
    """Whether texts are whole numbers that rather name something: some with zeros in front, or from 2**53 on.

    Example:
        >>> [are_codes(pl.Series(texts)) for texts in (["00123", "4567"], ["0", "12"], ["01", "x"], ["9" * 16, "1"])]
        [True, False, False, True]
    """
    bare = texts.drop_nulls().str.strip_chars()
    if not bare.str.contains(r"^[-+]?\d+$").all():
        return False
    return bool((bare.str.contains(r"^0\d") | (bare.cast(pl.Float64).abs() >= 2.0**53)).any())


def _most(matching: pl.Series, texts: pl.Series) -> bool:
    return 2 * int(matching.sum() or 0) > texts.count()


def _first_odd_date(texts: pl.Series) -> int:
    kinds = (ColumnSchema(name="", kind=kind) for kind in ("date", "datetime"))
    return max(first_unlike(texts, column) for column in kinds)


def as_time(series: pl.Series) -> pl.Series | None:
    """Text as dates, datetimes or times of day, where all of it reads as such in ISO 8601; else None.

    Example:
        >>> as_time(pl.Series(["2024-02-29", None])).dtype, as_time(pl.Series(["2024-02-30"])) is None
        (Date, True)
    """
    texts = series.str.strip_chars()
    given = texts.is_not_null()
    if not given.any():
        return None
    first = texts.filter(given).head(1)
    for kind, formats in _FORMATS.items():
        for text_format in formats:
            if _read(first, kind, text_format).is_null().any():
                continue
            parsed = _read(texts, kind, text_format)
            if not bool((parsed.is_null() & given).any()):
                return parsed
    return None


def first_unlike(texts: pl.Series, column: ColumnSchema) -> int:
    """The place of the first text that is none of the column's kind, in the form that most of the texts have.

    Example:
        >>> first_unlike(pl.Series(["2024-02-29", "2024-03-01", "March"]), ColumnSchema(name="day", kind="date"))
        2
    """
    bare = texts.str.strip_chars()
    given = bare.is_not_null()
    reads = [
        _read(bare, column.kind, text_format).is_not_null() for text_format in _FORMATS.get(column.kind, ())
    ]
    best = max(reads, key=lambda fits: int(fits.sum() or 0), default=~given)
    return int((given & ~best).arg_max() or 0)


def _read(texts: pl.Series, kind: str, text_format: str) -> pl.Series:
    """Texts of one form as dates, datetimes or times; what has another form becomes null."""
    if kind != "datetime":
        return texts.str.strptime(pl.Date if kind == "date" else pl.Time, text_format, strict=False)
    if text_format.endswith("%:z"):
        return texts.str.strptime(pl.Datetime("us", "UTC"), text_format, strict=False)
    moments = texts.str.strptime(pl.Datetime("us"), text_format, strict=False)
    return moments.dt.replace_time_zone("UTC") if text_format.endswith("Z") else moments
