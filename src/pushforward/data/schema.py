"""What a table's columns are, and the checked matrix that a flow takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs.schema import ColumnSchema, TableSchema
from ..errors import DataError
from .columns import WHOLE_LIMIT, Place, Values, on_grid, read_column
from .names import check_names, listed, suggestion

_DECIMALS = range(7)
# A matrix is filled by columns that share the lines of a processor's cache, and by rows that stay there meanwhile.
_LINE, _BLOCK = 8, 8192

Ends = tuple[float | None, float | None]


def infer_schema(
    frame: pl.DataFrame,
    *,
    condition: Sequence[str] = (),
    exclude: Sequence[str] = (),
    bounds: Mapping[str, Ends] | None = None,
    periodic: Mapping[str, tuple[float, float]] | None = None,
    source: str | Path | None = None,
) -> TableSchema:
    """Finds out which columns are continuous and which are discrete, and how finely.

    Values that repeat would let a flow's likelihood grow without limit: it can put ever narrower peaks on
    them. So discrete columns are recognised, and dequantised by the flow, where a value ``x`` stands for the
    cell ``[x, x + step)``:

    - a column of whole numbers below 2**53, however stored, has step 1;
    - a column has step ``10**-k``, for the smallest k from 0 to 6 whose multiples hold all values to rounding,
      if at least half of the rows share their value with another row (a measurement written with six digits
      but hardly ever repeated is continuous);
    - any other column is continuous, and so is a periodic one.

    Columns conditioned on have no density, hence no step.

    Args:
        frame: The table.
        condition: Names of the columns to condition on, in the order the flow takes them.
        exclude: Names of columns to leave out; of any type.
        bounds: Lower and upper end (None: open-ended) of a column's support. A continuous column lives
            strictly between them. For a discrete column they bound the values, ends included, and are kept as
            declared: the support of the dequantised column is ``[low, high + step)``.
        periodic: Ends of a circle, for angles and times of day: values lie in ``[low, high)``.
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
    if "" in modelled:
        raise DataError(
            f"column number {frame.columns.index('') + 1} has no name",
            source=source,
            remedy="Name it; or, if it numbers the rows, write the table without it (index=False in pandas).",
        )
    _check_height(frame, source)
    columns = []
    for name in modelled:
        values = read_column(frame[name], Place(source, name))
        low, high = periodic.get(name) or bounds.get(name, (None, None))
        step = None if name in periodic else _step(values)
        columns.append((name, low, high, name in periodic, step))
    for name in condition:
        read_column(frame[name], Place(source, name))
    try:
        return TableSchema(
            columns=tuple(
                ColumnSchema(name=name, low=low, high=high, periodic=circle, step=step)
                for name, low, high, circle, step in columns
            ),
            context=tuple(ColumnSchema(name=name) for name in condition),
        )
    except ValueError as error:
        raise DataError(str(error), source=source) from error


def to_matrix(
    frame: pl.DataFrame,
    columns: Sequence[ColumnSchema],
    *,
    source: str | Path | None = None,
    first_row: int = 1,
    check_support: bool = False,
) -> NDArray[np.float64]:
    """The values of the columns as float64, once they are known to be what the schema says.

    Booleans become 0 and 1. Values of discrete columns are returned as the float64 nearest to the multiple of
    the step that they stand for, so that a decimal stored in 32 bits and one read from text are the same.

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
        DataError: No rows; an absent column; one with missing or infinite values, text, dates, lists, or
            integers that a float64 cannot hold; a value of a discrete column off its grid; a value off its
            circle or support.

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
    _check_height(frame, source)
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
    values = read_column(series, place)
    numbers = values.numbers if column.step is None else _snapped(values, column.step, place)
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
        raise DataError(
            f"all {rows} values are {float(matrix[0, constant[0]])!r}, so it has no density{others}",
            source=source,
            column=names[0],
            remedy=f"Drop it with --drop {','.join(names)}.",
        )


def _check_height(frame: pl.DataFrame, source: str | Path | None) -> None:
    if frame.height == 0:
        raise DataError("no rows", source=source, remedy="Give a table with rows.")


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


def _step(values: Values) -> float | None:
    """Spacing of the grid that a column lives on, or None if it is continuous."""
    numbers = values.numbers
    if bool((numbers == np.floor(numbers)).all()):
        return 1.0 if float(np.abs(numbers).max()) < WHOLE_LIMIT else None
    counts = np.unique(numbers, return_counts=True)[1]
    if 2 * int(counts[counts > 1].sum()) < len(numbers):
        return None
    for k in _DECIMALS:
        step = 10.0**-k
        # Where rounding alone covers an eighth of a cell, lying on the grid says nothing.
        if 8 * values.rounding * float(np.abs(numbers).max()) > step / 8:
            return None
        if on_grid(values, step)[1].all():
            return step
    return None


def _snapped(values: Values, step: float, place: Place) -> NDArray[np.float64]:
    nearest, fits = on_grid(values, step)
    if not fits.all():
        row = int(np.argmin(fits))
        unit = "a whole number" if step == 1 else f"a multiple of {step!r}"
        raise place.error(
            f"{float(values.numbers[row])!r} is not {unit}, as the column's values were when the flow was fitted",
            row,
            "Round the column, or fit again on data like these.",
        )
    return nearest


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
        where, remedy = (
            f"outside the declared bounds {low} and {high}",
            "Widen the bound, or leave the row out.",
        )
    else:
        bad = (numbers <= low) | (numbers >= high)
        where = f"not strictly between the declared bounds {low} and {high}"
        remedy = "Widen the bound, or leave the row out: a bounded column cannot lie on its bound."
    if bad.any():
        row = int(np.argmax(bad))
        raise place.error(f"{float(numbers[row])!r} is {where}", row, remedy)
