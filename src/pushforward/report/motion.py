"""How a flow carries its base to the data: points and their density over time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtifactError
from .corner import short
from .figures import cell_centres

if TYPE_CHECKING:
    from torch import Tensor

    from ..artifact import FittedFlow
    from ..flows import Flow

Matrix = NDArray[np.float64]

BASE = "base"
_PANELS = 6
_CELLS = {1: 240, 2: 72}  # along each axis of a density, by the number of columns
_REACH = 0.2  # of the range of nearly all points, for what lies near it
_ALIKE = 2.0  # columns whose ranges differ by no more have one scale
_TOLERANCE, _MOST_STEPS = 1e-3, 200  # of a density that is looked at


@dataclass(frozen=True, slots=True)
class Motion:
    """Points of a flow on their way from base to data.

    Attributes:
        names: The columns that are shown, one or two.
        times: Of the frames.
        titles: What stands above each frame.
        points: ``(frames, rows, columns)``, in the units of the columns.
        box: Ends of each axis.
        densities: Of frames by their numbers, ``(cells,)`` or ``(cells, cells)`` with the second column first; NaN
            where it is not found.
        notes: What is shown and what is not.
    """

    names: tuple[str, ...]
    times: Matrix
    titles: tuple[str, ...]
    points: Matrix
    box: tuple[tuple[float, float], ...]
    densities: dict[int, Matrix]
    notes: tuple[str, ...]

    @property
    def panels(self) -> list[int]:
        """The frames of a still picture, of those with a density where there are some."""
        frames = sorted(self.densities) or range(len(self.times))
        return [frames[i] for i in _spread(len(frames), _PANELS)]


def follow_table(
    fitted: FittedFlow,
    *,
    rows: int = 500,
    frames: int = 60,
    columns: Sequence[str] = (),
    given: dict[str, float] | None = None,
    seed: int = 0,
    still: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> Motion:
    """Follow points from base to data, and where all columns are shown their density too.

    Args:
        fitted: The flow of a table.
        rows: How many points.
        frames: How many times; through layers that are not continuous about as many.
        columns: The one or two columns to show; by default the first two.
        given: The values conditioned on.
        seed: Seed of the points.
        still: Whether densities are wanted for the panels of a still picture only.
        told: Is told how far it is.

    Raises:
        ArtifactError: No point stays finite.
        ValueError: Fewer than 2 frames.
    """
    import torch

    from ..evaluate.trajectories import follow

    flow, names, given = fitted.flow, fitted.table.names, given or {}
    shown = [names.index(column) for column in columns] or list(range(min(2, len(names))))
    # Panels then stand at round times.
    times, layered, titles = frame_times(flow, _rounded(frames) if still else frames)
    context = torch.tensor([given[c] for c in fitted.table.context_names], dtype=torch.float64)
    condition = context if given else None
    way = []
    generator = torch.Generator().manual_seed(seed)
    with _counted():
        for x in follow(flow, rows, condition, times=times.tolist(), generator=generator):
            way.append(x.double().numpy()[:, shown])
            told(f"Points: {len(way)} of {len(times)}")
    points = np.stack(way)
    fine = np.isfinite(points).all((0, 2))
    if not fine.any():
        raise ArtifactError("none of the points stays finite on its way. pushforward diagnose shows where.")
    points = points[:, fine]
    box = _box(points)
    notes = [f"{points.shape[1]:,} points drawn from the base, at every time in the units of the columns"]
    if lost := len(fine) - points.shape[1]:
        notes.append(f"{lost} more do not stay finite")
    ends = np.array(box)
    if far := int(((points < ends[:, 0]) | (points > ends[:, 1])).any((0, 2)).sum()):
        notes.append(f"{far} of them {'leaves' if far == 1 else 'leave'} the axes at some time")
    if given:
        # No line ends within an equation.
        values = (f"{short(name, 30)}\u00a0=\u00a0{value:g}" for name, value in given.items())
        notes.append("given " + ", ".join(values))
    densities: dict[int, Matrix] = {}
    if len(shown) == len(names) and flow.augment is None:
        wanted = layered if layered is not None else list(range(len(times)))
        if still and len(shown) > 1:
            wanted = [wanted[i] for i in _spread(len(wanted), _PANELS)]
        for i in wanted:
            told(f"Density: {len(densities) + 1} of {len(wanted)}")
            densities[i] = _density(flow, float(times[i]), box, shown, condition)
        notes.append("shades: exact density, each time up to its own peak")
        unknown = np.isnan(list(densities.values())).any(0)
        if count := int(unknown.sum()):
            notes.append(f"grey: {count:,} of {unknown.size:,} cells, where it is not found at some time")
    elif flow.augment is not None:
        notes.append("no density, which the added elements leave unknown")
    else:
        notes.append(
            f"{len(shown)} of {len(names)} columns: the points are projected, and the density of all is not drawn"
        )
    if any(fitted.table.columns[j].step for j in shown):
        notes.append("values of discrete columns are spread over their cells")
    return Motion(tuple(names[j] for j in shown), times, titles, points, box, densities, tuple(notes))


def frame_times(flow: Flow, frames: int) -> tuple[Matrix, list[int] | None, tuple[str, ...]]:
    """Return the times of frames, those at which a layer is done where layers are not continuous, and titles.

    Raises:
        ValueError: Fewer than 2 frames.
    """
    from ..evaluate.trajectories import stages

    if frames < 2:
        raise ValueError(f"frames must be at least 2, for both ends, got {frames}")
    way = stages(flow)
    if any(stage.moves for stage in way):
        times = np.linspace(0.0, 1.0, frames)
        return times, None, tuple(f"t = {t:.2f}" for t in times)
    layers = len(way)
    states = min(layers, frames - 1)
    each = (frames - 1) // states
    done = np.round(np.linspace(0, layers, states + 1)).astype(int)
    steps = [np.linspace(a, b, each, endpoint=False) / layers for a, b in pairwise(done)]
    times = np.concatenate([*steps, [1.0]])
    places = np.concatenate([[0], *(np.full(each, b) for b in done[1:])])
    kinds = [BASE, *(f"layer {k} of {layers}" for k in range(1, layers + 1))]
    return times, list(range(0, len(times), each)), tuple(kinds[k] for k in places)


def _density(
    flow: Flow, t: float, box: Sequence[tuple[float, float]], shown: Sequence[int], condition: Tensor | None
) -> Matrix:
    """Return the density at the centres of the cells of a box; NaN where it is not found."""
    import torch

    from ..evaluate.trajectories import density_path
    from ..ode import Adaptive

    along = _CELLS[len(shown)]
    centres = np.meshgrid(*(cell_centres(*ends, along) for ends in box))
    grid = np.empty((along ** len(shown), len(shown)))
    for j, values in zip(shown, centres, strict=True):
        grid[:, j] = values.ravel()
    control = Adaptive(_TOLERANCE, _TOLERANCE, _MOST_STEPS)
    with _counted():
        log_prob = density_path(flow, [t], torch.from_numpy(grid), condition, control=control)[0]
    values = log_prob.exp().double().numpy().reshape(centres[0].shape)
    return np.where(np.isfinite(values), values, np.nan)


@contextmanager
def _counted() -> Iterator[None]:
    """Leave out the warnings of solves that are given up: the notes say how many they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the solve of", RuntimeWarning)
        yield


def _box(points: Matrix) -> tuple[tuple[float, float], ...]:
    """Return ends of the axes that hold nearly all points at all times; of alike columns on one scale."""
    ends = np.quantile(points, [0.01, 0.99], axis=1)
    reach = _REACH * (ends[1] - ends[0])
    low = np.maximum(ends[0] - reach, points.min(1)).min(0)
    high = np.minimum(ends[1] + reach, points.max(1)).max(0)
    span = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0) * 1e-3)
    middle = (low + high) / 2
    if span.max() <= _ALIKE * span.min():
        span = np.full_like(span, span.max())
    half = 0.53 * span
    return tuple(zip((middle - half).tolist(), (middle + half).tolist(), strict=True))


def _rounded(frames: int) -> int:
    """Return no fewer frames, some of which are panels at equal distances."""
    return frames if frames <= _PANELS else (_PANELS - 1) * ceil((frames - 1) / (_PANELS - 1)) + 1


def _spread(count: int, most: int) -> list[int]:
    return sorted(set(np.round(np.linspace(0, count - 1, min(most, count))).astype(int).tolist()))
