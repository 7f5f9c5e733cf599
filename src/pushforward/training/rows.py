"""The rows of a table as points."""

from __future__ import annotations

from pathlib import Path

import torch

from ..configs import MixedConfig, ModelConfig, TableSchema
from ..data import degeneracies
from ..data.shuffled import MatrixRows
from ..errors import DataError
from .points import Points

FEWEST_ROWS = 20


def as_points(rows: MatrixRows) -> Points:
    """Return rows as points to train or validate on."""
    x, context, weights, numbers = (None if part is None else torch.from_numpy(part) for part in rows)
    assert x is not None
    return Points(x, context, weights, numbers)


def used(points: Points, weights: str | None, source: str | Path | None) -> Points:
    """Return the points whose weight is not 0.

    Args:
        points: Rows.
        weights: Name of the column of weights, or None.
        source: Where the rows come from, for messages.

    Raises:
        DataError: There are none.
    """
    if points.weights is None:
        return points
    some = points.take(points.weights > 0)
    if not len(some):
        raise DataError(
            "all weights are 0", source=source, column=weights, remedy="Give some rows a positive weight."
        )
    return some


def degenerate(points: Points, schema: TableSchema, model: ModelConfig) -> list[str]:
    """Say what a density would grow at without bound, as ``degeneracies`` does.

    A mixed density gives gaps, labels and point masses probabilities, which do not.
    """
    if isinstance(model, MixedConfig):
        return []
    given = points.context
    return degeneracies(points.x.numpy(), schema.columns, None if given is None else given.numpy())
