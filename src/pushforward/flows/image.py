"""The flow of images: pixels to normal scores, and a model between these and the latent space."""

from __future__ import annotations

import math

from torch import nn

from ..configs import (
    SMALL,
    ImageFlowMatchingConfig,
    ImageGlowConfig,
    ImageModelConfig,
    ImageRealNVPConfig,
    ImageSchema,
    PixelNSFConfig,
)
from ..distributions import DiagonalNormal, Distribution
from ..networks import CausalPatchMLP, Enlarge, PatchMLP, PictureEmbedding, ResidualConvNet, UNetField
from ..ode import Adaptive
from ..surjections import DequantisePixels
from ..transforms import (
    ActNorm,
    Additive,
    Affine,
    Cellwise,
    Chain,
    Continuous,
    Coupling,
    Elementwise,
    ElementwiseMap,
    Equalise,
    Flatten,
    Inverse,
    LULinear,
    MultiScale,
    PixelAutoregressive,
    RationalQuadraticSpline,
    Rescale,
    Sigmoid,
    Squeeze,
    Transform,
)
from ..transforms.base import Shape
from ..transforms.divergence import Hutchinson
from .build import build_flow
from .flow import Flow
from .preprocess import Preprocess

_SMALL_SIDE = 16
_FEATURES = 32
"""Channels of what the networks are told of a picture that is given."""
_EDGE = 0.05
"""How much of the interval the logit leaves free at both ends, as in Real NVP, section 4.1."""


def image_flow(model: ImageModelConfig, schema: ImageSchema) -> Flow:
    """Build the flow of images, with fresh weights and a preprocess that still has to be fitted.

    Points are pixels from 0 to ``levels - 1``, ``(channels, rows, columns)``; those of half of an image where the
    other half is given. Contexts are one number for each class, 1 for the one meant, or the pixels of a picture.

    Args:
        model: The model; one of vectors takes the pixels as a vector.
        schema: The images.

    Raises:
        ValueError: A model that cannot be had for such images.

    Example:
        >>> schema = ImageSchema(height=8, width=8, levels=17)
        >>> flow = image_flow(ImageGlowConfig(scales=2, steps=1, hidden_channels=8), schema)
        >>> flow.event_shape, flow.transform.latent_shape
        ((1, 8, 8), (64,))
    """
    if isinstance(model, ImageFlowMatchingConfig):
        return _continuous(model, schema)
    event, levels = schema.event_shape, schema.levels
    flat = not isinstance(model, ImageGlowConfig | ImageRealNVPConfig | PixelNSFConfig)
    # Noise that is learned comes before the scores of pixels, which then are part of what is trained.
    inside = isinstance(model, ImageGlowConfig) and model.dequantise == "variational"
    embedding, context_preprocess, given = _given(schema, flat=flat)
    base: Distribution
    transform: Transform
    if isinstance(model, PixelNSFConfig):
        transform, base = Chain(_in_reading_order(model, event, given)), DiagonalNormal(event)
    elif isinstance(model, ImageGlowConfig | ImageRealNVPConfig):
        steps: list[Transform] = [multi_scale(model, event, given)]
        if isinstance(model, ImageGlowConfig) and model.radius:
            width = model.hidden_channels
            first = PixelNSFConfig(
                layers=1,
                radius=model.radius,
                bound=model.bound,
                minimum=model.minimum,
                hidden=(width, width),
            )
            steps = [*_in_reading_order(first, event, given), *steps]
        if inside:
            steps = [Cellwise(_noise(event), levels), *_scores(schema), *steps]
        transform = Chain(steps)
        base = DiagonalNormal(transform.latent_shape)
    else:
        vectors = build_flow(model, math.prod(event), 0 if given is None else given[0])
        transform, base = vectors.transform, vectors.base
    before: list[Transform] = [Rescale(event, 1.0)] if inside else _scores(schema)
    if flat:
        before.append(Flatten(event))
    return Flow(
        transform,
        base,
        preprocess=Preprocess(Chain(before)),
        context_preprocess=context_preprocess,
        embedding=embedding,
        context_shape=schema.context_shape,
        surjection=DequantisePixels(event, levels),
    )


def _continuous(model: ImageFlowMatchingConfig, schema: ImageSchema) -> Flow:
    """Return a continuous flow, its velocity a U-Net, of pixels scaled to -1..1."""
    embedding, context_preprocess, given = _given(schema, flat=False)
    event = schema.event_shape
    if schema.given == "small":
        assert embedding is not None
        embedding = nn.Sequential(embedding, Enlarge(SMALL))
        given = (_FEATURES, *event[1:])
    width, levels = (32, 1) if min(event[1:]) <= _SMALL_SIDE else (16, 2)
    field = UNetField(
        event,
        context_shape=given,
        width=model.width or width,
        levels=model.levels or levels,
        blocks=model.blocks,
    )
    return Flow(
        Continuous(
            field,
            control=Adaptive(model.atol, model.rtol, model.max_steps),
            divergence=Hutchinson(),
        ),
        DiagonalNormal(event),
        preprocess=Preprocess(Rescale(event, 2.0 / schema.levels, -1.0)),
        context_preprocess=context_preprocess,
        embedding=embedding,
        context_shape=schema.context_shape,
        surjection=DequantisePixels(event, schema.levels),
    )


def _in_reading_order(model: PixelNSFConfig, event: Shape, context_shape: Shape | None) -> list[Transform]:
    """Return layers that go over the pixels forwards and backwards in turn; of colours, also from one to the next."""
    channels, h, w = event
    if model.radius > max(h, w):
        raise ValueError(f"radius must be at most the larger side of {h} x {w} pixels, got {model.radius}")
    spline = RationalQuadraticSpline(model.bins, model.bound, minimum=model.minimum)
    layers: list[Transform] = []
    for k in range(model.layers):
        network = CausalPatchMLP(
            channels,
            channels * spline.parameters_each,
            size=(h, w),
            context_shape=context_shape,
            hidden=model.hidden,
            radius=model.radius,
        )
        layers.append(PixelAutoregressive((channels, h, w), spline, network, backwards=k % 2 == 1))
        # The channels of a pixel do not see each other above.
        for stay in ([True, False, False], [False, True, True]) if channels == 3 else ():
            inner = PatchMLP(
                sum(stay),
                (3 - sum(stay)) * spline.parameters_each,
                context_shape=context_shape,
                hidden=model.hidden,
            )
            layers.append(Coupling(stay, spline, inner, context_shape=context_shape, size=(h, w)))
    return layers


def multi_scale(
    model: ImageGlowConfig | ImageRealNVPConfig, event: Shape, context_shape: Shape | None
) -> MultiScale:
    """Return the multi-scale transform of an image, as many scales of those asked for as its sides can be halved.

    Args:
        model: The model.
        event: ``(channels, rows, columns)``.
        context_shape: What its networks are told of the context.

    Raises:
        ValueError: Sides that are both odd.
    """
    blocks = _blocks(event, model.scales)
    scales: list[Transform] = []
    for i, block in enumerate(blocks):
        squeeze = Squeeze(event, block)
        shape = squeeze.latent_shape
        if isinstance(model, ImageGlowConfig):
            steps = [layer for _ in range(model.steps) for layer in _glow_step(model, shape, context_shape)]
        else:
            steps = _realnvp_steps(model, shape, context_shape)
        if i < len(blocks) - 1:
            steps.append(_prior(shape, model.hidden_channels, context_shape))
        scales.append(Chain([squeeze, *steps]))
        event = (shape[0] // 2, *shape[1:])
    return MultiScale(scales)


def _blocks(event: Shape, most: int) -> list[tuple[int, int]]:
    """Return by what each scale squeezes its image."""
    _, h, w = event
    blocks: list[tuple[int, int]] = []
    while len(blocks) < most:
        block = (2 - h % 2, 2 - w % 2)
        if block == (1, 1) or (blocks and min(h, w) < 4):
            break
        blocks.append(block)
        h, w = h // block[0], w // block[1]
    if not blocks:
        raise ValueError(
            "a multi-scale model halves the sides of an image, so one of them must be even, got "
            f"{event[1]} x {event[2]}; bring the images to another size"
        )
    return blocks


def _glow_step(model: ImageGlowConfig, shape: Shape, context_shape: Shape | None) -> list[Transform]:
    channels, size = shape[0], shape[1:]
    stay = channels // 2
    moving = channels - stay
    maps: dict[str, ElementwiseMap] = {
        "affine": Affine(),
        "additive": Additive(),
        "spline": RationalQuadraticSpline(model.bins, model.bound, minimum=model.minimum),
    }
    moves, width = maps[model.coupling], model.hidden_channels
    # The many parameters of a spline are written to one pixel, by a network that sees as far as Glow's.
    spline = model.coupling == "spline"
    network = PatchMLP(
        stay,
        moving * moves.parameters_each,
        context_shape=context_shape,
        hidden=(width, width),
        patch=5 if spline else 3,
        spread=1 if spline else 3,
    )
    mask = [i < stay for i in range(channels)]
    return [
        ActNorm(channels, size=size),
        # A spline bends along the axes: there pixels stay unmixed at first, in turn those that move.
        LULinear(channels, size=size, rotate=not spline),
        Coupling(mask, moves, network, context_shape=context_shape, size=size),
    ]


def _realnvp_steps(model: ImageRealNVPConfig, shape: Shape, context_shape: Shape | None) -> list[Transform]:
    """Return three couplings with checkerboard masks, then three with halves of the channels."""
    channels, size = shape[0], shape[1:]
    # Of four pixels of a block the first and the last: the colours of a checkerboard.
    board = [i % 4 in (0, 3) for i in range(channels)]
    halves = [i < channels // 2 for i in range(channels)]
    steps: list[Transform] = []
    for mask in (board, halves):
        for k in range(3):
            stay = [m != (k == 1) for m in mask]
            network = ResidualConvNet(
                sum(stay),
                2 * (channels - sum(stay)),
                context_shape=context_shape,
                hidden_channels=model.hidden_channels,
                blocks=model.blocks,
            )
            steps += [
                ActNorm(channels, size=size),
                Coupling(stay, Affine(), network, context_shape=context_shape, size=size),
            ]
    return steps


def _prior(shape: Shape, width: int, context_shape: Shape | None) -> Coupling:
    """Return the learned prior of the half that is finished, given the one that goes on."""
    channels, size = shape[0], shape[1:]
    half = channels // 2
    network = PatchMLP(half, 2 * half, context_shape=context_shape, hidden=(width,), spread=3)
    mask = [i < half for i in range(channels)]
    return Coupling(mask, Affine(), network, context_shape=context_shape, size=size)


def _noise(event: Shape) -> Transform:
    """Return a map of the noise of dequantisation: spline couplings under the levels, on both colours of a board."""
    block = (2 - event[1] % 2, 2 - event[2] % 2)
    squeeze = Squeeze(event, block)
    channels, size = squeeze.latent_shape[0], squeeze.latent_shape[1:]
    spline = RationalQuadraticSpline(4, 1.0, "bounded")
    steps: list[Transform] = []
    for k in range(2):
        stay = [(i % 4 in (0, 3)) == (k == 0) for i in range(channels)]
        network = PatchMLP(
            sum(stay), (channels - sum(stay)) * spline.parameters_each, context_shape=event, hidden=(32, 32)
        )
        steps.append(Coupling(stay, spline, network, context_shape=event, size=size))
    return Chain([squeeze, *steps, Inverse(squeeze)])


def _scores(schema: ImageSchema) -> list[Transform]:
    """Return what brings dequantised pixels to the line."""
    event, levels = schema.event_shape, schema.levels
    if schema.pixels == "equalise":
        return [Equalise(event, levels)]
    if schema.pixels == "scale":
        return [Rescale(event, 2.0 / levels, -1.0)]
    return [Rescale(event, (1 - 2 * _EDGE) / levels, _EDGE), Inverse(Elementwise(Sigmoid(), event))]


def _given(schema: ImageSchema, *, flat: bool) -> tuple[nn.Module | None, Preprocess | None, Shape | None]:
    """Return embedding and preprocess of the contexts, and the shape of what the networks are told of them."""
    shape = schema.context_shape
    if shape is None or len(shape) == 1:
        return None, None, shape
    preprocess = Preprocess(Rescale(shape, 2.0 / (schema.levels - 1), -1.0))
    if flat:
        return nn.Flatten(-3), preprocess, (math.prod(shape),)
    # Mirrored, what lies next to the seam is in the same place in both halves.
    mirror = {"top": (-2,), "bottom": (-2,), "left": (-1,), "right": (-1,)}.get(schema.given, ())
    embedding = PictureEmbedding(shape, features=_FEATURES, mirror=mirror)
    return embedding, preprocess, (_FEATURES, *shape[1:])
