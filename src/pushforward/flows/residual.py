"""Planar, radial and Sylvester flows."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import PlanarConfig, RadialConfig, SylvesterConfig
from ..distributions import DiagonalNormal
from ..transforms import Chain, Planar, Radial, Sylvester
from .flow import Flow
from .layers import refuse_angles


def planar(
    config: PlanarConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    r"""Build a planar flow: :math:`y = x + \hat u \tanh(w^\top x + b)`, layer after layer.

    Args:
        config: Sizes.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Rezende & Mohamed, Variational Inference with Normalizing Flows, 2015, eq. 10-12 and appendix A.1.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> len(planar(PlanarConfig(layers=4), features=2).transform)
        4
    """
    refuse_angles("planar", periodic)
    layers = [Planar(features, context_features=context_features) for _ in range(config.layers)]
    return Flow(Chain(layers), DiagonalNormal((features,)))


def radial(
    config: RadialConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    r"""Build a radial flow: :math:`y = x + \beta (x - x_0)/(\alpha + |x - x_0|)`, layer after layer.

    Args:
        config: Sizes.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Rezende & Mohamed, Variational Inference with Normalizing Flows, 2015, eq. 14 and appendix A.2.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> len(radial(RadialConfig(layers=4), features=2).transform)
        4
    """
    refuse_angles("radial", periodic)
    layers = [Radial(features, context_features=context_features) for _ in range(config.layers)]
    return Flow(Chain(layers), DiagonalNormal((features,)))


def sylvester(
    config: SylvesterConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    r"""Build a Sylvester flow: :math:`y = x + Q R \tanh(\tilde R Q^\top x + b)`, layer after layer.

    Args:
        config: Sizes; a rank above ``features`` is cut to it.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        van den Berg et al., Sylvester Normalizing Flows for Variational Inference, 2018, eq. 8-13.
        https://arxiv.org/abs/1803.05649

    Example:
        >>> len(sylvester(SylvesterConfig(layers=2), features=3).transform)
        2
    """
    refuse_angles("sylvester", periodic)
    rank = min(config.rank, features)
    layers = [Sylvester(features, rank, context_features=context_features) for _ in range(config.layers)]
    return Flow(Chain(layers), DiagonalNormal((features,)))
