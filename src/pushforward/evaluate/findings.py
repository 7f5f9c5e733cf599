"""From measurements to findings: what is wrong, how badly, and by which layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from . import measures
from .layers import Inside, first_to_lose
from .subject import Subject
from .verdict import (
    FORMULA,
    KINDS,
    LOG_PROB_BROKEN,
    LOG_PROB_DOUBTFUL,
    LOG_PROB_RELATIVE,
    MASS_BROKEN,
    MASS_DOUBTFUL,
    MASS_ERRORS,
    NO_DIGIT,
    PIXEL_DOUBTFUL,
    Deviation,
    Finding,
    Latent,
    Layer,
    Mass,
    Reconstruction,
    RoundTrip,
)

_FAR, _FAR_SHARE = 10.0, 0.1
_ORDER = {"broken": 0, "doubtful": 1, "note": 2}
_PLACES = {"data": "rows of data", "samples": "samples", "away": "points away from data"}


def judge(
    subject: Subject,
    inside: Inside,
    trips: Sequence[RoundTrip],
    *,
    pixels: Sequence[Reconstruction],
    deviation: Deviation,
    masses: Sequence[Mass],
    latent: Latent | None,
) -> tuple[Finding, ...]:
    """Return what is wrong, the worst first.

    A wrong formula makes everything after it wrong as well, so that where one is found the loss of digits, the mass
    and the deviation are not blamed on other layers.
    """
    found = _formulas(inside.layers)
    if not found and len(subject.layers(subject.exact)) > 1:
        found = _whole_formula(subject, inside)
    if not found:
        digits = _digits(subject, inside, trips)
        # A layer that stretches too far comes before those that overflow by what it gives them.
        found = [f for f in digits if f.level == "broken"]
        found += _not_finite(subject, inside.layers, deviation)
        if not found:
            found = [*digits, *_not_finite_away(inside.layers)]
    cause = next((f.layer for f in found if f.level == "broken"), "")
    if not cause:
        found += _pixels(pixels)
    found += _deviation(subject, inside, deviation, cause)
    found += _mass(subject, masses, cause)
    found += _support(subject)
    found += _notes(subject, trips, latent)
    return tuple(sorted(found, key=lambda f: _ORDER[f.level]))


def _whole_formula(subject: Subject, inside: Inside) -> list[Finding]:
    most = 1e4 * FORMULA * (1 + subject.features)
    if inside.log_det.maximum > most:
        text = (
            "the log-determinant of the whole transform is not the sum of its layers': it is off by "
            f"{inside.log_det.maximum:.2g} nats"
        )
        return [Finding("broken", text, _whole(subject))]
    if inside.both_ways is not None and inside.both_ways.median > most:
        text = (
            "the log-determinants of its two directions are not each other's negatives: they differ by "
            f"{inside.both_ways.median:.2g} nats at half of the points"
        )
        return [Finding("broken", text, _whole(subject))]
    return []


def _whole(subject: Subject) -> str:
    return f"transform ({type(subject.exact.transform).__name__})"


def _formulas(layers: Sequence[Layer]) -> list[Finding]:
    found = []
    for layer in layers:
        if layer.batch:
            found.append(
                Finding("broken", "a point is mapped differently beside others than alone", layer.name)
            )
        if layer.round_trip > 1:
            text = (
                "its inverse is not the inverse of its forward map: there and back in float64 the error is "
                f"{layer.round_trip:.2g} times what rounding and its stretch can explain"
            )
            found.append(Finding("broken", text, layer.name))
        if layer.log_det_wrong:
            text = f"its log-determinant is not that of its Jacobian: it is off by {layer.log_det:.2g} nats"
            found.append(Finding("broken", text, layer.name))
    return found


def _not_finite(subject: Subject, layers: Sequence[Layer], deviation: Deviation) -> list[Finding]:
    found = [
        Finding(
            "broken", f"{_times(layer.non_finite)} of data and samples come out of it not finite", layer.name
        )
        for layer in layers
        if layer.non_finite
    ]
    if (
        deviation.error.non_finite
        and subject.dtype != torch.float64
        and not any(f.level == "broken" for f in found)
    ):
        text = f"the log-density of {deviation.error.non_finite:,} {_PLACES[deviation.where]} is not finite"
        found.append(Finding("broken", text))
    return found


def _not_finite_away(layers: Sequence[Layer]) -> list[Finding]:
    return [
        Finding(
            "doubtful",
            f"{layer.non_finite_away:,} points away from the data come out of it not finite",
            layer.name,
        )
        for layer in layers
        if layer.non_finite_away
    ]


def _digits(subject: Subject, inside: Inside, trips: Sequence[RoundTrip]) -> list[Finding]:
    """Judge how many digits are left in either direction, on data and samples.

    Points are followed from where they come from: a layer that throws data far off makes all that follows look bad,
    the inverse of the later layers included. So of the ways that lose most the first is the cause.
    """
    ways = (("data", False), ("samples", True), ("data", True), ("samples", False))
    found = [_loss(subject, inside, trips, *way) for way in ways if way in inside.courses]
    lost = sorted((f for f in found if f is not None), key=lambda f: _ORDER[f.level])
    return lost[:1]


def _loss(
    subject: Subject, inside: Inside, trips: Sequence[RoundTrip], where: str, back: bool
) -> Finding | None:
    half, name = math.sqrt(subject.eps), subject.precision
    stretch = next(s for s in inside.stretches if s.where == where)
    trip = next(t for t in trips if t.where == where)
    loss, error = (stretch.lost_in_data, trip.data) if back else (stretch.lost_in_latent, trip.latent)
    high, top = max(loss.high, error.high), max(loss.maximum, error.maximum)
    if not (high >= half or top >= NO_DIGIT):
        return None
    amount = "not one digit" if top >= NO_DIGIT else "less than half of the digits"
    level: Literal["broken", "doubtful"] = "broken" if high >= NO_DIGIT else "doubtful"
    share = (
        f"1 % of the {_PLACES[where]}"
        if high >= (NO_DIGIT if top >= NO_DIGIT else half)
        else (f"the worst of the {_PLACES[where]}")
    )
    what = "data" if back else "latents"
    if loss.maximum >= half:
        course = inside.courses[where, back]
        crossed = next(
            (i for i, step in enumerate(course) if step.so_far >= half / subject.eps), len(course) - 1
        )
        step = max(course[: crossed + 1], key=lambda s: s.alone)
        way = "inverse (latent to data)" if back else "forward map (data to latent)"
        text = (
            f"in {name} {amount} of the {what} can be trusted at {share}: the {way} stretches differences so far that "
            f"rounding becomes {loss.maximum:.2g} spreads; this layer alone stretches {step.alone:.2g}-fold"
        )
        return Finding(level, text + _far(subject, where), step.layer)
    points = subject.points_of(where)
    assert points is not None
    context = None if points.context is None else points.context.to(subject.dtype)
    x = subject.event(points.z).to(subject.dtype)
    k = first_to_lose(subject.layers(subject.flow), x, context, subject.data_space)
    formula = "inverse(forward(x)) misses x" if back else "forward(inverse(z)) misses z"
    text = (
        f"in {name} {amount} of the {what} can be trusted at {share}: {formula} by {error.maximum:.2g} "
        "of the local scale; this layer adds the most"
    )
    return Finding(level, text + _far(subject, where), inside.courses[where, False][k].layer)


def _pixels(pixels: Sequence[Reconstruction]) -> list[Finding]:
    """Judge images by their pixels; points 3 to 30 spreads away are no images, and stay a note."""
    found = []
    for one in pixels:
        if one.where == "away":
            continue
        error, kind = one.error, KINDS[one.where]
        if error.non_finite:
            text = f"images of kind '{kind}': {error.non_finite:,} of {error.rows:,} come back not finite"
        elif error.high >= PIXEL_DOUBTFUL:
            explodes = "the inverse explodes, " if error.high >= NO_DIGIT else ""
            text = (
                f"images of kind '{kind}': {explodes}a pixel comes back {error.high:.2g} of the pixel range off at 1 % "
                f"of them, and half have an error of {error.median:.2g}; up to {PIXEL_DOUBTFUL:g} is fine"
            )
        else:
            continue
        found.append(Finding("doubtful", text))
    return found


def _far(subject: Subject, where: str) -> str:
    """Say that the rows of the data are not where the flow draws, should that be so."""
    data, samples = subject.points_of("data"), subject.samples
    if where != "data" or data is None:
        return ""
    space = subject.data_space.around(samples.z)
    away = ((data.z - space.centre).abs() / space.scale).where(space.period == 0, 0.0).amax(1)
    share = float((away > _FAR).double().mean())
    if share < _FAR_SHARE:
        return ""
    return (
        f". But {share:.0%} of these rows lie more than {_FAR:g} spreads from what the flow draws: if the table has "
        "other units or exchanged columns, it is to blame and not the flow"
    )


def _deviation(subject: Subject, inside: Inside, deviation: Deviation, cause: str) -> list[Finding]:
    error = deviation.error
    relative = deviation.relative
    high = error.median > LOG_PROB_BROKEN and relative.median > LOG_PROB_RELATIVE
    if not (high or (error.high > LOG_PROB_DOUBTFUL and relative.high > LOG_PROB_RELATIVE)):
        return []
    text = (
        f"log_prob in float32 is {error.median:.2g} nats from that in float64 at half of the "
        f"{_PLACES[deviation.where]}, {error.high:.2g} at 1 %; most at row {deviation.row + 1}"
    )
    if subject.dtype == torch.float64:
        return [Finding("note", f"{text}. The flow itself computes in float64")]
    own = [layer for layer in inside.layers if not layer.name.startswith("preprocess")]
    worst = max(own, key=lambda layer: layer.forward).name
    return [Finding("broken" if high else "doubtful", text, cause or worst)]


def _mass(subject: Subject, masses: Sequence[Mass], cause: str) -> list[Finding]:
    known = [(m.value, m.error, m.method) for m in masses if m.value is not None and m.error is not None]
    if not known:
        return []
    # A quadrature comes with the smaller error; both must agree with 1.
    value, error, method = max(known, key=lambda m: abs(m[0] - 1) / (m[1] + MASS_DOUBTFUL))
    off = abs(value - 1)
    if off <= max(MASS_DOUBTFUL, MASS_ERRORS * error):
        return []
    level: Literal["broken", "doubtful"] = (
        "broken" if off > max(MASS_BROKEN, MASS_ERRORS * error) else "doubtful"
    )
    text = f"the total mass is {value:.4g} ± {error:.2g} by {method}, not 1"
    if not cause:
        base = measures.base_mass(subject)
        name = f"base ({type(subject.exact.base).__name__})"
        if base.value is not None and abs(base.value - 1) <= max(
            MASS_DOUBTFUL, MASS_ERRORS * float(base.error or 0)
        ):
            text += (
                "; base and log-determinants are right where they were looked at, so the transform may not reach all "
                "of the base's support"
            )
            name = _whole(subject)
        cause = name
    return [Finding(level, text, cause)]


def _support(subject: Subject) -> list[Finding]:
    leaks = measures.leaks(subject)
    if not leaks:
        return []
    return [Finding("broken", "points outside of a declared support have a density above 0", "preprocess")]


def _notes(subject: Subject, trips: Sequence[RoundTrip], latent: Latent | None) -> list[Finding]:
    found = []
    for trip in trips:
        error = max(trip.data.high, trip.latent.high)
        if trip.where == "away" and error >= NO_DIGIT:
            found.append(
                Finding(
                    "note",
                    "far from the data (3 to 30 spreads out) the map and its inverse no longer undo each other in "
                    f"{str(subject.dtype).removeprefix('torch.')}: the error is {error:.2g} of the local scale "
                    "at 1 % of the points",
                )
            )
        if trip.where == "data" and trip.outside:
            found.append(
                Finding(
                    "note",
                    f"{_times(trip.outside)} of data, of {subject.used:,} looked at, lie outside the support and have "
                    "density 0",
                )
            )
    if latent is not None and not latent.fits:
        j = max(range(len(latent.distances)), key=lambda i: latent.distances[i])
        found.append(
            Finding(
                "note",
                "the fit is poor, or the data are not those it was fitted to: their latents do not look like draws "
                f"from the base (largest Kolmogorov-Smirnov distance {latent.distances[j]:.2g}, of element {j}; "
                f"{latent.radius:.2g} for the radius)",
            )
        )
    return found


def _times(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
