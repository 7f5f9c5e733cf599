"""The measurements of a diagnosis, each on the points that all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..flows import Preprocess
from ..transforms import Support
from ..transforms.walk import walk
from .jacobians import largest_singular_value
from .latent import compare_latent, normal_scores
from .layers import Inside, LayerCheck, Linearised, Step, check_layer, pass_through
from .mass import MOST_SAMPLED, grid_mass, not_sampled, sampled_mass
from .points import Points, Space, cast, spread_out, supports
from .subject import Subject
from .verdict import Deviation, Latent, Layer, Mass, Quantiles, RoundTrip, Stretch
from .wide import check_wide_layer, look_inside, written_down

FEWEST_COMPARED = 8  # rows without which latents are not held against the base
_CONTEXTS = 3
_MASS_SAMPLES, _HELD_OUT = 4096, 1024
_FAR_ON_LINE = 30.0  # beyond it an end of a support has been reached in float64


def round_trip(subject: Subject, points: Points) -> tuple[RoundTrip, list[int], Tensor]:
    """Go there and back in the flow's own precision, from points and from latents.

    Returns:
        The errors, for each layer how many points it first made not finite, and what came back of the points.
    """
    transform, steps = subject.flow.transform, subject.layers(subject.flow)
    x, start = (
        subject.event(points.z).to(subject.dtype),
        subject.latent_event(points.latent).to(subject.dtype),
    )
    context = None if points.context is None else points.context.to(subject.dtype)
    there, lost = pass_through(steps, x, context, back=False)
    here, lost_back = pass_through(steps, start, context, back=True)
    with torch.no_grad():
        back, again = transform.inverse(there, context)[0], transform.forward(here, context)[0]
    data = subject.data_space.apart(back.flatten(1), x.flatten(1))
    latent = subject.latent_space.apart(again.flatten(1), start.flatten(1))
    left_out = subject.outside.get(points.where, 0)
    trip = RoundTrip(points.where, Quantiles.of(data), Quantiles.of(latent), left_out)
    return trip, [a + b for a, b in zip(lost, lost_back, strict=True)], back.flatten(1)


def layers(subject: Subject, non_finite: Mapping[str, Sequence[int]]) -> Inside:
    """Check every layer alone, and stretch and log-determinant of the whole.

    Args:
        subject: What to look at.
        non_finite: For each kind of points, how many of them each layer first made not finite.
    """
    if subject.wide:
        wide, inside = look_inside(subject)
        own = _counted([c.layer for c in wide], non_finite)
        return replace(inside, layers=(*_preprocess(subject), *own))
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
        forward, out = _course([(c.layer.name, c.forward.at(chosen)) for c in checks], subject.data_space)
        inverse, home = _course(
            [(c.layer.name, c.inverse.at(chosen)) for c in reversed(checks)], subject.latent_space
        )
        courses[kind, False], courses[kind, True] = out, home
        stretches.append(_stretch(subject, kind, forward, inverse))
    return Inside(
        (*_preprocess(subject), *_counted([c.layer for c in checks], non_finite)),
        tuple(stretches),
        *_whole_log_det(subject, checks, subject.event(x), given, near),
        courses,
    )


def _course(layers: list[tuple[str, Linearised]], start: Space) -> tuple[Tensor, tuple[Step, ...]]:
    """Return the product of Jacobians, the first on the right, and the steps to it."""
    product, steps = None, []
    for name, at in layers:
        product = at.matrix if product is None else at.matrix @ product
        so_far = largest_singular_value(product * start.scale)
        steps.append(Step(name, Quantiles.of(at.stretch).high, Quantiles.of(so_far).high))
    assert product is not None
    return product, tuple(steps)


def deviation(subject: Subject) -> Deviation:
    """Hold log-densities in float32 (or a still lower precision of the flow) against float64."""
    points = subject.data_or_samples
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
    points = subject.data_or_samples
    if points.context is None:
        return _mass(subject, None, points.z)
    places = spread_out(len(points), _CONTEXTS).tolist()
    return tuple(mass for i in places for mass in _mass(subject, points.context[i], None))


def base_mass(subject: Subject) -> Mass:
    """Measure the mass of the base alone, under the first context."""
    base, points = subject.exact.base, subject.samples
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
    for part in supports(subject.exact):
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
        return (not_sampled(),)
    exact, generator = subject.exact, _generator(subject)
    count = max(64, min(_MASS_SAMPLES, 256_000 // subject.features))
    base = exact.base.sample((count + _HELD_OUT,), context, generator=generator)
    given = None if context is None else context.expand(len(base), *context.shape)
    with torch.no_grad():
        z = exact.transform.inverse(base, given)[0].flatten(1)

    def density(at: Tensor) -> Tensor:
        c = None if context is None else context.expand(len(at), *context.shape)
        return exact.log_prob_preprocessed(subject.event(at), c)

    drawn, held_out = z[_HELD_OUT:], z[:_HELD_OUT]
    known = drawn if data is None else torch.cat([drawn, data])
    space = subject.data_space.around(known)
    result = [sampled_mass(density, known, held_out, space, generator)]
    if subject.features <= 2:
        result.append(grid_mass(density, known, space))
    return tuple(result)


def _generator(subject: Subject) -> torch.Generator:
    return torch.Generator().manual_seed(subject.seed + 1)


def _preprocess(subject: Subject) -> list[Layer]:
    """Check the parts of the preprocess in float64, in the units of the data."""
    preprocess = subject.exact.preprocess
    if not isinstance(preprocess, Preprocess):
        return []
    x = subject.raw[spread_out(len(subject.raw), subject.few)]
    if len(x) == 0:
        z = subject.samples.z
        z = z[(z.abs() < _FAR_ON_LINE).all(1)][: subject.few]
        x = preprocess.inverse(subject.event(z))[0]
        if len(x) == 0:
            return []
    found = []
    for place, part in walk(preprocess.transform, "preprocess.transform"):
        period = torch.zeros(subject.features, dtype=torch.float64)
        if isinstance(part, Support):
            period = torch.where(part.periodic, part.high - part.low, 0.0)
        near = torch.ones(len(x), dtype=torch.bool)
        if subject.wide:
            written, generator = written_down(subject.features, near), _generator(subject)
            wide = check_wide_layer(
                place, part, x, None, near=near, period=period, written=written, generator=generator
            )
            layer, x = wide.layer, wide.y
        else:
            check = check_layer(place, part, x, None, near=near, period=period)
            layer, x = check.layer, check.y
        found.append(layer)
    return found


def _counted(layers: Sequence[Layer], non_finite: Mapping[str, Sequence[int]]) -> list[Layer]:
    """Add to the layers how many points they first made not finite."""
    near = [counts for where, counts in non_finite.items() if where != "away"]
    return [
        replace(layer, non_finite=sum(counts[i] for counts in near), non_finite_away=non_finite["away"][i])
        for i, layer in enumerate(layers)
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
    for parts, got in (
        ([c.forward for c in checks], log_det),
        ([c.inverse for c in checks], log_det_inverse),
    ):
        expected = torch.stack([part.log_det for part in parts]).sum(0)
        result.append(Quantiles.of((got.expand(len(x)) - expected).abs()[near]))
    return result[0], result[1]
