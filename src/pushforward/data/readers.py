"""Reading tables: text, Parquet and NumPy files, whole or in chunks."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import array_frame, array_names, load_array
from .damage import readable
from .delimited import scan_delimited
from .names import check_names, suggestion
from .parquet import ParquetTable, is_pattern, parquet_files

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npy", ".npz")
"""What the name of a table may end in."""

_SIGNATURES = {
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"PK\x03\x04": "a ZIP archive (.npz or a spreadsheet, perhaps)",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\x1f\x8b": "gzip-compressed",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_OWN_SIGNATURES = {".parquet": b"PAR1", ".npy": b"\x93NUMPY", ".npz": b"PK"}


class _Array(NamedTuple):
    values: NDArray[np.generic]
    columns: tuple[str, ...]


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    r"""Reads a table whole.

    Text (``.csv``, ``.tsv``, also with ``.gz``) has a header; without one, when the first line can only be
    data, the columns are ``x0, x1, ...`` (`pushforward.data.delimited.has_names`). Types are inferred over
    all rows. An array file holds one numeric array, (rows,) or (rows, columns), and its columns are ``x0, x1,
    ...`` too; in a ``.npz`` it is ``X``, or the only array with two axes. Pickled objects are never loaded.
    Parquet files in one folder, or that match a pattern, are one table, their rows in the order of the names.

    Args:
        path: The file, whose suffix says what it is; or a folder of Parquet files, or a pattern such as
            ``data/*.parquet``.
        columns: Names of the columns to read, in this order; None: all.

    Returns:
        The table, as it stands in the file: `to_matrix` checks its values.

    Raises:
        DataError: No such file, an unknown suffix, a file that is not what its suffix says or is cut short,
            no rows, no such column; files of a folder or pattern whose columns differ.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "table.csv"
        ...     _ = path.write_text("age,height\n30,1.8\n41,1.65\n")
        ...     read_table(path, ["height"])["height"].to_list()
        [1.8, 1.65]
    """
    path = Path(path)
    with readable(path):
        table = _open(path, columns)
        if isinstance(table, _Array):
            return array_frame(*table)
        return table.whole() if isinstance(table, ParquetTable) else table.collect()


def iter_table(
    path: str | Path, columns: Sequence[str] | None, rows_per_chunk: int
) -> Iterator[pl.DataFrame]:
    """Reads a table in chunks of consecutive rows; only a ``.npz`` is held in memory whole.

    The chunks together equal `read_table`, types included; all but the last have ``rows_per_chunk`` rows.

    Args:
        path: The file, as in `read_table`.
        columns: Names of the columns to read, in this order; None: all.
        rows_per_chunk: Rows of a chunk, at least 1.

    Raises:
        DataError: As `read_table`; what can be known without reading all rows, before the first chunk.
        ValueError: ``rows_per_chunk`` is below 1.
    """
    if rows_per_chunk < 1:
        raise ValueError(f"rows_per_chunk: expected at least 1, got {rows_per_chunk}")
    path = Path(path)
    with readable(path):
        table = _open(path, columns)
    if isinstance(table, _Array):
        return _array_chunks(table, rows_per_chunk)
    return _chunks(path, table, rows_per_chunk)


def table_shape(path: str | Path, columns: Sequence[str] | None = None) -> tuple[int, tuple[str, ...]]:
    """Counts the rows of a table and names its columns, of which nothing but text has to be read.

    Args:
        path: The file, as in `read_table`.
        columns: Names of the columns to read, in this order; None: all.

    Raises:
        DataError: As `read_table`.
    """
    path = Path(path)
    with readable(path):
        table = _open(path, columns)
        if isinstance(table, _Array):
            return len(table.values), table.columns
        if isinstance(table, ParquetTable):
            return table.rows, table.columns
        rows = table.select(pl.len()).collect(engine="streaming").item()
        return int(rows), tuple(table.collect_schema().names())


def suffix_of(path: Path, known: Sequence[str]) -> str | None:
    """Which of the known suffixes (some of two parts) the file's name ends in, if any.

    Example:
        >>> suffix_of(Path("a.CSV.gz"), [".csv", ".csv.gz"])
        '.csv.gz'
    """
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix)), key=len, default=None)


def _open(path: Path, columns: Sequence[str] | None) -> pl.LazyFrame | _Array | ParquetTable:
    files = parquet_files(path)
    if files:
        for file in files:
            _checked_suffix(file)
        return ParquetTable(files, columns)
    suffix = _checked_suffix(path)
    if suffix in (".npy", ".npz"):
        array = load_array(path)
        return _Array(array, check_names(array_names(array), columns, source=path))
    if suffix != ".parquet":
        return scan_delimited(path, columns)
    return ParquetTable([path], columns)


def _checked_suffix(path: Path) -> str:
    """The file's suffix, once the file is there and begins as such a file does."""
    suffix = suffix_of(path, SUFFIXES)
    if path.is_dir():
        raise DataError(
            "is a folder without Parquet files",
            source=path,
            remedy="Give the path of a table, or of a folder of them.",
        )
    if is_pattern(path) and suffix in (None, ".parquet"):
        raise DataError(
            "no Parquet file matches",
            source=path,
            remedy="Put the pattern in quotes, such as 'data/*.parquet'.",
        )
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("no such file", source=path, remedy=suggestion(path.name, beside))
    if suffix is None:
        raise DataError(
            f"cannot tell the kind of table from the suffix {path.suffix!r}",
            source=path,
            remedy=f"Known are {', '.join(SUFFIXES)}.",
        )
    if "\\udc" in ascii(str(path)):
        raise DataError("its name is not text in UTF-8", source=path, remedy="Rename it.")
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise DataError("the file is empty", source=path, remedy="Give a table with a header and rows.")
    if suffix.endswith(".gz") and head.startswith(b"\x1f\x8b"):
        with gzip.open(path) as file:
            head = file.read(4096)
    elif suffix.endswith(".gz"):
        raise _mismatch(path, suffix, head)
    expected = _OWN_SIGNATURES.get(suffix)
    if not head.startswith(expected) if expected else _is_binary(head):
        raise _mismatch(path, suffix, head)
    return suffix


def _is_binary(head: bytes) -> bool:
    return b"\0" in head or any(head.startswith(signature) for signature in _SIGNATURES)


def _mismatch(path: Path, suffix: str, head: bytes) -> DataError:
    kind = next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
    content = kind or ("unknown binary data" if b"\0" in head else "something else, text perhaps")
    return DataError(
        f"the name says {suffix}, but the content is {content}",
        source=path,
        remedy="Rename it, or convert it to CSV or Parquet.",
    )


def _chunks(path: Path, table: pl.LazyFrame | ParquetTable, rows: int) -> Iterator[pl.DataFrame]:
    with readable(path):
        if isinstance(table, ParquetTable):
            yield from table.chunks(rows)
        else:
            yield from table.collect_batches(chunk_size=rows, maintain_order=True)


def _array_chunks(table: _Array, rows: int) -> Iterator[pl.DataFrame]:
    for start in range(0, len(table.values), rows):
        yield array_frame(table.values[start : start + rows], table.columns)
