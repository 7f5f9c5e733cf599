"""The rows that a report judges a flow by: how likely it finds them, and whether it has seen them before."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..data import split_rows, to_matrix

if TYPE_CHECKING:
    import polars as pl
    import torch

    from ..artifact import FittedFlow
    from ..configs import TrainingFacts

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]
Origin = Literal["split", "seen", "other"]

MOST_ROWS = 20_000
PARTS = ("training", "validation", "test")
_CLOSE = 1e-3  # nats, relative: roundings of another machine stay below
_ERRORS = 5.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table, all or some, as a flow sees them.

    Attributes:
        frame: The rows.
        numbers: Their numbers in the table, from 1, (rows,).
        total: Rows of the whole table.
        x: Values of the modelled columns, (rows, columns).
        context: Values of the columns conditioned on; None: there are none.
        log_prob: Log-density of each row in nats, (rows,).
        kind: ``"exact"`` or ``"estimate"``.
        part: The place of each row's part in ``PARTS``, (rows,): that of the training where ``origin`` is "split", else
            one made here, for the models that the flow is held against.
        origin: ``"split"``: the table is the one that the flow was trained on, and the split is known, since the mean
            log-densities of its parts are those in the flow's record. ``"seen"``: by its name it is that table, but the
            split is not known. ``"other"``: a table of other rows.
    """

    frame: pl.DataFrame = field(repr=False)
    numbers: Places = field(repr=False)
    total: int
    x: Matrix = field(repr=False)
    context: Matrix | None = field(repr=False)
    log_prob: Matrix = field(repr=False)
    kind: str
    part: Places = field(repr=False)
    origin: Origin

    def __len__(self) -> int:
        return len(self.x)

    @property
    def judged(self) -> Places:
        """Places of the rows to judge by: those of the test where they are known, else all."""
        return self.places("test") if self.origin == "split" else np.arange(len(self))

    def places(self, part: str) -> Places:
        """Return the places of the rows of one part."""
        return np.flatnonzero(self.part == PARTS.index(part))

    def tensors(self, places: Places) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the values of some rows, and those of the columns conditioned on."""
        import torch

        given = None if self.context is None else torch.from_numpy(self.context[places])
        return torch.from_numpy(self.x[places]), given

    @property
    def seen(self) -> str:
        """Say whether the flow has been trained on these rows."""
        if self.origin == "split":
            return (
                "It is the table that the flow was trained on: the mean log-likelihoods of the parts that its seed "
                "splits the rows into are those that the flow has on record. Unless said otherwise, figures are of "
                "the test rows, which training never saw."
            )
        if self.origin == "seen":
            return (
                "By its name it is the table that the flow was trained on, but the rows held out cannot be told "
                "from the others (groups, weights or validation rows of their own, or a table that has changed). "
                "Likelihoods of training rows flatter."
            )
        return (
            "By name, number of rows and log-likelihoods it is not the table that the flow was trained on, so all "
            "of its rows count as new."
        )


def rows_of(
    fitted: FittedFlow, frame: pl.DataFrame, *, source: Path | None, most: int = MOST_ROWS, seed: int = 0
) -> Rows:
    """Check a table, take rows by chance where there are too many, and score them.

    Args:
        fitted: The flow.
        frame: The whole table.
        source: Where it comes from.
        most: Take no more rows.
        seed: Seed of the choice.

    Raises:
        DataError: A table that the flow cannot take, or without rows.
    """
    import torch

    from ..flows import score

    schema, total = fitted.table, frame.height
    x = to_matrix(frame, schema.columns, source=source)
    context = to_matrix(frame, schema.context, source=source) if schema.context else None
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
        x, context = x[chosen], None if context is None else context[chosen]
    given = None if context is None else torch.from_numpy(context)
    estimate = score(fitted.flow, torch.from_numpy(x), given)
    log_prob = estimate.value.double().numpy()
    own = _split(total, fitted.facts.config.seed)[chosen]
    origin = _origin(fitted.facts, log_prob, own, total, source)
    part = own if origin == "split" else _split(len(x), seed)
    return Rows(frame[chosen], chosen + 1, total, x, context, log_prob, estimate.kind, part, origin)


def thinned(places: Places, most: int) -> Places:
    """Return at most so many of the places, evenly spread.

    Example:
        >>> thinned(np.arange(10), 4)
        array([0, 3, 6, 9])
    """
    chosen: Places = places[
        np.linspace(0, max(len(places) - 1, 0), min(len(places), most)).round().astype(int)
    ]
    return chosen


def _split(rows: int, seed: int) -> Places:
    """Return the part of each row; of fewer than three rows all are for the test."""
    part = np.full(rows, PARTS.index("test"))
    if rows >= len(PARTS):
        for place, chosen in enumerate(split_rows(rows, seed=seed)):
            part[chosen] = place
    return part


def _origin(facts: TrainingFacts, log_prob: Matrix, part: Places, total: int, source: Path | None) -> Origin:
    named = source is not None and bool(facts.source) and Path(source).name == facts.source
    counted = total == facts.train_rows + facts.valid_rows + facts.test_rows
    if counted and (named or len(part) == total) and _as_recorded(facts, log_prob, part, total):
        return "split"
    return "seen" if named else "other"


def _as_recorded(facts: TrainingFacts, log_prob: Matrix, part: Places, total: int) -> bool:
    """Return whether the mean log-density of each part is that on record, up to chance of a choice of rows."""
    compared = 0
    for place, recorded in enumerate((facts.train_log_prob, facts.valid_log_prob, facts.test_log_prob)):
        values = log_prob[part == place]
        if not np.isfinite(recorded) or len(values) < 2:
            continue
        allowed = _CLOSE * max(1.0, abs(recorded))
        if len(part) < total:
            allowed += _ERRORS * float(values.std(ddof=1)) / len(values) ** 0.5
        if not abs(float(values.mean()) - recorded) <= allowed:
            return False
        compared += 1
    return compared > 0
