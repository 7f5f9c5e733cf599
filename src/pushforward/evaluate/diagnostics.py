"""The diagnosis of a flow: is it invertible in its own arithmetic, and is its density one?"""

from __future__ import annotations

from torch import Tensor

from ..flows import Flow, MixedFlow
from ..networks.shapes import check_event
from . import measures
from .findings import judge
from .layers import Inside
from .pictures import reconstructions
from .subject import Subject, prepare
from .verdict import Diagnosis, Latent, Mass
from .wide import MOST_WRITTEN_DOWN


def diagnose(
    flow: Flow,
    x: Tensor | None = None,
    context: Tensor | None = None,
    *,
    rows: int = 1000,
    seed: int = 0,
) -> Diagnosis:
    r"""Measure whether a flow is invertible in its own arithmetic and whether its density is one.

    All is measured in the model's space, after ``preprocess`` (and, with discrete elements, on the continuous density
    of the dequantised points), in the flow's dtype and against a float64 copy on the CPU: round trips on data, samples
    and points 3 to 30 spreads away from both; every layer's inverse and log-determinants against autograd; local
    Lipschitz constants; float32 against float64; the total mass; and whether the latents of the data look like draws
    from the base. The module ``verdict`` gives the thresholds. The flow is left as it is, and equal seeds give equal
    results.

    Above 256 elements, as images have them, stretches are estimated from below, and Jacobians are written down at a
    few points only, above 1,024 at none. Of images the errors of their pixels are measured too, also of images that
    nobody took: noise, black, white and checkerboards.

    Args:
        flow: The flow.
        x: Rows of data, ``(n, *event_shape)``, in the units of the data. Without them what needs data is not measured,
            and the model's own units are the scale of comparison.
        context: Their contexts, ``(n, *context_shape)``. A conditional flow without ``x`` is looked at under contexts
            around the origin of the preprocessed contexts.
        rows: Look at no more points of each kind.
        seed: Seed of samples, points away and the choice of rows.

    Returns:
        What was measured, with a verdict.

    Raises:
        ValueError: Something else than a flow, shapes that do not fit it, or rows that are not finite.

    Example:
        >>> from pushforward.configs import RealNVPConfig
        >>> from pushforward.flows import build_flow
        >>> flow = build_flow(RealNVPConfig(layers=2, hidden=(8,)), 2)
        >>> diagnose(flow, rows=50).verdict
        'sound'
    """
    _check(flow, x, context, rows)
    subject = prepare(flow, x, context, rows, seed)
    ways = {points.where: measures.round_trip(subject, points) for points in subject.points}
    trips = tuple(trip for trip, _, _ in ways.values())
    inside = measures.layers(subject, {where: lost for where, (_, lost, _) in ways.items()})
    pixels = reconstructions(subject, {where: back for where, (_, _, back) in ways.items()})
    deviation = measures.deviation(subject)
    masses, latent = measures.masses(subject), measures.latent(subject)
    return Diagnosis(
        dtype=subject.precision,
        eps=subject.eps,
        features=subject.features,
        given=subject.given,
        used=subject.used,
        seed=seed,
        round_trips=trips,
        stretches=inside.stretches,
        log_det=inside.log_det,
        log_det_inverse=inside.log_det_inverse,
        deviation=deviation,
        masses=masses,
        latent=latent,
        layers=inside.layers,
        findings=judge(
            subject, inside, trips, pixels=pixels, deviation=deviation, masses=masses, latent=latent
        ),
        not_measured=(*_not_measured(subject, masses, latent), *_left_out(subject, inside)),
        both_ways=inside.both_ways,
        pixels=pixels,
    )


def _check(flow: Flow, x: Tensor | None, context: Tensor | None, rows: int) -> None:
    if not isinstance(flow, Flow):
        raise ValueError(
            f"diagnose: flow must be a Flow, got {type(flow).__name__}; of a fitted flow, give its .flow"
        )
    if isinstance(flow, MixedFlow):
        raise ValueError(
            "diagnose: flow must be an invertible map of numbers, got a mixed density of columns of several kinds, "
            "which has no inverse to check"
        )
    if flow.augment is not None:
        raise ValueError(
            "diagnose: flow must have no added elements, got some, whose integral no check here takes; its transform "
            "alone, with the base, is a flow that has none"
        )
    if not flow.transform.exact:
        raise ValueError(
            "diagnose: flow must have an exact log-determinant, got one that is estimated; of a continuous flow, "
            "divergence=Exact() gives it"
        )
    if rows < 2:
        raise ValueError(f"diagnose: rows must be at least 2, got {rows}")
    if x is None:
        if context is not None:
            raise ValueError("diagnose: context must come with x, the rows that it belongs to, got x None")
        return
    check_event(flow, "x", x, flow.event_shape)
    if x.ndim != len(flow.event_shape) + 1 or len(x) == 0:
        expected = ", ".join(map(str, ("n", *flow.event_shape)))
        raise ValueError(
            f"diagnose: x must have shape ({expected}) with n of at least 1, got {tuple(x.shape)}"
        )
    if flow.context_shape is not None and (
        context is None or tuple(context.shape) != (len(x), *flow.context_shape)
    ):
        raise ValueError(
            f"diagnose: context must have shape {(len(x), *flow.context_shape)}, one for each row of x, "
            f"got {None if context is None else tuple(context.shape)}"
        )
    for name, values in (("x", x), ("context", context)):
        if values is not None and not bool(values.isfinite().all()):
            row = int(values.reshape(len(values), -1).isfinite().all(1).logical_not().nonzero()[0])
            raise ValueError(f"diagnose: {name} must be finite, got {values[row].tolist()} in row {row}")


def _not_measured(subject: Subject, masses: tuple[Mass, ...], latent: Latent | None) -> tuple[str, ...]:
    missing = []
    if subject.given == 0:
        missing.append("round trips of data, and their latents against the base: no data were given")
        if subject.exact.context_shape is not None:
            missing.append(
                "contexts of data: those used are drawn around the origin of the standardised contexts"
            )
    elif subject.points_of("data") is None:
        missing.append("all that needs data: none of the rows lies in the support")
    elif latent is None:
        name = type(subject.exact.base).__name__
        points = subject.points_of("data")
        few = points is None or len(points) < measures.FEWEST_COMPARED
        reason = "too few rows" if few else f"{name} has no distribution function of each element"
        missing.append(f"latents against the base: {reason}")
    reasons = dict.fromkeys(f"total mass by {m.method}: {m.reason}" for m in masses if m.reason)
    return (*missing, *reasons)


def _left_out(subject: Subject, inside: Inside) -> tuple[str, ...]:
    """Say what a flow of many elements is not asked for."""
    if not subject.wide:
        return ()
    few = (
        f"local Lipschitz constants as such: with {subject.features:,} elements they are estimates from below, by "
        f"power iteration at {subject.few} points of each kind"
    )
    if subject.features > MOST_WRITTEN_DOWN:
        return (
            few,
            f"log-determinants against autograd: with more than {MOST_WRITTEN_DOWN:,} elements a Jacobian takes too "
            "long; the two directions were held against each other only",
        )
    count = inside.log_det.rows
    return (
        few,
        f"log-determinants against autograd at more than {count} point{'' if count == 1 else 's'}: a Jacobian takes "
        "long; at the others the two directions were held against each other",
    )
