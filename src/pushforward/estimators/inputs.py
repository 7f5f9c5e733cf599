"""What scikit-learn's users hand over, arrays or frames, as tables and as points of a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d, validate_data
from torch import Tensor

from ..configs import ColumnSchema
from ..data import infer_schema, to_matrix
from ..data.columns import WHOLE_LIMIT

if TYPE_CHECKING:
    import polars as pl

FEWEST_ROWS = 5
DTYPES = (np.float64, np.float32)
"""What arrays of numbers are kept as; others become the first."""


def fit_table(estimator: BaseEstimator, X: Any, fewest: int = FEWEST_ROWS) -> pl.DataFrame:
    """Return what an estimator is fitted to as a table, and let the estimator remember its columns.

    Columns of an array are named x0, x1, ...; those of a frame keep their names.

    Args:
        estimator: Gets ``n_features_in_`` and, from a frame, ``feature_names_in_``.
        X: An array of numbers ``(rows, columns)``, a pandas or a polars frame.
        fewest: The fewest rows that will do.

    Raises:
        ValueError: Another shape, too few rows; an array of other things than finite numbers; integers from 2**53 on.
    """
    frame = _frame_beyond_numbers(X)
    if frame is None:
        array = validate_data(estimator, X, dtype=DTYPES, ensure_min_samples=fewest)
        return _named(estimator, array, X)
    validate_data(estimator, X, skip_check_array=True)
    if frame.height < fewest:
        raise ValueError(f"X must have at least {fewest} rows, got {frame.height}")
    return frame


def fit_table_and_target(
    estimator: BaseEstimator, X: Any, y: Any, fewest: int
) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Return the same, and the number that belongs to each row, ``(rows,)``.

    Decimals in 32 bits become the numbers that they mean, so that their grid is found.

    Raises:
        ValueError: As ``fit_table``; targets that are not as many finite numbers.
    """
    if _frame_beyond_numbers(X) is None:
        array, target = validate_data(
            estimator, X, y, dtype=DTYPES, y_numeric=True, ensure_min_samples=fewest
        )
        return _named(estimator, array, X), _decimals(target)
    validate_data(estimator, X, y, skip_check_array=True)  # refuses None
    table = fit_table(estimator, X, fewest)
    target = check_array(y, dtype="numeric", ensure_2d=False, input_name="y")
    check_consistent_length(table, target)
    return table, _decimals(column_or_1d(target, warn=True))


def points(estimator: BaseEstimator, X: Any, columns: tuple[ColumnSchema, ...]) -> Tensor:
    """Return rows as points of a flow, float64 ``(rows, columns)``.

    A number off the grid of a discrete column is scored as the start of a cell of its own.

    Args:
        estimator: What knows the columns that ``X`` must have.
        X: As it was for ``fit``.
        columns: The columns' schemas.

    Raises:
        ValueError: Other columns, or values that cannot be used.
    """
    frame = _frame_beyond_numbers(X)
    if frame is None and hasattr(X, "columns") and not all(map(is_number, columns)):
        frame = _frame(X)  # its numbers may be labels
    if frame is None:
        array: NDArray[np.float64] = validate_data(estimator, X, reset=False, dtype=np.float64, copy=True)
        return torch.from_numpy(array)
    validate_data(estimator, X, reset=False, skip_check_array=True)
    return torch.from_numpy(to_matrix(frame, columns, source="X"))


def is_number(column: ColumnSchema) -> bool:
    """Return whether the values of a column are numbers, without gaps."""
    return column.kind == "number" and not column.missing


def column_names(estimator: Any) -> list[str]:
    """Return the names of the columns that an estimator was fitted to."""
    given = getattr(estimator, "feature_names_in_", None)
    return [f"x{i}" for i in range(estimator.n_features_in_)] if given is None else list(given)


def _named(estimator: BaseEstimator, array: NDArray[np.floating[Any]], X: Any) -> pl.DataFrame:
    """Return a checked array as a table, unless the numbers handed over were rounded in it."""
    import polars as pl

    names = column_names(estimator)
    for j in np.flatnonzero((np.abs(array) >= WHOLE_LIMIT).any(axis=0)).tolist():
        given = _frame(X).to_series(j).to_numpy() if _is_frame(X) else np.asarray(X)[:, j]
        _refuse_rounded(given, f"X, column {names[j]!r}", "subtract an offset, or leave the column out")
    return pl.from_numpy(array, schema=names, orient="row")


def _decimals(y: NDArray[Any]) -> NDArray[np.float64]:
    import polars as pl

    _refuse_rounded(y, "y", "subtract an offset")
    if y.dtype != np.float32:
        return np.asarray(y, dtype=np.float64)
    frame = pl.DataFrame({"y": y})
    return to_matrix(frame, infer_schema(frame, mixed=False).columns)[:, 0]


def _refuse_rounded(values: NDArray[Any], place: str, remedy: str) -> None:
    """Refuse integers that would be rounded, silently, where they become floats."""
    if values.dtype.kind not in "iu":
        return
    most = max(values.tolist(), key=abs)  # in Python, since the abs of the least int64 overflows
    if abs(most) >= WHOLE_LIMIT:
        raise ValueError(
            f"{place}: the integer {most} reaches 2**53, where a 64-bit float loses whole numbers: {remedy}"
        )


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def _frame(X: Any) -> pl.DataFrame:
    """Return a frame of pandas or polars as one of polars."""
    import polars as pl

    return X if isinstance(X, pl.DataFrame) else pl.from_pandas(X)


def _frame_beyond_numbers(X: Any) -> pl.DataFrame | None:
    """Return a frame that has other things than numbers in all places, or None: an array, or as good as one."""
    import polars as pl

    if not _is_frame(X):
        return None
    frame = _frame(X)
    frame = frame.with_columns(pl.selectors.float().fill_nan(None))
    numbers = all(dtype.is_numeric() for dtype in frame.dtypes) and not any(frame.null_count().row(0))
    return None if numbers else frame
