"""Tables on disk, read chunk by chunk and, where they can be, in another order than they stand in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from .parquet import ParquetTable, RowGroup, parquet_files
from .readers import iter_table, suffix_of, table_shape

_CHUNK_ROWS = 65_536
_BYTES_OF_VALUE = 8.0  # of a number in a text table, roughly
_PACKED = 4.0  # how many times shorter gzip makes text, roughly


class Chunk(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        frame: The rows.
        file: Which of the table's files, from 0.
        first: The first row, counted from 0 in its file.
    """

    frame: pl.DataFrame
    file: int
    first: int


class StoredTable:
    """Some columns of a table on disk, as row groups.

    Those of Parquet files can be read in any order. A text or NumPy file is one group, from its first row on.

    Args:
        path: As of `pushforward.data.read_table`.
        columns: Names of the columns; None: all.

    Raises:
        DataError: As of `pushforward.data.read_table`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in "ab":
        ...         pl.DataFrame({"x": [1, 2, 3]}).write_parquet(Path(folder) / f"{name}.parquet", row_group_size=2)
        ...     table = StoredTable(folder)
        ...     [chunk.frame["x"].to_list() for chunk in table.chunks(table.groups[1:3])]
        [[3], [1, 2]]
    """

    def __init__(self, path: str | Path, columns: Sequence[str] | None = None) -> None:
        path = Path(path)
        files = parquet_files(path) or (path,)
        self.rows, self.columns = table_shape(path, columns)
        self._parquet: ParquetTable | None = None
        if suffix_of(files[0], [".parquet"]):
            self._parquet = ParquetTable(files, self.columns)
        self.files = files
        self.groups = [RowGroup(0, 0, 0, self.rows)] if self._parquet is None else self._parquet.groups()

    @property
    def any_order(self) -> bool:
        """Whether the groups can be read in any order."""
        return self._parquet is not None

    def chunks(self, groups: Sequence[RowGroup] | None = None) -> Iterator[Chunk]:
        """The rows of groups, one group after the other, in chunks of at most 65,536; of all groups by default."""
        for group in self.groups if groups is None else groups:
            first = group.first
            for frame in self._frames(group):
                yield Chunk(frame, group.file, first)
                first += frame.height

    def numbered(self) -> list[int]:
        """How many rows of the table stand before each file."""
        before, counts = [0] * len(self.files), [0] * len(self.files)
        for group in self.groups:
            counts[group.file] += group.rows
        for file in range(1, len(self.files)):
            before[file] = before[file - 1] + counts[file - 1]
        return before

    def _frames(self, group: RowGroup) -> Iterator[pl.DataFrame]:
        if self._parquet is not None:
            return self._parquet.group(group, _CHUNK_ROWS)
        return iter_table(self.files[0], self.columns, _CHUNK_ROWS)


def table_values(path: str | Path) -> int:
    """Number of values of a table, rows times columns; of text roughly, from the size of the file.

    Raises:
        DataError: As of `pushforward.data.read_table`.
    """
    path = Path(path)
    if not parquet_files(path):
        packed = suffix_of(path, [".csv.gz", ".tsv.gz"]) is not None
        if packed or suffix_of(path, [".csv", ".tsv"]):
            size = path.stat().st_size if path.is_file() else 0
            return int(size * (_PACKED if packed else 1.0) / _BYTES_OF_VALUE)
    rows, columns = table_shape(path)
    return rows * len(columns)
