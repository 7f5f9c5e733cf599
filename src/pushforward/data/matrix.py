"""A table as the checked matrix that a flow takes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs.schema import ColumnSchema
from ..errors import DataError
from .columns import CELL_LIMIT, Place, Values, at_atoms, on_grid
from .kinds import read_kind, write_kind
from .names import check_names, listed

# A matrix is filled by columns that share the lines of a processor's cache, and by rows that stay there meanwhile.
_LINE, _BLOCK = 8, 8192
_MOST_DROPPED = 20
_RANGE_REMEDY = (
    "Widen the bounds (--bounds or --schema), train on rows with such values too, or leave the row out."
)


def to_matrix(
    frame: pl.DataFrame,
    columns: Sequence[ColumnSchema],
    *,
    source: str | Path | None = None,
    first_row: int = 1,
    check_support: bool = False,
) -> NDArray[np.float64]:
    """The values of the columns as float64, once they are known to be what the schema says.

    Labels become their places in the schema, counted from 0, dates and times numbers of days or seconds, gaps NaN
    where the schema allows them; booleans in a column of numbers become 0 and 1. Values of discrete columns are
    returned as the float64 nearest to the multiple of the step that they stand for, and atoms as they stand in the
    schema, so that a decimal stored in 32 bits and one read from text are the same.

    Args:
        frame: A table or a chunk of one, with these columns and perhaps more.
        columns: The columns to take, in this order.
        source: Where the table comes from, for messages.
        first_row: Number of the frame's first row in the file, counted from 1, for messages.
        check_support: Whether a value outside a declared support is an error, as it is when fitting (strictly
            between the bounds for a continuous column, ends included for a discrete one). When scoring it need
            not be: the density there is zero. Values off their circle are refused always.

    Returns:
        The matrix, (rows, columns).

    Raises:
        DataError: No rows; an absent column; one with missing values, text or dates that the schema does not have
            there, infinite values, lists, or integers that a float64 cannot hold; a label that the schema does not
            have; a value of a discrete column off its grid; a value off its circle or support; where the support
            is checked, a value 2**44 or more steps from 0.

    Example:
        >>> frame = pl.DataFrame({"a": [1, 2], "b": [0.5, 0.25]})
        >>> to_matrix(frame, [ColumnSchema(name="b"), ColumnSchema(name="a", step=1.0)])
        array([[0.5 , 1.  ],
               [0.25, 2.  ]])
        >>> to_matrix(pl.DataFrame({"a": [1, None]}), [ColumnSchema(name="a")], source="t.csv", first_row=51)
        Traceback (most recent call last):
        pushforward.errors.DataError: t.csv, row 52, column 'a': missing value, the only one in rows 51 to 52.
        ...
    """
    check_names(frame.columns, [column.name for column in columns], source=source)
    check_height(frame, source)
    matrix = np.empty((frame.height, len(columns)))
    for first in range(0, len(columns), _LINE):
        read = [
            _read_checked(frame[column.name], column, Place(source, column.name, first_row), check_support)
            for column in columns[first : first + _LINE]
        ]
        for start in range(0, frame.height, _BLOCK):
            rows = slice(start, start + _BLOCK)
            for j, numbers in enumerate(read, first):
                matrix[rows, j] = numbers[rows]
    return matrix


def _read_checked(
    series: pl.Series, column: ColumnSchema, place: Place, check_support: bool
) -> NDArray[np.float64]:
    values = read_kind(series, column, place)
    if column.step is None:
        numbers = at_atoms(values.numbers, column)
    else:
        numbers = _snapped(values, column.step, place)
        if check_support:
            _check_cells(numbers, column.step, place)
    _check_support(numbers, column, place, check_bounds=check_support)
    return numbers


def check_fittable(
    matrix: NDArray[np.float64],
    columns: Sequence[ColumnSchema],
    *,
    source: str | Path | None = None,
    minimum_rows: int = 2,
) -> None:
    """Checks that there is a density to learn: enough rows, and no column with one value only.

    Args:
        matrix: Values, (rows, columns), as of `to_matrix`.
        columns: The schemas of its columns.
        source: Where the table comes from, for messages.
        minimum_rows: The fewest rows that will do.

    Raises:
        DataError: Fewer rows, or a constant column.

    Example:
        >>> check_fittable(np.array([[1.0, 2.0], [1.0, 3.0]]), [ColumnSchema(name="a"), ColumnSchema(name="b")])
        Traceback (most recent call last):
        pushforward.errors.DataError: column 'a': all 2 values are 1.0, so it has no density. Drop it with
        --drop a.
    """
    rows = len(matrix)
    if rows < minimum_rows:
        raise DataError(
            f"{rows} {'row' if rows == 1 else 'rows'}, but at least {minimum_rows} are needed",
            source=source,
            remedy="Give more rows.",
        )
    constant = np.flatnonzero((matrix == matrix[:1]).all(axis=0)).tolist()
    if constant:
        names = [columns[j].name for j in constant]
        others = f"; neither have {listed(names[1:])}" if len(names) > 1 else ""
        column, value = columns[constant[0]], matrix[:1, constant[0]]
        shown = repr(float(value[0])) if column.kind == "number" else str(write_kind(value, column)[0])
        raise DataError(
            f"all {rows} values are {shown}, so it has no density{others}",
            source=source,
            column=names[0],
            remedy=f"Drop it with --drop {','.join(names)}."
            if len(names) <= _MOST_DROPPED
            else "Leave such columns out of the table.",
        )


def check_height(frame: pl.DataFrame, source: str | Path | None) -> None:
    """Refuses a table without rows."""
    if frame.height == 0:
        raise DataError("no rows", source=source, remedy="Give a table with rows.")


def _snapped(values: Values, step: float, place: Place) -> NDArray[np.float64]:
    nearest, fits = on_grid(values, step)
    fits |= np.isnan(values.numbers)
    if not fits.all():
        row = int(np.argmin(fits))
        unit = "a whole number" if step == 1 else f"a multiple of {step!r}"
        raise place.error(
            f"{float(values.numbers[row])!r} is not {unit}, as the column's values were when the flow was fitted",
            row,
            "Round the column, or fit again on data like these.",
        )
    return nearest


def _check_cells(numbers: NDArray[np.float64], step: float, place: Place) -> None:
    """Refuses values so many steps from 0 that a float64 has too little room within their cells."""
    far = np.abs(numbers) >= CELL_LIMIT * step
    if far.any():
        row = int(np.argmax(far))
        raise place.error(
            f"{float(numbers[row])!r} lies 2**44 or more steps of {step!r} from 0, too far for a discrete column",
            row,
            "Subtract an offset, leave out its step in the schema, or leave the column out with --drop.",
        )


def _check_support(
    numbers: NDArray[np.float64], column: ColumnSchema, place: Place, *, check_bounds: bool
) -> None:
    low = -np.inf if column.low is None else column.low
    high = np.inf if column.high is None else column.high
    if column.periodic:
        bad = (numbers < low) | (numbers >= high)
        where, remedy = f"off its circle [{low}, {high})", f"Bring it there, modulo {high - low!r}."
    elif not check_bounds:
        return
    elif column.step is not None:
        bad = (numbers < low) | (numbers > high)
        where, remedy = f"outside the column's range in its schema, from {low} to {high}", _RANGE_REMEDY
    else:
        bad = (numbers <= low) | (numbers >= high)
        where = f"not strictly within the column's range in its schema, from {low} to {high}"
        remedy = f"{_RANGE_REMEDY} A continuous column cannot lie on its ends."
    bad &= ~np.isin(numbers, column.atoms)  # a point mass may lie on a bound
    if bad.any():
        row = int(np.argmax(bad))
        raise place.error(f"{float(numbers[row])!r} is {where}", row, remedy)


def to_frame(matrix: NDArray[np.float64], columns: Sequence[ColumnSchema]) -> pl.DataFrame:
    """The rows of a matrix as a table: labels, dates, whole numbers and gaps as such. The inverse of `to_matrix`.

    Args:
        matrix: Values, (rows, columns).
        columns: The schemas of its columns.

    Example:
        >>> column = ColumnSchema(name="c", kind="category", categories=("x", "y"))
        >>> to_frame(np.array([[1.0, 3.0]]), [column, ColumnSchema(name="n", step=1.0)]).row(0)
        ('y', 3)
    """
    return pl.DataFrame([write_kind(matrix[:, j], column) for j, column in enumerate(columns)])
