"""Values of columns as text."""

from __future__ import annotations

import math

import numpy as np

from ..configs import ColumnSchema
from ..data import to_frame
from .html import number


def value_text(column: ColumnSchema, value: float) -> str:
    """Return a value of a column as a reader of the table knows it.

    Example:
        >>> value_text(ColumnSchema(name="n", step=1.0), 12345.0), value_text(ColumnSchema(name="x"), -1234.5678)
        ('12345', '−1235')
        >>> value_text(ColumnSchema(name="c", kind="category", categories=("blue", "red")), 1.0)
        'red'
        >>> value_text(ColumnSchema(name="d", kind="date"), 19723.0)
        '2024-01-01'
    """
    if math.isnan(value):
        return "missing"
    if column.labelled:
        return column.labels[int(value)]
    if column.kind != "number":
        return str(to_frame(np.array([[value]]), [column]).item())
    return number(value, "z.0f" if column.integer else "z.4g")
