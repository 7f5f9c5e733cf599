"""A table on disk, split into rows to train on, to read buffer by buffer, and others in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..configs import DataConfig, MixedConfig, ModelConfig, TableSchema
from ..data import check_fittable, infer_schema
from ..data.names import check_names
from ..data.shuffled import ShuffledTable, matrix_rows
from ..data.stored import StoredTable
from ..data.survey import PickedRows, Survey, survey
from ..errors import DataError
from .points import Points
from .rows import FEWEST_ROWS, as_points, used

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class StreamedSplit:
    """A table on disk as training rows to read buffer by buffer, with validation and test points in memory.

    Attributes:
        schema: What all rows meet.
        table: The training rows.
        sample: Some of them, drawn uniformly.
        valid: Validation points.
        test: Test points.
    """

    schema: TableSchema
    table: ShuffledTable
    sample: Points
    valid: Points
    test: Points


def stream_table(
    path: str | Path,
    data: DataConfig,
    *,
    seed: int,
    model: ModelConfig | None = None,
    schema: TableSchema | None = None,
    valid: pl.DataFrame | None = None,
    valid_source: str | Path | None = None,
    rows_per_buffer: int | None = None,
) -> StreamedSplit:
    """Read a table once, to find out what it is and to hold out rows.

    A row's part depends on ``seed`` and the row's place alone. A tenth of the rows validate and a tenth test, or about
    100,000 each of a large table. What columns are is found out on a sample and on rows that show what the sample may
    lack: ends, gaps, labels. A later row that does not fit is refused, with its file and number.

    Args:
        path: The table: a file, a folder of Parquet files, or a pattern.
        data: Roles and supports of its columns.
        seed: Seed of the split and of the order of the rows.
        model: The model, where it is known: all but ``MixedConfig`` take numbers without gaps alone.
        schema: What the columns are; found out by default.
        valid: Rows to validate on.
        valid_source: Where they come from, for messages.
        rows_per_buffer: Most rows of a buffer; by default `pushforward.data.shuffled.buffer_rows`.

    Raises:
        DataError: A table that cannot be used as it is, or groups of rows.

    Example:
        >>> import tempfile
        >>> import polars as pl
        >>> x = torch.randn(500, generator=torch.Generator().manual_seed(0)).numpy()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pl.DataFrame({"x": x, "n": range(500)}).write_parquet(f"{folder}/t.parquet")
        ...     split = stream_table(folder, DataConfig(), seed=0, rows_per_buffer=150)
        >>> split.schema.columns[1].step, split.table.buffers, split.table.rows
        (1.0, 3, 134)
    """
    if data.group is not None:
        raise DataError(
            "rows of one group cannot be kept together in a table that is streamed, where a row's part is known from "
            "its place alone",
            source=path,
            column=data.group,
            remedy="Give --no-stream, or split the table by group and give --valid.",
        )
    table = StoredTable(path, _columns(path, data, schema))
    found = survey(table, seed=seed, validate=valid is None)
    _check_parts(found, valid is None, path)
    if schema is None:
        schema = _inferred(found.sample, data, model, path)
    sample = _picked(found.sample, schema, data.weights)
    check_fittable(sample.x.numpy(), schema.columns, source=path, minimum_rows=FEWEST_ROWS)
    if valid is None:
        valid_points = _picked(found.valid, schema, data.weights)
    else:
        valid_points = as_points(matrix_rows(valid, schema, data.weights, source=valid_source))
    return StreamedSplit(
        schema,
        ShuffledTable(
            table, schema, found.split, rows_per_buffer=rows_per_buffer, seed=seed, weights=data.weights
        ),
        used(sample.first(found.drawn), data.weights, path),
        used(valid_points, data.weights, valid_source or path),
        used(_picked(found.test, schema, data.weights), data.weights, path),
    )


def _columns(path: str | Path, data: DataConfig, schema: TableSchema | None) -> list[str]:
    """Return the columns to read: those of the schema, or all that are not left out, and the weights."""
    weights = [] if data.weights is None else [data.weights]
    if schema is not None:
        return [*schema.names, *schema.context_names, *weights]
    names = StoredTable(path).columns
    for name in data.drop:
        check_names(names, [name], source=path)
    return [name for name in names if name not in data.drop]


def _check_parts(found: Survey, validates: bool, path: str | Path) -> None:
    parts = {"train on": found.drawn, "test": len(found.test.places)}
    if validates:
        parts["validate on"] = len(found.valid.places)
    for what, rows in parts.items():
        if not rows:
            raise DataError(
                f"no rows to {what} among {found.sample.table.rows}",
                source=path,
                remedy="Give more rows, or --no-stream: a table so small fits into memory.",
            )


def _inferred(
    sample: PickedRows, data: DataConfig, model: ModelConfig | None, path: str | Path
) -> TableSchema:
    with sample.named():
        return infer_schema(
            sample.frame,
            condition=data.condition,
            exclude=() if data.weights is None else (data.weights,),
            bounds=data.bounds,
            periodic=data.periodic,
            mixed=None if model is None else isinstance(model, MixedConfig),
            source=path,
        )


def _picked(rows: PickedRows, schema: TableSchema, weights: str | None) -> Points:
    with rows.named():
        points = as_points(matrix_rows(rows.frame, schema, weights))
    return replace(points, rows=torch.from_numpy(rows.numbers))
