"""The same flow with another transform, or another way to solve it."""

from __future__ import annotations

from ..networks import Guided
from ..ode import Adaptive, Control, Fixed, tableau
from ..transforms import Chain, Continuous, Transform
from .flow import Flow


def with_transform(flow: Flow, transform: Transform) -> Flow:
    """Return the same flow with another transform."""
    return Flow(
        transform,
        flow.base,
        preprocess=flow.preprocess,
        context_preprocess=flow.context_preprocess,
        embedding=flow.embedding,
        context_shape=flow.context_shape,
        surjection=flow.surjection,
        augment=flow.augment,
    )


def with_solver(
    flow: Flow,
    *,
    method: str | None = None,
    steps: int | None = None,
    tolerance: float | None = None,
    guidance: float = 1.0,
) -> Flow:
    """Return a continuous flow that is solved in another way; the two share their weights.

    Few fixed steps are for samples: their log-determinants are only as exact as the steps are short.

    Args:
        flow: A flow with a ``Continuous`` transform, alone or in a chain.
        method: A name in ``pushforward.ode.METHODS``; as it is by default.
        steps: Number of equal steps; as they are by default.
        tolerance: Absolute and relative tolerance of adaptive steps; as they are by default.
        guidance: Scale of guidance towards the context, see ``Guided``.

    Raises:
        ValueError: A flow without a continuous transform, or options that do not go together.

    Example:
        >>> from pushforward.configs import FlowMatchingConfig
        >>> from pushforward.flows import build_flow
        >>> flow = build_flow(FlowMatchingConfig(hidden=(8, 8)), 2)
        >>> with_solver(flow, method="heun", steps=10).transform.control
        Fixed(steps=10)
    """
    if steps is not None and tolerance is not None:
        raise ValueError("give steps or tolerance, not both: steps of a tolerance are as long as that allows")
    return with_transform(flow, _solved(flow.transform, method, (steps, tolerance), guidance))


def _solved(
    transform: Transform, method: str | None, wanted: tuple[int | None, float | None], guidance: float
) -> Transform:
    if isinstance(transform, Continuous):
        steps, tolerance = wanted
        control: Control = transform.control
        if steps is not None:
            control = Fixed(steps)
        elif tolerance is not None:
            limit = control.max_steps if isinstance(control, Adaptive) else Adaptive().max_steps
            control = Adaptive(tolerance, tolerance, limit)
        if isinstance(control, Adaptive) and method is not None and tableau(method).e is None:
            raise ValueError(f"method {method} takes equal steps, so their number must be given too: steps")
        return Continuous(
            transform.field if guidance == 1.0 else Guided(transform.field, guidance),
            method=method or transform.method.name,
            control=control,
            divergence=transform.divergence,
            gradient=transform.gradient,
        )
    if isinstance(transform, Chain) and transform.log_det_costs:
        return Chain(
            [_solved(part, method, wanted, guidance) if part.log_det_costs else part for part in transform]
        )
    raise ValueError(
        f"only a continuous flow can be solved in another way, and this one's transform is {type(transform).__name__}"
    )
