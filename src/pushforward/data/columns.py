"""One column of a table as numbers, or the reason why it has none."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs.schema import ColumnSchema
from ..errors import DataError
from .texts import as_time, hidden_numbers

WHOLE_LIMIT = 2.0**53
"""Whole numbers below it have a float64 to themselves."""

CELL_LIMIT = 2.0**44
"""So many steps from 0 a float64 still tells some hundred places within a cell, as a discrete column needs."""

WHOLE = r"^\s*[-+]?\d+(\.0*)?\s*$"
"""A whole number as text, also with a decimal point."""

_EPSILON = float(np.finfo(np.float64).eps)
_EPSILON_SINGLE = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column stands, for messages.

    Attributes:
        source: The file or argument.
        column: The column's name.
        first_row: Number of its first value in the file, counted from 1.
    """

    source: str | Path | None
    column: str
    first_row: int = 1

    def error(self, problem: str, index: int | None, remedy: str) -> DataError:
        """An error about the value at an index of the column, or about the whole of it."""
        row = None if index is None else self.first_row + index
        return DataError(problem, source=self.source, row=row, column=self.column, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Values:
    """Finite numbers of one column, and NaN for its gaps.

    Attributes:
        numbers: The values, (rows,).
        rounding: Relative spacing of the numbers as they were stored: the machine epsilon of their type.
    """

    numbers: NDArray[np.float64]
    rounding: float

    @property
    def single(self) -> bool:
        """Whether they were stored in 32 bits."""
        return self.rounding == _EPSILON_SINGLE


def cleaned(series: pl.Series) -> pl.Series:
    """A column without a name, with nulls for all gaps: NaN, and text that is blank or says NaN.

    Methods of polars read a name such as ``^a$`` as a pattern.

    Example:
        >>> cleaned(pl.Series(["a", " ", "nan"], dtype=pl.Categorical)).to_list()
        ['a', None, None]
    """
    series = series.alias("")
    if series.dtype.is_float():
        return series.fill_nan(None)
    if not isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum):
        return series
    texts = series.cast(pl.String)
    given = ~texts.str.strip_chars().str.to_lowercase().is_in(["", "nan"])
    return pl.select(pl.when(given).then(texts)).to_series().alias("")


def read_column(series: pl.Series, place: Place, *, gaps: bool = False) -> Values:
    """The values of a column, checked.

    Gaps become NaN where they are allowed. Text is taken where all of it reads as numbers: in a text table so is any
    column, until a chunk of it says more.

    Raises:
        DataError: Other text, dates, lists; infinite values, and missing ones unless allowed; whole numbers from 2**53
            on, unless they are floats already.
    """
    series = series.alias("")
    dtype = series.dtype
    if dtype.is_temporal():
        raise place.error(
            f"holds dates or times ({dtype})", None, "Convert it to seconds, or leave it out with --drop."
        )
    numeric = series
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        series = cleaned(series)
        numeric = _parsed(series, place)
    elif not (dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)):
        raise place.error(f"holds {dtype}, not numbers", None, "Leave it out with --drop.")
    numbers = numeric.cast(pl.Float64).to_numpy()  # nulls become NaN
    if not np.isfinite(numbers).all() and not (gaps and not np.isinf(numbers).any()):
        raise _not_finite(numbers, place, gaps)
    if not dtype.is_float():
        _check_whole(series, numbers, place)
    return Values(numbers, _EPSILON_SINGLE if dtype == pl.Float32 else _EPSILON)


def _check_whole(series: pl.Series, numbers: NDArray[np.float64], place: Place) -> None:
    """Refuses integers, decimals and texts that are whole numbers too large for a float64 to hold them."""
    vast = np.flatnonzero(np.abs(numbers) >= WHOLE_LIMIT)
    whole = series[vast].cast(pl.String).str.contains(WHOLE)
    if len(vast) and whole.any():
        index = int(vast[whole.arg_max() or 0])
        raise place.error(
            f"the integer {str(series[index]).strip()} reaches 2**53, where a 64-bit float loses whole numbers",
            index,
            "Subtract an offset; or, if it is an identifier, leave the column out with --drop.",
        )


def _not_finite(numbers: NDArray[np.float64], place: Place, gaps: bool) -> DataError:
    """The error about the first missing value or, where there is none, the first infinite one."""
    missing = np.isnan(numbers)
    count = int(missing.sum())
    if count and not (gaps and np.isinf(numbers).any()):
        rows = f"rows {place.first_row} to {place.first_row + len(numbers) - 1}"
        number = "the only one" if count == 1 else f"the first of {count}"
        return place.error(
            f"missing value, {number} in {rows}",
            int(np.argmax(missing)),
            "Fill the gaps, or leave out these rows or this column; the model mixed can learn gaps.",
        )
    index = int(np.argmax(np.isinf(numbers)))
    return place.error(
        f"infinite value {float(numbers[index])!r}", index, "Replace it by a number, or leave out the row."
    )


def on_grid(values: Values, step: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The nearest multiples of a step, and whether each value is one but for rounding.

    The step is the fraction that its digits mean, and a multiple is the float64 nearest to the true one: 0.3, and
    not 3 * 0.1.
    """
    numbers, ratio = values.numbers, Fraction(repr(step))
    with np.errstate(over="ignore"):  # a vast number is off the grid
        cells = np.rint(numbers * ratio.denominator / ratio.numerator)
        nearest = cells * ratio.numerator / ratio.denominator
    tolerance = 8 * values.rounding * np.maximum(np.abs(numbers), step)
    return nearest, np.abs(numbers - nearest) <= tolerance


def at_atoms(numbers: NDArray[np.float64], column: ColumnSchema) -> NDArray[np.float64]:
    """The numbers, with an atom of the column in the place of the 32-bit float nearest to it.

    So a table stored in 32 bits and its text have the same atoms.

    Example:
        >>> at_atoms(np.array([np.float32(0.1), 0.1, 0.2]), ColumnSchema(name="a", atoms=(0.1,))).tolist()
        [0.1, 0.1, 0.2]
    """
    for atom, single in zip(column.atoms, column.single_atoms, strict=True):
        if single != atom:
            numbers = np.where(numbers == single, atom, numbers)
    return numbers


def not_a_number(texts: pl.Series, index: int, place: Place, remedy: str) -> DataError:
    """The error about a text among numbers; where the text hides a number, the remedy is to write it as one."""
    text = texts[index : index + 1]
    hidden = hidden_numbers(text)
    if hidden is not None:
        return place.error(hidden.problem, index, hidden.remedy)
    return place.error(f"text where a number is expected: {text[0][:60]!r}", index, remedy)


def _parsed(texts: pl.Series, place: Place) -> pl.Series:
    numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
    bad = numbers.is_null() & texts.is_not_null()
    if not bad.any():
        return numbers
    index = bad.arg_max() or 0
    if as_time(texts[index : index + 1]) is not None:
        problem = f"text where a number is expected: {texts[index][:60]!r}"
        remedy = (
            "Convert dates to seconds, or leave the column out with --drop; the model mixed can learn dates."
        )
        raise place.error(problem, index, remedy)
    remedy = "Encode it as numbers, or leave it out with --drop; the model mixed can learn text."
    raise not_a_number(texts, index, place, remedy)
