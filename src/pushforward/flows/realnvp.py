"""Real NVP."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import RealNVPConfig
from ..distributions import DiagonalNormal
from ..transforms import Affine, Chain
from .flow import Flow
from .layers import coupling, masks, need_features, refuse_angles


def realnvp(
    config: RealNVPConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    r"""Build Real NVP: affine couplings under a standard normal.

    .. math:: y_A = x_A, \quad y_B = x_B \odot e^{s(x_A, c)} + t(x_A, c)

    Args:
        config: Sizes.
        features: Number of elements ``D``, at least 2.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017, eq. 4-8.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> realnvp(RealNVPConfig(layers=2), features=3).event_shape
        (3,)
    """
    need_features("realnvp", features, 2)
    refuse_angles("realnvp", periodic)
    return Flow(
        Chain(
            [
                coupling(
                    mask,
                    Affine(),
                    context_features=context_features,
                    hidden=config.hidden,
                    activation=config.activation,
                )
                for mask in masks(features, config.layers)
            ]
        ),
        DiagonalNormal((features,)),
    )
