"""Train a flow and write the record that it carries: the last part of every fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..artifact import FittedFlow
from ..configs import (
    ImageModelConfig,
    ImageSchema,
    ModelConfig,
    TableSchema,
    TrainConfig,
    TrainingFacts,
    model_name,
)
from ..errors import DataError
from ..flows import SCORE_SAMPLES, Estimate, Flow, score
from ..objectives import Objective, objective_of
from .checkpoints import Checkpoints
from .environment import library_versions
from .loop import EpochRecord, TrainResult, train
from .notes import tell
from .points import Points, Refill

_MOST_HELD_OUT = 10_000
_PARTS = ("training", "validation", "test")


def check_batch_size(
    training: TrainConfig, most: int, *, of: str, unit: str = "rows", source: str | Path | None
) -> None:
    """Refuse batches that cannot be filled.

    Args:
        training: The settings.
        most: How many points there are.
        of: What they are.
        unit: What one batch has.
        source: Where they come from.

    Raises:
        DataError: A batch of more than there are.
    """
    if training.batch_size > most:
        raise DataError(
            f"a batch of {training.batch_size} {unit} is more than the {most} {of}",
            source=source,
            remedy=f"Set the batch size to {most} or less.",
        )


def train_and_record(
    flow: Flow,
    parts: tuple[Points, Points, Points],
    *,
    model: ModelConfig | ImageModelConfig,
    schema: TableSchema | ImageSchema,
    training: TrainConfig,
    source: str,
    objective: Objective | None = None,
    notes: Sequence[str] = (),
    num_samples: int = SCORE_SAMPLES,
    most: int | None = None,
    most_of_test: int | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_trained: Callable[[TrainResult], None] | None = None,
    refill: Refill | None = None,
    identity: Mapping[str, Any] | None = None,
) -> FittedFlow:
    """Train a flow, score its points, and return it with the record of both.

    Args:
        flow: The flow, with fresh weights.
        parts: Training, validation and test points.
        model: What the flow was built from.
        schema: What its points are.
        training: Settings.
        source: What the record calls the data.
        objective: What is minimised; that of the model by default.
        notes: What is known already and belongs to the record.
        num_samples: Draws of the noise of dequantisation in the scores; of a single one the mean score is a bound.
        most: Score no more of the training and validation points, at even distances; None: all.
        most_of_test: The same for the test points, which the record then notes.
        checkpoints: As of ``train``.
        on_epoch: As of ``train``.
        on_note: As of ``train``.
        on_trained: Called when training has ended, before the points are scored.
        refill: As of ``train``.
        identity: What a checkpoint must agree with beside model, schema, settings and points.
    """
    result = train(
        flow,
        parts[0],
        parts[1],
        training,
        objective=objective or objective_of(model),
        checkpoints=checkpoints,
        identity={
            "model": {"name": model_name(model), **asdict(model)},
            "schema": asdict(schema),
            **(identity or {}),
        },
        on_epoch=on_epoch,
        on_note=on_note,
        refill=refill,
    )
    if on_trained is not None:
        on_trained(result)
    scored = parts if most is None else (parts[0].spread(most), parts[1].spread(most), parts[2])
    if most_of_test is not None and most_of_test < len(parts[2]):
        scored = (scored[0], scored[1], parts[2].spread(most_of_test))
        notes = (*notes, f"The log-likelihood of the test is that of {most_of_test:,} of its points.")
    estimates = [score(flow, part.x, part.context, num_samples=num_samples) for part in scored]
    lost = _without_density(zip(estimates, scored, strict=True))
    for note in lost:
        tell(note, on_note, stacklevel=4)
    means = [_mean(e.value, part.weights) for e, part in zip(estimates, scored, strict=True)]
    facts = TrainingFacts(
        source=source,
        train_rows=len(parts[0]),
        valid_rows=len(parts[1]),
        test_rows=len(parts[2]),
        train_log_prob=means[0],
        valid_log_prob=means[1],
        test_log_prob=means[2],
        kind="bound" if estimates[0].kind == "estimate" and num_samples == 1 else estimates[0].kind,
        train_curve=tuple(result.train_curve),
        valid_curve=tuple(result.valid_curve),
        best_epoch=result.best_epoch,
        stopped=result.stopped,
        seconds=result.seconds,
        config=training,
        versions=library_versions(),
        notes=(*notes, *result.notes, *lost),
    )
    return FittedFlow(flow, model, schema, facts, _held_out(estimates[2].value, parts[2]))


def _held_out(values: torch.Tensor, points: Points) -> torch.Tensor | None:
    """Return the log-densities of test rows in rising order, or of some of them where they are many.

    Rows with weights are no fair sample of those to come, and there are none that way.
    """
    if points.weights is not None or len(values) == 0 or bool(values.isnan().any()):
        return None
    # Some of the rows, and not quantiles of all: these would be no sample.
    places = torch.linspace(0, len(values) - 1, min(len(values), _MOST_HELD_OUT)).round().long()
    return values[places].double().sort().values


def _without_density(scored: Iterable[tuple[Estimate, Points]]) -> list[str]:
    """Say how many rows have no finite log-density, for each of training, validation and test rows."""
    found = []
    for (estimate, points), name in zip(scored, _PARTS, strict=True):
        bad = (~torch.isfinite(estimate.value)).nonzero().flatten()
        if len(bad):
            found.append(
                f"{len(bad)} of the {name} rows have no finite log-density, the first of them row "
                f"{points.row(int(bad[0]))}: they lie too far from the others for the arithmetic of the model, and the "
                "mean is not a number because of them. Leave them out, or look at their values."
            )
    return found


def _mean(values: torch.Tensor, weights: torch.Tensor | None) -> float:
    values = values.double()
    return float(values.mean() if weights is None else (weights * values).sum() / weights.sum())
