"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .figures import Figure, ratio
from .libraries import LIBRARIES, NAMES, PEERS


def table(figures: Sequence[Figure]) -> str:
    """Return one table for the figures of one task: libraries down, calls across.

    Only peers are told to be unable: the floor has no row where it has no figures.
    """
    figures = [f for f in figures if f.values or f.library in PEERS]
    order = {name: place for place, name in enumerate(LIBRARIES)}
    libraries = sorted({f.library for f in figures}, key=lambda name: order.get(name, len(order)))
    calls = list(dict.fromkeys(f.call for f in figures))
    cells = {(f.library, f.call): f for f in figures}
    head = [heading(figures, call) for call in calls]
    lines = ["| library | " + " | ".join(head) + " | notes |", "|---" + "|--:" * len(calls) + "|---|"]
    for library in libraries:
        own = [cells[library, call] for call in calls if (library, call) in cells]
        notes = "; ".join(
            dict.fromkeys([f.note for f in own if f.note] + [f.reason for f in own if f.reason])
        )
        shown = [cell(cells[library, c], figures) if (library, c) in cells else "" for c in calls]
        lines.append(f"| {NAMES.get(library, library)} | " + " | ".join(shown) + f" | {notes} |")
    return "\n".join(lines)


def heading(figures: Sequence[Figure], call: str) -> str:
    """Return the head of a column, with its unit."""
    units = {f.unit for f in figures if f.call == call and f.values}
    return f"{call}, {units.pop()}" if units else call


def cell(figure: Figure, figures: Sequence[Figure]) -> str:
    """Return median ± half the distance of the quartiles, and the ratio to the fastest peer."""
    if not figure.values:
        return "cannot"
    low, high = figure.quartiles
    text = number(figure.median)
    if len(figure.values) > 1:
        decimals = len(text.partition(".")[2])
        text += f" ± {(high - low) / 2:.{decimals}f}"
    times = ratio(figure, figures)
    return text if times is None else f"{text} ({times:.2f})"


def number(value: float) -> str:
    """Return a number with the digits that matter."""
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"
