"""``pushforward reconstruct`` and ``pushforward interpolate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .files import check_output
from .image_files import images_for, load_image_model
from .options import UsageError
from .text import console, counted

if TYPE_CHECKING:
    from torch import Tensor

    from ..configs import ImageSchema
    from ..evaluate.round_trips import RoundTripReport
    from ..flows import Flow
    from ..training.points import Points

FIGURES = (".png",)


def reconstruct(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A saved flow of images.", show_default=False)
    ],
    images: Annotated[
        Path,
        typer.Argument(metavar="IMAGES", help="Images of the size it was fitted to.", show_default=False),
    ],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A picture: .png.", show_default=False)
    ],
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, metavar="N", help="Measure on no more images.")
    ] = 1000,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows of the picture.")] = 8,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels, for a flow that is given the class.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Equal seeds give equal results.")] = 0,
) -> None:
    """Take images to latent space and back, and show by how much they miss.

    Errors are those of the numbers before they are rounded to levels: on the images, on samples, and away from both on
    noise, black, white and a checkerboard; with the local stretch of both directions, by which rounding grows. Each row
    of the picture is an image, what comes back, and the difference, enlarged; the last is the worst image.
    """
    check_output(output, [model, images, labels], suffixes=FIGURES)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_image_model(model)
        found = images_for(fitted, images, labels=labels)
        from ..evaluate.points import spread_out
        from ..evaluate.round_trips import image_round_trips
        from .picked_images import name_of, points_for

        chosen = spread_out(len(found), count)
        found = found.take(chosen.numpy())
        points = points_for(fitted, found, images)
        status.update(f"Taking {counted(len(found), 'image')} there and back")
        report = image_round_trips(
            fitted.flow, points.x, points.context, levels=fitted.images.levels, seed=seed
        )
        worst = report.trip("data").worst
        first = [i for i in range(min(rows, len(found))) if i != worst][: rows - 1]
        gain = _draw(output, fitted.images, _trips(fitted.flow, points, [*first, worst]))
    typer.echo(report.text())
    typer.echo(
        f"The worst image is {name_of(found, worst, images, int(chosen[worst]) + 1)}: {_share(report)}."
    )
    out.print(
        f"Saved {output}: image, what comes back, and the difference {gain:,.0f} times; last the worst image.",
        soft_wrap=True,
    )


def interpolate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A saved flow of images.", show_default=False)
    ],
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURE...",
            help="Two or more: each a picture, or IMAGES:12, the 12th image of a set, folder or file; IMAGES:1-4.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A picture: .png.", show_default=False)
    ],
    steps: Annotated[int, typer.Option(min=2, metavar="N", help="Pictures in a row, with both ends.")] = 9,
    linear: Annotated[
        bool,
        typer.Option(
            "--linear", help="Along lines of latent space; by default on arcs, if the base is normal."
        ),
    ] = False,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="The class, for a flow that is given one.")
    ] = None,
) -> None:
    """Draw pictures between others, through latent space.

    A row for each picture and the next one, from the one to the other.
    """
    check_output(output, [model, *(Path(picture) for picture in pictures)], suffixes=FIGURES)
    if len(pictures) < 2 and "-" not in pictures[0].rpartition(":")[2]:
        raise UsageError(f"expected two pictures or more to go between, got {pictures[0]}")
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_image_model(model)
        schema = fitted.images
        if schema.given not in ("", "class"):
            raise UsageError(
                f"{model}: is the density of the rest of an image given its {_part(schema)}, and between two images "
                "nothing is given. Fit one to whole images, without --given"
            )
        import torch
        from torch.nn.functional import one_hot

        from ..evaluate.interpolation import interpolate as between
        from ..report.picture_sheets import write_sheet
        from .picked_images import check_finite, class_number, pick, shown

        number = class_number(fitted, model, class_)
        picked = pick(fitted, pictures)
        if len(picked.pixels) < 2:
            raise UsageError(f"expected two pictures or more to go between, got {pictures[0]}")
        pairs = len(picked.pixels) - 1
        context = None
        if number is not None:
            context = one_hot(torch.full((pairs,), number), len(schema.classes)).float()
        status.update("Drawing")
        result = between(
            fitted.flow, picked.pixels[:-1], picked.pixels[1:], steps, linear=linear, context=context
        )
        check_finite(model, result.images, "pictures between these")
        write_sheet(
            output,
            shown(result.images, schema.levels),
            columns=[f"{i / (steps - 1):.2f}".rstrip("0").rstrip(".") for i in range(steps)],
            rows=[f"{a} to {b}" for a, b in zip(picked.names[:-1], picked.names[1:], strict=True)],
        )
    way = "arcs" if result.arc else "lines"
    out.print(f"Saved {output}: {counted(pairs, 'row')} of {steps} pictures, along {way}.", soft_wrap=True)
    if result.returned < 1:
        out.print(
            f"Latents of the pictures themselves give back {100 * result.returned:.2f} % of their pixels; the ends "
            "show the pictures.",
            soft_wrap=True,
        )


def _part(schema: ImageSchema) -> str:
    return "small picture" if schema.given == "small" else f"{schema.given} half"


def _trips(flow: Flow, points: Points, places: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images, what comes back, and what was given, of some places."""
    import torch

    from ..evaluate.round_trips import round_trip

    some = points.take(torch.tensor(places))
    before, after = round_trip(flow, some.x, some.context)
    return before, after, some.context


def _draw(output: Path, schema: ImageSchema, trips: tuple[Tensor, Tensor, Tensor | None]) -> float:
    """Draw the rows, and return by how much differences are enlarged."""
    import numpy as np
    import torch

    from ..report.picture_sheets import write_sheet
    from ..training.images import whole_images
    from .picked_images import shown

    before, after, context = trips
    levels = schema.levels
    apart = (after - before).abs().nan_to_num(float(levels), float(levels), float(levels))
    # A power of ten under which few differences go beyond white.
    large = float(np.quantile(apart.numpy(), 0.99)) / levels
    power = min(12, max(0, math.floor(-math.log10(large)))) if large > 0 else 4
    rows = [
        shown(whole_images(before.floor(), context, schema), levels),
        shown(whole_images(after.floor(), context, schema), levels),
        shown(
            whole_images(apart * 10.0**power, None if context is None else torch.zeros_like(context), schema),
            levels + 1,
        ),
    ]
    write_sheet(output, np.stack(rows, 1), columns=("image", "back", f"$\\times 10^{{{power}}}$ off"))
    return 10.0**power


def _share(report: RoundTripReport) -> str:
    trip = report.trip("data")
    return "not finite" if trip.not_finite else f"an error of {trip.maximum:.2g} of the range"
