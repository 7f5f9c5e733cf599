"""What a person should know of a column before fitting: what it holds, and what its schema may say otherwise."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs.schema import ColumnSchema
from .columns import WHOLE_LIMIT, Place, cleaned
from .kinds import labels_of, read_kind, write_kind

_FEW_CODES = 12
_MOST_SHOWN = 40
_FAR = 10.0
_DAY = 86400.0
_CIRCLES = (
    (r"hour|hod", 0.0, 24.0),
    (r"week_?day|day_?of_?week|dow", 0.0, 7.0),
    (r"minute", 0.0, 60.0),
    (r"month", 1.0, 13.0),
    (r"lon(g|gitude)?|heading|angle|bearing|direction|azimuth|deg(rees?)?", -180.0, 180.0),
    (r"angle|heading|bearing|direction|azimuth|deg(rees?)?|hue|lon(g|gitude)?", 0.0, 360.0),
    (r"angle|phase|phi|theta|psi|rad(ians?)?|direction|heading", -np.pi, np.pi),
    (r"angle|phase|phi|theta|psi|rad(ians?)?|direction|heading", 0.0, 2 * np.pi),
)
"""Names of columns that may be circles, and the ends of the circle: the first that holds all values."""


class Hint(NamedTuple):
    """What the schema of a column may say otherwise.

    Attributes:
        reason: When it should.
        fields: The fields to set.
        instead: The fields that have to go for them.
    """

    reason: str
    fields: dict[str, object]
    instead: tuple[str, ...] = ()


def described(series: pl.Series, column: ColumnSchema) -> str:
    """What a column holds, in a line.

    Example:
        >>> described(pl.Series([3, 1, None, 1]), ColumnSchema(name="n", step=1.0, missing=True))
        'number, whole: 2 different values in 4 rows, from 1 to 3; 25 % gaps'
    """
    series = cleaned(series)
    gaps = series.null_count() / len(series)
    tail = f"; {100 * gaps:.3g} % gaps" if gaps else ""
    different = (
        f"{_counted(series.drop_nulls().n_unique(), 'different value')} in {_counted(len(series), 'row')}"
    )
    if column.labelled:
        counts = labels_of(series).drop_nulls().value_counts(sort=True)
        label, count = counts.row(0)
        shown = repr(label[:_MOST_SHOWN])
        return f"{column.kind}: {different}, most often {shown} ({100 * count / len(series):.3g} %){tail}"
    numbers = _numbers(series, column)
    ends = write_kind(np.array([numbers.min(), numbers.max()]), column)
    grid = (
        ""
        if column.kind != "number" or column.step is None
        else ", whole"
        if column.integer
        else ", decimals"
    )
    return f"{column.kind}{grid}: {different}, from {_shown(ends[0])} to {_shown(ends[1])}{tail}"


def hints(series: pl.Series, column: ColumnSchema) -> list[Hint]:
    """What the schema of a column may say otherwise, each by itself.

    Example:
        >>> hints(pl.Series([0.5, 1.25, 7.0]), ColumnSchema(name="size"))
        [Hint(reason='If no value can be below 0', fields={'low': 0.0}, instead=())]
    """
    if column.labelled:
        # Longer ones are too large for a grid.
        codes = column.categories and all(re.fullmatch(r"\d{1,13}", label) for label in column.categories)
        amounts = Hint("If these are amounts and not codes", {"step": 1.0}, ("kind", "categories"))
        return [amounts] if codes else []
    numbers = _numbers(cleaned(series), column)
    circle = _circle(numbers, column)
    found = [circle or _ends(numbers, column), _tails(numbers, column), _codes(numbers, column)]
    return [hint for hint in found if hint is not None]


def _ends(numbers: NDArray[np.float64], column: ColumnSchema) -> Hint | None:
    if column.bounded or column.kind not in ("number", "duration"):
        return None
    low, high = numbers.min(), numbers.max()
    if column.step is not None:
        return Hint("If no value can be below 0", {"low": 0.0}) if low >= 0 else None
    others = np.setdiff1d(numbers, column.atoms)  # a point mass may lie on a bound
    if not others.size or not others.min() > 0 or low < 0:
        return None
    if others.max() < 1 and high <= 1:
        return Hint("If these are shares", {"low": 0.0, "high": 1.0})
    return Hint("If no value can be below 0", {"low": 0.0})


def _circle(numbers: NDArray[np.float64], column: ColumnSchema) -> Hint | None:
    if column.periodic:
        return None
    low, high = numbers.min(), numbers.max()
    ends: tuple[float, float] | None = None
    if column.kind == "time":
        ends = (0.0, _DAY)
    elif column.kind == "number":
        words = re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", column.name).lower())
        ends = next(
            (
                (start, end)
                for name, start, end in _CIRCLES
                if start <= low and high < end and any(re.fullmatch(name, word) for word in words)
            ),
            None,
        )
    if ends is None:
        return None
    instead = _set(column, "step", "atoms", "low", "high")
    fields: dict[str, object] = {"low": ends[0], "high": ends[1], "periodic": True}
    return Hint("If its ends are one point, as of an angle or an hour", fields, instead)


def _tails(numbers: NDArray[np.float64], column: ColumnSchema) -> Hint | None:
    """Of columns that the flow takes for heavy-tailed (`pushforward.transforms.CompressTails`)."""
    if column.tails is not None or column.periodic:
        return None
    low, middle, high = np.quantile(numbers, [0.25, 0.5, 0.75])
    scale = (high - low) / 1.349 or numbers.std()
    farthest = np.abs(numbers - middle).max()
    if not farthest > _FAR * scale > 0:
        return None
    far = f"Values lie up to {farthest / scale:.3g} deviations from the median, and are drawn in"
    return Hint(f"{far}. If they should not be", {"tails": False})


def _codes(numbers: NDArray[np.float64], column: ColumnSchema) -> Hint | None:
    values = np.unique(numbers)
    if column.kind != "number" or column.step != 1.0 or column.periodic or len(values) > _FEW_CODES:
        return None
    labels = tuple(str(int(value)) for value in values)
    fields: dict[str, object] = {"kind": "category", "categories": labels}
    return Hint(
        "If the numbers are codes without order", fields, _set(column, "step", "low", "high", "tails")
    )


def _set(column: ColumnSchema, *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if getattr(column, name) not in (None, ()))


def _numbers(series: pl.Series, column: ColumnSchema) -> NDArray[np.float64]:
    """The values that are there."""
    numbers = read_kind(series, column, Place(None, column.name)).numbers
    return numbers[~np.isnan(numbers)]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    # Large whole numbers differ in their last digits.
    return f"{value:.0f}" if value.is_integer() and abs(value) < WHOLE_LIMIT else f"{value:.6g}"
