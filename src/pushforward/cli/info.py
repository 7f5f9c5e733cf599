"""``pushforward info`` and ``pushforward models``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configs import (
    IMAGE_MODELS,
    TABLE_MODELS,
    ImageModelConfig,
    ImageSchema,
    ModelConfig,
    TrainingFacts,
    model_name,
)
from .files import load_model
from .image_text import bits, given_to, kind_of, modelled
from .text import (
    clock,
    console,
    finite,
    listing,
    model_fields,
    model_line,
    size,
    support,
    why_estimate,
)

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
    """List the models of tables and of images with their fields and defaults."""
    out = console()
    groups: tuple[tuple[str, Mapping[str, type[ModelConfig | ImageModelConfig]]], ...] = (
        ("For tables", TABLE_MODELS),
        ("For images", IMAGE_MODELS),
    )
    for heading, known in groups:
        out.print(f"{heading}\n", style="bold underline")
        for name, config in known.items():
            out.print(name, style="bold", end="")
            out.print(f"  {(config.__doc__ or '').splitlines()[0]}", soft_wrap=True)
            if known is IMAGE_MODELS and config in TABLE_MODELS.values():
                out.print("  The pixels of an image are one vector.")
            fields = ", ".join(f"{field} {value}" for field, value in model_fields(config))
            out.print(f"  {fields}\n", soft_wrap=True)
    out.print(
        "Choose one with --model NAME, and its fields in the table [model] of --config FILE.", soft_wrap=True
    )


def _parameters(fitted: FittedFlow) -> int:
    return sum(p.numel() for p in fitted.flow.parameters())


def _document(fitted: FittedFlow, path: Path) -> dict[str, Any]:
    facts = fitted.facts
    if isinstance(fitted.schema, ImageSchema):
        schema = fitted.schema
        data: dict[str, Any] = {
            "images": asdict(schema),
            "bits_per_dim": {part: bits(schema, value) for part, value in _log_probs(facts)},
        }
    else:
        data = {
            "columns": [asdict(column) for column in fitted.table.columns],
            "context": [asdict(column) for column in fitted.table.context],
        }
    document: dict[str, Any] = finite(
        {
            "file": str(path),
            "bytes": path.stat().st_size,
            "model": {"name": model_name(fitted.model), **asdict(fitted.model)},
            "parameters": _parameters(fitted),
            **data,
            "facts": asdict(facts),
        }
    )
    return document


def _log_probs(facts: TrainingFacts) -> tuple[tuple[str, float], ...]:
    return (
        ("train", facts.train_log_prob),
        ("validation", facts.valid_log_prob),
        ("test", facts.test_log_prob),
    )


def _show(fitted: FittedFlow, path: Path, out: Console) -> None:
    facts, of_images = fitted.facts, isinstance(fitted.schema, ImageSchema)
    best = f"best {facts.best_epoch}, " if facts.best_epoch else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    for label, text in (
        ("File", f"{path} ({size(path.stat().st_size)})"),
        ("Model", model_line(fitted.model, images=of_images)),
        ("Parameters", f"{_parameters(fitted):,}"),
        ("Fitted to", facts.source or f"{'images' if of_images else 'a table'} in memory"),
        (
            "Images" if of_images else "Rows",
            f"{facts.train_rows:,} train, {facts.valid_rows:,} validation, {facts.test_rows:,} test",
        ),
        *(_of_images(fitted) if of_images else _of_table(fitted)),
        ("Epochs", f"{len(facts.valid_curve)} of {facts.config.epochs}, {best}{facts.ending}"),
        ("Time", clock(facts.seconds)),
        ("Seed", str(facts.config.seed)),
        ("Versions", versions),
        *(("Note", note) for note in facts.notes),
    ):
        out.print(f"{label:<15}", style="bold", end="")
        out.print(text, soft_wrap=True)
    if not of_images:
        _show_columns(fitted, out)


def _of_table(fitted: FittedFlow) -> list[tuple[str, str]]:
    kind = fitted.facts.kind
    estimate = "" if kind == "exact" else f"; {kind}: {why_estimate(fitted.flow)}"
    values = ", ".join(f"{part} {value:.4f}" for part, value in _log_probs(fitted.facts))
    return [("Log-likelihood", values), ("", f"(mean nats, units of the data{estimate})")]


def _of_images(fitted: FittedFlow) -> list[tuple[str, str]]:
    schema, facts = fitted.images, fitted.facts
    bound = "a bound, by one draw of noise" if facts.kind == "bound" else facts.kind
    lines = [("Size", kind_of(schema))]
    if schema.classes:
        lines.append(("Classes", f"{len(schema.classes)}: {listing(schema.classes)}"))
    return [
        *lines,
        ("Given", given_to(schema) or "nothing"),
        ("Pixels", schema.pixels),
        ("Bits/dim", ", ".join(f"{part} {bits(schema, value):.4f}" for part, value in _log_probs(facts))),
        ("", f"(mean of {modelled(schema)}; {bound}; test {facts.test_log_prob:.2f} nats)"),
    ]


def _show_columns(fitted: FittedFlow, out: Console) -> None:
    from rich.cells import cell_len

    grid = "dequantised" if fitted.flow.surjection is not None else "on a grid"
    rows = [
        (c.name, c.kind if c.labelled else grid if c.step else "continuous", support(c))
        for c in fitted.table.columns
    ]
    rows += [(c.name, "given", support(c)) for c in fitted.table.context]
    width = min(40, max(cell_len(name) for name, _, _ in (("Column", "", ""), *rows)))
    for i, (name, role, where) in enumerate([("Column", "Role", "Support"), *rows]):
        padding = " " * max(0, width - cell_len(name))
        line = f"{name}{padding}  {role:<11}  {where}"
        out.print(f"\n{line}" if i == 0 else line, style="bold" if i == 0 else None, soft_wrap=True)
