"""``pushforward fit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configs import DataConfig, TableSchema, TrainConfig, default_table_model, default_training
from .files import check_output, check_table
from .fit_images import ImageOptions, fit_images, is_of_images, refuse_table_options
from .fit_stream import fit_stream, is_streamed
from .options import circles, duration, ends, names
from .progress import TrainingProgress
from .runs import Places, check_model_path, chosen, fit_and_save, note, report_end
from .schema import columns_of
from .settings import ModelChoice, Settings, read_settings
from .text import counted, listing, model_line, support, why_estimate

if TYPE_CHECKING:
    from rich.console import Console

    from ..artifact import FittedFlow
    from ..training import Checkpoints


def fit(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|IMAGES",
            help="CSV, TSV, .npy, .npz or Parquet, also a folder of it or a quoted pattern; or images: a folder of "
            "pictures, an IDX file, .npy or .npz, or mnist, fashion-mnist, cifar10 or digits.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The model file to write.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="As `pushforward models` lists them; nsf by default, glow for images."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most passes over the training data, streamed or not."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rows or images in a step.")
    ] = None,
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
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What the columns are, as `pushforward schema` writes it."),
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Read the table buffer by buffer, or whole; by itself from about 10 million values on.",
            show_default=False,
        ),
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="Of images: class; top, bottom, left or right half; or small. Model the rest given this.",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels of images that have none by themselves.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Bring all images to this height and width.")
    ] = None,
    pixels: Annotated[
        str | None,
        typer.Option(
            metavar="MAP", help="How pixels come to the line: equalise, by default, logit or scale."
        ),
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
    """Learn the density of a table, or of images.

    A tenth of the rows or images chooses the best epoch; another, or the official test images of a set, is kept for
    the final test. Columns whose values repeat, as integers do, are dequantised, and so are pixels. Ctrl-C keeps the
    best model so far. A run that was killed goes on with the same command and --resume, as if nothing had happened.
    """
    check_model_path(output)
    places = Places(output, checkpoint, checkpoint_every, resume)
    run = chosen(
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "max_seconds": None if max_time is None else duration(max_time, "--max-time"),
            "seed": seed,
        }
    )
    of_table = {
        "condition": None if condition is None else names(condition),
        "drop": None if drop is None else names(drop),
        "weights": weights,
        "group": group,
        "bounds": None if bounds is None else ends("--bounds", bounds),
        "periodic": None if periodic is None else circles(periodic),
    }
    of_images = ImageOptions(given, labels, size, pixels)
    if is_of_images(table):
        refuse_table_options(table, chosen({**of_table, "valid": valid, "schema": schema, "stream": stream}))
        fit_images(table, places, of_images, model=model, run=run, config=config)
        return
    check_output(output, [table, valid, config, schema])
    of_images.refuse(table)
    settings = Settings() if config is None else read_settings(config)
    training = settings.training | run
    TrainConfig(**training)
    data = DataConfig(**settings.data | chosen(of_table))
    job = Job(table, valid, data, columns_of(schema, data), ModelChoice.of(model, settings), training, stream)
    fit_and_save(
        places,
        lambda checkpoints, out: _fit(job, checkpoints, out),
        lambda fitted, out: _report(fitted, table, output, out),
    )


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


def _fit(job: Job, checkpoints: Checkpoints, out: Console) -> FittedFlow:
    with out.status(f"Reading {job.table}"):
        from ..data import read_table
        from ..training import fit_split, split_table

        for path in (job.table, job.valid):
            if path is not None:
                check_table(path)
        streamed = is_streamed(job.table, job.data, job.stream)
    if streamed:
        return fit_stream(job, checkpoints, out, partial(_found, job))
    with out.status(f"Reading {job.table}"):
        frame = read_table(job.table)
        seed = int(job.training.get("seed", 0))
        split = split_table(
            frame,
            job.data,
            seed=seed,
            model=job.choice.example,
            schema=job.schema,
            valid=None if job.valid is None else read_table(job.valid),
            source=job.table,
            valid_source=job.valid,
        )
    rows = len(split.train)
    model = job.choice.config(default_table_model(rows, split.schema))
    training = replace(default_training(rows, seed, model), **job.training)
    counts = (rows, len(split.valid), len(split.test))
    found = _found(job, frame.columns, frame.height, split.schema, counts)
    for line in [*found, f"Model: {model_line(model)}"]:
        out.print(line, soft_wrap=True)
    with TrainingProgress(out, training.epochs) as progress:
        return fit_split(
            split,
            model=model,
            training=training,
            source=job.table,
            checkpoints=checkpoints,
            on_epoch=progress.epoch,
            on_note=lambda text: note(out, text),
            on_trained=progress.trained,
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


def _report(fitted: FittedFlow, table: Path, output: Path, out: Console) -> None:
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
