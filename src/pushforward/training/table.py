"""From a table to a fitted flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..artifact import FittedFlow
from ..configs import (
    DataConfig,
    MixedConfig,
    ModelConfig,
    TableSchema,
    TrainConfig,
    default_table_model,
    default_training,
)
from ..data import check_fittable, infer_schema, split_rows
from ..data.shuffled import matrix_rows
from ..flows import table_flow
from ..objectives import Objective
from .checkpoints import Checkpoints, checkpoints_in
from .loop import EpochRecord, TrainResult
from .notes import tell
from .points import Points
from .record import check_batch_size, train_and_record
from .rows import FEWEST_ROWS, as_points, degenerate, used
from .seeded import seeded

if TYPE_CHECKING:
    import polars as pl

_VALID_SHARE, _TEST_SHARE = 0.1, 0.1


@dataclass(frozen=True, slots=True)
class TableSplit:
    """A table's rows as training, validation and test points, with the schema that all of them meet."""

    schema: TableSchema
    train: Points
    valid: Points
    test: Points


def split_table(
    frame: pl.DataFrame,
    data: DataConfig,
    *,
    seed: int,
    model: ModelConfig | None = None,
    schema: TableSchema | None = None,
    valid: pl.DataFrame | None = None,
    source: str | Path | None = None,
    valid_source: str | Path | None = None,
    fractions: tuple[float, float, float] = (1 - _VALID_SHARE - _TEST_SHARE, _VALID_SHARE, _TEST_SHARE),
    minimum_rows: int = FEWEST_ROWS,
) -> TableSplit:
    """Check a table and split its rows; rows of weight 0 are left out first.

    Args:
        frame: The table.
        data: Roles and supports of its columns.
        seed: Seed of the split.
        model: The model, where it is known: all but ``MixedConfig`` take numbers without gaps alone.
        schema: What the columns are; found out by default.
        valid: Rows to validate on; then all rows of ``frame`` are for training and test.
        source: Where the table comes from, for messages.
        valid_source: The same for ``valid``.
        fractions: Shares of training, validation and test rows.
        minimum_rows: The fewest rows that will do.

    Raises:
        DataError: A table that cannot be used as it is; the text says which file, row and column, and what to do.
    """
    if schema is None:
        schema = infer_schema(
            frame,
            condition=data.condition,
            exclude=[*data.drop, *(name for name in (data.weights, data.group) if name is not None)],
            bounds=data.bounds,
            periodic=data.periodic,
            mixed=None if model is None else isinstance(model, MixedConfig),
            source=source,
        )
    points = as_points(matrix_rows(frame, schema, data.weights, source=source))
    groups = None if data.group is None else frame[data.group].alias("").rank("dense").to_numpy()
    if points.weights is not None and groups is not None:
        groups = groups[points.weights.numpy() > 0]
    points = used(points, data.weights, source)
    check_fittable(points.x.numpy(), schema.columns, source=source, minimum_rows=minimum_rows)
    if valid is not None:
        fractions = (fractions[0] + fractions[1], 0.0, fractions[2])
    parts = split_rows(len(points), seed=seed, fractions=fractions, groups=groups)
    train, own_valid, test = (points.take(torch.from_numpy(np.sort(rows))) for rows in parts)
    if valid is None:
        return TableSplit(schema, train, own_valid, test)
    given = as_points(matrix_rows(valid, schema, data.weights, source=valid_source))
    return TableSplit(schema, train, used(given, data.weights, valid_source), test)


def fit(
    frame: pl.DataFrame,
    *,
    model: ModelConfig | None = None,
    training: TrainConfig | None = None,
    data: DataConfig | None = None,
    schema: TableSchema | None = None,
    valid: pl.DataFrame | None = None,
    seed: int = 0,
    source: str | Path | None = None,
    valid_source: str | Path | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> FittedFlow:
    """Fit a density to a table.

    Args:
        frame: The table.
        model: The model; chosen from the size of the table by default.
        training: Settings of the training; chosen from the size of the table by default, with ``seed``.
        data: Roles and supports of the columns.
        schema: What the columns are, instead of the roles and supports; found out by default.
        valid: Rows to choose the best epoch on; a tenth of ``frame`` by default.
        seed: Seed of the split and, by default, of the training.
        source: Where the table comes from, for messages and the record.
        valid_source: The same for ``valid``.
        checkpoint: Folder for the state of the training, written every minute. It stays there when training has ended.
        resume: Go on from what is in ``checkpoint``, which gives the same weights, bit for bit, as a run that was
            never stopped.
        on_epoch: Called after every epoch.
        on_note: Called with what should be known, such as a step that was skipped; a warning by default.

    Returns:
        The fitted flow with its schema and the record of its training, log-likelihoods in nats and in the units of
        the data.

    Raises:
        DataError: A table that cannot be used as it is.
        ValueError: A model that cannot be had for such columns.
        TrainingError: Training that cannot go on.
        OutputError: A folder for checkpoints that cannot be written, or holds an unfinished run without ``resume``.
        ArtifactError: Checkpoints that are damaged or belong to another run.
        TerminatedError: SIGTERM came, and a checkpoint was written.

    Example:
        >>> import polars as pl
        >>> rng = np.random.default_rng(0)
        >>> frame = pl.DataFrame({"a": rng.normal(size=100), "b": rng.normal(size=100)})
        >>> fitted = fit(frame, training=TrainConfig(epochs=2, batch_size=64))
        >>> fitted.schema.names, fitted.facts.train_rows
        (('a', 'b'), 80)
    """
    checkpoints = checkpoints_in(checkpoint, resume=resume, on_note=on_note)
    split = split_table(
        frame,
        data or DataConfig(),
        seed=seed,
        model=model,
        schema=schema,
        valid=valid,
        source=source,
        valid_source=valid_source,
    )
    return fit_split(
        split,
        model=model,
        training=training,
        seed=seed,
        source=source,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_note=on_note,
    )


def fit_split(
    split: TableSplit,
    *,
    model: ModelConfig | None = None,
    training: TrainConfig | None = None,
    seed: int = 0,
    objective: Objective | None = None,
    source: str | Path | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_trained: Callable[[TrainResult], None] | None = None,
) -> FittedFlow:
    """Fit a density to a table that has been split: the second half of ``fit``.

    Args:
        split: What ``split_table`` returned.
        model: As in ``fit``.
        training: As in ``fit``.
        seed: Seed of the training where ``training`` is not given.
        objective: What is minimised; that of the model by default.
        source: As in ``fit``.
        checkpoints: Where to write the state of the training, and to go on from.
        on_epoch: Called after every epoch.
        on_note: As in ``fit``.
        on_trained: Called when training has ended, before the log-likelihoods of all rows are computed.

    Returns:
        As ``fit``.

    Raises:
        DataError: A batch of more rows than there are to train on.
        ValueError: A model that cannot be had for such columns.
        TrainingError: Training that cannot go on.
        OutputError: As in ``fit``.
        ArtifactError: As in ``fit``.
        TerminatedError: As in ``fit``.

    Example:
        >>> import polars as pl
        >>> rng = np.random.default_rng(0)
        >>> frame = pl.DataFrame({"a": rng.normal(size=100), "b": rng.normal(size=100)})
        >>> split = split_table(frame, DataConfig(condition=("b",)), seed=0)
        >>> fit_split(split, training=TrainConfig(epochs=2, batch_size=64)).facts.stopped
        'epochs'
    """
    rows = len(split.train)
    model = model or default_table_model(rows, split.schema)
    training = training or default_training(rows, seed, model)
    check_batch_size(training, rows, of="training rows", source=source)
    # Densities that noise smooths do not grow without bound.
    bounded = objective is not None and objective.bounded
    notes = [] if bounded else degenerate(split.train, split.schema, model)
    for note in notes:
        tell(note, on_note, stacklevel=4)
    with seeded(training.seed):
        flow = table_flow(model, split.schema)
    return train_and_record(
        flow,
        (split.train, split.valid, split.test),
        model=model,
        schema=split.schema,
        training=training,
        objective=objective,
        source="" if source is None else Path(source).name,
        notes=notes,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_note=on_note,
        on_trained=on_trained,
    )
