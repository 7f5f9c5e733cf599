"""A diagnosis in words and tables."""

from __future__ import annotations

import math
import textwrap

from .verdict import KINDS, Diagnosis, Mass, Quantiles

_WIDTH = 110
MEANING = {
    "sound": "the map and its inverse undo each other, and the density is one, as far as was measured",
    "doubtful": "it can be used with care",
    "broken": "its densities or samples cannot be trusted",
}
"""What the verdicts mean, in words."""

_MOST_LAYERS = 40


def describe(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as text: the verdict first, then why, then the numbers."""
    d = diagnosis
    lines = [f"{d.verdict}: {MEANING[d.verdict]}."]
    for finding in d.findings:
        place = f"{finding.layer}: " if finding.layer else ""
        lines += _wrapped(f"{finding.level}: {place}{finding.text}.")
    for missing in d.not_measured:
        lines += _wrapped(f"not measured: {missing}.")
    rows = f"{d.used:,} of {d.given:,} rows of data" if d.given else "no data"
    lines += ["", f"{d.features} elements in {d.dtype}; {rows}; seed {d.seed}."]
    head = f"{'':<38}{'median':>10}{'99 %':>10}{'largest':>10}{'rows':>8}{'not finite':>12}"
    lines += ["", "There and back, error relative to the local scale", head]
    for trip in d.round_trips:
        lines += [
            _row(f"{KINDS[trip.where]}: inverse(forward(x))", trip.data),
            _row(f"{'':<{len(KINDS[trip.where])}}  forward(inverse(z))", trip.latent),
        ]
    if d.pixels:
        lines += [
            "",
            "There and back of images, largest error of a pixel as a share of the pixel range",
            head,
        ]
        lines += [_row(KINDS[one.where], one.error) for one in d.pixels]
    below = "" if d.both_ways is None else ", estimates from below"
    lines += ["", f"Local Lipschitz constants{below}", head]
    for stretch in d.stretches:
        lines += [
            _row(f"{KINDS[stretch.where]}: inverse", stretch.inverse),
            _row(f"{'':<{len(KINDS[stretch.where])}}  forward", stretch.forward),
        ]
    lines += ["", "Log-density and log-determinant, errors in nats", head]
    if d.log_det.rows:
        lines += [
            _row("log-determinant against autograd", d.log_det),
            _row("  of the inverse", d.log_det_inverse),
        ]
    if d.both_ways is not None:
        lines.append(_row("log-determinants, forward and back", d.both_ways))
    lines += [
        _row(f"float32 against float64, {d.deviation.where}", d.deviation.error),
    ]
    if d.deviation.row >= 0:
        what = "row" if d.deviation.where == "data" else "sample"
        lines.append(f"  (largest at {what} {d.deviation.row + 1})")
    lines += ["", "Total mass, should be 1", *(f"  {mass_text(mass)}" for mass in d.masses)]
    lines += [
        "",
        *_latent(d),
    ]
    lines += _layers(d)
    return "\n".join(lines)


def mass_text(mass: Mass) -> str:
    """Return a mass with its error, or that it is not known and why.

    Example:
        >>> mass_text(Mass(1.002, 0.004, 4096.0, 8192, "importance sampling", ""))
        '1.0020 ± 0.004 by importance sampling (8,192 draws, as good as 4,096)'
        >>> mass_text(Mass(None, None, None, 0, "quadrature", "there are no finite samples"))
        'not known by quadrature: there are no finite samples'
    """
    if mass.value is None or mass.error is None:
        return f"not known by {mass.method}: {mass.reason}"
    # As many decimals as the error has digits of meaning.
    decimals = min(6, max(3, 1 - math.floor(math.log10(mass.error)))) if mass.error > 0 else 6
    text = f"{mass.value:.{decimals}f} ± {mass.error:.1g} by {mass.method}"
    if mass.effective is None:
        return f"{text} ({mass.points:,} points)"
    return f"{text} ({mass.points:,} draws, as good as {mass.effective:,.0f})"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _row(label: str, q: Quantiles) -> str:
    numbers = "".join(f"{_short(v):>10}" for v in (q.median, q.high, q.maximum))
    return f"  {label:<36}{numbers}{q.rows:>8,}{q.non_finite:>12,}"


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _latent(d: Diagnosis) -> list[str]:
    if d.latent is None:
        return []
    j = max(range(len(d.latent.distances)), key=lambda i: d.latent.distances[i] if d.latent else 0.0)
    word = "look like draws from the base" if d.latent.fits else "do not look like draws from the base"
    return [
        f"Latents of the data {word}. Kolmogorov-Smirnov distances: at most {d.latent.distances[j]:.2g} (element {j},",
        f"  p = {d.latent.p_values[j]:.1g} for {len(d.latent.distances) + 1} tests), "
        f"of the radius {d.latent.radius:.2g} (p = {d.latent.radius_p_value:.1g}).",
        "",
    ]


def _layers(d: Diagnosis) -> list[str]:
    levels = {f.layer: f.level for f in reversed(d.findings) if f.layer}
    shown = d.layers
    if len(shown) > _MOST_LAYERS:
        shown = tuple(layer for layer in shown if layer.name in levels) or shown[:_MOST_LAYERS]
    wide = max(50, *(len(layer.name) for layer in shown)) if shown else 50
    lines = [
        f"{'Layers, stretch and log-determinant':<{wide + 2}}{'inverse':>10}{'forward':>10}{'log-det':>10}"
    ]
    lines += [
        f"  {layer.name:<{wide}}{_short(layer.inverse):>10}{_short(layer.forward):>10}{_short(layer.log_det):>10}  "
        f"{levels.get(layer.name, '')}".rstrip()
        for layer in shown
    ]
    if len(shown) < len(d.layers):
        lines.append(f"  and {len(d.layers) - len(shown)} more, none of them blamed")
    return lines
