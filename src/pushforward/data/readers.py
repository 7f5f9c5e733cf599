"""Reading tables: text, Parquet and NumPy files, whole or in chunks."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import array_frame, array_names, load_array
from .delimited import parsing_error, scan_delimited
from .names import check_names, suggestion

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npy", ".npz")
"""What the name of a table may end in."""

_READ_AHEAD = 1 << 18  # bytes of a column
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
# What NumPy, ZIP archives and Arrow raise besides over headers that make no sense.
_DAMAGE = (ArithmeticError, LookupError, RuntimeError, SyntaxError, TypeError, TokenError)


class _Array(NamedTuple):
    values: NDArray[np.generic]
    columns: tuple[str, ...]


class _Parquet(NamedTuple):
    file: ParquetFile
    columns: tuple[str, ...]

    def whole(self) -> pl.DataFrame:
        return _frame(self.file.read(columns=list(self.columns)), self.columns)

    def chunks(self, rows: int) -> Iterator[pl.DataFrame]:
        """Frames of that many rows, and one of those left; the file's batches end where its row groups do."""
        held: pl.DataFrame | None = None
        # In one thread: who takes a table chunk by chunk computes meanwhile.
        for batch in self.file.iter_batches(rows, columns=list(self.columns), use_threads=False):
            frame = _frame(batch, self.columns)
            held = frame if held is None else pl.concat([held, frame])
            if held.height >= rows:
                yield held[:rows]
                held = held[rows:]
        if held is not None and held.height:
            yield held


def _frame(table: object, columns: Sequence[str]) -> pl.DataFrame:
    """An Arrow table as a frame, with its columns in the order asked for."""
    return pl.DataFrame(pl.from_arrow(table))[list(columns)]


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    r"""Reads a table whole.

    Text (``.csv``, ``.tsv``, also with ``.gz``) has a header; without one, when the first line can only be
    data, the columns are ``x0, x1, ...`` (`pushforward.data.delimited.has_names`). Types are inferred over
    all rows. An array file holds one numeric array, (rows,) or (rows, columns), and its columns are ``x0, x1,
    ...`` too; in a ``.npz`` it is ``X``, or the only array with two axes. Pickled objects are never loaded.

    Args:
        path: The file; its suffix says what it is.
        columns: Names of the columns to read, in this order; None: all.

    Returns:
        The table, as it stands in the file: `to_matrix` checks its values.

    Raises:
        DataError: No such file, an unknown suffix, a file that is not what its suffix says or is cut short,
            no rows, no such column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "table.csv"
        ...     _ = path.write_text("age,height\n30,1.8\n41,1.65\n")
        ...     read_table(path, ["height"])["height"].to_list()
        [1.8, 1.65]
    """
    path = Path(path)
    with _readable(path):
        table = _open(path, columns)
        if isinstance(table, _Array):
            return array_frame(*table)
        return table.whole() if isinstance(table, _Parquet) else table.collect()


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
    with _readable(path):
        table = _open(path, columns)
    if isinstance(table, _Array):
        return _array_chunks(table, rows_per_chunk)
    return _chunks(path, table, rows_per_chunk)


def suffix_of(path: Path, known: Sequence[str]) -> str | None:
    """Which of the known suffixes (some of two parts) the file's name ends in, if any.

    Example:
        >>> suffix_of(Path("a.CSV.gz"), [".csv", ".csv.gz"])
        '.csv.gz'
    """
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix)), key=len, default=None)


def _open(path: Path, columns: Sequence[str] | None) -> pl.LazyFrame | _Array | _Parquet:
    suffix = _checked_suffix(path)
    if suffix in (".npy", ".npz"):
        array = load_array(path)
        return _Array(array, check_names(array_names(array), columns, source=path))
    if suffix != ".parquet":
        return scan_delimited(path, columns)
    # Not by polars, which panics over many a damaged file, with a trace of its own.
    from pyarrow.parquet import ParquetFile

    # Arrow would otherwise keep every row group that it has read ahead until the last is done.
    file = ParquetFile(path, pre_buffer=False, buffer_size=_READ_AHEAD)
    taken = check_names(file.schema_arrow.names, columns, source=path)
    if file.metadata.num_rows == 0:
        raise DataError("no rows", source=path, remedy="Give a table with rows.")
    return _Parquet(file, taken)


def _checked_suffix(path: Path) -> str:
    """The file's suffix, once the file is there and begins as such a file does."""
    suffix = suffix_of(path, SUFFIXES)
    if path.is_dir():
        raise DataError("is a folder", source=path, remedy="Give the path of one table.")
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


def _chunks(path: Path, table: pl.LazyFrame | _Parquet, rows: int) -> Iterator[pl.DataFrame]:
    with _readable(path):
        if isinstance(table, _Parquet):
            yield from table.chunks(rows)
        else:
            yield from table.collect_batches(chunk_size=rows, maintain_order=True)


def _array_chunks(table: _Array, rows: int) -> Iterator[pl.DataFrame]:
    for start in range(0, len(table.values), rows):
        yield array_frame(table.values[start : start + rows], table.columns)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the libraries raise over a bad file into an error that names it."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            "needs more memory than there is, or is damaged",
            source=path,
            remedy="Copy it again, or split it.",
        ) from error
    except PermissionError as error:
        raise DataError("may not be read", source=path, remedy="Check its permissions.") from error
    except (
        pl.exceptions.PolarsError,
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
        *_DAMAGE,
    ) as error:
        if isinstance(error, pl.exceptions.PolarsError) and path.suffix.lower() != ".parquet":
            raise parsing_error(path, error) from error
        reason = str(error).strip().split("\n", 1)[0]
        raise DataError(
            f"cut short or damaged ({reason})", source=path, remedy="Copy or download it again."
        ) from error
