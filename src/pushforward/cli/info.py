"""``pushforward info`` and ``pushforward models``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configs import MODELS, model_name
from .files import load_model
from .text import clock, console, finite, model_fields, model_line, size, stop_reason, support

if TYPE_CHECKING:
    from rich.console import Console

    from ..artifact import FittedFlow


def info(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved flow.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what a saved flow is, and how it was trained."""
    fitted = load_model(model)
    if as_json:
        typer.echo(json.dumps(_document(fitted, model), indent=2, allow_nan=False))
    else:
        _show(fitted, model, console())


def models() -> None:
    """List the models with their fields and defaults."""
    out = console()
    for name, config in MODELS.items():
        out.print(name, style="bold", end="")
        out.print(f"  {(config.__doc__ or '').splitlines()[0]}", soft_wrap=True)
        out.print(
            f"  {', '.join(f'{field} {value}' for field, value in model_fields(config))}\n", soft_wrap=True
        )
    out.print(
        "Choose one with --model NAME, and its fields in the table [model] of --config FILE.", soft_wrap=True
    )


def _parameters(fitted: FittedFlow) -> int:
    return sum(p.numel() for p in fitted.flow.parameters())


def _document(fitted: FittedFlow, path: Path) -> dict[str, Any]:
    document: dict[str, Any] = finite(
        {
            "file": str(path),
            "bytes": path.stat().st_size,
            "model": {"name": model_name(fitted.model), **asdict(fitted.model)},
            "parameters": _parameters(fitted),
            "columns": [asdict(column) for column in fitted.schema.columns],
            "context": [asdict(column) for column in fitted.schema.context],
            "facts": asdict(fitted.facts),
        }
    )
    return document


def _show(fitted: FittedFlow, path: Path, out: Console) -> None:
    facts = fitted.facts
    estimate = "; estimate: dequantised columns" if facts.kind == "estimate" else ""
    parts = (
        ("train", facts.train_log_prob),
        ("validation", facts.valid_log_prob),
        ("test", facts.test_log_prob),
    )
    log_probs = ", ".join(f"{part} {value:.4f}" for part, value in parts)
    best = f"best {facts.best_epoch}, " if facts.best_epoch else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    for label, text in (
        ("File", f"{path} ({size(path.stat().st_size)})"),
        ("Model", model_line(fitted.model)),
        ("Parameters", f"{_parameters(fitted):,}"),
        ("Fitted to", facts.source or "a table in memory"),
        ("Rows", f"{facts.train_rows:,} train, {facts.valid_rows:,} validation, {facts.test_rows:,} test"),
        ("Log-likelihood", log_probs),
        ("", f"(mean nats, units of the data{estimate})"),
        ("Epochs", f"{len(facts.valid_curve)} of {facts.config.epochs}, {best}{stop_reason(facts.stopped)}"),
        ("Time", clock(facts.seconds)),
        ("Seed", str(facts.config.seed)),
        ("Versions", versions),
        *(("Note", note) for note in facts.notes),
    ):
        out.print(f"{label:<15}", style="bold", end="")
        out.print(text, soft_wrap=True)
    _show_columns(fitted, out)


def _show_columns(fitted: FittedFlow, out: Console) -> None:
    from rich.cells import cell_len

    rows = [(c.name, "dequantised" if c.step else "continuous", support(c)) for c in fitted.schema.columns]
    rows += [(c.name, "given", support(c)) for c in fitted.schema.context]
    width = min(40, max(cell_len(name) for name, _, _ in (("Column", "", ""), *rows)))
    for i, (name, role, where) in enumerate([("Column", "Role", "Support"), *rows]):
        padding = " " * max(0, width - cell_len(name))
        line = f"{name}{padding}  {role:<11}  {where}"
        out.print(f"\n{line}" if i == 0 else line, style="bold" if i == 0 else None, soft_wrap=True)
