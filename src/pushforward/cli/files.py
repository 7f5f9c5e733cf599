"""Files that a command reads and writes, checked before the work."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArtifactError, DataError, OutputError

if TYPE_CHECKING:
    import polars as pl

    from ..artifact import FittedFlow

STDOUT = "-"

NUMBERED = re.compile(r"(.+):(\d+)(?:-(\d+))?", re.DOTALL)
"""Images of a set, folder or file by their numbers: ``mnist:12``, ``folder:1-8``."""


def check_output(output: Path, inputs: Sequence[Path | None], *, suffixes: Sequence[str] = ()) -> None:
    """Check that a file can be written, and that it is none of those that are read.

    Raises:
        OutputError: It cannot be written, or would replace an input, or has none of the suffixes that are known.
    """
    from ..data import check_writable
    from ..data.parquet import would_join

    if suffixes and output.suffix.lower() not in suffixes:
        raise OutputError(
            f"{output}: cannot tell the format from the suffix {output.suffix!r}. "
            f"End the name in {' or '.join(suffixes)}."
        )
    for path in inputs:
        if path is not None and would_join(output, path):
            raise OutputError(
                f"{output}: would be one of the files of {path}, which are read. Choose another folder."
            )
        if path is None or not output.exists():
            continue
        source = _source(path)
        if source.exists() and output.samefile(source):
            raise OutputError(f"{output}: is the input, which would be replaced. Choose another path.")
        if source.is_dir() and _is_read_in(output, source):
            raise OutputError(
                f"{output}: is one of the inputs in {source}, which would be replaced. Choose another path."
            )
    check_writable(output)


def load_model(path: Path) -> FittedFlow:
    """Load a saved flow.

    Raises:
        ArtifactError: A table stands in the place of the saved flow, or it cannot be read.
        DataError: There is no such file.
    """
    from ..artifact import load
    from ..data.readers import SUFFIXES, suffix_of

    if suffix_of(path, SUFFIXES) is not None:
        raise ArtifactError(
            f"{path}: is a table by its name, not a saved flow. The saved flow comes first, then the table."
        )
    return load(path)


def check_table(path: Path) -> None:
    """Check that a table is no saved flow and no images; all else is checked by who reads it.

    Raises:
        DataError: It is one of these.
    """
    from ..data import holds_images

    if holds_images(path):
        raise DataError(
            "holds images, not a table",
            source=path,
            remedy="Give a table of rows: CSV, TSV, Parquet, .npy or .npz.",
        )
    if is_saved_flow(path):
        raise DataError(
            "is a saved flow, not a table",
            source=path,
            remedy="Give a table of rows: CSV, TSV, Parquet, .npy or .npz.",
        )


def is_saved_flow(path: Path) -> bool:
    """Return whether a file begins as saved flows do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'{"__metadata__":{"pushforward"' in file.read(64)


def _source(path: Path) -> Path:
    """Return the file or folder of an input, without the numbers of images in it; a file that is there comes first."""
    match = None if path.exists() else NUMBERED.fullmatch(str(path))
    return path if match is None else Path(match[1])


def _is_read_in(file: Path, folder: Path) -> bool:
    """Return whether a file that is there is one of the images of a folder."""
    from ..data.idx import has_idx_name
    from ..data.labels import PICTURE_SUFFIXES

    # Both where its name stands and where a link leads.
    places = (file.resolve(), file.parent.resolve() / file.name)
    if not file.is_file() or not any(folder.resolve() in place.parents for place in places):
        return False
    return file.suffix.lower() in PICTURE_SUFFIXES or has_idx_name(file)


def to_stdout(output: Path) -> bool:
    """Return whether the output is ``-``: rows as CSV on standard output."""
    return str(output) == STDOUT


@contextmanager
def table_sink(output: Path) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Give a function that appends rows to a table: a file, whole or not at all, or standard output."""
    if not to_stdout(output):
        from ..data import TableWriter

        with TableWriter(output) as writer:
            yield writer.write
        return
    from ..data.writers import without_durations

    first = True

    def write(frame: pl.DataFrame) -> None:
        nonlocal first
        sys.stdout.write(without_durations(frame).write_csv(include_header=first))
        first = False

    yield write
    sys.stdout.flush()
