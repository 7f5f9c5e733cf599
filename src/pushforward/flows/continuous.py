"""Continuous flows: FFJORD and its kin, and flow matching."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import FFJORDConfig, FlowMatchingConfig, model_name
from ..distributions import DiagonalNormal
from ..networks import ConcatSquashField, PerceptronField, VectorField
from ..ode import Adaptive
from ..surjections import Augment
from ..transforms import Affine, Chain, Continuous, Transform
from ..transforms.divergence import Divergence, Exact, Hutchinson, HutchPlusPlus
from .flow import Flow
from .layers import coupling, refuse_angles

_DIVERGENCES: dict[str, Divergence] = {
    "exact": Exact(),
    "hutchinson": Hutchinson(),
    "hutch++": HutchPlusPlus(),
}


def ffjord(
    config: FFJORDConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    r"""Build FFJORD: a continuous flow under a standard normal.

    .. math:: \log p(x \mid c) = \log N(x(0)) - \int_0^1 \nabla \cdot v(t, x(t); c)\, dt

    With ``config.augment`` extra elements ``e`` the flow is that of ``(x, e)``, after a coupling that makes of their
    standard normal a distribution :math:`q(e \mid x)`: the likelihood is a bound, or an estimate from several draws.

    Args:
        config: Sizes, and how it is solved.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Grathwohl et al., FFJORD, 2019, eq. 5. https://arxiv.org/abs/1810.01367

    Example:
        >>> ffjord(FFJORDConfig(hidden=(8, 8)), features=2).event_shape
        (2,)
    """
    refuse_angles(model_name(config), periodic)
    whole = features + config.augment
    field: VectorField
    if config.field == "perceptron":
        field = PerceptronField(
            whole, context_features=context_features, hidden=config.hidden, activation=config.activation
        )
    else:
        field = ConcatSquashField(
            whole, context_features=context_features, hidden=config.hidden, activation=config.activation
        )
    transform: Transform = Continuous(
        field,
        control=Adaptive(config.atol, config.rtol, config.max_steps),
        divergence=_DIVERGENCES[config.divergence],
        gradient=config.gradient,
    )
    if config.augment:
        chosen = coupling(
            [i < features for i in range(whole)],
            Affine(),
            context_features=context_features,
            hidden=config.hidden,
            activation="silu" if config.activation == "softplus" else config.activation,
        )
        transform = Chain([chosen, transform])
    return Flow(
        transform,
        DiagonalNormal((whole,)),
        augment=Augment(features, config.augment) if config.augment else None,
    )


def flow_matching(
    config: FlowMatchingConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    r"""Build a continuous flow to be trained by flow matching, under a standard normal.

    Args:
        config: Sizes, and how it is solved.
        features: Number of elements.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Lipman et al., Flow Matching for Generative Modeling, 2023. https://arxiv.org/abs/2210.02747

    Example:
        >>> flow_matching(FlowMatchingConfig(hidden=(8, 8)), features=2).event_shape
        (2,)
    """
    refuse_angles(model_name(config), periodic)
    field = PerceptronField(
        features,
        context_features=context_features,
        hidden=config.hidden,
        activation=config.activation,
        gated=True,
    )
    return Flow(
        Continuous(field, control=Adaptive(config.atol, config.rtol, config.max_steps)),
        DiagonalNormal((features,)),
    )
