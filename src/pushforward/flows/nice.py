"""NICE."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import NICEConfig
from ..distributions import DiagonalNormal, Distribution, Logistic
from ..transforms import Additive, Chain, Elementwise, Scale
from .flow import Flow
from .layers import coupling, masks, need_features, refuse_angles


def nice(config: NICEConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()) -> Flow:
    r"""Build NICE: additive couplings, then a diagonal scaling, under a logistic or normal prior.

    .. math:: y_A = x_A, \quad y_B = x_B + m(x_A, c); \qquad z_i = e^{s_i} y_i

    Args:
        config: Sizes.
        features: Number of elements ``D``, at least 2.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Dinh, Krueger & Bengio, NICE: Non-linear Independent Components Estimation, 2014, sections 3.2-3.4 and eq. 8.
        https://arxiv.org/abs/1410.8516

    Example:
        >>> nice(NICEConfig(layers=2), features=3).event_shape
        (3,)
    """
    need_features("nice", features, 2)
    refuse_angles("nice", periodic)
    layers = [
        coupling(
            mask,
            Additive(),
            context_features=context_features,
            hidden=config.hidden,
            activation=config.activation,
        )
        for mask in masks(features, config.layers)
    ]
    base: Distribution = Logistic((features,)) if config.prior == "logistic" else DiagonalNormal((features,))
    return Flow(Chain([*layers, Elementwise(Scale(), (features,))]), base)
