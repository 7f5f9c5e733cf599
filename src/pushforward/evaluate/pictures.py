"""How well an image flow gives back its pixels, also those of images that nobody took."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..flows import Flow
from ..networks.shapes import Shape
from ..surjections import DequantisePixels
from .points import Points, spread_out
from .subject import Subject
from .verdict import Quantiles, Reconstruction

_EACH = 8  # images of each kind


def levels_of(flow: Flow) -> int:
    """Return the number of levels of a flow of images, 0 of another flow."""
    return flow.surjection.levels if isinstance(flow.surjection, DequantisePixels) else 0


def reconstructions(subject: Subject, backs: Mapping[str, Tensor]) -> tuple[Reconstruction, ...]:
    """Measure errors there and back as shares of the range of the pixels; none for a flow of something else.

    Args:
        subject: What to look at.
        backs: What came back of the points of each kind, in the model's units, ``(n, D)``.
    """
    if levels_of(subject.exact) == 0:
        return ()
    found = [
        Reconstruction(points.where, Quantiles.of(_apart(subject, backs[points.where], points.z)))
        for points in subject.points
    ]
    for points in _extremes(subject):
        transform = subject.flow.transform
        context = None if points.context is None else points.context.to(subject.dtype)
        with torch.no_grad():
            there = transform.forward(subject.event(points.z).to(subject.dtype), context)[0]
            back = transform.inverse(there, context)[0]
        found.append(Reconstruction(points.where, Quantiles.of(_apart(subject, back.flatten(1), points.z))))
    return tuple(found)


def _apart(subject: Subject, a: Tensor, b: Tensor) -> Tensor:
    """Return the largest difference of a pixel of each image, ``(n,)``, relative to the range of the pixels."""
    preprocess = subject.exact.preprocess
    assert preprocess is not None
    pixels = [preprocess.inverse(subject.event(z).double())[0].flatten(1) for z in (a, b)]
    # Of scores without end a pixel may come back all the same, clamped to the nearest level.
    apart = (pixels[0] - pixels[1]).abs().amax(1) / (levels_of(subject.exact) - 1)
    return apart.where(a.isfinite().all(1), torch.nan)


def _extremes(subject: Subject) -> list[Points]:
    """Return images far from those that people take, all of which have a density."""
    flow, generator = subject.exact, torch.Generator().manual_seed(subject.seed)
    known = subject.data_or_samples
    given = None
    if known.context is not None:
        given = known.context[spread_out(len(known), _EACH)[torch.arange(_EACH) % min(_EACH, len(known))]]
    found = []
    assert flow.surjection is not None and flow.preprocess is not None
    for where, pixels in unlike_data(flow.event_shape, levels_of(flow), _EACH, generator).items():
        x, _ = flow.surjection.encode(pixels, generator=generator)
        z = flow.preprocess(x, flow.like)[0].flatten(1)
        found.append(Points(where, z, z, given))
    return found


def unlike_data(shape: Shape, levels: int, each: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return images as no data are, in pixels: noise, all black, all white, and both in turn.

    Args:
        shape: That of one image, ``(channels, rows, columns)``.
        levels: Number of levels.
        each: Images of each kind.
        generator: Source of the noise.
    """
    rows, columns, white = torch.arange(shape[-2])[:, None], torch.arange(shape[-1]), float(levels - 1)
    # Squares of 1, 2, 4 and 8 pixels, where so large ones fit twice, each with either colour first.
    sides = [min(2**i, max(1, max(shape[1:]) // 2)) for i in range(4)]
    boards = torch.stack([(rows // side + columns // side + k) % 2 for side in sides for k in range(2)])
    boards = boards[torch.arange(each) % len(boards)]
    return {
        "noise": torch.randint(levels, (each, *shape), generator=generator).double(),
        "black": torch.zeros((each, *shape), dtype=torch.float64),
        "white": torch.full((each, *shape), white, dtype=torch.float64),
        "board": white * boards[:, None].expand(each, *shape).double(),
    }
