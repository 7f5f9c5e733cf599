"""Parquet files, one or many, as one table."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from ..errors import DataError
from .damage import readable
from .names import check_names, listed, suggestion

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData, ParquetFile  # type: ignore[import-untyped]

_SUFFIX = ".parquet"
_READ_AHEAD = 1 << 18  # bytes of a column


class RowGroup(NamedTuple):
    """Rows that are read together.

    Attributes:
        file: Which of the table's files holds them, counted from 0.
        place: Which of that file's row groups they are.
        first: The row of the file that they begin with, counted from 0.
        rows: Their number.
    """

    file: int
    place: int
    first: int
    rows: int


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of names and no file or folder.

    Example:
        >>> is_pattern(Path("data/*.parquet")), is_pattern(Path("data"))
        (True, False)
    """
    return glob.has_magic(str(path)) and not path.exists()


def parquet_files(path: Path) -> tuple[Path, ...]:
    """The Parquet files of a folder, or those that match a pattern, sorted; hidden ones are left out.

    Returns:
        The files; none where the path is neither, or there are none.
    """
    if path.is_dir():
        found = list(path.iterdir())
    elif is_pattern(path):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (of any root)
    else:
        return ()
    return tuple(sorted(file for file in found if _is_part(file.name) and file.is_file()))


def would_join(file: Path, path: Path) -> bool:
    """Whether a file of that name would be one more of the files of a folder or pattern.

    Example:
        >>> would_join(Path("data/new.parquet"), Path("data/*.parquet"))
        True
    """
    if not _is_part(file.name):
        return False
    if path.is_dir():
        return file.resolve().parent == path.resolve() and bool(parquet_files(path))
    return is_pattern(path) and fnmatch(str(file.absolute()), str(path.absolute()))


def _is_part(name: str) -> bool:
    return name.lower().endswith(_SUFFIX) and not name.startswith(".")


class ParquetTable:
    """Some columns of Parquet files, whose rows follow each other in the order of the files.

    Args:
        files: The files.
        columns: Names of the columns, in this order; None: all.

    Raises:
        DataError: No such column, no rows, or files whose columns differ: in their types, or, where all are taken,
            in their names.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str] | None) -> None:
        from pyarrow.parquet import read_metadata

        self.files = tuple(files)
        self._footers: list[FileMetaData] = []
        for file in self.files:
            with readable(file):
                try:
                    self._footers.append(read_metadata(file))
                except NotImplementedError as error:
                    raise _unreadable(file, error) from error
        self.columns = check_names(self._footers[0].schema.to_arrow_schema().names, columns, source=files[0])
        self._check_readable()
        if len(self.files) > 1:
            self._check_alike(whole=columns is None)
        self.rows = sum(footer.num_rows for footer in self._footers)
        if self.rows == 0:
            raise DataError("no rows", source=self.files[0], remedy="Give a table with rows.")

    def groups(self) -> list[RowGroup]:
        """The row groups of all files, in their order."""
        found = []
        for file, footer in enumerate(self._footers):
            first = 0
            for place in range(footer.num_row_groups):
                rows = footer.row_group(place).num_rows
                found.append(RowGroup(file, place, first, rows))
                first += rows
        return found

    def whole(self) -> pl.DataFrame:
        """All rows at once."""
        frames = []
        for number, file in enumerate(self.files):
            with readable(file):
                frames.append(self._frame(self._opened(number).read(columns=list(self.columns))))
        return frames[0] if len(frames) == 1 else pl.concat(frames)

    def chunks(self, rows: int) -> Iterator[pl.DataFrame]:
        """Frames of that many rows, and one of those left; batches of a file end where its row groups do."""
        held: pl.DataFrame | None = None
        for number, file in enumerate(self.files):
            with readable(file):
                for frame in self._batches(number, None, rows):
                    held = frame if held is None else pl.concat([held, frame])
                    if held.height >= rows:
                        yield held[:rows]
                        held = held[rows:]
        if held is not None and held.height:
            yield held

    def group(self, group: RowGroup, rows: int) -> Iterator[pl.DataFrame]:
        """The rows of a row group, in frames of at most so many."""
        with readable(self.files[group.file]):
            yield from self._batches(group.file, [group.place], rows)

    def _opened(self, number: int) -> ParquetFile:
        from pyarrow.parquet import ParquetFile

        # Not by polars, which panics over many a damaged file, with a trace of its own. Without pre_buffer=False
        # Arrow would keep every row group that it has read ahead until the last is done.
        return ParquetFile(
            self.files[number], metadata=self._footers[number], pre_buffer=False, buffer_size=_READ_AHEAD
        )

    def _batches(self, number: int, places: list[int] | None, rows: int) -> Iterator[pl.DataFrame]:
        with self._opened(number) as file:
            # In one thread: who takes a table chunk by chunk computes meanwhile.
            for batch in file.iter_batches(rows, places, columns=list(self.columns), use_threads=False):
                yield self._frame(batch)

    def _frame(self, table: object) -> pl.DataFrame:
        """An Arrow table as a frame, with its columns in the order asked for."""
        return pl.DataFrame(pl.from_arrow(table))[list(self.columns)]

    def _check_readable(self) -> None:
        """Checks that columns have names, and hold no decimals of 256 bits, over which polars panics."""
        schema = self._footers[0].schema.to_arrow_schema()
        for name in self.columns:
            if not name:
                problem = f"column number {schema.names.index(name) + 1} has no name"
                raise DataError(problem, source=self.files[0], remedy="Name it.")
            dtype = str(schema.field(name).type)
            if "decimal256" in dtype:
                raise DataError(
                    f"holds {dtype}, of more digits than can be read",
                    source=self.files[0],
                    column=name,
                    remedy="Write it as 64-bit floats.",
                )

    def _check_alike(self, *, whole: bool) -> None:
        """Checks that all files have the columns of the first, of the same types."""
        expected = self._types(0)
        for number, file in enumerate(self.files[1:], 1):
            names = self._footers[number].schema.to_arrow_schema().names
            absent = [name for name in self.columns if name not in names]
            more = [name for name in names if whole and name not in self.columns]
            if absent or more:
                what = "missing, but there" if absent else "there, but not"
                raise DataError(
                    f"the column is {what} in {self.files[0].name}; this file has {listed(names)}",
                    source=file,
                    column=(absent or more)[0],
                    remedy=suggestion(absent[0], names)
                    if absent
                    else "Write all files with the same columns.",
                )
            for name, dtype in self._types(number).items():
                if dtype != expected[name]:
                    raise DataError(
                        f"holds {dtype}, but {expected[name]} in {self.files[0].name}",
                        source=file,
                        column=name,
                        remedy="Write the column with one type in all files.",
                    )

    def _types(self, number: int) -> pl.Schema:
        schema = self._footers[number].schema.to_arrow_schema()
        return self._frame(schema.empty_table().select(list(self.columns))).schema


def _unreadable(file: Path, error: NotImplementedError) -> DataError:
    """The error about a file of types that Arrow does not know: integers of 128 bits, which polars writes."""
    # Polars panics over many a damaged file, so it is asked only about one that is not.
    types = pl.read_parquet_schema(file) if "more than 64 bits" in str(error) else {}
    wide = [name for name, dtype in types.items() if dtype in (pl.Int128, pl.UInt128)]
    if not wide:
        return DataError(
            f"holds what cannot be read ({error})", source=file, remedy="Write it again with plain types."
        )
    return DataError(
        "holds integers of 128 bits, which Arrow cannot read",
        source=file,
        column=wide[0],
        remedy="Write it as 64-bit integers; or, if it is an identifier, as text.",
    )
