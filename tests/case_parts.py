"""What a case of the law suite is, and every elementwise map with its domain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.transforms import (
    Additive,
    Affine,
    ElementwiseMap,
    RationalQuadraticSpline,
    Scale,
    Sigmoid,
    Softplus,
    Tanh,
    Transform,
)

FEATURES = 4
CONTEXT = 2
ANGLES = (1, 3)
BOUND = 3.0
# Half a turn as a float32 flow has it, whatever it is cast to.
HALF_TURN = float(torch.tensor(math.pi))
NET = {"hidden": (8, 8), "activation": "tanh"}

Sampler = Callable[[tuple[int, ...], torch.Generator], Tensor]
Period = tuple[float, ...] | float


def normal(scale: float) -> Sampler:
    return lambda shape, g: scale * torch.randn(shape, generator=g, dtype=torch.float64)


def uniform(low: float, high: float) -> Sampler:
    return lambda shape, g: low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)


def columns(*samplers: Sampler) -> Sampler:
    """Each element of a vector with its own sampler."""
    return lambda shape, g: torch.stack([s(shape[:-1], g) for s in samplers], -1)


ON_LINE = normal(2.0)


@dataclass(frozen=True)
class Case:
    """A transform and what the laws must know of it.

    ``sample`` draws points of its domain; ``period`` and ``latent_period`` say modulo what each element of a point and
    of a latent point counts (0: as it is). ``strength`` is the spread of the random parameters, which are drawn until
    the median of |log-det| is at least 1 unless the transform keeps ``volume``. ``starts_as_identity`` holds for a
    fresh one. ``compiles`` lists the directions that are compiled: none of a case whose parts all compile in another.
    ``adaptive`` says that the number of steps of a solver depends on the values of its points, so that neither a
    compiler nor tensors without values can follow it. A solver states its tolerances: of a round trip in units of the
    map's stretch, of a log-determinant, and of rows in other company, whose products of matrices are rounded
    differently.
    """

    build: Callable[[], Transform]
    sample: Sampler = ON_LINE
    period: Period = 0.0
    latent_period: Period = 0.0
    strength: float = 1.0
    volume: bool = False
    starts_as_identity: bool = False
    compiles: tuple[str, ...] = ()
    adaptive: bool = False
    round_trip_tolerance: float = 1e-9
    log_det_tolerance: float = 1e-8
    loop_tolerance: float = 1e-9


BOTH = ("forward", "inverse")


@dataclass(frozen=True)
class MapCase:
    """An elementwise map for the elements of the given numbers, and its domain."""

    build: Callable[[list[int]], ElementwiseMap]
    sample: Sampler = ON_LINE
    period: Period = 0.0
    volume: bool = False
    identity: bool = True
    compiles: bool = True


TAILS = ("bounded", "circular", "linear", "circular")


def mixed_spline(elements: list[int]) -> RationalQuadraticSpline:
    """An interval, angles and the line."""
    bounds = [HALF_TURN if i in ANGLES else BOUND for i in elements]
    return RationalQuadraticSpline(4, bounds, [TAILS[i] for i in elements])


ON_CYLINDER = columns(*[uniform(-3.1, 3.1) if i in ANGLES else ON_LINE for i in range(FEATURES)])
CYLINDER = tuple(2 * HALF_TURN if i in ANGLES else 0.0 for i in range(FEATURES))

MAPS: dict[str, MapCase] = {
    "additive": MapCase(lambda e: Additive(), volume=True),
    "scale": MapCase(lambda e: Scale()),
    "affine": MapCase(lambda e: Affine()),
    "sigmoid": MapCase(lambda e: Sigmoid(), identity=False),
    "tanh": MapCase(lambda e: Tanh(), identity=False),
    "softplus": MapCase(lambda e: Softplus(), identity=False),
    "spline": MapCase(lambda e: RationalQuadraticSpline(5, BOUND)),
    "spline-bounded": MapCase(
        lambda e: RationalQuadraticSpline(5, BOUND, "bounded"), uniform(-BOUND, BOUND), compiles=False
    ),
    "spline-circular": MapCase(
        lambda e: RationalQuadraticSpline(5, BOUND, "circular"),
        uniform(-BOUND, BOUND),
        period=2 * BOUND,
        compiles=False,
    ),
    "spline-mixed": MapCase(
        mixed_spline,
        columns(uniform(-BOUND, BOUND), uniform(-3.1, 3.1), ON_LINE, uniform(-3.1, 3.1)),
        period=CYLINDER,
    ),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
