"""Words and numbers for flows of images."""

from __future__ import annotations

import math

from ..configs import ImageSchema


def kind_of(schema: ImageSchema) -> str:
    """Return what images are like.

    Example:
        >>> kind_of(ImageSchema(height=28, width=20, levels=17))
        '28 x 20 pixels (height x width), grey, 17 levels'
    """
    colours = "grey" if schema.channels == 1 else "coloured"
    return f"{schema.height} x {schema.width} pixels (height x width), {colours}, {schema.levels} levels"


def given_to(schema: ImageSchema) -> str:
    """Return what is given of an image, or nothing.

    Example:
        >>> given_to(ImageSchema(height=28, width=28, given="top"))
        'the top half'
    """
    if schema.given == "class":
        return "the class"
    if schema.given == "small":
        height, width = schema.context_shape[1:] if schema.context_shape else (0, 0)
        return f"the image at a quarter of its size, {height} x {width}"
    return f"the {schema.given} half" if schema.given else ""


def modelled(schema: ImageSchema) -> str:
    """Return what the density is one of.

    Example:
        >>> modelled(ImageSchema(height=28, width=28, given="left"))
        'the right half of an image given the left half'
    """
    other = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}.get(schema.given)
    what = f"the {other} half of an image" if other else "an image"
    return f"{what} given {given_to(schema)}" if schema.given else what


def bits(schema: ImageSchema, log_prob: float) -> float:
    """Return bits per dimension of what is modelled of an image, from a log-density in nats.

    Example:
        >>> round(bits(ImageSchema(height=2, width=2), -4 * math.log(2)), 12)
        1.0
    """
    import torch

    from ..flows import bits_per_dim

    return float(bits_per_dim(torch.tensor(log_prob, dtype=torch.float64), math.prod(schema.event_shape)))
