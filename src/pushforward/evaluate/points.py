"""The points at which a flow is checked: rows of data, samples, and points away from both, in the model's units."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..distributions import Distribution, Product, Uniform, VonMises
from ..flows import Flow, Preprocess, with_solver
from ..transforms import Support
from ..transforms.walk import walk

_NEAREST, _FARTHEST = 3.0, 30.0  # how far away points are moved, in scales
_SEAM = 1e-9
_TOLERANCE = 2e-11  # of a solver


@dataclass(frozen=True, slots=True)
class Space:
    """Units of comparison of a space's elements.

    Attributes:
        centre: Where the points lie, ``(D,)``.
        scale: How far they spread, above 0.
        period: What an element counts modulo; 0: as it is.
    """

    centre: Tensor
    scale: Tensor
    period: Tensor

    def apart(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the largest difference of the elements of each point, ``(n,)``, relative to the local scale.

        The local scale is the spread of the element plus the distance of ``b`` from the centre.
        """
        a, b = a.double(), b.double()
        turns = torch.round((a - b) / self.period.where(self.period > 0, 1.0))
        difference = torch.where(self.period > 0, a - b - self.period * turns, a - b)
        away = torch.where(self.period > 0, 0.0, (b - self.centre).abs())
        return (difference.abs() / (self.scale + away)).amax(-1)

    def around(self, points: Tensor) -> Space:
        """Return the units that other points of the space, those of them that are finite, give."""
        circles = self.period.nonzero().flatten().tolist()
        return space_of(points[points.isfinite().all(1)], len(self.period), circles)


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one kind, in the model's units and laid flat, float64, with their embedded contexts.

    Attributes:
        where: ``"data"``, ``"samples"`` or ``"away"``.
        z: Points before the transform, ``(n, D)``.
        latent: Latent points to start from on the way back, ``(n, D)``.
        context: Contexts as transform and base take them, ``(n, *context)``, or None.
        rows: For data, the place of each point among the rows given.
    """

    where: str
    z: Tensor
    latent: Tensor
    context: Tensor | None
    rows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.z)

    def some(self, count: int) -> Points:
        """Return so many of the points, from the first to the last: a table may be sorted."""
        chosen = spread_out(len(self), count)
        context = None if self.context is None else self.context[chosen]
        rows = tuple(self.rows[i] for i in chosen.tolist()) if self.rows else ()
        return Points(self.where, self.z[chosen], self.latent[chosen], context, rows)


def spread_out(length: int, count: int) -> Tensor:
    """Return at most ``count`` of the places of a sequence, evenly spread."""
    return torch.linspace(0, max(length - 1, 0), min(count, length)).round().long()


def cast(flow: Flow, dtype: torch.dtype) -> Flow:
    """Return a copy of a flow on the CPU in another precision, that no gradient reaches; the flow stays as it is."""
    return copy.deepcopy(flow).to(device="cpu", dtype=dtype).requires_grad_(False).eval()


def exactly(flow: Flow) -> Flow:
    """Return a copy in float64, a continuous flow with a solver of errors next to rounding."""
    double = cast(flow, torch.float64)
    return with_solver(double, tolerance=_TOLERANCE) if double.transform.log_det_costs else double


def enter_context(flow: Flow, context: Tensor) -> Tensor:
    """Bring contexts to what transform and base take."""
    if flow.context_preprocess is not None:
        context, _ = flow.context_preprocess(context, flow.like)
    embedded = flow.embed(context.to(flow.like))
    assert embedded is not None
    return embedded


def draw_contexts(flow: Flow, count: int, generator: torch.Generator) -> Tensor | None:
    """Draw contexts around the origin of the model's units, embedded; None for a flow without context."""
    if flow.context_shape is None:
        return None
    inner = flow.context_preprocess
    shape = flow.context_shape if inner is None else inner.latent_shape
    noise = torch.randn((count, *shape), generator=generator, dtype=torch.float64)
    return flow.embed(noise.to(flow.like))


def enter_points(flow: Flow, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return dequantised points, the same in the model's units, and whether each lies in the support."""
    x = x.to("cpu", torch.float64)
    if flow.surjection is not None:
        x, _ = flow.surjection.encode(x, generator=generator)
    z, inside = x, torch.ones(len(x), dtype=torch.bool)
    if flow.preprocess is not None:
        z, log_abs_det = flow.preprocess(x, flow.like)
        inside = log_abs_det != -torch.inf
    return x, z, inside


def supports(flow: Flow) -> list[Support]:
    """Return the parts of the preprocess that hold columns to their supports."""
    if not isinstance(flow.preprocess, Preprocess):
        return []
    return [part for _, part in walk(flow.preprocess.transform) if isinstance(part, Support)]


def angles(flow: Flow) -> list[int]:
    """Return which elements are angles: those whose preprocess is a circle, or whose base is on one.

    The builders keep an angle at its place from data to latent.
    """
    if flow.preprocess is not None:
        circles = [part.periodic for part in supports(flow)]
        return torch.stack(circles).any(0).nonzero().flatten().tolist() if circles else []
    return _angles_of(flow.base)


def space_of(points: Tensor | None, features: int, circles: list[int]) -> Space:
    """Return the units of points ``(n, D)``: their medians and spreads; 0 and 1 without points."""
    period = torch.zeros(features, dtype=torch.float64)
    period[circles] = 2 * math.pi
    if points is None or len(points) < 2:
        centre, scale = torch.zeros(features).double(), torch.ones(features).double()
    else:
        low, centre, high = points.double().quantile(
            torch.tensor([0.1587, 0.5, 0.8413], dtype=torch.float64), 0
        )
        deviation = points.double().std(0)
        scale = torch.where(high > low, (high - low) / 2, deviation)
        scale = scale.where(scale > 0, 1.0)
    return Space(centre.where(period == 0, 0.0), scale.where(period == 0, 1.0), period)


def move_away(points: Tensor, space: Space, generator: torch.Generator) -> Tensor:
    """Return points moved 3 to 30 scales: in all directions, along one element, or to a corner beyond all points."""
    n, features = points.shape
    kind = torch.arange(n) % 3
    distance = math.log(_FARTHEST / _NEAREST) * torch.rand((n, 1), generator=generator, dtype=torch.float64)
    distance = _NEAREST * distance.exp()
    noise = torch.randn((n, features), generator=generator, dtype=torch.float64)
    one = torch.nn.functional.one_hot(
        torch.randint(features, (n,), generator=generator), num_classes=features
    )
    corner = torch.where(noise < 0, points.amin(0), points.amax(0)) + distance * space.scale * noise.sign()
    moved = torch.where(
        (kind == 0)[:, None],
        points + distance * space.scale * noise,
        points + distance * space.scale * one * noise.sign(),
    )
    moved = torch.where((kind == 2)[:, None], corner, moved)
    # All of a circle is near; its seam, where it must close, is what lies farthest out.
    u = 2 * torch.rand((n, features), generator=generator, dtype=torch.float64) - 1
    on_circle = torch.where((kind == 2)[:, None], u.sign() * (1 - _SEAM), u) * math.pi
    return torch.where(space.period > 0, on_circle, moved)


def _angles_of(base: Distribution) -> list[int]:
    if isinstance(base, VonMises):
        return list(range(base.loc.numel()))
    if isinstance(base, Uniform):
        width = (base.high - base.low - 2 * math.pi).abs() < 1e-5
        return width.flatten().nonzero().flatten().tolist()
    if isinstance(base, Product):
        found, start = [], 0
        for part, size in zip(base.parts, base.sizes, strict=True):
            assert isinstance(part, Distribution)
            found += [int(base.order[start + i]) for i in _angles_of(part)]
            start += size
        return sorted(found)
    return []
