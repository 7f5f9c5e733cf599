"""``pushforward fit`` where a table is read buffer by buffer, since it is larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import DataConfig, TableSchema, default_table_model
from .progress import TrainingProgress
from .runs import note
from .text import counted, model_line

if TYPE_CHECKING:
    from rich.console import Console

    from ..artifact import FittedFlow
    from ..data.shuffled import ShuffledTable
    from ..training import Checkpoints
    from .fit import Job

_MOST_VALUES = 10_000_000  # of a table that is read whole, rows times columns


def is_streamed(table: Path, data: DataConfig, wanted: bool | None) -> bool:
    """Return whether a table is to be read buffer by buffer: as the user wishes, or where it is large."""
    from ..data.stored import table_values

    if wanted is not None:
        return wanted
    return data.group is None and table_values(table) > _MOST_VALUES


def fit_stream(
    job: Job,
    checkpoints: Checkpoints,
    out: Console,
    describe: Callable[[Sequence[str], int, TableSchema, tuple[int, int, int]], list[str]],
) -> FittedFlow:
    """Fit a flow to a table, buffer by buffer.

    Args:
        job: What is to be fitted.
        checkpoints: Where to write the state of the training.
        out: Where to say what was found.
        describe: What says it, from the names of all columns, the number of rows, the schema, and the numbers of
            training, validation and test rows.
    """
    from ..data import read_table
    from ..data.stored import StoredTable
    from ..training import fit_stream as fit_buffers
    from ..training import stream_table, streamed_training

    seed = int(job.training.get("seed", 0))
    with out.status(f"Reading {job.table}"):
        split = stream_table(
            job.table,
            job.data,
            seed=seed,
            model=job.choice.example,
            schema=job.schema,
            valid=None if job.valid is None else read_table(job.valid),
            valid_source=job.valid,
        )
        names = StoredTable(job.table).columns
    table = split.table
    model = job.choice.config(default_table_model(table.training_rows, split.schema))
    training = replace(streamed_training(split, seed, model), **job.training)
    counts = (table.training_rows, len(split.valid), len(split.test))
    for line in [
        *describe(names, table.table.rows, split.schema, counts),
        _streamed(training.epochs, table),
        f"Model: {model_line(model)}",
    ]:
        out.print(line, soft_wrap=True)
    with TrainingProgress(out, training.epochs * table.buffers) as progress:
        return fit_buffers(
            split,
            model=model,
            training=training,
            source=job.table,
            checkpoints=checkpoints,
            on_epoch=progress.epoch,
            on_note=lambda text: note(out, text),
            on_trained=progress.trained,
        )


def _streamed(passes: int, table: ShuffledTable) -> str:
    count = "one pass" if passes == 1 else f"{passes} passes"
    each = "the buffer holds" if table.buffers == 1 else f"{table.buffers} buffers each, which hold"
    return (
        f"Streamed: {count} over the training rows, {each} {counted(table.rows, 'row')}; an epoch is a buffer"
    )
