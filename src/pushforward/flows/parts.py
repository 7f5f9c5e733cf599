"""The shapes that the parts of a flow have to each other."""

from __future__ import annotations

from torch import nn

from ..distributions import Distribution
from ..networks.shapes import Shape
from ..surjections import Augment, Surjection
from ..transforms import Transform
from .preprocess import DataMap


def outer_event_shape(
    transform: Transform,
    base: Distribution,
    preprocess: DataMap | None,
    surjection: Surjection | None,
    augment: Augment | None,
) -> Shape:
    """Return the shape of a point as the user gives it.

    Raises:
        ValueError: Parts that do not follow on each other.
    """
    if transform.latent_shape != base.event_shape:
        raise ValueError(
            f"base must have the event shape that the transform gives, {transform.latent_shape}, "
            f"got {base.event_shape}"
        )
    if augment is not None and augment.latent_shape != transform.event_shape:
        raise ValueError(
            f"augment must give the shape that the transform takes, {transform.event_shape}, "
            f"got {augment.latent_shape}"
        )
    entered = transform.event_shape if augment is None else augment.event_shape
    if preprocess is not None and preprocess.latent_shape != entered:
        raise ValueError(
            f"preprocess must give the shape that {'the transform' if augment is None else 'augment'} takes, "
            f"{entered}, got {preprocess.latent_shape}"
        )
    if surjection is not None and preprocess is None:
        raise ValueError(
            "surjection needs a preprocess, which brings its values to the model's units; got None"
        )
    return entered if preprocess is None else preprocess.event_shape


def inner_context_shape(transform: Transform, base: Distribution) -> Shape | None:
    """Return the shape of a context that transform and base take; None: neither takes one.

    Raises:
        ValueError: They take different ones.
    """
    shapes = {s for s in (transform.context_shape, base.context_shape) if s is not None}
    if len(shapes) > 1:
        raise ValueError(f"transform and base must take one context shape, got {sorted(shapes)}")
    return shapes.pop() if shapes else None


def outer_context_shape(
    taken: Shape | None, preprocess: DataMap | None, embedding: nn.Module | None, given: Shape | None
) -> Shape | None:
    """Return the shape of a context as the user gives it, from what the model takes and what comes before it.

    Raises:
        ValueError: Parts that do not follow on each other, or leave the shape open.
    """
    if embedding is None and preprocess is not None and preprocess.latent_shape != taken:
        raise ValueError(
            f"context_preprocess must give the context shape that transform and base take, {taken}, "
            f"got {preprocess.latent_shape}"
        )
    known = taken if preprocess is None else preprocess.event_shape
    if embedding is not None and preprocess is None:
        if given is None:
            raise ValueError("context_shape is needed for an embedding without context_preprocess, got None")
        known = tuple(given)
    if given is not None and tuple(given) != known:
        raise ValueError(
            f"context_shape must be {known}, as the parts of the flow take it, got {tuple(given)}"
        )
    return known
