"""``pushforward sample``."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..configs import ImageSchema
from ..errors import DataError
from .files import check_output, load_model, to_stdout
from .given import CANDIDATES, check_conditions, check_drawn, chunks_of, draw
from .options import UsageError, values
from .parts import generator_state, job_of, refuse_resume, restartable, state_of_generator
from .runs import note
from .sample_images import ImageWishes, draw_images
from .text import clock, console, counted

if TYPE_CHECKING:
    from ..artifact import FittedFlow

_DEFAULT_ROWS = 1000


def sample(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help=".csv or .parquet, or - for standard output; of images a sheet .png, an array .npy, or a folder.",
            show_default=False,
        ),
    ],
    rows: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--rows",
            min=1,
            help=f"Rows to draw, {_DEFAULT_ROWS}; with --context for each of its rows, 1; or images, 100.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Equal seeds draw equal samples.")] = 0,
    temperature: Annotated[
        float,
        typer.Option(metavar="T", min=0, help="Below 1 draws closer to the centre of the latent space."),
    ] = 1.0,
    context: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Rows to condition on, for a conditional model."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COL=VALUE", help="A value to condition on. Repeatable."),
    ] = None,
    grid: Annotated[
        str | None, typer.Option(metavar="RxC", help="Rows and columns of a sheet of images, 8x8.")
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="NAME,...", help="Classes of images, one for each row of a sheet; all of them."
        ),
    ] = None,
    given_images: Annotated[
        Path | None,
        typer.Option(metavar="IMAGES", help="Whole images, for a model of the rest of an image."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Equal steps for a continuous flow; as its tolerance needs by default."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How a continuous flow is solved: euler, midpoint, heun, rk4, ..."),
    ] = None,
    guidance: Annotated[
        float,
        typer.Option(
            metavar="S", help="Above 1 a continuous flow draws what is more typical of its context."
        ),
    ] = 1.0,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Go on with a job that was interrupted, or throw away what it did.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw rows, or images, from a fitted density.

    The columns are those it was fitted on, whole numbers where they were; then those conditioned on. With --context
    the draws for its first row come first. Images come as one sheet, as an array (n, channels, height, width) of
    unsigned bytes, or as PNG files in a new folder; those of a half are completed by the half that was given.
    """
    from ..data.writers import WRITTEN_SUFFIXES

    if context is not None and set_:
        raise UsageError("give --context or --set, not both")
    fixed = values(set_ or [])
    of_images = ImageWishes(grid, class_, given_images)
    of_rows = to_stdout(output) or output.suffix.lower() in WRITTEN_SUFFIXES
    if of_rows and not to_stdout(output):
        check_output(output, [model, context])
    each = rows or (_DEFAULT_ROWS if context is None else 1)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = _solved(load_model(model), model, steps, method, guidance)
        if isinstance(fitted.schema, ImageSchema):
            refuse_resume(resume, model)
            if context is not None or fixed:
                option = "--set" if fixed else "--context"
                raise UsageError(
                    f"{option}: is for flows of tables, and {model} is one of images; --class and --given-images say "
                    "what is given to one of these"
                )
            status.update("Drawing")
            said = draw_images(
                fitted, model, output, of_images, count=rows, temperature=temperature, seed=seed
            )
            out.print(said, soft_wrap=True)
            return
        of_images.refuse(model)
        if not of_rows:
            check_output(output, [model, context], suffixes=WRITTEN_SUFFIXES)
        check_conditions(fitted, model, context, fixed)
        import torch

        from ..data import to_frame

        effective = math.inf
        generator, written, started = torch.Generator().manual_seed(seed), 0, time.monotonic()
        options = {"rows": each, "seed": seed, "temperature": temperature, "set": fixed}
        solver = {"steps": steps, "method": method, "guidance": guidance}
        job = job_of("sample", model, {"context": context}, **options, **solver)
        with restartable(output, job, resume=resume, on_note=partial(note, out)) as sink:
            before = sink.rows
            if before:
                generator.set_state(generator_state(sink.state))
            for size, given in chunks_of(fitted, each, context, fixed):
                if written < before:
                    written += size
                    continue
                try:
                    x, least = draw(fitted, size, given, fixed, temperature=temperature, generator=generator)
                except DataError:
                    raise
                except ValueError as error:
                    raise UsageError(f"{model}: {error}") from None
                effective = min(effective, least)
                check_drawn(fitted, model, x, written)
                frame = to_frame(x.numpy(), fitted.table.columns)
                whole = frame if given is None else frame.hstack(given.frame)
                sink.write(whole, lambda: state_of_generator(generator))
                written += size
                status.update(f"{counted(written, 'row')} drawn")
    if math.isfinite(effective):
        out.print(
            f"The columns of --set do not all come first, so each row is chosen among {CANDIDATES} candidates by their "
            f"weights, of which at least {effective:.1f} count: few make the draws less exact.",
            soft_wrap=True,
        )
    seconds = time.monotonic() - started
    per = "" if context is None else f", {each:,} for each row of {context}"
    drawn, earlier = written - before, f", {before:,} before" if before else ""
    pace = f" ({drawn / seconds:,.0f} rows/s)" if drawn >= _DEFAULT_ROWS else ""
    out.print(f"{counted(drawn, 'row')} drawn in {clock(seconds)}{pace}{earlier}{per}.", soft_wrap=True)


def _solved(
    fitted: FittedFlow, model: Path, steps: int | None, method: str | None, guidance: float
) -> FittedFlow:
    """Return the flow as it is to be solved.

    Raises:
        UsageError: Options that do not fit the flow, or each other.
    """
    if steps is None and method is None and guidance == 1.0:
        return fitted
    from ..flows import with_solver

    try:
        return replace(fitted, flow=with_solver(fitted.flow, method=method, steps=steps, guidance=guidance))
    except ValueError as error:
        raise UsageError(f"{model}: {error}") from None
