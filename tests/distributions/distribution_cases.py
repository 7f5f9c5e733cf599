"""One constructor for every exported distribution, with parameters drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.distributions import (
    DiagonalNormal,
    Distribution,
    GaussianMixture,
    Logistic,
    Product,
    StudentT,
    Uniform,
    VonMises,
)

CONTEXT = 3
Build = Callable[[tuple[int, ...], torch.Generator], Distribution]


def rand(shape: tuple[int, ...], low: float, high: float, g: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=g)


def uniform(shape: tuple[int, ...], g: torch.Generator) -> Uniform:
    low = rand(shape, -3, 1, g)
    return Uniform(low, low + rand(shape, 0.1, 4, g))


def von_mises(shape: tuple[int, ...], g: torch.Generator, *, trainable: bool) -> VonMises:
    return VonMises(rand(shape, -4, 4, g), rand(shape, 0.05, 9, g), trainable=trainable)


def product(shape: tuple[int, ...], g: torch.Generator, *parts: Build) -> Product:
    """Deal the elements of a vector out to the parts at random."""
    size = math.prod(shape)
    deal = torch.randperm(size, generator=g).tolist()
    groups = [group for i in range(len(parts)) if (group := deal[i :: len(parts)])]
    built = [build((len(group),), g) for build, group in zip(parts, groups, strict=False)]
    return Product(built, groups)


CASES: dict[str, Build] = {
    "normal": lambda s, g: DiagonalNormal(s),
    "normal-trainable": lambda s, g: DiagonalNormal(s, trainable=True),
    "normal-conditional": lambda s, g: DiagonalNormal(s, context_features=CONTEXT),
    "logistic": lambda s, g: Logistic(s),
    "uniform": uniform,
    "student": lambda s, g: StudentT(s, rand(s, 3, 60, g)),
    "student-trainable": lambda s, g: StudentT(s, rand(s, 2.5, 9, g), trainable=True),
    "mixture": lambda s, g: GaussianMixture(s, 3, generator=g),
    "mixture-fixed": lambda s, g: GaussianMixture(s, 2, trainable=False, generator=g),
    "von-mises": lambda s, g: von_mises(s, g, trainable=False),
    "von-mises-trainable": lambda s, g: von_mises(s, g, trainable=True),
    "product": lambda s, g: product(s, g, CASES["normal-conditional"], CASES["von-mises-trainable"]),
    "product-smooth": lambda s, g: product(
        s, g, CASES["normal-conditional"], CASES["student-trainable"], CASES["logistic"]
    ),
}
VECTORS_ONLY = {"product", "product-smooth"}


def build(name: str, shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Distribution:
    """Build a case and move every parameter away from its start, without blowing a network up."""
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():  # networks take their first weights from torch's own generator
        torch.manual_seed(seed)
        distribution = CASES[name](shape, g).to(dtype)
    with torch.no_grad():
        for p in distribution.parameters():
            size = 0.7 if p.ndim < 2 else 0.7 * p.shape[-1] ** -0.5
            p.add_(size * torch.randn(p.shape, generator=g).to(dtype))
    return distribution


def context_for(distribution: Distribution, seed: int, *batch: int) -> Tensor | None:
    """Contexts far apart from each other, or None where they are ignored."""
    if distribution.context_shape is None:
        return None
    g = torch.Generator().manual_seed(seed)
    shape = (*batch, *distribution.context_shape)
    return (3 * torch.randn(shape, generator=g)).to(distribution.dtype)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def event_shapes(name: str) -> list[tuple[int, ...]]:
    return [(3,)] if name in VECTORS_ONLY else [(), (3,), (2, 2)]
