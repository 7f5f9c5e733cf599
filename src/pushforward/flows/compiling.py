"""What ``torch.compile`` makes faster, and how to do without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from ..networks.stack import serves
from ..transforms import (
    ActNorm,
    Additive,
    Affine,
    Autoregressive,
    Chain,
    Coupling,
    Elementwise,
    LULinear,
    Orthogonal,
    Permutation,
    Scale,
    Transform,
)
from ..transforms.walk import walk

P = ParamSpec("P")
R = TypeVar("R")
_LAYERS = (ActNorm, Autoregressive, Chain, Coupling, Elementwise, LULinear, Orthogonal, Permutation)
_MAPS = (Additive, Affine, Scale)
_MANY = 256  # points, enough for a kernel


def compiles_well(transform: Transform, *, inverse: bool = False) -> bool:
    """Return whether a direction of a transform gains from ``torch.compile``.

    What is one call of a fused kernel does not, nor do splines, which take minutes to compile, nor what goes from
    element to element, or iterates: its loops would be unrolled.
    """
    parts = [part for _, part in walk(transform)]
    if _is_one_call(parts, inverse=inverse):
        return False
    maps = [part.map for part in parts if isinstance(part, (Autoregressive, Coupling, Elementwise))]
    return (
        all(isinstance(part, _LAYERS) for part in parts)
        and all(isinstance(each, _MAPS) for each in maps)
        and not (inverse and any(isinstance(part, Autoregressive) for part in parts))
    )


def _is_one_call(parts: list[Transform], *, inverse: bool) -> bool:
    """Return whether all parts are links of a fused chain."""
    x = torch.zeros(_MANY, *parts[0].event_shape)
    if not serves(x):
        return False
    contexts = [None if part.context_shape is None else torch.zeros(part.context_shape) for part in parts]
    return all(
        part.link(x, context, inverse=inverse) is not None
        for part, context in zip(parts, contexts, strict=True)
    )


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function compiled by ``torch.compile``; where nothing can be compiled, itself after one warning."""
    fast: Callable[P, R] | None = torch.compile(function)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal fast
        if fast is None or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        try:
            return fast(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            fast = None
            warnings.warn(
                f"not compiled, and so slower: {' '.join(str(error).split())[:200]}",
                RuntimeWarning,
                stacklevel=2,
            )
            return function(*args, **kwargs)

    return call
