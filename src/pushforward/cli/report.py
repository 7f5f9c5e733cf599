"""``pushforward report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..configs import ImageSchema
from .files import check_output, check_table, load_model
from .options import UsageError
from .text import console

PAGES = (".html", ".htm")


def report(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="Rows to hold it against: best the table that it was fitted to, whose test rows are then found.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The page: .html.", show_default=False)
    ],
    *,
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=1, metavar="N", help="Look at no more rows, taken by chance.")
    ] = 20_000,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Equal seeds give equal results.")] = 0,
) -> None:
    """Write a page about a fitted density: how good it is, and what to distrust.

    One HTML file without scripts, which needs no network: how the training went, log-likelihoods beside simple models,
    real beside drawn rows, each column by itself, latents, the most anomalous rows with reasons, the diagnosis, and how
    to reproduce it.
    """
    check_output(output, [model, table], suffixes=PAGES)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_model(model)
        if isinstance(fitted.schema, ImageSchema):
            raise UsageError(
                f"{model}: is a flow of images, and report is about those of tables. pushforward info {model} and "
                f"pushforward diagnose {model} tell about it"
            )
        check_table(table)
        from ..data import read_table
        from ..report.table_report import write_report

        frame = read_table(table, [*fitted.table.names, *fitted.table.context_names])
        write_report(
            fitted,
            frame,
            output,
            model=model,
            source=table,
            most_rows=rows,
            seed=seed,
            on_part=status.update,
        )
    out.print(f"Saved {output}. Open it in a browser.", soft_wrap=True)
