"""A diagnosis as a picture: errors there and back, stretch of the layers, latents, precision and mass."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluate import Diagnosis
from ..evaluate.verdict import NO_DIGIT, SHARES, Latent, Quantiles
from ..evaluate.wording import MEANING, mass_text
from .figures import LIGHT, Theme, cells, dress, legend, new_figure, one_axes, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 11.0, 8.4
_PANEL_WIDTH, _PANEL_HEIGHT, _PANEL_LEFT = 5.0, 3.4, 1.15
_LEFT, _GAP = 0.85, 0.95
_MOST_CURVES, _MOST_LAYERS = 6, 24
_ROOM = 1.35  # height of a picture of shares
_LEAST_NATS = 1e-17  # what stands for an error of 0 on a logarithmic axis


def plot_diagnosis(diagnosis: Diagnosis, path: Path) -> None:
    """Draw a diagnosis as one file.

    Args:
        diagnosis: What to draw.
        path: Where to; the suffix, ``.png``, ``.pdf`` or ``.svg``, tells the format. An existing file is replaced in
            one step or not at all.

    Raises:
        OutputError: Another suffix, or a place that cannot be written.
    """
    write_figure(path, lambda: diagnosis_figure(diagnosis))


def diagnosis_figure(diagnosis: Diagnosis, theme: Theme = LIGHT) -> Figure:
    """Return the figure that ``plot_diagnosis`` writes."""
    figure = new_figure(_WIDTH, _HEIGHT, theme)
    box = (_LEFT, 0.6, _WIDTH - _LEFT - 0.3, _HEIGHT - 2.15)
    grid = cells(figure, box, 2, 2, gap=_GAP)
    _headline(figure, diagnosis, theme)
    for k, draw in enumerate(PANELS.values()):
        draw(figure.add_subplot(grid[k]), diagnosis, theme)
    return figure


def panel_figure(diagnosis: Diagnosis, panel: str, theme: Theme = LIGHT) -> Figure:
    """Return one of the ``PANELS`` as a figure of its own, for narrow pages."""
    figure, ax = one_axes(_PANEL_WIDTH, _PANEL_HEIGHT, theme, margins=(_PANEL_LEFT, 0.5, 0.1, 0.4))
    PANELS[panel](ax, diagnosis, theme)
    return figure


def _headline(figure: Figure, d: Diagnosis, theme: Theme) -> None:
    colour = {"sound": theme.real, "doubtful": theme.drawn, "broken": theme.mark}[d.verdict]
    left = _LEFT / _WIDTH
    figure.text(left, 1 - 0.42 / _HEIGHT, d.verdict, color=colour, fontsize=17, weight="bold")
    worst = next((f for f in d.findings if f.level == d.verdict), None)
    if worst is None:
        text = f"{MEANING[d.verdict].capitalize()}."
    else:
        text = f"{worst.layer}: {worst.text}." if worst.layer else f"{worst.text}."
    lines = textwrap.wrap(text, 150, break_long_words=False, break_on_hyphens=False)[:3]
    masses = [mass_text(m) for m in d.masses]
    more = f"; {len(masses) - 1} more" if len(masses) > 1 else ""
    lines += [f"Total mass {masses[0]}{more}."] if masses else []
    figure.text(
        left, 1 - 0.58 / _HEIGHT, "\n".join(lines), color=theme.ink, fontsize=9, va="top", linespacing=1.35
    )


def _round_trips(ax: Axes, d: Diagnosis, theme: Theme) -> None:
    colours = {"data": theme.real, "samples": theme.drawn, "away": theme.faint}
    for trip in d.round_trips:
        for q, style, what in ((trip.data, "-", "x"), (trip.latent, "--", "z")):
            label = f"{trip.where}, {what}"
            _distribution(ax, q, colour=colours[trip.where], style=style, label=label, least=d.eps / 100)
    dress(ax, theme, title="There and back", x="error, relative to the local scale", y="share of rows below")
    _logarithmic(ax)
    _headroom(ax)
    for place, style, word in ((NO_DIGIT, "-", "no digit"), (math.sqrt(d.eps), ":", "half")):
        ax.axvline(place, ymax=1 / _ROOM, color=theme.mark, linewidth=0.9, linestyle=style)
        ax.text(place, 1.01, word, color=theme.mark, fontsize=7, ha="center", va="bottom")
    legend(ax, theme, loc="upper left", columns=3)


def _layers(ax: Axes, d: Diagnosis, theme: Theme) -> None:
    own = [layer for layer in d.layers if layer.name.startswith("transform")]
    blamed = set(d.blamed)
    shown = own
    if len(own) > _MOST_LAYERS:
        ranked = sorted(
            own, key=lambda a: (a.name not in blamed, -max(_number(a.inverse), _number(a.forward)))
        )
        shown = [layer for layer in own if layer in ranked[:_MOST_LAYERS]]
    places = np.arange(len(shown))
    for shift, values, colour, name in (
        (-0.19, [_number(a.inverse) for a in shown], theme.drawn, "inverse"),
        (0.19, [_number(a.forward) for a in shown], theme.real, "forward"),
    ):
        ax.barh(places + shift, values, height=0.36, color=colour, label=name, left=0)
    title = "Stretch of each layer" + (
        f" (the {len(shown)} largest of {len(own)})" if len(shown) < len(own) else ""
    )
    below = "" if d.both_ways is None else ", from below"
    dress(ax, theme, title=title, x=f"local Lipschitz constant{below}, 99 % of the rows")
    _logarithmic(ax)
    values = [v for a in shown for v in (a.inverse, a.forward) if math.isfinite(_number(v))] or [1.0]
    ax.set_xlim(min(1.0, *values) / 2, max(100.0, 2 * max(values)))
    ax.set_yticks(places, [_layer_label(a.name) for a in shown], fontsize=8 if len(shown) < 14 else 6)
    for label, layer in zip(ax.get_yticklabels(), shown, strict=True):
        label.set_color(theme.mark if layer.name in blamed else theme.ink)
    ax.set_ylim(len(shown) - 0.4, -0.6 - 0.16 * len(shown))
    legend(ax, theme, loc="upper right", columns=2)


def _precision(ax: Axes, d: Diagnosis, theme: Theme) -> None:
    for q, colour, style, label in (
        (d.deviation.error, theme.real, "-", f"float32 against float64, {d.deviation.where}"),
        (d.log_det, theme.drawn, "-", "log-determinant against autograd"),
        (d.log_det_inverse, theme.drawn, "--", "the same of the inverse"),
        (d.both_ways, theme.faint, "-", "log-determinants, forward and back"),
    ):
        if q is None:
            continue
        _distribution(ax, q, colour=colour, style=style, label=label, least=_LEAST_NATS)
    dress(ax, theme, title="Log-density and log-determinant", x="error, nats", y="share of rows below")
    _logarithmic(ax)
    _headroom(ax)
    legend(ax, theme, loc="upper left")


def _latent(ax: Axes, d: Diagnosis, theme: Theme) -> None:
    if d.latent is not None:
        draw_latent(ax, d.latent, theme)
        ax.set_title("Latents of the data against the base", color=theme.ink, fontsize=10, loc="left")
        return
    dress(ax, theme, title="Latents of the data against the base")
    reason = next((m for m in d.not_measured if "latents" in m), "not measured")
    ax.text(
        0.5,
        0.5,
        textwrap.fill(f"Not measured: {reason}", 40),
        color=theme.faint,
        fontsize=9,
        ha="center",
        va="center",
        transform=ax.transAxes,
    )
    ax.set_xticks([])
    ax.set_yticks([])


def draw_latent(ax: Axes, latent: Latent, theme: Theme) -> None:
    """Draw quantiles of latents against those of the normal distribution, those furthest off with their names."""
    from scipy.special import ndtri

    dress(ax, theme, x="normal quantile", y="quantile of the scores")
    inner = slice(1, -1)
    expected = ndtri(SHARES.numpy()[inner])
    order = np.argsort(latent.distances)[::-1][:_MOST_CURVES]
    for rank, j in enumerate(order):
        label = f"element {j}, distance {latent.distances[j]:.2g}" if rank < 3 else None
        ax.plot(
            expected,
            np.array(latent.curves[j])[inner],
            color=(theme.mark, theme.drawn, theme.real)[min(rank, 2)],
            linewidth=1.4 if rank < 3 else 0.6,
            alpha=1 if rank < 3 else 0.4,
            label=label,
        )
    ax.plot(expected, expected, color=theme.ink, linewidth=0.9, linestyle=":")
    ax.set_ylim(-3.2, 4.6)
    legend(ax, theme, loc="upper left")


PANELS: dict[str, Callable[[Axes, Diagnosis, Theme], None]] = {
    "round trips": _round_trips,
    "layers": _layers,
    "precision": _precision,
    "latents": _latent,
}
"""What a diagnosis is drawn as, each on axes of its own."""


def _distribution(ax: Axes, q: Quantiles, *, colour: str, style: str, label: str, least: float) -> None:
    """Draw the share of rows below each error; those that are not finite never get there."""
    if not q.curve:
        return
    share = SHARES.numpy() * (q.rows - q.non_finite) / q.rows
    ax.plot(np.maximum(q.curve, least), share, color=colour, linestyle=style, linewidth=1.4, label=label)


def _headroom(ax: Axes) -> None:
    """Leave room above a share of 1, for a legend."""
    ax.set_ylim(0, _ROOM)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1.0])


def _logarithmic(ax: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(numticks=6))
    ax.xaxis.set_minor_locator(NullLocator())


def _number(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else math.nan


def _layer_label(name: str) -> str:
    """Return a layer's place and class, short.

    Example:
        >>> _layer_label("transform.transforms[3] (Coupling)")
        '3 Coupling'
    """
    place, _, kind = name.partition(" (")
    numbers = [part.partition("]")[0] for part in place.split("[")[1:]]
    return f"{'.'.join(numbers)} {kind.rstrip(')')}".strip()
