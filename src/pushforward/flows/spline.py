"""Neural spline flows."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import NSFConfig, NSFCouplingConfig
from ..transforms import Chain, LULinear, Transform
from .flow import Flow
from .layers import autoregressive, coupling, latent_base, masks, need_features, orders, spline_map


def nsf(config: NSFConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()) -> Flow:
    r"""Build a neural spline flow with autoregressive layers, each pair in opposite orders.

    .. math:: y_i = \mathrm{RQS}\bigl(x_i;\ g_i(x_{<i}, c)\bigr)

    Angles get circular splines and a uniform base on the circle, and are seen by the networks through cosine and sine.
    Densities cost one pass; samples the arithmetic of about one, in one step for each element.

    Args:
        config: Sizes.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Which elements are angles in :math:`[-\pi, \pi)`.

    References:
        Durkan et al., Neural Spline Flows, 2019, sections 3.1-3.2. https://arxiv.org/abs/1906.04032

    Example:
        >>> nsf(NSFConfig(layers=2, hidden=(8,)), features=3, periodic=[1]).event_shape
        (3,)
    """
    layers: list[Transform] = [
        autoregressive(
            order,
            spline_map(range(features), bins=config.bins, bound=config.bound, periodic=periodic),
            context_features=context_features,
            hidden=config.hidden,
            activation=config.activation,
            periodic=periodic,
        )
        for order in orders(features, config.layers)
    ]
    if config.whiten:
        if periodic:
            raise ValueError(
                f"whiten: angles cannot be mixed with others, got periodic elements {list(periodic)}"
            )
        layers = [LULinear(features, whiten=True), *layers]
    return Flow(Chain(layers), latent_base(features, periodic))


def nsf_coupling(
    config: NSFCouplingConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    r"""Build a neural spline flow with coupling layers.

    Between them stand LU-factored linear maps, where no element is an angle.

    .. math:: y_A = x_A, \quad y_B = \mathrm{RQS}\bigl(x_B;\ g(x_A, c)\bigr)

    Both directions cost one pass.

    Args:
        config: Sizes.
        features: Number of elements ``D``, at least 2.
        context_features: Width of the context; 0: none.
        periodic: Which elements are angles in :math:`[-\pi, \pi)`.

    References:
        Durkan et al., Neural Spline Flows, 2019, section 3.2. https://arxiv.org/abs/1906.04032

    Example:
        >>> nsf_coupling(NSFCouplingConfig(layers=2, hidden=(8,)), features=3).event_shape
        (3,)
    """
    need_features("nsf-coupling", features, 2)
    layers: list[Transform] = []
    for mask in masks(features, config.layers):
        moving = [i for i, stays in enumerate(mask) if not stays]
        layers.append(
            coupling(
                mask,
                spline_map(moving, bins=config.bins, bound=config.bound, periodic=periodic),
                context_features=context_features,
                hidden=config.hidden,
                activation=config.activation,
                periodic=periodic,
            )
        )
        if not periodic:
            layers.append(LULinear(features))
    return Flow(Chain(layers), latent_base(features, periodic))
