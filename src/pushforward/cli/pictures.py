"""``pushforward plot`` and ``pushforward demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..configs import ImageSchema
from .files import check_output, check_table, load_model
from .options import UsageError
from .text import console

FIGURES = (".png", ".pdf", ".svg")


def plot(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="Rows to hold it against.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The figure: .png, .pdf or .svg.", show_default=False
        ),
    ],
) -> None:
    """Draw how a fitted density meets a table."""
    check_output(output, [model, table], suffixes=FIGURES)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_model(model)
        if isinstance(fitted.schema, ImageSchema):
            raise UsageError(
                f"{model}: is a flow of images, and plot draws those of tables. pushforward sample {model} --grid 8x8 "
                "-o FILE.png draws images"
            )
        check_table(table)
        from ..data import read_table, to_matrix

        frame = read_table(table, [*fitted.table.names, *fitted.table.context_names])
        for columns in (fitted.table.columns, fitted.table.context):
            if columns:
                to_matrix(frame, columns, source=table)
        status.update("Drawing")
        from ..report.plots import plot_fit

        plot_fit(fitted, frame, output)
    out.print(f"Saved {output}.", soft_wrap=True)


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the page and its models go.")
    ] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A shorter one, with less training.")] = False,
) -> None:
    """Fit toys, images and a table; write a page.

    The page, index.html, stands for itself: planar and spline flows on a checkerboard, handwritten digits, and a real
    table with its most anomalous rows. No network is needed.
    """
    out = console()
    from ..report.demo import run_demo

    page = run_demo(output, quick=quick, console=out)
    out.print(f"Open {page} in a browser.", style="bold", soft_wrap=True)
