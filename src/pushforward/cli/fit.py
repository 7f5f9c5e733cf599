"""``pushforward fit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..configs import DataConfig, TrainConfig
from .files import check_output
from .fit_images import ImageOptions, fit_images, is_of_images, refuse_table_options
from .fit_table import Job, fit_table, report_table
from .options import circles, duration, ends, names
from .runs import Places, check_model_path, chosen, fit_and_save
from .schema import columns_of
from .settings import ModelChoice, Settings, read_settings


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
        partial(fit_table, job),
        lambda fitted, out: report_table(fitted, table, output, out),
    )
