"""``pushforward diagnose``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configs import ImageSchema
from .files import check_output, check_table, load_model
from .image_files import images_for
from .options import UsageError
from .pictures import FIGURES
from .text import console, finite

if TYPE_CHECKING:
    from torch import Tensor

    from ..artifact import FittedFlow
    from ..evaluate import Diagnosis

BROKEN = 7
"""The exit code of a diagnosis that ends in ``broken``."""


def diagnose(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TABLE|IMAGES]",
            help="What it was fitted to, or others of its kind; without them the checks that need data are left out.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="A picture: .png, .pdf or .svg.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=2, metavar="N", help="Look at no more rows of each kind.")
    ] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Equal seeds give equal results.")] = 0,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels of images, for a model that is given the class."),
    ] = None,
) -> None:
    """Check whether a density can be trusted.

    Round trips on data, on samples and away from both; log-determinants against autograd; the total mass; local
    Lipschitz constants; float32 against float64; latents against the base; and a verdict with the layer to blame.
    The exit code is 0 for sound and, with a warning, for doubtful, and 7 for broken.
    """
    if output is not None:
        check_output(output, [model, table], suffixes=FIGURES)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_model(model)
        x, context = _data(fitted, model, table, labels)
        status.update("Measuring")
        from ..evaluate import diagnose as examine

        diagnosis = examine(fitted.flow, x, context, rows=rows, seed=seed)
        if output is not None:
            status.update("Drawing")
            from ..report.diagnosis import plot_diagnosis

            plot_diagnosis(diagnosis, output)
    typer.echo(json.dumps(_document(diagnosis, model), indent=2) if as_json else diagnosis.text())
    if diagnosis.verdict == "doubtful":
        out.print("warning: the verdict is doubtful.", soft_wrap=True)
    if output is not None:
        out.print(f"Saved {output}.", soft_wrap=True)
    if diagnosis.verdict == "broken":
        raise typer.Exit(BROKEN)


def _data(
    fitted: FittedFlow, model: Path, data: Path | None, labels: Path | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return the rows or images to look at, with what is given of them."""
    if labels is not None and (data is None or not isinstance(fitted.schema, ImageSchema)):
        why = f"{model} is the flow of a table" if data is not None else "none were given"
        raise UsageError(f"--labels: is for images, and {why}")
    if data is None:
        return None, None
    if isinstance(fitted.schema, ImageSchema):
        from .picked_images import points_for

        points = points_for(fitted, images_for(fitted, data, labels=labels), data)
        return points.x, points.context
    import torch

    from ..data import read_table, to_matrix

    check_table(data)
    schema = fitted.table
    frame = read_table(data, [*schema.names, *schema.context_names])
    x = torch.from_numpy(to_matrix(frame, schema.columns, source=data))
    if not schema.context:
        return x, None
    return x, torch.from_numpy(to_matrix(frame, schema.context, source=data))


def _document(diagnosis: Diagnosis, model: Path) -> dict[str, Any]:
    document: dict[str, Any] = finite(
        {
            "file": str(model),
            "verdict": diagnosis.verdict,
            "blamed": diagnosis.blamed,
            **asdict(diagnosis),
        }
    )
    return document
