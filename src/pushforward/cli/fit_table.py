"""``pushforward fit`` of a table, read whole or buffer by buffer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..configs import DataConfig, TableSchema, default_table_model, default_training
from .files import check_table
from .progress import TrainingProgress
from .runs import note, report_end
from .settings import ModelChoice
from .text import counted, listing, model_line, support, why_estimate

if TYPE_CHECKING:
    from rich.console import Console

    from ..artifact import FittedFlow
    from ..data.shuffled import ShuffledTable
    from ..training import Checkpoints

_MOST_VALUES = 10_000_000  # of a table that is read whole, rows times columns


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be fitted to a table, as the user said it."""

    table: Path
    valid: Path | None
    data: DataConfig
    schema: TableSchema | None
    choice: ModelChoice
    training: Mapping[str, Any]
    stream: bool | None

    @property
    def seed(self) -> int:
        """Seed of the split and, by default, of the training."""
        return int(self.training.get("seed", 0))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done with a table that has been read.

    Attributes:
        said: What is said of it first.
        epochs: Most epochs.
        fit: What does it, from where it comes from, checkpoints, and what is called meanwhile.
    """

    said: Sequence[str]
    epochs: int
    fit: Callable[..., FittedFlow]


def fit_table(job: Job, checkpoints: Checkpoints, out: Console) -> FittedFlow:
    """Fit a flow to a table.

    Args:
        job: What is to be fitted.
        checkpoints: Where to write the state of the training.
        out: Where to say what was found.
    """
    with out.status(f"Reading {job.table}"):
        for path in (job.table, job.valid):
            if path is not None:
                check_table(path)
        plan = _streamed(job) if _is_streamed(job) else _whole(job)
    for line in plan.said:
        out.print(line, soft_wrap=True)
    with TrainingProgress(out, plan.epochs) as progress:
        return plan.fit(
            source=job.table,
            checkpoints=checkpoints,
            on_epoch=progress.epoch,
            on_note=lambda text: note(out, text),
            on_trained=progress.trained,
        )


def _is_streamed(job: Job) -> bool:
    """Return whether a table is to be read buffer by buffer: as the user wishes, or where it is large."""
    from ..data.stored import table_values

    if job.stream is not None:
        return job.stream
    return job.data.group is None and table_values(job.table) > _MOST_VALUES


def _whole(job: Job) -> _Plan:
    from ..data import read_table
    from ..training import fit_split, split_table

    frame = read_table(job.table)
    split = split_table(
        frame,
        job.data,
        seed=job.seed,
        model=job.choice.example,
        schema=job.schema,
        valid=None if job.valid is None else read_table(job.valid),
        source=job.table,
        valid_source=job.valid,
    )
    rows = len(split.train)
    model = job.choice.config(default_table_model(rows, split.schema))
    training = replace(default_training(rows, job.seed, model), **job.training)
    counts = (rows, len(split.valid), len(split.test))
    found = _found(job, frame.columns, frame.height, split.schema, counts)
    return _Plan(
        [*found, f"Model: {model_line(model)}"],
        training.epochs,
        partial(fit_split, split, model=model, training=training),
    )


def _streamed(job: Job) -> _Plan:
    from ..data import read_table
    from ..data.stored import StoredTable
    from ..training import fit_stream, stream_table, streamed_training

    split = stream_table(
        job.table,
        job.data,
        seed=job.seed,
        model=job.choice.example,
        schema=job.schema,
        valid=None if job.valid is None else read_table(job.valid),
        valid_source=job.valid,
    )
    table = split.table
    model = job.choice.config(default_table_model(table.training_rows, split.schema))
    training = replace(streamed_training(split, job.seed, model), **job.training)
    counts = (table.training_rows, len(split.valid), len(split.test))
    found = _found(job, StoredTable(job.table).columns, table.table.rows, split.schema, counts)
    return _Plan(
        [*found, _passes(training.epochs, table), f"Model: {model_line(model)}"],
        training.epochs * table.buffers,
        partial(fit_stream, split, model=model, training=training),
    )


def _found(
    job: Job, names: Sequence[str], rows: int, schema: TableSchema, counts: tuple[int, int, int]
) -> list[str]:
    """Say what a table holds and what becomes of it."""
    columns, context, data = schema.columns, schema.context, job.data
    lines = [f"{job.table}: {counted(rows, 'row')}, {counted(len(names), 'column')}"]
    labelled = [f"{c.name} ({counted(len(c.labels), 'label')})" for c in columns if c.labelled]
    if labelled:
        lines.append(f"  categories   {listing(labelled)}")
    plain = [c.name for c in columns if c.step is None and not c.labelled]
    if plain:
        lines.append(f"  continuous   {listing(plain)}")
    for step in sorted({c.step for c in columns if c.step is not None}):
        repeated = [c.name for c in columns if c.step == step]
        lines.append(
            f"  dequantised  {listing(repeated)}: {'whole numbers' if step == 1 else f'multiples of {step:g}'}"
        )
    if schema.dequantised:
        lines.append("               (their values repeat: each stands for the cell up to the next)")
    if context:
        lines.append(f"  given        {listing([c.name for c in context])}")
    roles = {name: f"{name} ({role})" for role, name in _roles(data)}
    known = {*schema.names, *schema.context_names}
    left_out = [roles.get(name, name) for name in names if name not in known]
    if left_out:
        lines.append(f"  left out     {listing(left_out)}")
    gaps = [c.name for c in (*columns, *context) if c.missing]
    if gaps:
        lines.append(f"  with gaps    {listing(gaps)}")
    masses = [f"{c.name}: {listing([f'{a:g}' for a in c.atoms], 3)}" for c in columns if c.atoms]
    if masses:
        lines.append(f"  point masses {listing(masses)}")
    limited = [f"{c.name}: {support(c)}" for c in columns if c.bounded]
    if limited:
        lines.append(f"  supports     {listing(limited)}")
    train, valid, test = counts
    unused = rows - train - test - (valid if job.valid is None else 0)
    weightless = f"; {unused:,} of weight 0 left out" if unused else ""
    lines.append(f"Rows: {train:,} to train, {valid:,} to validate, {test:,} to test{weightless}")
    return lines


def _roles(data: DataConfig) -> list[tuple[str, str]]:
    roles = (("weights", data.weights), ("group", data.group))
    return [(role, name) for role, name in roles if name is not None]


def _passes(passes: int, table: ShuffledTable) -> str:
    count = "one pass" if passes == 1 else f"{passes} passes"
    each = "the buffer holds" if table.buffers == 1 else f"{table.buffers} buffers each, which hold"
    return (
        f"Streamed: {count} over the training rows, {each} {counted(table.rows, 'row')}; an epoch is a buffer"
    )


def report_table(fitted: FittedFlow, table: Path, output: Path, out: Console) -> None:
    """Say how good a flow of a table is."""
    facts = fitted.facts
    given = listing(fitted.table.context_names)
    of = f" of {listing(fitted.table.names, 4)} given {given}" if given else ""
    estimate = "" if facts.kind == "exact" else f" ({facts.kind}: {why_estimate(fitted.flow)})"
    out.print(f"\nMean log-likelihood{of} in nats, units of the data{estimate}:")
    for name, rows, value in (
        ("train", facts.train_rows, facts.train_log_prob),
        ("validation", facts.valid_rows, facts.valid_log_prob),
        ("test", facts.test_rows, facts.test_log_prob),
    ):
        out.print(f"  {name:<11}{value:>12.4f}   {counted(rows, 'row')}")
    report_end(fitted, output, out, following=f"pushforward score {output} {quote(str(table))} -o scores.csv")
