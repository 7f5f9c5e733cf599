"""Training points in memory, preprocessed once an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..flows import Flow

Refill = Callable[[int], "Points"]
"""Gives the points of an epoch, counted from 1: as many in each, and the same whenever it is asked."""

_MOST_PIXELS = 2**24  # that a preprocess is fitted to


@dataclass(frozen=True, slots=True)
class Points:
    """Points to train or validate on, in the units of the data.

    Attributes:
        x: Points, ``(n, *event_shape)``.
        context: Their contexts, ``(n, *context_shape)``, or None.
        weights: Their weights, ``(n,)``, or None for equal ones.
        rows: Which row of the table each is, counted from 1, ``(n,)``; None: the points are the table.
    """

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("context", "weights", "rows"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.x):
                raise ValueError(
                    f"{name} must have one row for each of the {len(self.x)} points, got {len(rows)}"
                )

    def __len__(self) -> int:
        return len(self.x)

    def first(self, count: int) -> Points:
        """Return the first points."""
        return self.take(slice(count))

    def take(self, places: Tensor | slice) -> Points:
        """Return the points at some places."""
        context, weights, rows = (
            None if t is None else t[places] for t in (self.context, self.weights, self.rows)
        )
        return Points(self.x[places], context, weights, rows)

    def spread(self, count: int) -> Points:
        """Return so many of the points, at even distances; all where there are fewer."""
        if len(self) <= count:
            return self
        return self.take(torch.linspace(0, len(self) - 1, count).long())

    def row(self, place: int) -> int:
        """Return which row of the table a point is, counted from 1."""
        return place + 1 if self.rows is None else int(self.rows[place])

    def digest(self) -> str:
        """Return the SHA-256 of all values, by which other points are known."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.context, self.weights):
            if tensor is not None:
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Batch:
    """Points in the model's space.

    Attributes:
        z: Preprocessed points, ``(n, *event)``.
        context: Preprocessed contexts, ``(n, *context)``, or None.
        weights: Weights, ``(n,)``, or None.
        places: Which of the ``Points`` each is, ``(n,)``, on the CPU.
        log_abs_det: The mean log-determinant of getting there, of these or of more points.
    """

    z: Tensor
    context: Tensor | None
    weights: Tensor | None
    places: Tensor
    log_abs_det: float = 0.0

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice) -> Batch:
        z, context, weights, places = (None if t is None else t[rows] for t in self._tensors())
        assert z is not None and places is not None
        return Batch(z, context, weights, places, self.log_abs_det)

    def shuffled(self, order: Tensor) -> Batch:
        """Return the rows in another order."""
        on_device = order.to(self.z.device)
        z, context, weights = (None if t is None else t[on_device] for t in self._tensors()[:3])
        assert z is not None
        return Batch(z, context, weights, self.places[order], self.log_abs_det)

    def with_noise(self, noise: float, seed: int) -> Batch:
        """Return the rows with normal noise of a standard deviation."""
        generator = torch.Generator(self.z.device).manual_seed(seed)
        drawn = torch.randn(self.z.shape, dtype=self.z.dtype, device=self.z.device, generator=generator)
        return replace(self, z=self.z + noise * drawn)

    def pieces(self, count: int) -> Iterator[tuple[Batch, float]]:
        """Yield the rows in at most ``count`` pieces, each with its share of the weight."""
        rows = -(-len(self) // count)
        for start in range(0, len(self), rows):
            piece = self[start : start + rows]
            if self.weights is None or piece.weights is None:
                yield piece, len(piece) / len(self)
            else:
                yield piece, float(piece.weights.sum() / self.weights.sum())

    def _tensors(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        return self.z, self.context, self.weights, self.places


def preprocess(flow: Flow, points: Points, generator: torch.Generator) -> Batch:
    """Bring points to the model's space, discrete elements with fresh noise.

    Args:
        flow: The flow whose preprocess is used.
        points: Points in the units of the data.
        generator: Source of the dequantisation noise.
    """
    x, like = points.x, flow.like
    with torch.no_grad():
        if flow.surjection is not None:
            x, _ = flow.surjection.encode(x.double(), generator=generator)
        weights = None if points.weights is None else points.weights.to(like)
        if flow.preprocess is None:
            z, shift = x.to(like), x.new_zeros(len(x))
        else:
            z, shift = flow.preprocess(x, like)
        if flow.augment is not None:
            z, log_weight = flow.augment.encode(z, generator=generator)
            shift = shift + log_weight
        mean = shift.mean() if weights is None else (weights * shift).sum() / weights.sum()
        context = points.context
        if context is not None:
            context = (
                context.to(like)
                if flow.context_preprocess is None
                else flow.context_preprocess(context, like)[0]
            )
    return Batch(z, context, weights, torch.arange(len(z)), float(mean))


def are_large(flow: Flow) -> bool:
    """Return whether points are so large that they are preprocessed batch by batch: images."""
    return len(flow.event_shape) > 1


def large_batches(flow: Flow, points: Points, generator: torch.Generator) -> Callable[[slice], Batch]:
    """Return what preprocesses some of the points, shuffled, when it is asked for them.

    A batch has noise of its own, so that a resumed epoch need not draw that of the batches before.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    order = torch.randperm(len(points), generator=generator)

    def batch_of(rows: slice) -> Batch:
        places = order[rows]
        noise = torch.Generator().manual_seed(seed + int(rows.start))
        return replace(preprocess(flow, points.take(places), noise), places=places)

    return batch_of


def fit_preprocess(flow: Flow, points: Points, generator: torch.Generator) -> None:
    """Fit the flow's preprocess and its data-dependent parameters to the training points."""
    few = 4096
    if are_large(flow):
        points, few = points.spread(max(512, _MOST_PIXELS // points.x[0].numel())), 512
    with torch.no_grad():
        if flow.preprocess is not None:
            x = points.x.double()
            if flow.surjection is not None:
                x, _ = flow.surjection.encode(x, generator=generator)
            flow.preprocess.initialize(x)
        if flow.context_preprocess is not None and points.context is not None:
            flow.context_preprocess.initialize(points.context.double())
        some = preprocess(flow, points.spread(few) if are_large(flow) else points, generator)[:few]
        flow.initialize(some.z, some.context)
