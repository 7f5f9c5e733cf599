"""One pass over a table on disk: rows held out, a sample of the others, and the rows that show what columns are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import DataError
from .splits import RowSplit
from .stored import Chunk, StoredTable

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

HELD_OUT = 100_000
"""About how many rows validate, and test, at most."""
SAMPLE = 200_000
"""About how many training rows are drawn, at most."""

_SHARE = 0.1
_MOST_LABELS = 1_001  # of a column; with so many they are none
_RANGE = re.compile(r", the (?:only one|first of \d+) in rows \d+ to \d+")


@dataclass(frozen=True, slots=True)
class PickedRows:
    """Rows of a table on disk, with where each of them stands.

    Attributes:
        frame: The rows.
        places: The file of each, and its row there, counted from 1, (rows, 2).
        table: The table.
    """

    frame: pl.DataFrame
    places: NDArray[np.int64]
    table: StoredTable

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The number of each row in the table, its files one after the other, counted from 1, (rows,)."""
        before = np.array(self.table.numbered(), np.int64)
        return before[self.places[:, 0]] + self.places[:, 1]

    @contextmanager
    def named(self) -> Iterator[None]:
        """Makes errors about rows of ``frame`` name the file and row that they stand at."""
        try:
            yield
        except DataError as error:
            if error.row is None:
                raise
            file, row = self.places[error.row - 1]
            raise DataError(
                _RANGE.sub("", error.problem),
                source=self.table.files[file],
                row=int(row),
                column=error.column,
                remedy=error.remedy,
            ) from error


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass over a table has found.

    Attributes:
        split: The part of each row.
        sample: Training rows drawn uniformly, followed by the rows that show what the others may lack: the ends of
            each column, its first gap, its first number that is not whole, and every label.
        drawn: How many of the first rows of ``sample`` were drawn.
        valid: Validation rows, all of them.
        test: Test rows, all of them.
    """

    split: RowSplit
    sample: PickedRows
    drawn: int
    valid: PickedRows
    test: PickedRows


def survey(table: StoredTable, *, seed: int, validate: bool = True) -> Survey:
    """Reads a table once, and holds out a tenth of the rows to validate on and a tenth to test, or about 100,000.

    Args:
        table: The table.
        seed: Seed of the split.
        validate: Whether rows are held out to validate on.

    Raises:
        DataError: A file that cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "t.parquet"
        ...     pl.DataFrame({"a": range(1000)}).write_parquet(path)
        ...     found = survey(StoredTable(path), seed=0)
        >>> found.drawn + found.valid.frame.height + found.test.frame.height
        1000
    """
    share = min(_SHARE, HELD_OUT / table.rows)
    split = RowSplit(seed, share if validate else 0.0, share)
    ends = np.cumsum([split.test, split.valid, min(1.0, SAMPLE / table.rows)])
    test, valid, sample, witnesses = (_Picker() for _ in range(4))
    seen: dict[str, _Seen] = {}
    for chunk in table.chunks():
        numbers = split.numbers(chunk.file, chunk.first, chunk.frame.height)
        parts = np.searchsorted(ends, numbers, side="right")
        for part, picker in enumerate((test, valid, sample)):
            picker.take(chunk, np.flatnonzero(parts == part))
        for name in chunk.frame.columns:
            places = seen.setdefault(name, _Seen()).news(chunk.frame[name].alias(""))
            witnesses.take(chunk, np.unique(np.array(places, np.int64)))
    drawn = sum(map(len, sample.places))
    return Survey(
        split,
        _Picker.joined(table, sample, witnesses),
        drawn,
        _Picker.joined(table, valid),
        _Picker.joined(table, test),
    )


class _Picker:
    """Rows that were picked, as Arrow tables: a frame would keep all text of the chunk that its rows come from."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.places: list[NDArray[np.int64]] = []

    def take(self, chunk: Chunk, rows: NDArray[np.int64]) -> None:
        """Picks rows of a chunk."""
        if len(rows) or not self.tables:
            self.tables.append(chunk.frame[rows].to_arrow(compat_level=pl.CompatLevel.oldest()))
            self.places.append(np.column_stack([np.full(len(rows), chunk.file), chunk.first + rows + 1]))

    @staticmethod
    def joined(table: StoredTable, *pickers: _Picker) -> PickedRows:
        """All rows of pickers, one after the other."""
        import pyarrow as pa

        whole = pa.concat_tables([part for picker in pickers for part in picker.tables])
        places = np.concatenate([part for picker in pickers for part in picker.places])
        return PickedRows(pl.DataFrame(pl.from_arrow(whole)), places.astype(np.int64), table)


class _Seen:
    """What is known of a column so far."""

    def __init__(self) -> None:
        self._gap, self._fraction = False, False
        self._low: Any = None
        self._high: Any = None
        self._labels: set[str] = set()

    def news(self, series: pl.Series) -> list[int]:
        """Where a chunk's column shows what was not known of it."""
        found = []
        if series.dtype.is_float():
            series = series.fill_nan(None)
        if not self._gap and series.null_count():
            self._gap = True
            found.append(series.is_null().arg_max() or 0)
        if isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum):
            return found + self._new_labels(series.cast(pl.String))
        if not (series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == pl.Boolean):
            return found
        low, high = series.arg_min(), series.arg_max()
        if low is not None and (self._low is None or series[low] < self._low):
            self._low = series[low]
            found.append(low)
        if high is not None and (self._high is None or series[high] > self._high):
            self._high = series[high]
            found.append(high)
        if series.dtype.is_float() and not self._fraction:
            fractions = (series != series.floor()).fill_null(False)
            self._fraction = bool(fractions.any())
            found += [fractions.arg_max() or 0] * self._fraction
        return found

    def _new_labels(self, series: pl.Series) -> list[int]:
        if len(self._labels) >= _MOST_LABELS:
            return []
        first: Mapping[str, int] = {}
        labels = series.unique().drop_nulls().to_list()
        new = sorted(set(labels) - self._labels)[: _MOST_LABELS - len(self._labels)]
        self._labels.update(new)
        if new:
            places = (
                pl.DataFrame({"label": series}).with_row_index("place").filter(pl.col("label").is_in(new))
            )
            first = dict(places.unique("label", keep="first").select("label", "place").iter_rows())
        return list(first.values())
