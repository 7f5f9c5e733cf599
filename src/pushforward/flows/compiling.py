"""What ``torch.compile`` makes faster, and how to do without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

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
from ..transforms.flat import links_of
from ..transforms.walk import walk

P = ParamSpec("P")
R = TypeVar("R")
_LAYERS = (ActNorm, Autoregressive, Chain, Coupling, Elementwise, LULinear, Orthogonal, Permutation)
_MAPS = (Additive, Affine, Scale)


def compiles_well(transform: Transform, *, inverse: bool = False) -> bool:
    """Return whether a direction of a transform gains from ``torch.compile``.

    What is one call of a fused kernel does not, nor do splines, which take minutes to compile, nor what goes from
    element to element, or iterates: its loops would be unrolled.
    """
    if links_of(transform, inverse=inverse) is not None:
        return False
    parts = [part for _, part in walk(transform)]
    maps = [part.map for part in parts if isinstance(part, (Autoregressive, Coupling, Elementwise))]
    return (
        all(isinstance(part, _LAYERS) for part in parts)
        and all(isinstance(each, _MAPS) for each in maps)
        and not (inverse and any(isinstance(part, Autoregressive) for part in parts))
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
