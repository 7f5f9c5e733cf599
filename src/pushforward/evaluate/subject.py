"""A flow on the examination table: copies in two precisions, and the points and units that all checks share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..flows import Flow
from ..transforms import Transform
from ..transforms.walk import walk
from .points import (
    Points,
    Space,
    angles,
    cast,
    draw_contexts,
    enter_context,
    enter_points,
    exactly,
    move_away,
    space_of,
)

_ENTRIES = 131_072  # of all Jacobians of one layer and set of points
_MOST_JACOBIANS, _FEWEST_ROWS = 48, 16
_ELEMENTS = 64_000  # rows times elements of one set of points
MOST_WITH_JACOBIANS = 256
"""Elements above which few Jacobians are written down, and stretches are estimated without them."""
_FEW_OF_MANY, _ELEMENTS_OF_MANY = 4, 256_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks look at.

    Attributes:
        flow: A copy in its own precision, on the CPU.
        exact: A copy in float64.
        raw: Dequantised rows in the units of the data, in the support, float64, ``(n, *event)``.
        points: Data, if any were given, samples, and points away, none of density 0.
        outside: How many points of each kind were left out since their density is 0.
        data_space: Units before the transform.
        latent_space: Units after it.
        few: How many points of each kind are differentiated at.
        given: Rows of data that were given.
        used: How many of them are looked at.
        seed: Seed of all that is random.
    """

    flow: Flow
    exact: Flow
    raw: Tensor
    points: tuple[Points, ...]
    outside: dict[str, int]
    data_space: Space
    latent_space: Space
    few: int
    given: int
    used: int
    seed: int

    @property
    def features(self) -> int:
        """Number of elements of a point."""
        return math.prod(self.exact.transform.event_shape)

    @property
    def wide(self) -> bool:
        """Whether there are too many elements for a Jacobian at each of a few points."""
        return self.features > MOST_WITH_JACOBIANS

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the flow computes in."""
        return self.flow.like.dtype

    @property
    def precision(self) -> str:
        """The name of that precision."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def eps(self) -> float:
        """Its rounding."""
        return float(torch.finfo(self.dtype).eps)

    def layers(self, flow: Flow) -> list[tuple[str, Transform]]:
        """Return the layers of one of the copies, from data to latent."""
        return walk(flow.transform)

    def event(self, flat: Tensor) -> Tensor:
        """Return points laid flat in the shape that the transform takes."""
        return flat.reshape(-1, *self.exact.transform.event_shape)

    def latent_event(self, flat: Tensor) -> Tensor:
        """Return latents laid flat in the shape that the transform gives."""
        return flat.reshape(-1, *self.exact.transform.latent_shape)

    @property
    def samples(self) -> Points:
        """Samples of the flow."""
        return self.points[-2]

    @property
    def data_or_samples(self) -> Points:
        """Data, or samples where there are none."""
        return self.points_of("data") or self.samples

    def points_of(self, where: str) -> Points | None:
        """Return the points of one kind, if there are any."""
        return next((p for p in self.points if p.where == where and len(p)), None)


def prepare(flow: Flow, x: Tensor | None, context: Tensor | None, rows: int, seed: int) -> Subject:
    """Make copies of a flow and draw the points to look at; arguments as in ``diagnose``."""
    generator = torch.Generator().manual_seed(seed)
    exact = exactly(flow)
    features = math.prod(flow.transform.event_shape)
    wide = features > MOST_WITH_JACOBIANS
    count = min(rows, max(_FEWEST_ROWS, (_ELEMENTS_OF_MANY if wide else _ELEMENTS) // features))
    outside: dict[str, int] = {}
    data, raw = None, torch.zeros((0, *flow.event_shape), dtype=torch.float64)
    if x is not None:
        data, raw = _data(exact, x, context, count=count, generator=generator, outside=outside)
    used = 0 if data is None else len(data) + outside["data"]
    if data is not None and len(data) == 0:
        data = None
    circles = angles(flow)
    if data is None:
        start, given = None, draw_contexts(exact, count, generator)
    else:
        # In another order, so that other contexts are differentiated at than those of the data.
        others = torch.randperm(len(data), generator=generator)[torch.arange(count) % len(data)]
        start, given = data.z[others], _taken(data.context, others)
    shape = (count,) if exact.base.context_shape is None or given is None else ()
    base = exact.base.sample(shape, given, generator=generator)
    with torch.no_grad():
        z = exact.transform.inverse(base, given)[0].flatten(1)
    latent = base.flatten(1)
    data_space = space_of(None if data is None else data.z, features, circles)
    latent_space = space_of(latent, features, circles)
    if start is None:
        start = z[z.isfinite().all(1)]
    if len(start) == 0:
        start = torch.zeros((1, features), dtype=torch.float64)
    away = Points(
        "away",
        move_away(start[torch.arange(count) % len(start)], data_space, generator),
        move_away(latent, latent_space, generator),
        given,
    )
    kept = [Points("samples", z, latent, given), _of_some_density(exact, away, outside)]
    if data is not None:
        kept.insert(0, _of_some_density(exact, data, outside))
    few = _FEW_OF_MANY if wide else max(1, min(_MOST_JACOBIANS, _ENTRIES // features**2))
    return Subject(
        cast(flow, flow.like.dtype),
        exact,
        raw,
        tuple(kept),
        outside,
        data_space,
        latent_space,
        few,
        0 if x is None else len(x),
        used,
        seed,
    )


def _data(
    exact: Flow,
    x: Tensor,
    context: Tensor | None,
    *,
    count: int,
    generator: torch.Generator,
    outside: dict[str, int],
) -> tuple[Points, Tensor]:
    chosen = torch.arange(len(x))
    if len(x) > count:
        chosen = torch.randperm(len(x), generator=generator)[:count].sort().values
    raw, z, inside = enter_points(exact, x.detach()[chosen], generator)
    outside["data"] = int((~inside).sum())
    given = None
    if context is not None and exact.context_shape is not None:
        with torch.no_grad():
            given = enter_context(exact, context.detach()[chosen].cpu())[inside]
    z, chosen, raw = z[inside].double(), chosen[inside], raw[inside]
    with torch.no_grad():
        latent = exact.transform.forward(z, given)[0].flatten(1)
    return Points("data", z.flatten(1), latent, given, tuple(chosen.tolist())), raw


def _of_some_density(exact: Flow, points: Points, outside: dict[str, int]) -> Points:
    """Leave out points, or latents, that the base gives no density to."""
    with torch.no_grad():
        z = points.z.reshape(-1, *exact.transform.event_shape)
        latent = points.latent.reshape(-1, *exact.transform.latent_shape)
        density = exact.log_prob_preprocessed(z, points.context)
        inside = (density != -torch.inf) & (exact.base.log_prob(latent, points.context) != -torch.inf)
    outside[points.where] = outside.get(points.where, 0) + int((~inside).sum())
    rows = tuple(row for row, keep in zip(points.rows, inside.tolist(), strict=False) if keep)
    return Points(points.where, points.z[inside], points.latent[inside], _taken(points.context, inside), rows)


def _taken(context: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if context is None else context[rows]
