"""Layers that several models of the literature share."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import nn

from ..distributions import DiagonalNormal, Distribution, Product, Uniform
from ..networks import MLP, CircularFeatures, MaskedMLP
from ..transforms import (
    Autoregressive,
    Coupling,
    Elementwise,
    ElementwiseMap,
    RationalQuadraticSpline,
    Transform,
)


def coupling(
    mask: Sequence[bool],
    map: ElementwiseMap,
    *,
    context_features: int,
    hidden: Sequence[int],
    activation: str,
    periodic: Sequence[int] = (),
) -> Coupling:
    """Return a coupling whose network is a perceptron of the elements that stay."""
    stay = [i for i, stays in enumerate(mask) if stays]
    angles = [place for place, i in enumerate(stay) if i in set(periodic)]
    moving = len(mask) - len(stay)
    network: nn.Module = MLP(
        len(stay) + len(angles),
        moving * map.parameters_each,
        context_features=context_features,
        hidden=hidden,
        activation=activation,
    )
    if angles:
        network = CircularFeatures(network, len(stay), angles)
    return Coupling(mask, map, network, context_features=context_features)


def autoregressive(
    order: Sequence[int],
    map: ElementwiseMap,
    *,
    context_features: int,
    hidden: Sequence[int],
    activation: str,
    periodic: Sequence[int] = (),
) -> Transform:
    """Return an autoregressive transform in the given order; for one element it is elementwise."""
    features = len(order)
    if features == 1:
        return Elementwise(map, (1,), context_features=context_features, hidden=hidden)
    network: MaskedMLP | CircularFeatures = MaskedMLP(
        features,
        map.parameters_each,
        context_features=context_features,
        hidden=hidden,
        order=order,
        inputs=[*range(features), *periodic],
        activation=activation,
    )
    if periodic:
        network = CircularFeatures(network, features, periodic)
    return Autoregressive(map, network)


def spline_map(
    elements: Sequence[int], *, bins: int, bound: float, periodic: Sequence[int]
) -> RationalQuadraticSpline:
    """Return the spline for the given elements: circular where they are angles, with linear tails elsewhere."""
    circular = set(periodic)
    if not circular & set(elements):
        return RationalQuadraticSpline(bins, bound)
    return RationalQuadraticSpline(
        bins,
        [pi if i in circular else bound for i in elements],
        ["circular" if i in circular else "linear" for i in elements],
    )


def masks(features: int, layers: int) -> list[list[bool]]:
    """Return coupling masks in complementary pairs: first the even elements, then shuffled halves.

    The shuffles do not depend on the seed of the weights, and so a flow that is built anew from its configuration has
    parameters of the same shapes.
    """
    generator = torch.Generator().manual_seed(0)
    result: list[list[bool]] = []
    half = [i % 2 == 0 for i in range(features)]
    for layer in range(layers):
        if layer % 2 == 0:
            result.append(half)
        else:
            result.append([not stays for stays in half])
            places = torch.randperm(features, generator=generator).tolist()
            half = [place < (features + 1) // 2 for place in places]
    return result


def orders(features: int, layers: int) -> list[list[int]]:
    """Return autoregressive orders in pairs of one order and its reverse: first as they stand, then shuffled ones."""
    generator = torch.Generator().manual_seed(0)  # as for ``masks``
    result: list[list[int]] = []
    order = list(range(features))
    for layer in range(layers):
        if layer % 2 == 0:
            result.append(order)
        else:
            result.append([features - 1 - place for place in order])
            order = torch.randperm(features, generator=generator).tolist()
    return result


def latent_base(features: int, periodic: Sequence[int]) -> Distribution:
    """Return a standard normal, with a uniform distribution on the circle for each angle."""
    if not periodic:
        return DiagonalNormal((features,))
    angles = list(periodic)
    line = [i for i in range(features) if i not in set(angles)]
    circle = Uniform(torch.full((len(angles),), -pi), torch.full((len(angles),), pi))
    if not line:
        return circle
    return Product([DiagonalNormal((len(line),)), circle], [line, angles])


def refuse_angles(name: str, periodic: Sequence[int]) -> None:
    """Raise for a model whose maps do not close on a circle."""
    if periodic:
        raise ValueError(
            f"{name} cannot model periodic columns ({list(periodic)}): its maps do not close on a circle; "
            "use nsf or nsf-coupling"
        )


def need_features(name: str, features: int, least: int) -> None:
    """Raise for fewer elements than a model needs."""
    if features < least:
        raise ValueError(f"{name} needs at least {least} features, got {features}")
