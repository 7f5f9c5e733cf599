"""From a table that is larger than memory to a fitted flow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact import FittedFlow
from ..configs import (
    DataConfig,
    ModelConfig,
    TableSchema,
    TrainConfig,
    default_table_model,
    default_training,
)
from ..data.shuffled import ShuffledTable
from ..data.survey import HELD_OUT
from ..errors import DataError
from ..flows import table_flow
from .checkpoints import Checkpoints, checkpoints_in
from .loop import EpochRecord, TrainResult
from .notes import tell
from .points import Points
from .record import check_batch_size, train_and_record
from .rows import as_points, degenerate
from .seeded import seeded
from .streamed_split import StreamedSplit, stream_table

if TYPE_CHECKING:
    import polars as pl

_STEPS = 40_000  # of training by default, where a table has rows enough
_FEW_GROUPS = 4


def streamed_training(split: StreamedSplit, seed: int = 0, model: ModelConfig | None = None) -> TrainConfig:
    """Return the training settings for a table that is streamed, whose epochs are passes over it.

    They are those of ``default_training``, with passes for about 40,000 steps, and one at least.

    Args:
        split: What ``stream_table`` returned.
        seed: Seed of the run.
        model: The model.

    Example:
        >>> import tempfile
        >>> import polars as pl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pl.DataFrame({"n": range(500)}).write_parquet(f"{folder}/t.parquet")
        ...     split = stream_table(folder, DataConfig(), seed=0)
        >>> streamed_training(split).batch_size
        64
    """
    rows = split.table.training_rows
    training = default_training(rows, seed, model)
    passes = max(1, min(training.epochs, _STEPS // max(1, rows // training.batch_size)))
    return replace(training, epochs=passes, batch_size=min(training.batch_size, split.table.rows))


def fit_streamed(
    path: str | Path,
    *,
    model: ModelConfig | None = None,
    training: TrainConfig | None = None,
    data: DataConfig | None = None,
    schema: TableSchema | None = None,
    valid: pl.DataFrame | None = None,
    seed: int = 0,
    rows_per_buffer: int | None = None,
    valid_source: str | Path | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> FittedFlow:
    """Fit a density to a table on disk, of which one buffer of rows is in memory at a time.

    Args:
        path: The table: a file, a folder of Parquet files, or a pattern such as ``data/*.parquet``.
        model: As of ``fit``.
        training: As of ``fit``; its epochs are passes over the table, and so is its patience.
        data: As of ``fit``, without groups.
        schema: As of ``fit``.
        valid: Rows to choose the best buffer on; a tenth, or about 100,000, of the table's by default.
        seed: Seed of the split, of the order of the rows and, by default, of the training.
        rows_per_buffer: Most rows of a buffer; by default 2**20, or fewer of more than 8 columns.
        valid_source: Where ``valid`` comes from, for messages.
        checkpoint: As of ``fit``.
        resume: As of ``fit``. The table must still have the same files.
        on_epoch: Called after every buffer.
        on_note: As of ``fit``.

    Returns:
        As of ``fit``. The record counts buffers as epochs; its training log-likelihood is that of rows drawn uniformly.

    Raises:
        DataError: A table that cannot be used as it is, or groups of rows.
        ValueError: As of ``fit``.
        TrainingError: As of ``fit``.
        OutputError: As of ``fit``.
        ArtifactError: As of ``fit``.
        TerminatedError: As of ``fit``.

    Example:
        >>> import tempfile
        >>> import polars as pl
        >>> import torch
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).numpy()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pl.DataFrame(x, schema=["a", "b"]).write_parquet(f"{folder}/t.parquet", row_group_size=50)
        ...     training = TrainConfig(epochs=1, batch_size=64)
        ...     fitted = fit_streamed(f"{folder}/t.parquet", training=training, rows_per_buffer=300, on_note=print)
        >>> fitted.facts.train_rows, len(fitted.facts.valid_curve)
        (802, 3)
    """
    checkpoints = checkpoints_in(checkpoint, resume=resume, on_note=on_note)
    split = stream_table(
        path,
        data or DataConfig(),
        seed=seed,
        model=model,
        schema=schema,
        valid=valid,
        valid_source=valid_source,
        rows_per_buffer=rows_per_buffer,
    )
    return fit_stream(
        split,
        model=model,
        training=training,
        seed=seed,
        source=path,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_note=on_note,
    )


def fit_stream(
    split: StreamedSplit,
    *,
    model: ModelConfig | None = None,
    training: TrainConfig | None = None,
    seed: int = 0,
    source: str | Path | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_trained: Callable[[TrainResult], None] | None = None,
) -> FittedFlow:
    """Fit a density to a table that has been read once: the second half of ``fit_streamed``.

    Args:
        split: What ``stream_table`` returned.
        model: As of ``fit_streamed``.
        training: As of ``fit_streamed``.
        seed: Seed of the training where ``training`` is not given.
        source: What the record calls the table.
        checkpoints: Where to write the state of the training, and to go on from.
        on_epoch: As of ``fit_streamed``.
        on_note: As of ``fit_streamed``.
        on_trained: Called when training has ended, before log-likelihoods are computed.

    Returns:
        As of ``fit_streamed``.

    Raises:
        DataError: A batch of more rows than a buffer has.
        ValueError: As of ``fit``.
        TrainingError: As of ``fit``.
        OutputError: As of ``fit``.
        ArtifactError: As of ``fit``.
        TerminatedError: As of ``fit``.

    Example:
        >>> import tempfile
        >>> import polars as pl
        >>> from pushforward.configs import NICEConfig
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pl.DataFrame({"n": range(500), "m": range(500)}).write_parquet(f"{folder}/t.parquet")
        ...     split = stream_table(folder, DataConfig(), seed=0)
        ...     training = TrainConfig(epochs=1, batch_size=64)
        ...     fit_stream(split, model=NICEConfig(layers=1), training=training, on_note=len).facts.stopped
        'epochs'
    """
    table = split.table
    model = model or default_table_model(table.training_rows, split.schema)
    training = training or streamed_training(split, seed, model)
    check_batch_size(training, table.rows, of="rows of a buffer", source=source)
    notes = _notes(split, model)
    for note in notes:
        tell(note, on_note, stacklevel=4)
    with seeded(training.seed):
        flow = table_flow(model, split.schema)
    run = replace(
        training, epochs=training.epochs * table.buffers, patience=training.patience * table.buffers
    )
    with closing(_Buffers(table, run.epochs)) as buffers:
        fitted = train_and_record(
            flow,
            (split.sample, split.valid, split.test),
            model=model,
            schema=split.schema,
            training=run,
            source="" if source is None else Path(source).name,
            notes=(*notes, buffers_in_words(table)),
            most=HELD_OUT,
            checkpoints=checkpoints,
            on_epoch=on_epoch,
            on_note=on_note,
            on_trained=on_trained,
            refill=buffers.points,
            identity={"files": _files_in_words(table)},
        )
    return replace(fitted, facts=replace(fitted.facts, train_rows=table.training_rows))


def buffers_in_words(table: ShuffledTable) -> str:
    """Return how a table is streamed, as its record says it."""
    passes = "the whole" if table.buffers == 1 else f"{table.buffers} make a pass over the"
    return (
        f"The table was streamed: an epoch is a buffer of {table.rows:,} rows, {passes} {table.training_rows:,} "
        "training rows. The training log-likelihood is that of some of them, drawn uniformly."
    )


def _files_in_words(table: ShuffledTable) -> str:
    """Return which files a table has, by their names and sizes."""
    sizes = [(file.name, file.stat().st_size) for file in table.table.files]
    digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:8]
    return f"{len(sizes)} of {sum(size for _, size in sizes):,} bytes ({digest})"


class _Buffers:
    """The buffers of a table as points; the next one is read in a thread while an epoch lasts."""

    def __init__(self, table: ShuffledTable, epochs: int) -> None:
        self._table, self._epochs = table, epochs
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[Points]] = {}

    def points(self, epoch: int) -> Points:
        """Return the points of an epoch, counted from 1."""
        ready = self._ahead.pop(epoch, None) or self._pool.submit(self._read, epoch)
        points = ready.result()
        self._ahead = {epoch + 1: self._pool.submit(self._read, epoch + 1)} if epoch < self._epochs else {}
        return points

    def close(self) -> None:
        """Read no further."""
        self._pool.shutdown(cancel_futures=True)

    def _read(self, epoch: int) -> Points:
        points = as_points(self._table.buffer(epoch - 1))
        if points.weights is not None and not bool(points.weights.any()):
            raise DataError(
                f"the weights of {len(points):,} rows that are trained on together are all 0",
                source=self._table.table.files[0].parent,
                remedy="Leave rows of weight 0 out.",
            )
        return points


def _notes(split: StreamedSplit, model: ModelConfig) -> list[str]:
    """Say what is degenerate about the sample, and what about the order of the rows."""
    table, notes = split.table, degenerate(split.sample, split.schema, model)
    if table.buffers > 1 and not table.table.any_order:
        notes.append(
            "Rows are read in the order in which they stand, and shuffled within a buffer only. If they are sorted, "
            "write the table as Parquet, whose row groups come in random order."
        )
    elif table.buffers > 1 and table.groups_per_buffer < _FEW_GROUPS:
        notes.append(
            f"A buffer holds {table.groups_per_buffer:.1f} row groups on average. If the files are sorted, write them "
            "with smaller row groups: each buffer is then more like the whole."
        )
    return notes
