"""Training points in memory, preprocessed once an epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..flows import Flow


@dataclass(frozen=True, slots=True)
class Points:
    """Points to train or validate on, in the units of the data.

    Attributes:
        x: Points, ``(n, *event_shape)``.
        context: Their contexts, ``(n, *context_shape)``, or None.
        weights: Their weights, ``(n,)``, or None for equal ones.
    """

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("context", "weights"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.x):
                raise ValueError(
                    f"{name} must have one row for each of the {len(self.x)} points, got {len(rows)}"
                )

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """Points in the model's space, and the mean log-determinant of getting there."""

    z: Tensor
    context: Tensor | None
    weights: Tensor | None
    log_abs_det: float


def preprocess(flow: Flow, points: Points, generator: torch.Generator) -> Preprocessed:
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
        mean = shift.mean() if weights is None else (weights * shift).sum() / weights.sum()
        context = points.context
        if context is not None:
            context = (
                context.to(like)
                if flow.context_preprocess is None
                else flow.context_preprocess(context, like)[0]
            )
    return Preprocessed(z, context, weights, float(mean))


def fit_preprocess(flow: Flow, points: Points, generator: torch.Generator) -> None:
    """Fit the flow's preprocess and its data-dependent parameters to the training points."""
    with torch.no_grad():
        if flow.preprocess is not None:
            x = points.x.double()
            if flow.surjection is not None:
                x, _ = flow.surjection.encode(x, generator=generator)
            flow.preprocess.transform.initialize(x)
        if flow.context_preprocess is not None and points.context is not None:
            flow.context_preprocess.transform.initialize(points.context.double())
        ready = preprocess(flow, points, generator)
        some = slice(0, 4096)
        flow.initialize(ready.z[some], None if ready.context is None else ready.context[some])
