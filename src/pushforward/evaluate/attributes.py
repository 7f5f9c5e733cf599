r"""Attributes of images: what can be read off the ink of a picture, one number each.

Ink is what is bright: an image of height :math:`H` and width :math:`W` is taken for the grey picture :math:`I` of the
means over its channels, and a pixel for a square of side 1. All but ``brightness`` are about the shape of the ink, and
do not change when an image becomes darker as a whole or its ink is moved; a blank image has none of them, NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Attribute = Callable[[Tensor, int], Tensor]
"""A function of pixels ``(n, channels, height, width)`` and the number of levels, which gives ``(n,)`` numbers."""

MIDDLE = 0.95
"""Share of the ink that lies within its width and height."""

_ROWS = 4096
_NODES = (0.5 - 0.5 / math.sqrt(3), 0.5 + 0.5 / math.sqrt(3))
_NO_HEIGHT = 1e-9  # variance of rows, in square pixels, that is rounding


def thickness(pixels: Tensor, levels: int = 256) -> Tensor:
    r"""Return the mean thickness of strokes, in pixels.

    Strokes of length :math:`L` and thickness :math:`t` that stay apart but for their junctions have the area
    :math:`A = L t` and the perimeter :math:`P = 2 L + 2\chi t`, with :math:`\chi` the Euler characteristic of the ink
    (its pieces less its holes: 1 for a line, 0 for a ring), since each end adds and each junction hides one thickness.
    So :math:`2\chi t^2 - P t + 2A = 0`, which is solved by

    .. math:: t = \frac{4 A}{P + \sqrt{P^2 - 16\,\chi A}}.

    Greys are no trouble: with :math:`I` in units of its largest value, :math:`A = \sum I`, and the perimeter averaged
    over all levels is the total variation :math:`P = \int |\nabla I|` (coarea formula), of the bilinear interpolation
    of the pixels. Only :math:`\chi` needs ink with an edge, at half of the largest value. Below 2 pixels a stroke
    cannot be told from a wider one of lighter grey, and comes out too thick, by up to a pixel.

    Args:
        pixels: Images, ``(n, channels, height, width)``.
        levels: Number of values of a pixel; the result does not depend on it.

    Returns:
        Thicknesses, float64 ``(n,)``; NaN for a blank image.

    Raises:
        ValueError: Another shape.

    References:
        Federer, Curvature measures, 1959 (parallel bodies). https://doi.org/10.1090/S0002-9947-1959-0110078-1
        Fleming, Rishel, An integral formula for total gradient variation, 1960. https://doi.org/10.1007/BF01236935

    Example:
        >>> bar = torch.zeros(1, 1, 28, 28)
        >>> bar[..., 4:24, 12:15] = 255
        >>> round(thickness(bar).item(), 1)
        3.1
    """
    ink = _ink(pixels)
    ink = ink / ink.amax((1, 2), keepdim=True)
    around = F.pad(ink, (1, 1, 1, 1))
    a, b, c, d = around[:, :-1, :-1], around[:, :-1, 1:], around[:, 1:, :-1], around[:, 1:, 1:]
    right = [torch.lerp(b - a, d - c, node) for node in _NODES]
    down = [torch.lerp(c - a, d - b, node) for node in _NODES]
    slopes = [torch.hypot(x, y) for x in right for y in down]
    perimeter = torch.stack([slope.sum((1, 2)) for slope in slopes]).mean(0)
    area, euler = ink.sum((1, 2)), _euler_characteristic(around > 0.5)
    # Ink in the shape of no stroke, such as a disc, may have too little perimeter.
    root = (perimeter.square() - 16.0 * euler * area).clamp(min=0.0).sqrt()
    return 4.0 * area / (perimeter + root)


def slant(pixels: Tensor, levels: int = 256) -> Tensor:
    r"""Return how far ink leans, as the horizontal shear that would put it upright.

    With central moments of the ink, columns :math:`x` counted to the right and rows :math:`y` downwards,

    .. math:: s = -\frac{\mu_{11}}{\mu_{02}} = -\frac{\sum I\,(x - \bar x)(y - \bar y)}{\sum I\,(y - \bar y)^2}.

    It is the tangent of the angle from the vertical, and positive where the top leans to the right, as in italics.

    Args:
        pixels: Images, ``(n, channels, height, width)``.
        levels: Number of values of a pixel; the result does not depend on it.

    Returns:
        Slants, in columns a row, float64 ``(n,)``; NaN for a blank image and one with ink in a single row.

    Raises:
        ValueError: Another shape.

    References:
        LeCun et al., Gradient-based learning applied to document recognition, 1998, section III.A (deslanting).
        https://doi.org/10.1109/5.726791

    Example:
        >>> slant(torch.eye(9).flip(0)[None, None]).item()
        1.0
    """
    ink = _ink(pixels)
    total = ink.sum((1, 2))
    rows = torch.arange(ink.shape[1], dtype=ink.dtype, device=ink.device)
    columns = torch.arange(ink.shape[2], dtype=ink.dtype, device=ink.device)
    y = rows - (ink.sum(2) @ rows / total)[:, None]
    x = columns - (ink.sum(1) @ columns / total)[:, None]
    covariance = torch.einsum("nhw,nh,nw->n", ink, y, x) / total
    variance = torch.einsum("nhw,nh->n", ink, y.square()) / total
    return -covariance / variance.where(variance > _NO_HEIGHT, torch.nan)


def width(pixels: Tensor, levels: int = 256) -> Tensor:
    """Return the width of the ink: that of the columns that hold the middle 95 % of it, in pixels.

    The ink of a pixel is spread evenly over it, so that the width is no whole number. A box around all that is bright
    would hang on single specks.

    Args:
        pixels: Images, ``(n, channels, height, width)``.
        levels: Number of values of a pixel; the result does not depend on it.

    Returns:
        Widths, float64 ``(n,)``; NaN for a blank image.

    Raises:
        ValueError: Another shape.

    Example:
        >>> bar = torch.zeros(1, 1, 28, 28)
        >>> bar[..., 4:24, 5:15] = 255
        >>> round(width(bar).item(), 6), round(height(bar).item(), 6)
        (9.5, 19.0)
    """
    return _extent(_ink(pixels).sum(1))


def height(pixels: Tensor, levels: int = 256) -> Tensor:
    """Return the height of the ink: that of the rows that hold the middle 95 % of it; all as in ``width``."""
    return _extent(_ink(pixels).sum(2))


def brightness(pixels: Tensor, levels: int = 256) -> Tensor:
    r"""Return the mean of all pixels over the largest value, :math:`\bar I/(\text{levels} - 1)`.

    Args:
        pixels: Images, ``(n, channels, height, width)``.
        levels: Number of values of a pixel.

    Returns:
        Shares of full brightness, float64 ``(n,)``.

    Raises:
        ValueError: Another shape.

    Example:
        >>> brightness(torch.full((1, 3, 4, 4), 51, dtype=torch.uint8)).item()
        0.2
    """
    return _grey(pixels).mean((1, 2)) / (levels - 1)


ATTRIBUTES: dict[str, Attribute] = {
    "thickness": thickness,
    "slant": slant,
    "width": width,
    "height": height,
    "brightness": brightness,
}
"""The attributes by name."""

UNITS = {"thickness": "pixels", "slant": "columns a row", "width": "pixels", "height": "pixels"}
"""Units of those that have one."""


def measure(
    pixels: Tensor, levels: int = 256, attributes: Mapping[str, Attribute] = ATTRIBUTES
) -> dict[str, Tensor]:
    """Return attributes of images by name.

    Args:
        pixels: Images, ``(n, channels, height, width)``, whole numbers or floating, from 0 to ``levels - 1``.
        levels: Number of values of a pixel.
        attributes: What to measure; those of this module by default.

    Returns:
        Numbers ``(n,)`` under each name; NaN where an image has no such attribute or is not finite.

    Raises:
        ValueError: Another shape, or an attribute that gives something else than one number for each image.

    Example:
        >>> sorted(measure(torch.zeros(2, 1, 8, 8)))
        ['brightness', 'height', 'slant', 'thickness', 'width']
    """
    check_images("pixels", pixels)
    # In parts, for they are held in float64, and more than once.
    parts = pixels.split(_ROWS) if len(pixels) else (pixels,)
    values = {name: [attribute(part, levels) for part in parts] for name, attribute in attributes.items()}
    result = {name: torch.cat([value.double() for value in column]) for name, column in values.items()}
    for name, value in result.items():
        if value.shape != (len(pixels),):
            raise ValueError(
                f"attributes: {name!r} must give one number for each image, {(len(pixels),)}, "
                f"got {tuple(value.shape)}"
            )
    return result


def check_images(name: str, images: Tensor) -> None:
    """Check that images have the shape ``(n, channels, height, width)``."""
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"{name} must have shape (n, channels, height, width), got {tuple(images.shape)}")


def _grey(pixels: Tensor) -> Tensor:
    check_images("pixels", pixels)
    return pixels.double().mean(1)


def _ink(pixels: Tensor) -> Tensor:
    """Return images ``(n, height, width)`` of ink, of which there cannot be less than none."""
    return _grey(pixels).clamp(min=0.0)


def _extent(profile: Tensor) -> Tensor:
    """Return the length of the middle of profiles ``(n, k)``."""
    sums = F.pad(profile.cumsum(1), (1, 0))
    shares = sums / sums[:, -1:]
    ends = torch.tensor([0.5 - MIDDLE / 2, 0.5 + MIDDLE / 2], dtype=shares.dtype, device=shares.device)
    last = profile.shape[1]
    index = torch.searchsorted(shares, ends.expand(len(shares), 2).contiguous()).clamp(1, last)
    before, after = shares.gather(1, index - 1), shares.gather(1, index)
    low, high = (index - 1 + (ends - before) / (after - before)).unbind(1)
    return high - low


def _euler_characteristic(ink: Tensor) -> Tensor:
    """Return pieces less holes of ink ``(n, height, width)`` with a margin, pixels that touch at a corner joined.

    It is counted from the pixels within each square of four: one, three, or two across.

    References:
        Gray, Local properties of binary images in two dimensions, 1971. https://doi.org/10.1109/T-C.1971.223289
    """
    a, b, c, d = (part.int() for part in (ink[:, :-1, :-1], ink[:, :-1, 1:], ink[:, 1:, :-1], ink[:, 1:, 1:]))
    count = a + b + c + d
    across = (count == 2) & (a == d)
    total: Tensor = (count == 1).sum((1, 2)) - (count == 3).sum((1, 2)) - 2 * across.sum((1, 2))
    return total.double() / 4.0
