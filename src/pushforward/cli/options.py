"""What the user writes after an option, as values."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from difflib import get_close_matches

from ..errors import PushforwardError

Ends = tuple[float | None, float | None]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


class UsageError(PushforwardError):
    """An option or a settings file that cannot be understood."""

    exit_code = 2


def duration(text: str, option: str) -> float:
    """Return the seconds that the text after an option stands for.

    Raises:
        UsageError: No duration, or none of more than 0 seconds.

    Example:
        >>> [duration(text, "--max-time") for text in ("90", "90s", "10m", "1h30m")]
        [90.0, 90.0, 600.0, 5400.0]
    """
    match = _DURATION.fullmatch(text.strip())
    parts = match.groups() if match else ()
    seconds = sum(
        float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=False) if part is not None
    )
    if not seconds > 0:
        raise UsageError(f"{option}: expected a time such as 90, 90s, 10m or 1h30m, got {text!r}")
    return seconds


def sides(text: str, option: str, what: str, example: str) -> tuple[int, int]:
    """Return the two whole numbers, of at least 1, that stand with an x between them after an option.

    Raises:
        UsageError: Another form.

    Example:
        >>> sides("10x8", "--grid", "rows x columns", "8x8")
        (10, 8)
    """
    first, _, second = text.lower().replace("\u00d7", "x").partition("x")
    try:
        pair = int(first), int(second)
    except ValueError:
        pair = (0, 0)
    if min(pair) < 1:
        raise UsageError(f"{option}: expected {what} such as {example}, got {text!r}")
    return pair


def names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the column names of an option that may be repeated, each text holding names with commas between.

    A name with a comma in it stands in double quotes.

    Raises:
        UsageError: A line end in a name outside quotes.

    Example:
        >>> names(["a,b", '"c,d"'])
        ('a', 'b', 'c,d')
    """
    rows = csv.reader(texts, skipinitialspace=True)
    try:
        return tuple(name for row in rows for name in row if name)
    except csv.Error:
        raise UsageError(
            f"expected column names with commas between, got {' '.join(map(repr, texts))}"
        ) from None


def ends(option: str, texts: Sequence[str]) -> dict[str, Ends]:
    """Return the ends of columns given as COL=LOW:HIGH; an end that is left out, or infinite, is open.

    Raises:
        UsageError: Another form, or a column given twice.

    Example:
        >>> ends("--bounds", ["size=0:", "share=0:1"])
        {'size': (0.0, None), 'share': (0.0, 1.0)}
    """
    result: dict[str, Ends] = {}
    for text in texts:
        name, _, interval = text.rpartition("=")
        low, colon, high = interval.partition(":")
        try:
            pair = _end(low, -math.inf), _end(high, math.inf)
        except ValueError:
            colon = ""
        if not name or not colon:
            raise UsageError(f"{option}: expected COL=LOW:HIGH, such as size=0:10 or size=0:, got {text!r}")
        if name in result:
            raise UsageError(f"{option}: column {name!r} is given twice")
        result[name] = pair
    return result


def circles(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the ends of the circles of columns given as COL=LOW:HIGH.

    Raises:
        UsageError: As ``ends``, or an open end.
    """
    result = {}
    for name, (low, high) in ends("--periodic", texts).items():
        if low is None or high is None:
            raise UsageError(f"--periodic: column {name!r} needs both ends, such as {name}=0:360")
        result[name] = (low, high)
    return result


Value = int | float | str
"""A number, or a label; "" is a gap."""


def values(texts: Sequence[str]) -> dict[str, Value]:
    """Return the values of columns given as COL=VALUE.

    Raises:
        UsageError: Another form, or a column given twice.

    Example:
        >>> values(["age=30", "size=1.5", "city=Oslo", "note="])
        {'age': 30, 'size': 1.5, 'city': 'Oslo', 'note': ''}
    """
    result: dict[str, Value] = {}
    for text in texts:
        name, _, written = text.rpartition("=")
        number = _number(written)
        # Only what a number would be written like is one: "01" and "1e5" may be labels, and are read as numbers where
        # the column holds numbers.
        value: Value = number if str(number) == written else written
        if not name or "=" not in text:
            raise UsageError(f"--set: expected COL=VALUE, such as age=30 or city=Oslo, got {text!r}")
        if name in result:
            raise UsageError(f"--set: column {name!r} is given twice")
        result[name] = value
    return result


def closest(name: str, known: Sequence[str]) -> str:
    """Return a question that names the closest known spelling, with a space before it, or nothing."""
    close = get_close_matches(name, known, n=1)
    return f" Is {close[0]!r} meant?" if close else ""


def _end(text: str, open_end: float) -> float | None:
    value = float(text) if text.strip() else open_end
    if math.isnan(value):
        raise ValueError("an end must be a number, got NaN")
    return None if value == open_end else value


def _number(text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return math.nan
