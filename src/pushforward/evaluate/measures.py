"""The measurements of a diagnosis, each on the points that all share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..transforms import Support
from ..transforms.walk import walk
from .jacobians import largest_singular_value
from .latent import compare_latent, normal_scores
from .layers import LayerCheck, check_layer, trace_non_finite
from .mass import MOST_SAMPLED, LogDensity, grid_mass, sampled_mass
from .points import Points, Space, cast, space_of, spread_out
from .subject import Subject
from .verdict import Deviation, Latent, Layer, Mass, Quantiles, RoundTrip, Stretch

FEWEST_COMPARED = 8  # rows without which latents are not held against the base
_CONTEXTS = 3
_MASS_SAMPLES, _HELD_OUT = 4096, 1024
_FAR_ON_LINE = 30.0  # beyond it an end of a support has been reached in float64


Course = tuple[str, bool]
"""The kind of points, and whether the way is back from latent to data."""


@dataclass(frozen=True, slots=True)
class Step:
    """One layer on the way.

    Attributes:
        layer: Its name.
        alone: By how much it stretches, for 99 % of the points.
        so_far: By how much the way up to here stretches one spread of what it starts from.
    """

    layer: str
    alone: float
    so_far: float


@dataclass(frozen=True, slots=True)
class Inside:
    """What the layers come to, one by one and together.

    Attributes:
        layers: Those of the preprocess, then those of the transform.
        stretches: Of the whole transform.
        log_det: Error of the whole's log-determinant, forward.
        log_det_inverse: The same of the inverse.
        courses: How rounding grows on the way from latent to data, and the other way.
    """

    layers: tuple[Layer, ...]
    stretches: tuple[Stretch, ...]
    log_det: Quantiles
    log_det_inverse: Quantiles
    courses: dict[Course, tuple[Step, ...]]


def round_trip(subject: Subject, points: Points) -> RoundTrip:
    """Go there and back in the flow's own precision, from points and from latents."""
    transform = subject.flow.transform
    x, start = (
        subject.event(points.z).to(subject.dtype),
        subject.latent_event(points.latent).to(subject.dtype),
    )
    context = None if points.context is None else points.context.to(subject.dtype)
    with torch.no_grad():
        back = transform.inverse(transform.forward(x, context)[0], context)[0]
        again = transform.forward(transform.inverse(start, context)[0], context)[0]
    data = subject.data_space.apart(back.flatten(1), x.flatten(1))
    latent = subject.latent_space.apart(again.flatten(1), start.flatten(1))
    left_out = subject.outside.get(points.where, 0)
    return RoundTrip(points.where, Quantiles.of(data), Quantiles.of(latent), left_out)


def layers(subject: Subject) -> Inside:
    """Check every layer alone, and stretch and log-determinant of the whole."""
    sets = [p.some(subject.few) for p in subject.points]
    x = torch.cat([p.z for p in sets])
    given = None if sets[0].context is None else torch.cat([p.context for p in sets if p.context is not None])
    where = [p.where for p in sets for _ in range(len(p))]
    near = torch.tensor([w != "away" for w in where])
    checks: list[LayerCheck] = []
    at = subject.event(x)
    steps = subject.layers(subject.exact)
    for place, layer in steps:
        checks.append(check_layer(place, layer, at, given, near=near, period=subject.data_space.period))
        at = checks[-1].y
    stretches, courses = [], {}
    for kind in dict.fromkeys(where):
        chosen = torch.tensor([w == kind for w in where])
        matrices = [(c.layer.name, c.forward[chosen], c.inverse[chosen]) for c in checks]
        forward, out = _course([(name, f) for name, f, _ in matrices], subject.data_space)
        inverse, home = _course([(name, i) for name, _, i in reversed(matrices)], subject.latent_space)
        courses[kind, False], courses[kind, True] = out, home
        stretches.append(_stretch(subject, kind, forward, inverse))
    return Inside(
        (*_preprocess(subject), *_traced(subject, checks)),
        tuple(stretches),
        *_whole_log_det(subject, checks, subject.event(x), given, near),
        courses,
    )


def _course(matrices: list[tuple[str, Tensor]], start: Space) -> tuple[Tensor, tuple[Step, ...]]:
    """Return the product of Jacobians, the first on the right, and the steps to it."""
    product, steps = None, []
    for name, matrix in matrices:
        product = matrix if product is None else matrix @ product
        alone, so_far = largest_singular_value(matrix), largest_singular_value(product * start.scale)
        steps.append(Step(name, Quantiles.of(alone).high, Quantiles.of(so_far).high))
    assert product is not None
    return product, tuple(steps)


def deviation(subject: Subject) -> Deviation:
    """Hold log-densities in float32 (or a still lower precision of the flow) against float64."""
    points = subject.points_of("data") or subject.points[-2]
    low = subject.flow if subject.dtype != torch.float64 else cast(subject.exact, torch.float32)
    dtype = low.like.dtype
    context = None if points.context is None else points.context.to(dtype)
    with torch.no_grad():
        ours = low.log_prob_preprocessed(subject.event(points.z).to(dtype), context).double()
        exact = subject.exact.log_prob_preprocessed(subject.event(points.z), points.context)
    error = (ours - exact).abs()
    finite = error.nan_to_num(nan=torch.inf)
    row = int(finite.argmax()) if len(finite) else -1
    relative = error / exact.abs().clamp(min=1.0)
    place = points.rows[row] if points.rows else row
    return Deviation(points.where, Quantiles.of(error), Quantiles.of(relative), place)


def masses(subject: Subject) -> tuple[Mass, ...]:
    """Measure the total mass, for a conditional flow under several contexts."""
    points = subject.points_of("data") or subject.points[-2]
    if points.context is None:
        return _mass(subject, None, points.z)
    places = spread_out(len(points), _CONTEXTS).tolist()
    return tuple(mass for i in places for mass in _mass(subject, points.context[i], None))


def base_mass(subject: Subject) -> Mass:
    """Measure the mass of the base alone, under the first context."""
    base, points = subject.exact.base, subject.points[-2]
    one = None if points.context is None else points.context[0]
    samples = base.sample((_MASS_SAMPLES + _HELD_OUT,), one, generator=_generator(subject))
    flat = samples.flatten(1)
    space = Space(flat.median(0).values, subject.latent_space.scale, subject.latent_space.period)

    def density(z: Tensor) -> Tensor:
        given = None if one is None else one.expand(len(z), *one.shape)
        return base.log_prob(subject.latent_event(z), given)

    return sampled_mass(density, flat[_HELD_OUT:], flat[:_HELD_OUT], space, _generator(subject))


def latent(subject: Subject) -> Latent | None:
    """Hold the latents of the data against the base."""
    points = subject.points_of("data")
    if points is None or len(points) < FEWEST_COMPARED:
        return None
    scores = normal_scores(subject.exact.base, points.latent, points.context)
    return None if scores is None else compare_latent(scores)


def leaks(subject: Subject) -> int:
    """Return how many points just outside of a bounded column's support have a density that is not 0."""
    preprocess = subject.exact.preprocess
    if preprocess is None or len(subject.raw) == 0:
        return 0
    found = 0
    for _, part in walk(preprocess.transform):
        if not isinstance(part, Support):
            continue
        for j in range(len(part.low)):
            for end, sign in ((part.low[j], -1.0), (part.high[j], 1.0)):
                if not bool(end.isfinite()):
                    continue
                x = subject.raw[:_CONTEXTS].clone()
                x[:, j] = end + sign * torch.finfo(torch.float64).eps * 8 * end.abs().clamp(min=1e-300)
                found += int((preprocess(x, subject.exact.like)[1] != -torch.inf).sum())
    return found


def _mass(subject: Subject, context: Tensor | None, data: Tensor | None) -> tuple[Mass, ...]:
    if subject.features > MOST_SAMPLED:
        reason = f"not sampled in more than {MOST_SAMPLED} dimensions"
        return (Mass(None, None, None, 0, "importance sampling", reason),)
    exact, generator = subject.exact, _generator(subject)
    count = max(64, min(_MASS_SAMPLES, 256_000 // subject.features))
    base = exact.base.sample((count + _HELD_OUT,), context, generator=generator)
    given = None if context is None else context.expand(len(base), *context.shape)
    with torch.no_grad():
        z = exact.transform.inverse(base, given)[0].flatten(1)

    def density(at: Tensor) -> Tensor:
        c = None if context is None else context.expand(len(at), *context.shape)
        return exact.log_prob_preprocessed(subject.event(at), c)

    return _both(subject, density, z, data, generator)


def _both(
    subject: Subject, density: LogDensity, z: Tensor, data: Tensor | None, generator: torch.Generator
) -> tuple[Mass, ...]:
    drawn, held_out = z[_HELD_OUT:], z[:_HELD_OUT]
    known = drawn if data is None else torch.cat([drawn, data])
    finite = known[known.isfinite().all(1)]
    circles = subject.data_space.period.nonzero().flatten().tolist()
    space = space_of(finite, subject.features, circles)
    result = [sampled_mass(density, known, held_out, space, generator)]
    if subject.features <= 2:
        result.append(grid_mass(density, known, space))
    return tuple(result)


def _generator(subject: Subject) -> torch.Generator:
    return torch.Generator().manual_seed(subject.seed + 1)


def _preprocess(subject: Subject) -> list[Layer]:
    """Check the parts of the preprocess in float64, in the units of the data."""
    preprocess = subject.exact.preprocess
    if preprocess is None:
        return []
    x = subject.raw[spread_out(len(subject.raw), subject.few)]
    if len(x) == 0:
        z = subject.points[-2].z
        z = z[(z.abs() < _FAR_ON_LINE).all(1)][: subject.few]
        x = preprocess.inverse(subject.event(z))[0]
        if len(x) == 0:
            return []
    found = []
    for place, part in walk(preprocess.transform, "preprocess.transform"):
        period = torch.zeros(subject.features, dtype=torch.float64)
        if isinstance(part, Support):
            period = torch.where(part.periodic, part.high - part.low, 0.0)
        check = check_layer(place, part, x, None, near=torch.ones(len(x), dtype=torch.bool), period=period)
        found.append(check.layer)
        x = check.y
    return found


def _traced(subject: Subject, checks: list[LayerCheck]) -> list[Layer]:
    """Add to the layers how many points they first made not finite, in the flow's own precision."""
    near, away = [0] * len(checks), [0] * len(checks)
    steps = subject.layers(subject.flow)
    for points in subject.points:
        context = None if points.context is None else points.context.to(subject.dtype)
        for flat, back in ((subject.event(points.z), False), (subject.latent_event(points.latent), True)):
            counts = trace_non_finite(steps, flat.to(subject.dtype), context, back=back)
            target = away if points.where == "away" else near
            target[:] = [a + b for a, b in zip(target, counts, strict=True)]
    return [
        replace(check.layer, non_finite=n, non_finite_away=a)
        for check, n, a in zip(checks, near, away, strict=True)
    ]


def _stretch(subject: Subject, where: str, forward: Tensor, inverse: Tensor) -> Stretch:
    data, latent = subject.data_space.scale, subject.latent_space.scale
    lost_in_data = largest_singular_value(inverse * latent / data[:, None])
    lost_in_latent = largest_singular_value(forward * data / latent[:, None])
    return Stretch(
        where,
        Quantiles.of(largest_singular_value(inverse)),
        Quantiles.of(largest_singular_value(forward)),
        Quantiles.of(subject.eps * lost_in_data),
        Quantiles.of(subject.eps * lost_in_latent),
    )


def _whole_log_det(
    subject: Subject, checks: list[LayerCheck], x: Tensor, context: Tensor | None, near: Tensor
) -> tuple[Quantiles, Quantiles]:
    """Hold the whole's log-determinants against the sums of the Jacobians' of its layers."""
    transform = subject.exact.transform
    with torch.no_grad():
        y, log_det = transform.forward(x, context)
        log_det_inverse = transform.inverse(y, context)[1]
    result = []
    for matrices, got in (
        ([c.forward for c in checks], log_det),
        ([c.inverse for c in checks], log_det_inverse),
    ):
        expected = torch.stack([torch.linalg.slogdet(m.nan_to_num()).logabsdet for m in matrices]).sum(0)
        result.append(Quantiles.of((got.expand(len(x)) - expected).abs()[near]))
    return result[0], result[1]
