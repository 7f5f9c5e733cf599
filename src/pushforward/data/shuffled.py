"""Training rows of a table that is larger than memory, buffer by buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs.schema import ColumnSchema, TableSchema
from ..errors import DataError
from .matrix import to_matrix
from .parquet import RowGroup
from .splits import RowSplit
from .stored import StoredTable

BUFFER_ROWS = 2**20
"""Most rows of a buffer by default."""
_BUFFER_VALUES = 2**23


class MatrixRows(NamedTuple):
    """Rows as a flow takes them.

    Attributes:
        x: The modelled columns, (rows, columns).
        context: The columns conditioned on, (rows, columns), or None.
        weights: The weights, (rows,), or None.
        numbers: The number of each row in the table, its files one after the other, counted from 1, (rows,).
    """

    x: NDArray[np.float64]
    context: NDArray[np.float64] | None
    weights: NDArray[np.float64] | None
    numbers: NDArray[np.int64]


def buffer_rows(columns: int) -> int:
    """The rows of a buffer by default: 2**20, or 2**23 values in a table of more than 8 columns.

    Example:
        >>> buffer_rows(4), buffer_rows(64)
        (1048576, 131072)
    """
    return max(1, min(BUFFER_ROWS, _BUFFER_VALUES // columns))


def matrix_rows(
    frame: pl.DataFrame,
    schema: TableSchema,
    weights: str | None = None,
    *,
    source: str | Path | None = None,
    first_row: int = 1,
) -> MatrixRows:
    """Rows for fitting, checked.

    Args:
        frame: The rows.
        schema: What the columns are.
        weights: Name of the column of weights, or None.
        source: Where they come from, for messages.
        first_row: Number of the first of them there, counted from 1.

    Raises:
        DataError: What `pushforward.data.to_matrix` refuses, and negative weights.

    Example:
        >>> schema = TableSchema(columns=(ColumnSchema(name="a"),))
        >>> matrix_rows(pl.DataFrame({"a": [0.5], "w": [2.0]}), schema, "w").weights
        array([2.])
    """
    x = to_matrix(frame, schema.columns, source=source, first_row=first_row, check_support=True)
    context, weighed = None, None
    if schema.context:
        context = to_matrix(frame, schema.context, source=source, first_row=first_row)
    if weights is not None:
        column = ColumnSchema(name=weights)
        weighed = to_matrix(frame, [column], source=source, first_row=first_row)[:, 0]
        if (weighed < 0).any():
            raise DataError(
                "weights must not be negative",
                source=source,
                row=first_row + int(np.argmax(weighed < 0)),
                column=weights,
                remedy="Give every row a weight of 0 or more.",
            )
    return MatrixRows(x, context, weighed, first_row + np.arange(len(x)))


class ShuffledTable:
    """The training rows of a table in an endless sequence of passes, cut into buffers.

    In each pass every training row comes once, but for fewer rows than there are buffers, which are left out to make
    all buffers equally long. The row groups of all files come in an order that seed and pass decide, and each buffer
    is filled from as many of them as it takes. Rows of one group so stay within a buffer, or two that follow each
    other; the trainer shuffles the rows of a buffer. Where files are sorted, by time say, a buffer is a mixture of
    stretches as long as a row group: with ten groups or more in a buffer it looks much like the whole; with a single
    one it is one stretch, and training follows each in turn. Write small row groups then. Text and NumPy files are
    read in the order in which they stand.

    A buffer is the same whenever it is asked for. Asked for in turn, each row is read once a pass; out of turn, groups
    before a buffer are skipped unread, but those of text. Memory: one buffer, and what Arrow needs of one row group,
    which is read in batches.

    Args:
        table: The table, with the columns of ``schema`` and the weights.
        schema: What its columns are.
        split: Which rows are for training.
        rows_per_buffer: Most rows of a buffer; by default `buffer_rows` of the columns.
        seed: Seed of the orders.
        weights: Name of the column of weights, or None.

    Raises:
        ValueError: ``rows_per_buffer`` is below 1.
        DataError: No training rows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "t.parquet"
        ...     pl.DataFrame({"a": range(100)}).write_parquet(path, row_group_size=10)
        ...     schema = TableSchema(columns=(ColumnSchema(name="a"),))
        ...     rows = ShuffledTable(StoredTable(path), schema, RowSplit(0, 0.0, 0.0), rows_per_buffer=40, seed=0)
        ...     buffers = [rows.buffer(k).x for k in range(3)]
        >>> rows.buffers, rows.rows, np.unique(np.concatenate(buffers)).size
        (3, 33, 99)
    """

    def __init__(
        self,
        table: StoredTable,
        schema: TableSchema,
        split: RowSplit,
        *,
        rows_per_buffer: int | None = None,
        seed: int = 0,
        weights: str | None = None,
    ) -> None:
        most = (
            buffer_rows(len(schema.columns) + len(schema.context))
            if rows_per_buffer is None
            else rows_per_buffer
        )
        if most < 1:
            raise ValueError(f"rows_per_buffer: expected at least 1, got {most}")
        self.table, self.schema = table, schema
        self._split, self._seed, self._weights = split, seed, weights
        self._before = table.numbered()
        counts = [int(split.training(g.file, g.first, g.rows).sum()) for g in table.groups]
        self._counts = np.array(counts, dtype=np.int64)
        self.training_rows = int(self._counts.sum())
        if not self.training_rows:
            raise DataError("no rows to train on", source=table.files[0], remedy="Give more rows.")
        self.buffers = -(-self.training_rows // most)
        self.rows = self.training_rows // self.buffers
        self._next, self._rest = -1, iter(())  # type: tuple[int, Iterator[MatrixRows]]

    @property
    def groups_per_buffer(self) -> float:
        """How many row groups a buffer is filled from, on average."""
        return len(self._counts) / self.buffers

    def buffer(self, k: int) -> MatrixRows:
        """The k-th buffer of the sequence of passes, counted from 0; each pass has ``buffers`` of ``rows`` rows.

        Raises:
            DataError: A row that the schema does not allow; the text names its file and row.
        """
        if k != self._next:
            self._rest = self._from(k)
        self._next = -1  # what raises must be asked anew
        found = next(self._rest)
        self._next = k + 1
        return found

    def _from(self, k: int) -> Iterator[MatrixRows]:
        turn, part = divmod(k, self.buffers)
        while True:
            order = self._order(turn)
            ends = np.cumsum(self._counts[order])
            begin = int(np.searchsorted(ends, part * self.rows, side="right"))
            skipped = part * self.rows - int(ends[begin - 1] if begin else 0)
            groups = [self.table.groups[place] for place in order[begin:]]
            yield from islice(self._filled(groups, skipped), self.buffers - part)
            turn, part = turn + 1, 0

    def _order(self, turn: int) -> NDArray[np.int64]:
        if not self.table.any_order:
            return np.arange(len(self._counts))
        return np.random.default_rng([self._seed, turn]).permutation(len(self._counts))

    def _filled(self, groups: Sequence[RowGroup], skipped: int) -> Iterator[MatrixRows]:
        """Buffers filled from groups, without so many of their first training rows."""
        held: list[MatrixRows] = []
        for rows in self._training(groups, skipped):
            held.append(rows)
            while sum(len(part.x) for part in held) >= self.rows:
                yield _first_of(held, self.rows)  # no name for it here, where it would outlive its use

    def _training(self, groups: Sequence[RowGroup], skipped: int) -> Iterator[MatrixRows]:
        for chunk in self.table.chunks(groups):
            places = np.flatnonzero(self._split.training(chunk.file, chunk.first, chunk.frame.height))
            if skipped >= len(places):
                skipped -= len(places)
                continue
            rows = matrix_rows(
                chunk.frame,
                self.schema,
                self._weights,
                source=self.table.files[chunk.file],
                first_row=chunk.first + 1,
            )
            numbered = rows._replace(numbers=rows.numbers + self._before[chunk.file])
            yield _cut(numbered, places[skipped:])
            skipped = 0


def _cut(rows: MatrixRows, places: slice | NDArray[np.int64]) -> MatrixRows:
    return MatrixRows(*(None if part is None else part[places] for part in rows))  # type: ignore[arg-type]


def _first_of(held: list[MatrixRows], rows: int) -> MatrixRows:
    """Takes the first rows out of a list, which keeps a copy of the rest."""
    last = held.pop()
    own = rows - sum(len(part.x) for part in held)
    first = [*held, _cut(last, slice(own))]
    held[:] = [_cut(last, np.arange(own, len(last.x)))]
    columns = zip(*first, strict=True)
    return MatrixRows(*(None if same[0] is None else np.concatenate(same) for same in columns))  # type: ignore[arg-type]
