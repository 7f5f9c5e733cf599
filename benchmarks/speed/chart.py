"""Figures as a picture: every call of every task, libraries relative to the fastest peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .figures import MILLISECONDS, Figure, ratio
from .libraries import NAMES
from .tasks import GROUPS

_MARKS = {
    "ours": ("o", "#c0392b", 70),
    "floor": ("|", "#222222", 140),
    "floor_once": ("|", "#999999", 140),
    "zuko": ("s", "#2471a3", 26),
    "nflows": ("^", "#1e8449", 30),
    "normflows": ("v", "#7d6608", 30),
    "freia": ("P", "#7f8c8d", 30),
    "flowjax": ("D", "#d68910", 24),
    "bijx": ("X", "#8e44ad", 34),
}


def chart(figures: Sequence[Figure], path: Path, title: str) -> None:
    """Draw the timed tasks; one row for each call of each, and time on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    names = [task.name for group in ("steps", "sampling") for task in GROUPS[group]]
    timed = [f for f in figures if f.task in names and f.unit == MILLISECONDS and f.values]
    rows = [row for row in dict.fromkeys((f.task, f.call) for f in timed) if any(_of(timed, row))]
    picture = Picture(figsize=(8.5, 1.6 + 0.27 * len(rows)), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    for library, (mark, colour, size) in _MARKS.items():
        own = [(ratio(f, timed), rows.index((f.task, f.call))) for f in timed if f.library == library]
        points = [(times, row) for times, row in own if times is not None]
        if points:
            x, y = zip(*points, strict=True)
            top = 4 if library == "ours" else 3
            axes.scatter(x, y, marker=mark, c=colour, s=size, label=NAMES.get(library, library), zorder=top)
    axes.axvline(1.0, color="#2471a3", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(rows)), [f"{task}  {call}" for task, call in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", which="both", linewidth=0.3)
    for row in range(len(rows)):
        axes.axhline(row, color="#dddddd", linewidth=0.5, zorder=0)
    axes.set_xlabel("time, relative to the fastest peer (left is faster)")
    axes.set_title(title, fontsize=9)
    picture.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=100)


def _of(figures: Sequence[Figure], row: tuple[str, str]) -> list[bool]:
    """Whether each figure of a row has a peer to stand beside."""
    return [ratio(f, figures) is not None for f in figures if (f.task, f.call) == row]
