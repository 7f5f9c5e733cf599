"""``pushforward score``."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..configs import ImageSchema
from .alarms import alarms_of
from .files import check_output, check_table, load_model, to_stdout
from .options import UsageError
from .parts import job_of, refuse_resume, restartable
from .runs import note
from .score_images import score_images
from .text import clock, console, counted

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from ..configs import TableSchema
    from ..flows import Estimate

_CHUNK_ROWS = 65_536
_CHUNK_ELEMENTS = 2**22


def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|IMAGES",
            help="Rows with the columns it was fitted on; or images of its size, of a set with official test images "
            "these.",
            show_default=False,
        ),
    ],
    *,
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
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels of images, for a model that is given the class."),
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Draws of noise for each image; 1, which gives a bound, by default."
        ),
    ] = None,
    alarm_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Also write alarms, of which at most this share is false among rows like those it was fitted to.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Give the reasons of each alarm, column by column.")
    ] = False,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Go on with a job that was interrupted, or throw away what it did.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the log-density of every row, in nats; of images also in bits per dimension.

    One output row for each input row, in order: log_prob; kind, which is exact, or estimate where columns are
    dequantised; and then standard_error. With --alarm-rate: anomaly_score, which is -log_prob; p_value, the share of
    held-out rows that are at least as anomalous; alarm; and, with --explain, reasons. Of images: file or image, its
    number; bits_per_dim; log_prob; and, of several draws of noise, standard_error.
    """
    from ..data.writers import WRITTEN_SUFFIXES

    if not to_stdout(output):
        check_output(output, [model, table, labels], suffixes=WRITTEN_SUFFIXES)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_model(model)
        if isinstance(fitted.schema, ImageSchema):
            refuse_resume(resume, model)
            if alarm_rate is not None or explain:
                raise UsageError(
                    f"--alarm-rate and --explain are for flows of tables, and {model} is one of images"
                )
            said = score_images(
                fitted, model, table, output, status, labels=labels, num_samples=num_samples or 1
            )
            for line in said:
                out.print(line, soft_wrap=True)
            return
        for option, value in (("--labels", labels), ("--num-samples", num_samples)):
            if value is not None:
                raise UsageError(f"{option}: is for flows of images, and {model} is the flow of a table")
        check_table(table)
        alarms = alarms_of(fitted, model, alarm_rate, explain)
        from ..flows import score_each

        started = time.monotonic()
        job = job_of("score", model, {"table": table}, alarm_rate=alarm_rate, explain=explain)
        with restartable(output, job, resume=resume, on_note=partial(note, out)) as sink:
            totals, before = _Totals(**sink.state), sink.rows
            waiting: deque[tuple[Tensor, Tensor | None]] = deque()
            points = _kept(_points(table, fitted.table, skipped=before), waiting if alarms else None)
            with closing(score_each(fitted.flow, points)) as estimates:
                for estimate in estimates:
                    totals.add(estimate)
                    rows = _rows(estimate)
                    if alarms is not None:
                        rows = rows.with_columns(alarms.columns(estimate, *waiting.popleft()))
                        totals.alarms += int(rows["alarm"].sum())
                    sink.write(rows, lambda: asdict(totals))
                    status.update(f"{counted(totals.rows, 'row')} scored")
    seconds = time.monotonic() - started
    scored = totals.rows - before
    pace = f"{counted(scored, 'row')} scored in {clock(seconds)} ({scored / seconds:,.0f} rows/s)"
    if before:
        pace += f", {before:,} before"
    out.print(f"{pace}. Mean log_prob {totals.mean:.4f} nats, {totals.kind}.", soft_wrap=True)
    if alarms is not None:
        out.print(
            f"{counted(totals.alarms, 'alarm')}, {totals.alarms / totals.rows:.2%} of the rows: anomaly scores above "
            f"{alarms.threshold:.4f} nats. Of rows like those that the flow was fitted to {alarm_rate:.2%} would be.",
            soft_wrap=True,
        )
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
    alarms: int = 0
    sum: float = 0.0
    kind: str = "exact"

    @property
    def mean(self) -> float:
        return self.sum / self.rows

    def add(self, estimate: Estimate) -> None:
        import numpy as np

        values = estimate.value.numpy()
        self.rows += len(values)
        self.outside += int((values == -math.inf).sum())
        self.lost += int((np.isnan(values) | (values == math.inf)).sum())
        self.sum += float(values.sum(dtype=np.float64))
        self.kind = estimate.kind


def _kept(
    points: Iterator[tuple[Tensor, Tensor | None]], waiting: deque[tuple[Tensor, Tensor | None]] | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield points, and keep them for when their scores come, if they are still wanted then."""
    for each in points:
        if waiting is not None:
            waiting.append(each)
        yield each


def _points(table: Path, schema: TableSchema, *, skipped: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the rows of the table behind the first chunks, checked, with those of the columns conditioned on."""
    import torch

    from ..data import iter_table, to_matrix

    first, names = 1, [*schema.names, *schema.context_names]
    for frame in iter_table(table, names, max(1, min(_CHUNK_ROWS, _CHUNK_ELEMENTS // len(names)))):
        if first <= skipped:
            first += frame.height
            continue
        x, context = (
            torch.from_numpy(to_matrix(frame, columns, source=table, first_row=first)) if columns else None
            for columns in (schema.columns, schema.context)
        )
        assert x is not None
        yield x, context
        first += frame.height


def _rows(estimate: Estimate) -> pl.DataFrame:
    import polars as pl

    kind = pl.Series("kind", [estimate.kind], dtype=pl.Enum(["exact", "estimate"]))
    columns = [
        pl.Series("log_prob", estimate.value.numpy()),
        kind.new_from_index(0, len(estimate.value)),
    ]
    if estimate.kind == "estimate":
        columns.append(pl.Series("standard_error", estimate.standard_error.numpy()))
    return pl.DataFrame(columns)
