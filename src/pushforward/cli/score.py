"""``pushforward score``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .files import check_output, check_table, load_model, table_sink, to_stdout
from .text import clock, console, counted

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray
    from torch import Tensor

    from ..artifact import FittedFlow

_CHUNK_ROWS = 65_536


def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="Rows with the columns it was fitted on.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help=".csv or .parquet; - is standard output.",
            show_default=False,
        ),
    ],
) -> None:
    """Write the log-density of every row, in nats.

    One output row for each input row, in order: log_prob; kind, which is exact, or estimate where columns are
    dequantised; and then standard_error.
    """
    from ..data.writers import WRITTEN_SUFFIXES

    if not to_stdout(output):
        check_output(output, [model, table], suffixes=WRITTEN_SUFFIXES)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_model(model)
        check_table(table)
        from ..data import iter_table, to_matrix

        schema, totals, started = fitted.schema, _Totals(), time.monotonic()
        with table_sink(output) as write:
            for frame in iter_table(table, [*schema.names, *schema.context_names], _CHUNK_ROWS):
                first = totals.rows + 1
                x = to_matrix(frame, schema.columns, source=table, first_row=first)
                context = (
                    to_matrix(frame, schema.context, source=table, first_row=first)
                    if schema.context
                    else None
                )
                write(_scored(fitted, x, context, totals))
                status.update(f"{counted(totals.rows, 'row')} scored")
    seconds = time.monotonic() - started
    pace = f"{counted(totals.rows, 'row')} scored in {clock(seconds)} ({totals.rows / seconds:,.0f} rows/s)"
    out.print(f"{pace}. Mean log_prob {totals.mean:.4f} nats, {totals.kind}.", soft_wrap=True)
    if totals.outside:
        out.print(f"{counted(totals.outside, 'row')} of density 0, outside the support: log_prob is -inf.")
    if totals.lost:
        out.print(
            f"{counted(totals.lost, 'row')} without a finite log-density: the model overflows there. "
            f"pushforward diagnose {model} shows where.",
            soft_wrap=True,
        )


@dataclass(slots=True)
class _Totals:
    """What is known of all rows so far."""

    rows: int = 0
    outside: int = 0
    lost: int = 0
    sum: float = 0.0
    kind: str = "exact"

    @property
    def mean(self) -> float:
        return self.sum / self.rows

    def add(self, values: Tensor) -> None:
        self.rows += len(values)
        self.outside += int((values == -math.inf).sum())
        self.lost += int((values.isnan() | (values == math.inf)).sum())
        self.sum += float(values.double().sum())


def _scored(
    fitted: FittedFlow, x: NDArray[np.float64], context: NDArray[np.float64] | None, totals: _Totals
) -> pl.DataFrame:
    import polars as pl
    import torch

    from ..flows import score as score_points

    estimate = score_points(
        fitted.flow, torch.from_numpy(x), None if context is None else torch.from_numpy(context)
    )
    totals.add(estimate.value)
    totals.kind = estimate.kind
    kind = pl.lit(estimate.kind, dtype=pl.String).alias("kind")
    frame = pl.DataFrame({"log_prob": estimate.value.numpy()}).with_columns(kind)
    if estimate.kind == "exact":
        return frame
    return frame.with_columns(pl.Series("standard_error", estimate.standard_error.numpy()))
