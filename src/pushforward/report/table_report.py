"""A report about a fitted flow of a table that a person can read: one HTML file that needs nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import model_name
from ..data import atomic_path
from .comparison import compare
from .html import Page, Points, Section, render_page
from .machine import machine
from .table_report_anomalies import anomalies
from .table_report_checks import latents, soundness
from .table_report_columns import marginals
from .table_report_fit import likelihood, training
from .table_report_rows import MOST_ROWS, Rows, rows_of
from .table_report_samples import together
from .table_report_text import Chapter, rows_text

if TYPE_CHECKING:
    import polars as pl

    from ..artifact import FittedFlow


def write_report(
    fitted: FittedFlow,
    frame: pl.DataFrame,
    path: str | Path,
    *,
    model: str | Path | None = None,
    source: str | Path | None = None,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    on_part: Callable[[str], None] | None = None,
) -> None:
    """Write a report about a flow, held against the rows of a table, as one HTML file.

    It has no script and asks for nothing outside itself. What it says: what the flow is, what to distrust, how likely
    it finds the rows beside simple models, real beside drawn rows, the distribution of each column, the most anomalous
    rows, how the training went, latents, whether the arithmetic is sound, and how to reproduce all that. A part that
    cannot treat the flow says so. Likelihoods are in nats and in the units of the table. Equal arguments give equal
    files on one machine.

    Args:
        fitted: The flow.
        frame: A table with the columns it was fitted on, and those it is conditioned on: best the one that it was
            fitted to, whose test rows are then found, or new rows.
        path: Where to; an existing file is replaced in one step or not at all.
        model: The file of the flow, for the record.
        source: The file of the table, for the record and for messages.
        most_rows: Of a longer table that many rows are taken, by chance.
        seed: Seed of that choice and of all draws.
        on_part: Called with the name of each part before it is made.

    Raises:
        DataError: A table that the flow cannot take.
        OutputError: A place that cannot be written.
        ValueError: A flow of images.

    Example:
        >>> import tempfile, numpy as np, polars as pl
        >>> from pushforward.configs import MAFConfig, TrainConfig
        >>> from pushforward.training import fit
        >>> rng = np.random.default_rng(0)
        >>> frame = pl.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200)})
        >>> model, training = MAFConfig(layers=1, hidden=(8,)), TrainConfig(epochs=2, batch_size=64)
        >>> fitted = fit(frame, model=model, training=training)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report(fitted, frame, Path(folder) / "report.html")
        ...     (Path(folder) / "report.html").read_text()[:15]
        '<!DOCTYPE html>'
    """
    page = report_page(
        fitted,
        frame,
        model=None if model is None else Path(model),
        source=None if source is None else Path(source),
        most_rows=most_rows,
        seed=seed,
        on_part=on_part,
    )
    text = render_page(page)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report_page(
    fitted: FittedFlow,
    frame: pl.DataFrame,
    *,
    model: Path | None = None,
    source: Path | None = None,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    on_part: Callable[[str], None] | None = None,
) -> Page:
    """Return the page that ``write_report`` writes."""
    tell = on_part or (lambda _: None)
    tell("Scoring")
    rows = rows_of(fitted, frame, source=source, most=most_rows, seed=seed)
    tell("Drawing rows")
    comparison = replace(compare(fitted, rows.frame, seed=seed), rows=rows.total)
    name = "MODEL" if model is None else model.name
    command = f"pushforward diagnose {name} {'TABLE' if source is None else source.name}"
    parts: tuple[tuple[str, Callable[[], Chapter]], ...] = (
        ("Likelihoods", lambda: likelihood(fitted, rows, comparison, seed=seed)),
        ("Drawn rows", lambda: together(fitted, rows, comparison, seed=seed)),
        ("Columns", lambda: marginals(fitted, rows, seed=seed)),
        ("Anomalies", lambda: anomalies(fitted, rows, seed=seed)),
        ("Training", lambda: training(fitted)),
        ("Latents", lambda: latents(fitted, rows, seed=seed)),
        ("Arithmetic", lambda: soundness(fitted, rows, seed=seed, command=command)),
    )
    chapters = []
    for label, make in parts:
        tell(label)
        chapters.append(make())
    sections = (
        _summary(rows, chapters),
        *(chapter.section for chapter in chapters),
        _reproduction(fitted, model, source, most_rows, seed),
    )
    title = "Report on " + (model.name if model is not None else "a flow")
    return Page(title, _lead(fitted, rows, source), sections, notes=(_UNITS,))


_UNITS = (
    "Log-likelihoods are natural logarithms (nats) of densities in the units of the table; ± is one standard "
    "error. p-values are corrected for the number of tests."
)


def _lead(fitted: FittedFlow, rows: Rows, source: Path | None) -> str:
    """Say in words what the flow is, and what it is held against."""
    facts, schema = fitted.facts, fitted.table
    columns = rows_text(len(schema.columns), "column")
    given = f" given {', '.join(schema.context_names)}" if schema.context else ""
    trained = facts.source or "a table in memory"
    table = "a table" if source is None else source.name
    taken = f" ({rows_text(len(rows))} of them taken by chance)" if len(rows) < rows.total else ""
    return (
        f"A probability density of {columns}{given}, learned by the model {model_name(fitted.model)} from "
        f"{rows_text(facts.train_rows)} of {trained}. Here it is held against {rows_text(rows.total)} of "
        f"{table}{taken}. {rows.seen}"
    )


def _summary(rows: Rows, chapters: list[Chapter]) -> Section:
    good = tuple(text for chapter in chapters for text in chapter.good)
    doubts = tuple(text for chapter in chapters for text in chapter.doubts)
    if rows.origin == "seen":
        doubts = ("Rows that the flow was trained on are among those it is judged by.", *doubts)
    left = [c.section.title for c in chapters if c.left_out]
    if doubts:
        lead = f"{rows_text(len(doubts), 'thing')} to distrust."
    else:
        lead = "Nothing that was looked at speaks against the flow."
    if left:
        lead += f" Left out, with the reason: {', '.join(left)}."
    blocks = [Points(doubts, "What to distrust")] if doubts else []
    blocks += [Points(good, "What holds")] if good else []
    return Section("summary", "In short", lead, tuple(blocks))


def _reproduction(
    fitted: FittedFlow, model: Path | None, source: Path | None, most_rows: int, seed: int
) -> Section:
    import shlex

    facts = fitted.facts
    words = ["pushforward", "report", model.name if model else "MODEL", source.name if source else "TABLE"]
    words += ["-o", "report.html"]
    words += ["--rows", str(most_rows)] if most_rows != MOST_ROWS else []
    words += ["--seed", str(seed)]
    files = tuple(
        (label, f"{path.name}, {path.stat().st_size:,} bytes, SHA-256 {_digest(path)}")
        for label, path in (("File of the flow", model), ("File of the table", source))
        if path is not None and path.is_file()
    )
    return Section(
        "reproduction",
        "How to reproduce it",
        "Equal files, versions and seed give equal figures.",
        (),
        (
            ("Command", shlex.join(words)),
            *files,
            (
                "Kind of model",
                f"{model_name(fitted.model)}. {(type(fitted.model).__doc__ or '').splitlines()[0]}",
            ),
            ("Model", f"{fitted.model}, {sum(p.numel() for p in fitted.flow.parameters()):,} parameters"),
            ("Training", f"{facts.config}"),
            ("Trained with", ", ".join(f"{name} {version}" for name, version in facts.versions.items())),
            ("This report with", machine()),
        ),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
