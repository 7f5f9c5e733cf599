"""``pushforward animate``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..configs import ImageSchema
from ..errors import ArtifactError
from .files import check_output, load_model
from .image_text import modelled
from .options import UsageError, Value, closest, names, values
from .text import clock, console, counted, listing

if TYPE_CHECKING:
    from ..artifact import FittedFlow

_ROWS, _FRAMES = 500, 60
_PICTURES, _SHEET = 25, (8, 8)  # in a film; rows and columns of a sheet


def animate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="A picture, .png, or a film: .gif or .mp4.",
            show_default=False,
        ),
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="COL,COL", help="The one or two columns to show; the first two by default."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COL=VALUE", help="A value to condition on. Repeatable."),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="NAME,...", help="Classes of images, in turn; all of them by default."
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--rows",
            min=1,
            max=20_000,
            metavar="N",
            help=f"Points to follow, {_ROWS}; of images {_PICTURES}, or {_SHEET[0]} rows of a sheet.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=2000,
            metavar="N",
            help=f"Moments of time, {_FRAMES}; {_SHEET[1]} in a sheet of images.",
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=600, metavar="S", help="How long a film runs before its end is held."),
    ] = 4.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Equal seeds give equal files.")] = 0,
) -> None:
    """Show how a flow carries its base to the data.

    Points of the base on their way, and their exact density at every time where all columns are shown: the time of a
    continuous flow, or the layers of another one by one. As PNG panels in the order of time and the ways as lines, as
    GIF or MP4 a film. Of images a sheet of samples at several times, or a film of them.
    """
    from ..report.films import FILMS, SUFFIXES, check_film

    check_output(output, [model], suffixes=SUFFIXES)
    if output.suffix.lower() in FILMS:
        check_film(output, frames or _FRAMES, seconds)
    fixed = values(set_ or [])
    out, started = console(stderr=True), time.monotonic()
    with out.status(f"Reading {model}") as status:
        fitted = load_model(model)
        if isinstance(fitted.schema, ImageSchema):
            for option, given in (("--columns", columns), ("--set", fixed)):
                if given:
                    raise UsageError(f"{option}: is for flows of tables, and {model} is one of images")
            said = _images(
                fitted,
                model,
                output,
                names(class_ or []),
                rows=rows,
                frames=frames,
                seconds=seconds,
                seed=seed,
                told=status.update,
            )
        else:
            if class_:
                raise UsageError(f"--class: is for flows of images, and {model} is the flow of a table")
            said = _table(
                fitted,
                output,
                _columns(fitted, model, columns),
                _given(fitted, model, fixed),
                rows=rows or _ROWS,
                frames=frames or _FRAMES,
                seconds=seconds,
                seed=seed,
                told=status.update,
            )
    out.print(f"Saved {output}: {said}, in {clock(time.monotonic() - started)}.", soft_wrap=True)


def _columns(fitted: FittedFlow, model: Path, wanted: Sequence[str] | None) -> tuple[str, ...]:
    known, chosen = fitted.table.names, names(wanted or [])
    for name in chosen:
        if name not in known:
            raise UsageError(
                f"--columns: {model} has no column {name!r}; it has {listing(known, 30)}.{closest(name, known)}"
            )
    if len(chosen) > 2 or len(set(chosen)) < len(chosen):
        raise UsageError(f"--columns: expected one or two different columns, got {', '.join(chosen)}")
    return chosen


def _given(fitted: FittedFlow, model: Path, fixed: dict[str, Value]) -> dict[str, float]:
    if fitted.table.mixed:
        raise UsageError(
            f"{model}: is a mixed density, which carries no base to the data: there is no way to show"
        )
    wanted = fitted.table.context_names
    if not wanted and fixed:
        raise UsageError(f"--set: {model} is not conditional, so there is nothing for it to do")
    for name in fixed:
        if name not in wanted:
            raise UsageError(
                f"--set: {model} is not conditioned on {name!r}, but on {', '.join(map(repr, wanted))}."
                f"{closest(name, wanted)}"
            )
    if missing := [name for name in wanted if name not in fixed]:
        raise UsageError(
            f"{model}: is the density of {listing(fitted.table.names)} given {listing(wanted)}. "
            f"Give {' '.join(f'--set {name}=...' for name in missing)}"
        )
    numbers = {}
    for name in wanted:
        try:
            numbers[name] = float(fixed[name])
        except ValueError:
            raise UsageError(f"--set: {name} needs a number, got {fixed[name]!r}") from None
    return numbers


def _table(
    fitted: FittedFlow,
    output: Path,
    columns: Sequence[str],
    given: dict[str, float],
    *,
    rows: int,
    frames: int,
    seconds: float,
    seed: int,
    told: Callable[[str], None],
) -> str:
    from ..report.motion import follow_table
    from ..report.motion_figures import write_motion

    still = output.suffix.lower() == ".png"
    motion = follow_table(
        fitted, rows=rows, frames=frames, columns=columns, given=given, seed=seed, still=still, told=told
    )
    told("Drawing")
    write_motion(motion, output, seconds=seconds)
    return f"{counted(motion.points.shape[1], 'point')} on their way from base to data" + (
        "" if still else f", {counted(len(motion.times), 'frame')}"
    )


def _images(
    fitted: FittedFlow,
    model: Path,
    output: Path,
    wanted: Sequence[str],
    *,
    rows: int | None,
    frames: int | None,
    seconds: float,
    seed: int,
    told: Callable[[str], None],
) -> str:
    from ..evaluate.trajectories import stages
    from ..report.image_motion import follow_images, write_images

    schema = fitted.images
    if schema.given not in ("", "class"):
        raise ArtifactError(
            f"{model}: is the density of {modelled(schema)}, and animate shows flows of whole images. "
            f"pushforward inpaint {model} PICTURE -o FILE draws what this one has learned."
        )
    try:
        stages(fitted.flow)
    except ValueError:
        raise ArtifactError(
            f"{model}: its layers change the shape of images, so they cannot be looked at on their way. "
            f"pushforward interpolate {model} A B -o FILE shows its latent space."
        ) from None
    for name in wanted:
        if schema.given != "class":
            raise UsageError(
                f"--class: {model} is the density of {modelled(schema)}, so no class is given to it"
            )
        if name not in schema.classes:
            raise UsageError(
                f"--class: {model} does not know {name!r}; it knows {listing(schema.classes, 30)}."
                f"{closest(name, schema.classes)}"
            )
    still = output.suffix.lower() == ".png"
    count = rows or (_SHEET[0] if still else _PICTURES)
    known = [schema.classes.index(name) for name in wanted or schema.classes] if schema.given else []
    classes = [known[i % len(known)] for i in range(count)] if known else []
    moments = frames or (_SHEET[1] if still else _FRAMES)
    pictures, titles = follow_images(
        fitted, count=count, frames=moments, classes=classes, seed=seed, told=told
    )
    told("Drawing")
    labels = [schema.classes[i] for i in classes] if still else []
    write_images(pictures, titles, output, rows=labels, seconds=seconds)
    return f"{counted(count, 'image')} on their way from noise, {counted(len(titles), 'moment')}"
