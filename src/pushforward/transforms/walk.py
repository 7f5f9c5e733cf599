"""The layers of a transform, and what they are called in messages."""

from __future__ import annotations

from .base import Inverse, Transform
from .chain import Chain
from .spatial import Flatten, Leading, MultiScale


def walk(transform: Transform, path: str = "transform") -> list[tuple[str, Transform]]:
    """Return the layers of a transform, in order from data to latent, each with the path by which Python reaches it.

    Example:
        >>> from pushforward.transforms import Permutation
        >>> chain = Chain([Permutation.reverse(2), Chain([Inverse(Permutation.reverse(2))])])
        >>> [named(path, layer) for path, layer in walk(chain)]
        ['transform.transforms[0] (Permutation)', 'transform.transforms[1].transforms[0] (Inverse of Permutation)']
    """
    if isinstance(transform, Chain):
        return [step for i, part in enumerate(transform) for step in walk(part, f"{path}.transforms[{i}]")]
    if isinstance(transform, MultiScale):
        features = transform.latent_shape[0]
        flat: list[tuple[str, Transform]] = [(path, Flatten(transform.event_shape))]
        for i in range(len(transform.scales)):
            steps = walk(transform.scale(i), f"{path}.scales[{i}]")
            flat += [(place, Leading(step, features)) for place, step in steps]
        return flat
    if isinstance(transform, Inverse) and isinstance(transform.transform, Chain | Inverse | MultiScale):
        steps = walk(transform.transform, f"{path}.transform")
        return [(place, Inverse(step)) for place, step in reversed(steps)]
    return [(path, transform)]


def named(path: str, layer: Transform) -> str:
    """Return what a layer is called: its path and its kind."""
    return f"{path} ({_kind(layer)})"


def _kind(layer: Transform) -> str:
    if isinstance(layer, Leading):
        return _kind(layer.transform)
    return f"Inverse of {_kind(layer.transform)}" if isinstance(layer, Inverse) else type(layer).__name__
