"""Points on their way from base to data, and the density that they have in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, floor

import torch
from torch import Tensor

from ..flows import Flow, chunk_rows
from ..networks.shapes import check_event
from ..ode import Control, Fixed
from ..transforms import Continuous, Transform
from ..transforms.divergence import Exact
from ..transforms.walk import walk

TIMES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer with the time that it takes of the way from base to data.

    Attributes:
        layer: The layer; points are taken back through it.
        start: When it begins.
        stop: When it is done; with ``start`` the same it takes no time.
    """

    layer: Transform
    start: float
    stop: float

    @property
    def moves(self) -> bool:
        """Whether points have a velocity on the way, and with it a density."""
        return isinstance(self.layer, Continuous)

    def share(self, t: float) -> float:
        """Return how much of the layer is done at a time, from 0 to 1."""
        if self.start == self.stop:
            return float(t > self.start or t == self.start == 1.0)
        return min(max((t - self.start) / (self.stop - self.start), 0.0), 1.0)


def stages(flow: Flow) -> tuple[Stage, ...]:
    """Return the layers of a flow in order from base to data, which together take a unit of time.

    Continuous layers share the time, and others beside them take none. Where no layer is continuous all share it.

    Raises:
        ValueError: Layers that change the shape of points.

    Example:
        >>> from pushforward.configs import NICEConfig
        >>> from pushforward.flows import build_flow
        >>> [(s.start, s.stop) for s in stages(build_flow(NICEConfig(layers=1, hidden=(8,)), 2))]
        [(0.0, 0.5), (0.5, 1.0)]
    """
    layers = [layer for _, layer in reversed(walk(flow.transform))]
    shape = flow.transform.latent_shape
    for layer in layers:
        if not layer.event_shape == layer.latent_shape == shape:
            raise ValueError(
                f"the layers must keep the shape of points, {shape}, for points to be followed through them; "
                f"{type(layer).__name__} takes {layer.latent_shape} to {layer.event_shape}"
            )
    taking = [isinstance(layer, Continuous) for layer in layers]
    if not any(taking):
        taking = [True] * len(layers)
    ends = [sum(taking[:i]) / sum(taking) for i in range(len(layers) + 1)]
    return tuple(Stage(layer, *span) for layer, span in zip(layers, pairwise(ends), strict=True))


def trajectories(
    flow: Flow,
    start: int | Tensor,
    context: Tensor | None = None,
    *,
    times: Sequence[float] = TIMES,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return where points of the base are on their way to the data, :math:`x(t)` of :math:`dx/dt = v(t, x; c)`.

    At time 0 they are latents, at time 1 what ``from_latent`` makes of these. All are in the units of the data: the
    inverse of the flow's ``preprocess`` is the last step at every time. Values of discrete elements stay spread over
    their cells, and added elements are left out. Through layers that are not continuous points go in straight lines.

    Args:
        flow: The flow.
        start: How many latents to draw, or the latents ``(*batch, *latent_shape)``.
        context: Contexts ``(*context_batch, *context_shape)``.
        times: Increasing times from 0 to 1.
        generator: Source of the draws.

    Returns:
        Points, ``(times, *batch, *event_shape)``; those of a draw ``(times, n, *context_batch, *event_shape)``. NaN
        where a solve was given up, with a warning.

    Raises:
        ValueError: Shapes that do not fit, times that are none, or layers that change the shape of points.

    Example:
        >>> from pushforward.configs import FlowMatchingConfig
        >>> from pushforward.flows import build_flow
        >>> flow = build_flow(FlowMatchingConfig(hidden=(8,)), 2)
        >>> path = trajectories(flow, torch.zeros(5, 2), times=(0.0, 0.5, 1.0))
        >>> path.shape, path[0].abs().max().item()
        (torch.Size([3, 5, 2]), 0.0)
    """
    return torch.stack(list(follow(flow, start, context, times=times, generator=generator)))


@torch.no_grad()
def follow(
    flow: Flow,
    start: int | Tensor,
    context: Tensor | None = None,
    *,
    times: Sequence[float] = TIMES,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield what ``trajectories`` returns for each time, once it is known; arguments and errors as there."""
    _check_times(times)
    way = stages(flow)
    if isinstance(start, int):
        x, given = flow._sample_base((start,), context, 1.0, generator)
    else:
        check_event(flow, "start", start, flow.transform.latent_shape)
        given = flow._enter_context(context)
        x = flow._expand("latent", start, given)
    left, held = list(way), 0.0  # of the first layer that is left so much is done for x
    for t in times:
        shown = x
        while left and (share := left[0].share(t)) > 0.0:
            layer = left[0].layer
            if isinstance(layer, Continuous):
                x, held, shown = _onwards(layer, x, given, held, share)
            else:
                there = layer.decode(x, given)
                shown = torch.lerp(x, there, share) if share < 1.0 else there
            if share < 1.0:
                break
            x, held = shown, 0.0
            del left[0]
        yield _in_units(flow, shown)


def density_path(
    flow: Flow,
    times: Sequence[float],
    grid: Tensor,
    context: Tensor | None = None,
    *,
    control: Control | None = None,
) -> Tensor:
    r"""Return the log-density at points that ``trajectories`` have at each time.

    .. math:: \log p_t(x) = \log p_0(x(0)) - \int_0^t \nabla \cdot v(s, x(s))\, ds, \qquad x(t) = x,

    with the exact divergence, whichever the flow is trained with, and in the units of the data. At time 1 it is
    ``log_prob``, with the noise of discrete elements as part of the points.

    Args:
        flow: The flow.
        times: Times from 0 to 1; where layers are not continuous, those at which one is done.
        grid: Points in the units of the data, ``(*batch, *event_shape)``.
        context: Contexts, whose batch shape broadcasts with that of the points.
        control: How long the steps of continuous layers are; by default as the layers say.

    Returns:
        Log-densities in nats, ``(times, *batch)``. NaN where a solve was given up, with a warning.

    Raises:
        ValueError: Shapes that do not fit, a time between two layers, or a flow with added elements.

    Example:
        >>> from pushforward.configs import FlowMatchingConfig
        >>> from pushforward.flows import build_flow
        >>> flow = build_flow(FlowMatchingConfig(hidden=(8,)), 2)
        >>> [round(value, 4) for value in density_path(flow, [0.0], torch.zeros(1, 2))[0].tolist()]
        [-1.8379]
    """
    _check_times(times)
    if flow.augment is not None:
        raise ValueError("the density on the way is an integral over the added elements, which are not known")
    way = [_exact(stage) for stage in stages(flow)]
    for t in times:
        if any(not stage.moves and 0.0 < stage.share(t) < 1.0 for stage in way):
            raise ValueError(
                f"between two layers there is no density, and time {t} is in the middle of one; they are done at "
                f"{', '.join(f'{stage.stop:.4g}' for stage in way)}"
            )
    with torch.no_grad():
        z, units, given = flow._enter(grid, context)
        batch = z.shape[: z.ndim - len(flow.event_shape)]
        rows = z.reshape(-1, *z.shape[len(batch) :])
        if given is not None:
            shape = given.shape[len(flow._context_batch(given)) :]
            given = given.expand(*batch, *shape).reshape(-1, *shape)
        step = chunk_rows(flow)
        found = []
        for t in times:
            parts = []
            for i in range(0, max(len(rows), 1), step):
                own = None if given is None else given[i : i + step]
                parts.append(_log_density(flow, way, t, rows[i : i + step], own, control=control))
            found.append(torch.cat(parts).reshape(batch) + units)
    return torch.stack(found)


def _log_density(
    flow: Flow, way: Sequence[Stage], t: float, x: Tensor, given: Tensor | None, *, control: Control | None
) -> Tensor:
    total = x.new_zeros(len(x))
    for stage in reversed(way):
        if (share := stage.share(t)) == 0.0:
            continue
        if isinstance(stage.layer, Continuous):
            own = stage.layer.control
            if isinstance(own, Fixed):
                own = Fixed(max(1, ceil(own.steps * share - _ROUNDING)))
            back = stage.layer.between(x, given, (share, 0.0), control=control or own, log_det=True)
            x, log_abs_det = back.y, back.log_abs_det
        else:
            x, log_abs_det = stage.layer(x, given)
        total = total + log_abs_det
    log_prob: Tensor = flow.base.log_prob(x, given)
    return log_prob + total


def _onwards(
    layer: Continuous, x: Tensor, given: Tensor | None, now: float, t: float
) -> tuple[Tensor, float, Tensor]:
    """Take points from one time to a later one; return those to go on from, their time, and those at the later one.

    A fixed number of steps is that of the whole way: points in between are a step from the last whole one, so that the
    end is the same for any times.
    """
    if not isinstance(layer.control, Fixed):
        x = layer.between(x, given, (now, t)).y
        return x, t, x
    steps = layer.control.steps
    before, done = round(now * steps), floor(t * steps + _ROUNDING)
    if done > before:
        x = layer.between(x, given, (before / steps, done / steps), control=Fixed(done - before)).y
    if t * steps - done <= _ROUNDING:
        return x, done / steps, x
    return x, done / steps, layer.between(x, given, (done / steps, t), control=Fixed(1)).y


def _exact(stage: Stage) -> Stage:
    """Return a stage whose layer has an exact divergence, of the same field."""
    layer = stage.layer
    if not isinstance(layer, Continuous) or layer.exact:
        return stage
    exact = Continuous(
        layer.field,
        method=layer.method.name,
        control=layer.control,
        divergence=Exact(),
        gradient=layer.gradient,
    )
    return replace(stage, layer=exact)


def _in_units(flow: Flow, z: Tensor) -> Tensor:
    """Return points in the units of the data, those of discrete elements within their cells."""
    if flow.augment is not None:
        z = flow.augment.decode(z)
    return z if flow.preprocess is None else flow.preprocess.inverse(z)[0]


def _check_times(times: Sequence[float]) -> None:
    if not times or not all(0.0 <= t <= 1.0 for t in times) or any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"times must be increasing numbers from 0 to 1, got {list(times)}")
