"""Layers and whole transforms of so many elements, as those of images, that few Jacobians can be written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..transforms import Inverse, Transform
from ..transforms.walk import named
from .jacobians import Direction, jacobian, pushed, strongest
from .layers import (
    AWAY,
    Course,
    Inside,
    Step,
    difference,
    error_in_units,
    sees_the_batch,
    size,
    spread,
)
from .points import spread_out
from .subject import Subject
from .verdict import FORMULA, Layer, Quantiles, Stretch

MOST_WRITTEN_DOWN = 1024
"""Elements up to which Jacobians are written down, of one layer at a few points."""
_ENTRIES = 700_000  # of all Jacobians of one layer
_PIECE = 128  # outputs of a point differentiated at a time, for the sake of memory
_ITERATIONS, _ITERATIONS_IN_UNITS, _ITERATIONS_OF_WHOLE = 8, 4, 12


@dataclass(frozen=True, slots=True)
class WideCheck:
    """A layer with what the checks of the whole need of it.

    Attributes:
        place: The path to it.
        transform: The layer itself.
        layer: The summary.
        x: Points before it.
        y: Points after it.
        forward: By how much its forward map stretches at these points, estimated from below.
        inverse: The same of its inverse.
        log_det: Its log-determinant by autograd's Jacobian at the points that it is written down at.
    """

    place: str
    transform: Transform
    layer: Layer
    x: Tensor
    y: Tensor
    forward: Tensor
    inverse: Tensor
    log_det: Tensor


def written_down(features: int, near: Tensor) -> Tensor:
    """Return at which of the points Jacobians are written down, of those that are data or samples."""
    places = near.nonzero().flatten()
    if features > MOST_WRITTEN_DOWN:
        return places[:0]
    return places[spread_out(len(places), max(1, _ENTRIES // features**2))]


def check_wide_layer(
    place: str,
    layer: Transform,
    x: Tensor,
    context: Tensor | None,
    *,
    near: Tensor,
    period: Tensor,
    written: Tensor,
    generator: torch.Generator,
) -> WideCheck:
    r"""Check one layer in float64 at points that the layers before it give, as ``check_layer`` does.

    How far it stretches is estimated by power iteration. Log-determinants of both directions must be each other's
    negatives at all points, and :math:`\log|\det J|` of autograd's Jacobian at as many of them as time allows.

    Args:
        place: The layer's place.
        layer: The layer, float64.
        x: Points ``(n, *event)``.
        context: Their contexts, ``(n, *context)``.
        near: Which points are rows of data or samples, ``(n,)``.
        period: What each element counts modulo, ``(D,)``.
        written: At which of the points the Jacobian is written down.
        generator: Source of the differences that power iteration begins with.
    """
    with torch.no_grad():
        y, log_det = layer(x, context)
        back, log_det_inverse = layer.inverse(y, context)
        again, _ = layer.forward(back, context)
    n, eps = len(x), torch.finfo(x.dtype).eps
    finite = x.flatten(1).isfinite().all(1) & y.flatten(1).isfinite().all(1)
    unit_x, unit_y = spread(x), spread(y)

    def stretch(
        direction: Direction, at: Tensor, iterations: int, units: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        before, after = (None, None) if units is None else units
        return strongest(
            direction, at, context, iterations=iterations, generator=generator, before=before, after=after
        )[0]

    to_latent = stretch(layer.forward, x, _ITERATIONS, None)
    to_data = stretch(layer.inverse, y, _ITERATIONS, None)
    out = stretch(layer.forward, x, _ITERATIONS_IN_UNITS, (unit_x, unit_y)).clamp(min=1.0)
    home = stretch(layer.inverse, y, _ITERATIONS_IN_UNITS, (unit_y, unit_x)).clamp(min=1.0)
    finite &= to_latent.isfinite() & to_data.isfinite() & out.isfinite() & home.isfinite()
    size_x, size_y = size(x, unit_x), size(y, unit_y)
    worst = max(
        error_in_units(difference(back, x, period) / unit_x, size_x + home * (size_y + out * size_x), finite),
        error_in_units(
            difference(again, y, period) / unit_y, size_y + out * (size_x + home * size_y), finite
        ),
    )
    log_det, log_det_inverse = log_det.expand(n), log_det_inverse.expand(n)
    allowed = 100 * FORMULA * (1 + log_det.abs()) + 100 * eps * (to_data + to_latent)
    allowed = torch.where(near, allowed, AWAY * allowed)
    errors = (log_det + log_det_inverse).abs().nan_to_num(nan=torch.inf).where(finite, 0.0)
    wrong = bool((errors > allowed).any())
    worst_error = float(errors.max()) if n else 0.0
    given = None if context is None else context[written]
    expected = _by_autograd(layer, x[written], y[written], given)
    condition = (to_data * to_latent)[written]
    rounding = 100 * FORMULA * (1 + expected.abs()) + 100 * y[0:1].numel() * eps * condition
    for got, right in ((log_det[written], expected), (log_det_inverse[written], -expected)):
        off = (got - right).abs().nan_to_num(nan=torch.inf).where(finite[written], 0.0)
        wrong = wrong or bool((off > rounding + allowed[written]).any())
        worst_error = max([worst_error, *off.tolist()])
    counted = near & finite if bool((near & finite).any()) else finite
    return WideCheck(
        place,
        layer,
        Layer(
            name=named(place, layer),
            inverse=Quantiles.of(to_data[counted]).high,
            forward=Quantiles.of(to_latent[counted]).high,
            round_trip=worst,
            log_det=worst_error,
            log_det_wrong=wrong,
            batch=sees_the_batch(layer, x, context, y, finite),
            non_finite=0,
            non_finite_away=0,
        ),
        x,
        y,
        to_latent,
        to_data,
        expected,
    )


def look_inside(subject: Subject) -> tuple[list[WideCheck], Inside]:
    """Check every layer of the transform alone, and stretch and log-determinant of the whole."""
    sets = [p.some(subject.few) for p in subject.points]
    x = subject.event(torch.cat([p.z for p in sets]))
    given = None if sets[0].context is None else torch.cat([p.context for p in sets if p.context is not None])
    where = [p.where for p in sets for _ in range(len(p))]
    near = torch.tensor([w != "away" for w in where])
    generator = torch.Generator().manual_seed(subject.seed)
    checks: list[WideCheck] = []
    at, period, written = x, subject.data_space.period, written_down(subject.features, near)
    for place, layer in subject.layers(subject.exact):
        check = check_wide_layer(
            place, layer, at, given, near=near, period=period, written=written, generator=generator
        )
        checks.append(check)
        at = checks[-1].y
    stretches, courses = _stretches(subject, checks, given, where, generator)
    log_dets = _log_dets(subject, checks, x, given, written)
    return checks, Inside((), stretches, *log_dets, courses, _both_ways(subject))


def _stretches(
    subject: Subject,
    checks: Sequence[WideCheck],
    context: Tensor | None,
    where: list[str],
    generator: torch.Generator,
) -> tuple[tuple[Stretch, ...], dict[Course, tuple[Step, ...]]]:
    """Return by how much the whole stretches, and how the difference that it stretches most grows on the way."""
    whole, x, y = subject.exact.transform, checks[0].x, subject.latent_event(checks[-1].y.flatten(1))
    data, latent = subject.data_space.scale, subject.latent_space.scale

    def found(direction: Direction, at: Tensor, *units: Tensor) -> tuple[Tensor, Tensor]:
        before, after = units or (None, None)
        return strongest(
            direction,
            at,
            context,
            iterations=_ITERATIONS_OF_WHOLE,
            generator=generator,
            before=before,
            after=after,
        )

    to_data, to_latent = found(whole.inverse, y)[0], found(whole.forward, x)[0]
    in_data, v_back = found(whole.inverse, y, latent, data)
    in_latent, v_there = found(whole.forward, x, data, latent)
    there = _growth([(c, c.transform.forward, c.x, c.forward) for c in checks], v_there * data, context)
    back = _growth(
        [(c, c.transform.inverse, c.y, c.inverse) for c in reversed(checks)], v_back * latent, context
    )
    stretches, courses = [], {}
    for kind in dict.fromkeys(where):
        chosen = torch.tensor([w == kind for w in where])
        values = (to_data, to_latent, subject.eps * in_data, subject.eps * in_latent)
        stretches.append(Stretch(kind, *(Quantiles.of(v[chosen]) for v in values)))
        for is_back, grown in ((False, there), (True, back)):
            courses[kind, is_back] = tuple(
                Step(name, Quantiles.of(alone[chosen]).high, Quantiles.of(so_far[chosen]).high)
                for name, alone, so_far in grown
            )
    return tuple(stretches), courses


def _growth(
    steps: Sequence[tuple[WideCheck, Direction, Tensor, Tensor]], v: Tensor, context: Tensor | None
) -> list[tuple[str, Tensor, Tensor]]:
    """Follow differences ``v`` through the layers: for each its name, its own stretch, and the size up to here."""
    grown = []
    for check, direction, at, alone in steps:
        v = pushed(direction, at, context, v)
        grown.append((check.layer.name, alone, v.norm(dim=1)))
    return grown


def _log_dets(
    subject: Subject, checks: Sequence[WideCheck], x: Tensor, context: Tensor | None, chosen: Tensor
) -> tuple[Quantiles, Quantiles]:
    """Hold the whole's log-determinants against the sums of its layers' Jacobians, where these were written down."""
    transform = subject.exact.transform
    parts = [c.log_det for c in checks]
    if not len(chosen):
        return Quantiles.of(x.new_zeros(0)), Quantiles.of(x.new_zeros(0))
    given = None if context is None else context[chosen]
    with torch.no_grad():
        y, log_det = transform.forward(x[chosen], given)
        log_det_inverse = transform.inverse(y, given)[1]
    expected = torch.stack(parts).sum(0)
    errors = (
        (log_det.expand(len(chosen)) - expected).abs(),
        (log_det_inverse.expand(len(chosen)) + expected).abs(),
    )
    return Quantiles.of(errors[0]), Quantiles.of(errors[1])


def _both_ways(subject: Subject) -> Quantiles:
    """Hold the log-determinants of the whole's two directions against each other, at all data and samples."""
    transform, errors = subject.exact.transform, []
    for points in subject.points:
        if points.where == "away":
            continue
        with torch.no_grad():
            y, log_det = transform.forward(subject.event(points.z), points.context)
            log_det_inverse = transform.inverse(y, points.context)[1]
        errors.append((log_det + log_det_inverse).abs().expand(len(points)))
    return Quantiles.of(torch.cat(errors))


def _by_autograd(layer: Transform, x: Tensor, y: Tensor, context: Tensor | None) -> Tensor:
    """Return log-determinants of the forward map by its Jacobian."""
    if not len(x):
        return x.new_zeros(0)
    dims = 1 if context is None else context.ndim - 1
    # The direction that is one pass: the other may be as many passes as there are elements.
    turned = isinstance(layer, Inverse)
    direction, at = (layer.inverse, y) if turned else (layer.forward, x)
    matrix = jacobian(direction, at, context, context_dims=dims, piece=_PIECE)
    expected: Tensor = torch.linalg.slogdet(matrix).logabsdet
    return -expected if turned else expected
