"""``pushforward inpaint``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..configs import SMALL, ImageSchema
from ..errors import ArtifactError
from .files import check_output
from .image_files import load_image_model
from .text import console, counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_HIDDEN = (104, 138, 173)  # no grey, so that it can be told from one


def inpaint(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A flow that is given a part of an image.", show_default=False),
    ],
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURE...",
            help="Whole ones: a picture, or IMAGES:12, the 12th image of a set, folder or file; IMAGES:1-8.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A picture: .png.", show_default=False)
    ],
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, metavar="N", help="Draws for each picture.")
    ] = 8,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Equal seeds draw equal pictures.")] = 0,
    temperature: Annotated[
        float,
        typer.Option(metavar="T", min=0, help="Below 1 draws closer to the centre of the latent space."),
    ] = 1.0,
) -> None:
    """Draw the rest of pictures, given a half of them, or small ones in full size.

    For flows fitted with --given top, bottom, left, right or small, which see of a picture only what they are given. A
    row for each: what is given, with the rest in blue, the draws, and the picture itself. The terminal shows how likely
    the true rest is, how well the draws meet what is given, and how much they differ.
    """
    check_output(output, [model, *(Path(picture) for picture in pictures)], suffixes=(".png",))
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_image_model(model)
        schema = fitted.images
        if schema.given in ("", "class"):
            what = "the class" if schema.given else "nothing"
            raise ArtifactError(
                f"{model}: is given {what}, and this needs a flow that is given a part of an image. Fit one with "
                "pushforward fit IMAGES --given top -o FILE; or bottom, left, right, or small."
            )
        import torch

        from ..flows import bits_per_dim, score
        from ..report.picture_sheets import write_sheet
        from ..training.images import condition_of_pixels
        from .picked_images import check_finite, pick

        picked = pick(fitted, pictures)
        truth = picked.pixels
        given = condition_of_pixels(truth, schema)
        down, across = schema.event_box
        hidden = truth[:, :, down, across]
        status.update(f"Drawing {counted(count * len(truth), 'picture')}")
        draws = fitted.flow.sample(
            (count,), given, temperature=temperature, generator=torch.Generator().manual_seed(seed)
        )
        check_finite(model, draws, "pictures drawn from it")
        estimate = score(fitted.flow, hidden, given)
        bits = bits_per_dim(estimate.value, hidden[0].numel())
        write_sheet(
            output,
            _rows(schema, truth, given, draws),
            columns=["given", *map(str, range(1, count + 1)), "true"],
            rows=picked.names,
        )
    what = "image given the small one" if schema.given == "small" else f"half given the {schema.given}"
    typer.echo(f"Bits per dimension of the true {what}, at most:")
    width = max(map(len, picked.names))
    for name, value in zip(picked.names, bits.tolist(), strict=True):
        typer.echo(f"  {name:<{width}}  {value:.3f}")
    if len(bits) > 1:
        typer.echo(f"  {'mean':<{width}}  {float(bits.mean()):.3f}")
    for line in _measures(schema, truth, given, draws):
        typer.echo(line)
    out.print(
        f"Saved {output}: what is given, {counted(count, 'draw')}, and the picture itself.", soft_wrap=True
    )


def _measures(schema: ImageSchema, truth: Tensor, given: Tensor, draws: Tensor) -> list[str]:
    """Return how well draws ``(draws, pictures, *event)`` meet what is given, and how much they differ."""
    from ..evaluate.agreement import diversity, seam_agreement, small_agreement

    if schema.given == "small":
        lines = [small_agreement(draws, given, SMALL, levels=schema.levels).text()]
    else:
        real = truth if len(truth) > 1 else None
        lines = [seam_agreement(draws, given, schema, real=real).text()]
    if len(draws) > 1:
        lines.append(diversity(draws.transpose(0, 1)).text())
    return lines


def _rows(schema: ImageSchema, truth: Tensor, given: Tensor, draws: Tensor) -> NDArray[np.uint8]:
    """Return rows of pictures: what is given, the draws, the truth."""
    import numpy as np
    import torch

    from ..training.images import whole_images
    from .picked_images import shown

    levels, size = schema.levels, schema.image_shape[1:]
    pictures = whole_images(draws, given.expand(len(draws), *given.shape), schema).transpose(0, 1)
    rows = shown(torch.cat([truth[:, None].double(), pictures, truth[:, None].double()], 1), levels)
    rows = np.ascontiguousarray(np.broadcast_to(rows, (*rows.shape[:2], 3, *size)))
    if schema.given == "small":
        large = given.repeat_interleave(SMALL, -1).repeat_interleave(SMALL, -2)
        rows[:, 0] = shown(large, levels)
    else:
        down, across = schema.event_box
        rows[:, 0, :, down, across] = np.array(_HIDDEN, np.uint8)[:, None, None]
    return rows
