"""``pushforward fit``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configs import (
    MODELS,
    DataConfig,
    ModelConfig,
    TrainConfig,
    default_model,
    default_training,
    model_name,
)
from ..errors import OutputError, TrainingError
from .files import check_output, check_table
from .options import UsageError, circles, duration, ends, names
from .progress import TrainingProgress
from .settings import Settings, check_model, read_settings
from .signals import ended_by_sigterm
from .text import clock, console, counted, listing, model_line, size, stop_reason, support

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from ..artifact import FittedFlow
    from ..training import Checkpoints, TableSplit

INTERRUPTED = 130


def fit(
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet, .npy or .npz.", show_default=False),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The model file to write.", show_default=False),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="As `pushforward models` lists them; nsf by default.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Most passes over the training rows.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=1, help="Rows in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="RATE", help="Peak of the schedule.")] = None,
    max_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time budget: 90s, 10m, 1h30m.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Seed of split, weights and noise; 0 by default.")
    ] = None,
    condition: Annotated[
        list[str] | None, typer.Option(metavar="COL,...", help="Model the other columns given these.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="COL,...", help="Leave these out.")] = None,
    valid: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows to choose the best epoch on; a tenth by default."),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COL", help="Rows with one value here stay in one split.")
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="COL", help="Weight of each row.")] = None,
    bounds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL=LOW:HIGH", help="Ends of a column's support; one may be left out. Repeatable."
        ),
    ] = None,
    periodic: Annotated[
        list[str] | None,
        typer.Option(metavar="COL=LOW:HIGH", help="A column on a circle, as angle=0:360. Repeatable."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML with tables [model], [training], [data]; options win."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for checkpoints; the output with .checkpoints by default."),
    ] = None,
    checkpoint_every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time between two checkpoints; 60s by default.")
    ] = None,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume", help="Go on from a checkpoint, or throw it away.", show_default=False
        ),
    ] = None,
) -> None:
    """Learn the density of a table.

    A tenth of the rows chooses the best epoch and another is kept for the final test. Columns whose values repeat,
    as integers do, are dequantised. Ctrl-C keeps the best model so far. A run that was killed goes on with the same
    command and --resume, as if nothing had happened.
    """
    _check_model_path(output)
    check_output(output, [table, valid, config])
    settings = Settings() if config is None else read_settings(config)
    training = settings.training | _given(
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "max_seconds": None if max_time is None else duration(max_time, "--max-time"),
            "seed": seed,
        }
    )
    TrainConfig(**training)
    data = DataConfig(
        **settings.data
        | _given(
            {
                "condition": None if condition is None else names(condition),
                "drop": None if drop is None else names(drop),
                "weights": weights,
                "group": group,
                "bounds": None if bounds is None else ends("--bounds", bounds),
                "periodic": None if periodic is None else circles(periodic),
            }
        )
    )
    choice = _Choice.of(model, settings)
    out = console()
    with ended_by_sigterm():
        checkpoints = _checkpoints(output, checkpoint, checkpoint_every, resume, out)
        with _going_on_later(checkpoints):
            fitted = _fit(_Job(table, valid, data, choice, training), checkpoints, out)

            from ..artifact import save

            save(fitted, output)
        if fitted.facts.stopped != "interrupt":
            checkpoints.discard()
    _report(fitted, table, output, out)
    if fitted.facts.stopped == "interrupt":
        if checkpoints.any():
            out.print(f"Its checkpoints stay in {checkpoints.folder}: --resume goes on.", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if fitted.facts.stopped in ("diverged", "drift"):
        raise TrainingError(
            f"training stopped early, as said above; {output} has the weights of epoch {fitted.facts.best_epoch}, "
            "the best before that."
        )


def _checkpoints(
    output: Path, folder: Path | None, every: str | None, resume: bool | None, out: Console
) -> Checkpoints:
    from ..training import Checkpoints

    folder = output.with_name(f"{output.name}.checkpoints") if folder is None else folder
    if folder.resolve() == output.resolve():
        raise UsageError(f"--checkpoint: {folder} is the output; give another folder")
    seconds = {} if every is None else {"every": duration(every, "--checkpoint-every")}
    return Checkpoints(
        folder,
        resume=bool(resume),
        replace=resume is False,
        on_note=lambda text: _note(out, text),
        **seconds,
    )


@contextmanager
def _going_on_later(checkpoints: Checkpoints) -> Iterator[None]:
    """Say where the training is kept, should the model not come to be saved."""
    try:
        yield
    except OutputError as error:
        if not checkpoints.any():
            raise
        raise OutputError(
            f"{error} The training is kept: the same command with --resume --checkpoint {checkpoints.folder} goes on."
        ) from error
    except KeyboardInterrupt:
        if checkpoints.any():
            typer.echo(f"The training is kept in {checkpoints.folder}: --resume goes on.", err=True)
        raise


def _note(out: Console, text: str) -> None:
    out.print(f"Note: {text}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A model as far as it was chosen before the size of the table is known."""

    name: str | None
    fields: dict[str, Any]

    @classmethod
    def of(cls, flag: str | None, settings: Settings) -> _Choice:
        if flag is not None:
            check_model(flag, "--model")
        name = flag or settings.model
        if name is None and settings.model_fields:
            raise UsageError(f"{settings.path}, [model]: name is missing; it is one of {', '.join(MODELS)}")
        return cls(name, {} if name is None else settings.fields_of(MODELS[name], name))

    def config(self, rows: int, columns: int) -> ModelConfig:
        default = default_model(rows, columns)
        if self.name is None or self.name == model_name(default):
            return replace(default, **self.fields)
        return MODELS[self.name](**self.fields)


@dataclass(frozen=True, slots=True)
class _Job:
    table: Path
    valid: Path | None
    data: DataConfig
    choice: _Choice
    training: Mapping[str, Any]


def _fit(job: _Job, checkpoints: Checkpoints, out: Console) -> FittedFlow:
    with out.status(f"Reading {job.table}"):
        from ..data import read_table
        from ..training import fit_split, split_table

        for path in (job.table, job.valid):
            if path is not None:
                check_table(path)
        frame = read_table(job.table)
        seed = int(job.training.get("seed", 0))
        split = split_table(
            frame,
            job.data,
            seed=seed,
            valid=None if job.valid is None else read_table(job.valid),
            source=job.table,
            valid_source=job.valid,
        )
    rows = len(split.train)
    training = replace(default_training(rows, seed), **job.training)
    model = job.choice.config(rows, len(split.schema.columns) + len(split.schema.context))
    for line in [*_found(job, frame, split), f"Model: {model_line(model)}"]:
        out.print(line, soft_wrap=True)
    with TrainingProgress(out, training.epochs) as progress:
        return fit_split(
            split,
            model=model,
            training=training,
            source=job.table,
            checkpoints=checkpoints,
            on_epoch=progress.epoch,
            on_note=lambda text: _note(out, text),
            on_trained=progress.trained,
        )


def _found(job: _Job, frame: pl.DataFrame, split: TableSplit) -> list[str]:
    """Say what a table holds and what becomes of it."""
    columns, context, data = split.schema.columns, split.schema.context, job.data
    lines = [f"{job.table}: {counted(frame.height, 'row')}, {counted(frame.width, 'column')}"]
    plain = [c.name for c in columns if c.step is None]
    if plain:
        lines.append(f"  continuous   {listing(plain)}")
    for step in sorted({c.step for c in columns if c.step is not None}):
        repeated = [c.name for c in columns if c.step == step]
        lines.append(
            f"  dequantised  {listing(repeated)}: {'whole numbers' if step == 1 else f'multiples of {step:g}'}"
        )
    if split.schema.dequantised:
        lines.append("               (their values repeat: each stands for the cell up to the next)")
    if context:
        lines.append(f"  given        {listing([c.name for c in context])}")
    left_out = [*data.drop, *(f"{name} ({role})" for role, name in _roles(data))]
    if left_out:
        lines.append(f"  left out     {listing(left_out)}")
    limited = [f"{c.name}: {support(c)}" for c in columns if c.bounded]
    if limited:
        lines.append(f"  supports     {listing(limited)}")
    train, valid, test = len(split.train), len(split.valid), len(split.test)
    unused = frame.height - train - test - (valid if job.valid is None else 0)
    weightless = f"; {unused:,} of weight 0 left out" if unused else ""
    lines.append(f"Rows: {train:,} to train, {valid:,} to validate, {test:,} to test{weightless}")
    return lines


def _roles(data: DataConfig) -> list[tuple[str, str]]:
    roles = (("weights", data.weights), ("group", data.group))
    return [(role, name) for role, name in roles if name is not None]


def _report(fitted: FittedFlow, table: Path, output: Path, out: Console) -> None:
    facts = fitted.facts
    given = listing(fitted.schema.context_names)
    of = f" of {listing(fitted.schema.names, 4)} given {given}" if given else ""
    estimate = " (estimate: dequantised columns)" if facts.kind == "estimate" else ""
    out.print(f"\nMean log-likelihood{of} in nats, units of the data{estimate}:")
    for name, rows, value in (
        ("train", facts.train_rows, facts.train_log_prob),
        ("validation", facts.valid_rows, facts.valid_log_prob),
        ("test", facts.test_rows, facts.test_log_prob),
    ):
        out.print(f"  {name:<11}{value:>12.4f}   {counted(rows, 'row')}")
    best = f"Best epoch {facts.best_epoch} of {len(facts.valid_curve)}; " if facts.best_epoch else ""
    out.print(f"{best}stopped after {clock(facts.seconds)}: {stop_reason(facts.stopped)}.")
    out.print(f"Saved {output} ({size(output.stat().st_size)}).", style="bold", soft_wrap=True)
    out.print(f"Next: pushforward score {output} {table} -o scores.csv", soft_wrap=True)


def _check_model_path(output: Path) -> None:
    from ..data.readers import SUFFIXES, suffix_of

    suffix = suffix_of(output, SUFFIXES)
    if suffix is not None:
        raise OutputError(f"{output}: {suffix} is the suffix of a table. End the name of a model in .flow.")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
