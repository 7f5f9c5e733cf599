"""Glow for vectors."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import GlowConfig
from ..distributions import DiagonalNormal
from ..transforms import ActNorm, Affine, Chain, LULinear, Transform
from .flow import Flow
from .layers import coupling, need_features, refuse_angles


def glow(config: GlowConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()) -> Flow:
    r"""Build Glow for vectors: steps of actnorm, LU-factored linear map and affine coupling.

    The linear map takes the place of the 1x1 convolution, which it is for an image of one pixel.

    Args:
        config: Sizes.
        features: Number of elements ``D``, at least 2.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Kingma & Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018, table 1 and section 3.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> len(glow(GlowConfig(layers=2), features=3).transform)
        6
    """
    need_features("glow", features, 2)
    refuse_angles("glow", periodic)
    steps: list[Transform] = []
    mask = [i < (features + 1) // 2 for i in range(features)]
    for _ in range(config.layers):
        move = coupling(
            mask,
            Affine(),
            context_features=context_features,
            hidden=config.hidden,
            activation=config.activation,
        )
        steps += [ActNorm(features), LULinear(features), move]
    return Flow(Chain(steps), DiagonalNormal((features,)))
