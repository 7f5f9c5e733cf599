"""Writing results: whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import polars as pl

from ..errors import OutputError
from .delimited import is_number

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter  # type: ignore[import-untyped]

WRITTEN_SUFFIXES = (".csv", ".parquet")
"""What the name of a written table may end in."""

_REMEDY = "Choose another folder, or make room or permissions there."


def check_writable(path: str | Path) -> None:
    """Checks that a file can be written there, before the work whose result it is to hold; leaves no trace.

    Raises:
        OutputError: The folder is absent, no folder, or not writable; the path is a folder or a device.

    Example:
        >>> check_writable("no/such/folder/scores.csv")
        Traceback (most recent call last):
        pushforward.errors.OutputError: no/such/folder/scores.csv: there is no folder no/such/folder. Create
        it ...
    """
    _create_beside(path)[1].unlink()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path that becomes the output when the block ends well.

    The temporary file stands in the same folder, with the same suffix. It is synchronised to the disk and
    renamed, with the permissions of the file that it replaces, if there is one. Whatever goes wrong, an
    interrupt included, it is removed and an existing output stays untouched. A symbolic link is followed.

    Raises:
        OutputError: As `check_writable`, or the disk refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("all of it")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    target, temporary = _create_beside(path)
    try:
        yield temporary
        with as_output_error(path):
            if target.exists():
                shutil.copymode(target, temporary)
            _synchronise(temporary)
            temporary.replace(target)
        with suppress(OSError):  # not every system lets a folder be synchronised; the file is
            _synchronise(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def without_durations(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with durations as numbers of seconds, which is how text holds them.

    Example:
        >>> from datetime import timedelta
        >>> without_durations(pl.DataFrame({"a": [timedelta(minutes=1.5), None]}))["a"].to_list()
        [90.0, None]
    """
    columns = [
        pl.Series(column.name, column.alias("").dt.total_microseconds().to_numpy() / 1e6, nan_to_null=True)
        if column.dtype == pl.Duration
        else column
        for column in frame.iter_columns()
    ]
    return pl.DataFrame(columns)


class TableWriter:
    """Writes a table chunk by chunk, as CSV or Parquet by its suffix, and atomically (`atomic_path`).

    Categories are written as text, and in CSV durations as seconds. In CSV a float is written with the fewest digits
    that read back as the same float, a missing value as nothing (in a table of one column as NA, since an empty last
    line would not count as a row), and names that could be taken for data are quoted.

    Args:
        path: The output.

    Raises:
        OutputError: Another suffix; a path that cannot be written (on entering); no chunk at all (on leaving).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scores.csv"
        ...     with TableWriter(path) as writer:
        ...         writer.write(pl.DataFrame({"log_prob": [-1.5, 0.1]}))
        ...         writer.write(pl.DataFrame({"log_prob": [2.0]}))
        ...     path.read_text().split()
        ['log_prob', '-1.5', '0.1', '2.0']
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._suffix = self._path.suffix.lower()
        if self._suffix not in WRITTEN_SUFFIXES:
            raise OutputError(
                f"{path}: cannot tell the format from the suffix {self._path.suffix!r}. "
                f"End the name in {' or '.join(WRITTEN_SUFFIXES)}."
            )
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self._schema: pl.Schema | None = None
        self._parquet: ParquetWriter | None = None

    def __enter__(self) -> Self:
        temporary = self._stack.enter_context(atomic_path(self._path))
        self._file = self._stack.enter_context(temporary.open("wb"))
        return self

    def write(self, frame: pl.DataFrame) -> None:
        """Appends rows.

        Raises:
            OutputError: The disk refuses.
            ValueError: Columns or types differ from the first chunk's, or the writer is not open.
        """
        if self._file is None:
            raise ValueError(
                "TableWriter: expected to be entered (`with`) before it writes, got a write outside"
            )
        if self._schema is not None and frame.schema != self._schema:
            raise ValueError(f"frame: expected the first chunk's columns {self._schema}, got {frame.schema}")
        with as_output_error(self._path):
            if self._suffix == ".csv":
                if self._schema is None:
                    self._file.write(_header(frame.columns))
                gap = "NA" if frame.width == 1 else ""
                without_durations(frame).write_csv(self._file, include_header=False, null_value=gap)
            else:
                self._write_parquet(self._file, frame)
        self._schema = frame.schema

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._schema is None:
            error = OutputError(f"{self._path}: nothing was written, since there were no rows.")
            self._stack.__exit__(OutputError, error, None)
            raise error
        self._file = None
        with as_output_error(self._path):
            self._stack.__exit__(kind, error, traceback)

    def _write_parquet(self, file: IO[bytes], frame: pl.DataFrame) -> None:
        from pyarrow.parquet import ParquetWriter

        table = frame.to_arrow()
        if self._parquet is None:
            ordered = [
                n for n, dtype in frame.schema.items() if not isinstance(dtype, pl.Categorical | pl.Enum)
            ]
            self._parquet = self._stack.enter_context(
                ParquetWriter(
                    file,
                    table.schema,
                    use_dictionary=[series.name for series in frame if _repeats(series)],
                    write_statistics=ordered,  # the extremes of categories help no reader, and are slow to find
                    store_schema=len(ordered) == frame.width,  # with it categories would not be read as text
                )
            )
        self._parquet.write_table(table)


def _repeats(series: pl.Series) -> bool:
    """Whether values come twice on average, so that a dictionary of them is the shorter and faster way to write."""
    return not series.dtype.is_nested() and 2 * series.n_unique() <= len(series)


def _header(names: list[str]) -> bytes:
    """The first line of a CSV file, quoted where a name might be taken for data or for two, or lose a blank."""
    doubtful = any(
        is_number(name) or name != name.strip() or not name or set(name) & set(";\t") for name in names
    )
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL if doubtful else csv.QUOTE_MINIMAL, lineterminator="\n").writerow(
        names
    )
    return line.getvalue().encode()


def _create_beside(path: str | Path) -> tuple[Path, Path]:
    """The file meant, links followed, and a new empty file in its folder."""
    with as_output_error(path):
        target = Path(os.path.realpath(path))
        folder = target.parent
        if target.is_dir():
            raise OutputError(f"{path}: is a folder. Give the path of a file.")
        if not folder.exists():
            raise OutputError(f"{path}: there is no folder {Path(path).parent}. Create it first.")
        if not folder.is_dir():
            raise OutputError(f"{path}: {Path(path).parent} is not a folder. Choose another path.")
        if target.exists() and not target.is_file():
            raise OutputError(
                f"{path}: is a device or pipe, which cannot be replaced. Give the path of a file."
            )
        temporary = folder / f".pushforward-{secrets.token_hex(6)}{target.suffix}"
        # Not by tempfile: that would leave the output readable by its owner only.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return target, temporary


@contextmanager
def as_output_error(path: str | Path, remedy: str = _REMEDY) -> Iterator[None]:
    """Turns what the system refuses in the block into an error that names the output.

    Args:
        path: What was to be written.
        remedy: What to do, as a sentence.

    Raises:
        OutputError: An `OSError` came.

    Example:
        >>> with as_output_error("scores.csv"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        pushforward.errors.OutputError: scores.csv: cannot be written (No space left on device). Choose ...
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}). {remedy}") from error


def _synchronise(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
