"""``pushforward sample``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..configs import ColumnSchema, ImageSchema
from ..errors import ArtifactError
from .files import check_output, check_table, load_model, table_sink, to_stdout
from .options import UsageError, closest, values
from .sample_images import ImageWishes, draw_images
from .text import clock, console, counted, listing

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray
    from torch import Tensor

    from ..artifact import FittedFlow

_CHUNK_ROWS = 8192
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
        _check_conditions(fitted, model, context, fixed)
        import torch

        generator, written, started = torch.Generator().manual_seed(seed), 0, time.monotonic()
        with table_sink(output) as write:
            for size, given in _chunks(fitted, each, context, fixed):
                x = fitted.flow.sample(
                    (size,) if given is None else (),
                    None if given is None else torch.from_numpy(given.matrix),
                    temperature=temperature,
                    generator=generator,
                )
                _check_finite(model, x, written)
                frame = _frame(x.numpy(), fitted.table.columns)
                write(frame if given is None else frame.hstack(given.frame))
                written += size
                status.update(f"{counted(written, 'row')} drawn")
    seconds = time.monotonic() - started
    per = "" if context is None else f", {each:,} for each row of {context}"
    pace = f" ({written / seconds:,.0f} rows/s)" if written >= _DEFAULT_ROWS else ""
    out.print(f"{counted(written, 'row')} drawn in {clock(seconds)}{pace}{per}.", soft_wrap=True)


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


def _check_finite(model: Path, x: Tensor, before: int) -> None:
    """Check that a draw is one: the inverse of a badly trained model can overflow."""
    bad = (~x.isfinite()).any(-1)
    if bool(bad.any()):
        raise ArtifactError(
            f"{model}: row {before + int(bad.nonzero()[0]) + 1} drawn from it is not finite, so its inverse overflows. "
            f"pushforward diagnose {model} shows where; fit again, perhaps with a smaller learning rate."
        )


@dataclass(frozen=True, slots=True)
class _Given:
    """Conditions, one for each row to draw: as the flow takes them, and as they stand in the output."""

    matrix: NDArray[np.float64]
    frame: pl.DataFrame


def _check_conditions(
    fitted: FittedFlow, model: Path, context: Path | None, fixed: Mapping[str, int | float]
) -> None:
    wanted = fitted.table.context_names
    if not wanted:
        if context is not None or fixed:
            raise UsageError(f"{model}: is not conditional, so there is nothing for --context or --set to do")
        return
    if context is None and not fixed:
        options = " ".join(f"--set {name}=..." for name in wanted)
        raise UsageError(
            f"{model}: is the density of {listing(fitted.table.names)} given {listing(wanted)}. "
            f"Give {options}, or --context TABLE"
        )
    if context is not None:
        check_table(context)
        return
    for name in fixed:
        if name not in wanted:
            raise UsageError(
                f"--set: {model} is not conditioned on {name!r}, but on {', '.join(map(repr, wanted))}."
                f"{closest(name, wanted)}"
            )
    missing = [name for name in wanted if name not in fixed]
    if missing:
        raise UsageError(f"--set: a value for {', '.join(map(repr, missing))} is missing")


def _chunks(
    fitted: FittedFlow, each: int, context: Path | None, fixed: Mapping[str, int | float]
) -> Iterator[tuple[int, _Given | None]]:
    """Yield numbers of rows to draw, with their conditions where the model has any."""
    columns = fitted.table.context
    if not columns:
        for start in range(0, each, _CHUNK_ROWS):
            yield min(_CHUNK_ROWS, each - start), None
        return
    import numpy as np
    import polars as pl

    from ..data import iter_table, to_matrix

    names, first = [c.name for c in columns], 1
    frames = (
        iter([pl.DataFrame({name: [fixed[name]] for name in names})])
        if context is None
        else iter_table(context, names, _CHUNK_ROWS)
    )
    for frame in frames:
        matrix = to_matrix(frame, columns, source=context, first_row=first)
        first += frame.height
        for start in range(0, frame.height * each, _CHUNK_ROWS):
            index = np.arange(start, min(start + _CHUNK_ROWS, frame.height * each)) // each
            yield len(index), _Given(matrix[index], frame[index])


def _frame(x: NDArray[np.float64], columns: Sequence[ColumnSchema]) -> pl.DataFrame:
    """Return drawn rows as a table, whole numbers as such."""
    import polars as pl

    return pl.DataFrame(
        [
            pl.Series(column.name, x[:, j]).cast(pl.Int64 if column.integer else pl.Float64)
            for j, column in enumerate(columns)
        ]
    )
