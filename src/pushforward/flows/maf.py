"""MADE, MAF and IAF: affine autoregressive flows."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import IAFConfig, MADEConfig, MAFConfig
from ..distributions import DiagonalNormal
from ..transforms import Affine, Chain, Inverse, Transform
from .flow import Flow
from .layers import autoregressive, orders, refuse_angles


def made(config: MADEConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()) -> Flow:
    r"""Build MADE with Gaussian conditionals: one affine autoregressive layer under a standard normal.

    .. math:: p(x \mid c) = \prod_i N\bigl(x_i;\ \mu_i(x_{<i}, c),\ \sigma_i^2(x_{<i}, c)\bigr)

    Args:
        config: Sizes.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Germain et al., MADE: Masked Autoencoder for Distribution Estimation, 2015. https://arxiv.org/abs/1502.03509
        Papamakarios et al., Masked Autoregressive Flow for Density Estimation, 2017, section 3.1 (Gaussian form).

    Example:
        >>> made(MADEConfig(hidden=(8,)), features=3).event_shape
        (3,)
    """
    refuse_angles("made", periodic)
    return Flow(_stack(config, 1, features, context_features)[0], DiagonalNormal((features,)))


def maf(config: MAFConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()) -> Flow:
    r"""Build a masked autoregressive flow: affine autoregressive layers, each pair in opposite orders.

    .. math:: y_i = x_i\, e^{s_i(x_{<i}, c)} + t_i(x_{<i}, c)

    Densities cost one pass; samples the arithmetic of about one, in one step for each element.

    Args:
        config: Sizes.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Papamakarios, Pavlakou & Murray, Masked Autoregressive Flow for Density Estimation, 2017, eq. 3-6.
        https://arxiv.org/abs/1705.07057

    Example:
        >>> maf(MAFConfig(layers=2, hidden=(8,)), features=3).event_shape
        (3,)
    """
    refuse_angles("maf", periodic)
    layers = _stack(config, config.layers, features, context_features)
    return Flow(Chain(layers), DiagonalNormal((features,)))


def iaf(config: IAFConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()) -> Flow:
    r"""Build an inverse autoregressive flow: the inverses of the layers of ``maf``.

    .. math:: x_i = y_i\, e^{s_i(y_{<i}, c)} + t_i(y_{<i}, c)

    Samples cost one pass; densities of given points the arithmetic of about one, in one step for each element.

    Args:
        config: Sizes.
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        periodic: Must be empty.

    References:
        Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, eq. 9-10.
        https://arxiv.org/abs/1606.04934

    Example:
        >>> iaf(IAFConfig(layers=2, hidden=(8,)), features=3).event_shape
        (3,)
    """
    refuse_angles("iaf", periodic)
    layers = _stack(config, config.layers, features, context_features)
    return Flow(Chain([Inverse(layer) for layer in layers]), DiagonalNormal((features,)))


def _stack(
    config: MADEConfig | MAFConfig | IAFConfig, layers: int, features: int, context_features: int
) -> list[Transform]:
    return [
        autoregressive(
            order,
            Affine(),
            context_features=context_features,
            hidden=config.hidden,
            activation=config.activation,
        )
        for order in orders(features, layers)
    ]
