"""One constructor for every transform of images."""

from __future__ import annotations

import torch

from case_parts import BOTH, CONTEXT, MAPS, Case, MapCase, seeded, uniform
from pushforward.configs import ImageGlowConfig
from pushforward.flows import multi_scale
from pushforward.networks import CausalPatchMLP, PatchMLP, ResidualConvNet
from pushforward.transforms import (
    ActNorm,
    Affine,
    Cellwise,
    Chain,
    Coupling,
    Equalise,
    Flatten,
    Inverse,
    LULinear,
    MultiScale,
    PixelAutoregressive,
    RationalQuadraticSpline,
    Rescale,
    Squeeze,
)

MASK = [True, True, False, False]
IMAGE = (1, 4, 4)
LEVELS = 5
PICTURE = (2, 2, 1)


def on_pixels(m: MapCase, given: tuple[int, ...] | None, *, spread: int = 1) -> Coupling:
    """A coupling of the channels of an image, under a context of any shape; one map for all channels that move."""
    moves = m.build([2, 3])
    network = PatchMLP(
        2, 2 * moves.parameters_each, context_shape=given, hidden=(6,), spread=spread, activation="tanh"
    )
    return Coupling(MASK, moves, network, context_shape=given, size=(2, 2))


def residual(given: tuple[int, ...] | None) -> Coupling:
    network = ResidualConvNet(2, 4, context_shape=given, hidden_channels=4, blocks=1, activation="tanh")
    return Coupling([True, False, False, True], Affine(), network, context_shape=given, size=(2, 2))


def counted_pixels() -> Equalise:
    t = Equalise(IMAGE, LEVELS).double()
    levels = (LEVELS * torch.rand((60, *IMAGE), generator=seeded(), dtype=torch.float64) ** 3).floor()
    t.initialize(levels)
    return t


def noise_within_cells() -> Cellwise:
    spline = RationalQuadraticSpline(3, 1.0, "bounded")
    network = PatchMLP(2, 2 * spline.parameters_each, context_shape=IMAGE, hidden=(6,), activation="tanh")
    squeeze = Squeeze(IMAGE)
    coupling = Coupling([True, False, False, True], spline, network, context_shape=IMAGE, size=(2, 2))
    return Cellwise(Chain([squeeze, coupling, Inverse(squeeze)]), LEVELS)


def several_scales(given: tuple[int, ...] | None) -> MultiScale:
    config = ImageGlowConfig(scales=2, steps=1, hidden_channels=4)
    return multi_scale(config, (1, 4, 4), given)


def in_reading_order(
    m: MapCase, given: tuple[int, ...] | None, *, channels: int = 1, backwards: bool = False
) -> PixelAutoregressive:
    moves = m.build([2])
    network = CausalPatchMLP(
        channels,
        channels * moves.parameters_each,
        size=(3, 4),
        context_shape=given,
        hidden=(6,),
        radius=1,
        activation="tanh",
    )
    return PixelAutoregressive((channels, 3, 4), moves, network, backwards=backwards)


IMAGE_CASES: dict[str, Case] = {
    "actnorm-image": Case(lambda: ActNorm(2, size=(2, 3)), starts_as_identity=True, compiles=BOTH),
    "lu-linear-image": Case(lambda: LULinear(3, size=(2, 2)), strength=0.5, compiles=BOTH),
    "squeeze": Case(lambda: Squeeze((2, 4, 2)), volume=True, compiles=BOTH),
    "squeeze-rows": Case(lambda: Squeeze((1, 4, 3), (2, 1)), volume=True),
    "flatten": Case(lambda: Flatten((2, 2, 1)), volume=True, compiles=BOTH),
    "rescale": Case(lambda: Rescale((2, 2), 1.7, -0.3), compiles=BOTH),
    "equalise": Case(counted_pixels, uniform(0.01, LEVELS - 0.01), compiles=BOTH),
    "cellwise": Case(noise_within_cells, uniform(0.01, LEVELS - 0.01), strength=1.5, compiles=BOTH),
    "image-coupling": Case(
        lambda: on_pixels(MAPS["affine"], None, spread=3),
        strength=1.5,
        starts_as_identity=True,
        compiles=BOTH,
    ),
    "image-coupling-spline": Case(
        lambda: on_pixels(MAPS["spline"], None), strength=1.5, starts_as_identity=True
    ),
    "image-coupling-context": Case(
        lambda: on_pixels(MAPS["affine"], (CONTEXT,)), strength=1.5, starts_as_identity=True
    ),
    "image-coupling-picture": Case(lambda: on_pixels(MAPS["affine"], PICTURE), strength=1.5),
    "image-coupling-residual": Case(
        lambda: residual(None), strength=1.0, starts_as_identity=True, compiles=BOTH
    ),
    "image-coupling-residual-picture": Case(lambda: residual(PICTURE), strength=1.0),
    "multi-scale": Case(lambda: several_scales(None), strength=0.5, compiles=BOTH),
    "multi-scale-context": Case(lambda: several_scales((CONTEXT,)), strength=0.5),
    "inverse-multi-scale": Case(lambda: Inverse(several_scales(None)), strength=0.5),
    "pixels": Case(
        lambda: in_reading_order(MAPS["affine"], None), strength=1.5, starts_as_identity=True, compiles=BOTH
    ),
    "pixels-spline-backwards": Case(
        lambda: in_reading_order(MAPS["spline"], None, channels=2, backwards=True), strength=0.6
    ),
    "pixels-context": Case(lambda: in_reading_order(MAPS["affine"], (CONTEXT,)), strength=1.5),
    "pixels-picture": Case(lambda: in_reading_order(MAPS["affine"], PICTURE), strength=1.5),
}
