"""Smoothed densities of tables, for anomaly scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..artifact import FittedFlow
from ..configs import ColumnSchema, MixedConfig, ModelConfig, NSFConfig, TableSchema, TrainConfig
from ..errors import DataError
from ..objectives import smoothed_likelihood_objective
from .loop import EpochRecord
from .table import TableSplit, fit_split

_PASSES, _FEWEST_STEPS, _MOST_STEPS = 100, 3_000, 30_000


def fit_smoothed(
    split: TableSplit,
    *,
    noise: float | None = None,
    model: ModelConfig | None = None,
    training: TrainConfig | None = None,
    seed: int = 0,
    source: str | Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> FittedFlow:
    r"""Fit the density of a table's rows with normal noise added, whose negative logarithm is an anomaly score.

    .. math:: s(x) = -\log p_\sigma(x), \qquad p_\sigma = p * N(0, \sigma^2 I) \text{ of the standardised columns}

    A density by itself is the sharper the more a column's values repeat, and finds a normal row with a rare value
    as unlikely as an anomaly; the noise makes near values alike. It also stands for the cells of discrete columns,
    which are not dequantised here, and so scores are exact; heavy tails are not drawn in.

    Args:
        split: What ``split_table`` returned.
        noise: The standard deviation :math:`\sigma` of the noise, where 1 is that of each column; that of
            ``smoothing_noise`` by default.
        model: The model; by default an autoregressive neural spline flow.
        training: Settings of the training; those of ``smoothed_training`` by default, with ``seed``.
        seed: As in ``fit_split``.
        source: As in ``fit``.
        on_epoch: As in ``fit``.
        on_note: As in ``fit``.

    Returns:
        As ``fit``: an ordinary flow of the table, in the units of the table. Losses of the training are those of rows
        with noise, log-likelihoods those of the rows as they are.

    Raises:
        DataError: A column with labels or gaps, to which no noise can be added.
        ValueError: Noise that is not positive and finite, or a model that cannot be had for such columns.
        TrainingError: Training that cannot go on.

    References:
        Vincent, A Connection Between Score Matching and Denoising Autoencoders, 2011, section 4.1.
        https://doi.org/10.1162/NECO_a_00142

    Example:
        >>> import numpy as np, polars as pl
        >>> from pushforward.configs import DataConfig
        >>> from pushforward.training import split_table
        >>> frame = pl.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), schema=["a", "b"])
        >>> split = split_table(frame, DataConfig(), seed=0)
        >>> fitted = fit_smoothed(split, training=TrainConfig(epochs=2, batch_size=64))
        >>> fitted.flow.event_shape, fitted.facts.kind
        ((2,), 'exact')
    """
    if isinstance(model, MixedConfig):
        raise ValueError(
            "model: smoothing adds noise to numbers, and mixed is a model of labels and gaps too"
        )
    rows, schema = len(split.train), _without_cells(split.schema, source)
    noise = smoothing_noise(rows, len(schema.columns)) if noise is None else noise
    width = max(128, len(schema.columns) + len(schema.context))
    fitted = fit_split(
        replace(split, schema=schema),
        model=model or NSFConfig(bins=16, hidden=(width, width, width)),
        training=training or smoothed_training(rows, seed),
        objective=smoothed_likelihood_objective(noise),
        seed=seed,
        source=source,
        on_epoch=on_epoch,
        on_note=on_note,
    )
    note = f"Smoothed by normal noise of {noise:.3g} standard deviations of each column."
    return replace(fitted, facts=replace(fitted.facts, notes=(*fitted.facts.notes, note)))


def smoothing_noise(rows: int, columns: int) -> float:
    r"""Return the noise that a table of some size is smoothed by, in standard deviations of its columns,

    .. math:: \sigma = 40 \frac{D}{N} \text{ within } [0.05, 1]:

    the more rows there are for each column, the finer is what a flow learns of them. Chosen by the detection of
    anomalies on five of the tables in ``docs/anomaly.md``.

    Args:
        rows: Training rows ``N``.
        columns: Columns ``D``.

    Example:
        >>> smoothing_noise(100, 10), smoothing_noise(4000, 10), smoothing_noise(10**6, 10)
        (1.0, 0.1, 0.05)
    """
    return min(max(40 * columns / rows, 0.05), 1.0)


def smoothed_training(rows: int, seed: int = 0) -> TrainConfig:
    """Return the settings of a smoothed fit for a number of training rows, with early stopping.

    There are 100 passes over the rows, but at least about 3,000 steps, and no more than 30,000 or 10 passes.

    Example:
        >>> smoothed_training(10_000).epochs, smoothed_training(100_000).epochs
        (157, 100)
    """
    batch = min(rows, 64) if rows < 1_000 else 256 if rows < 10_000 else 512
    steps_each = max(1, rows // batch)
    steps = min(max(_PASSES * steps_each, _FEWEST_STEPS), _MOST_STEPS)
    epochs = max(10, steps // steps_each)
    return TrainConfig(epochs=epochs, batch_size=batch, patience=max(10, epochs // 5), seed=seed)


def _smoothed(column: ColumnSchema) -> ColumnSchema:
    """Return a column as a continuous one; what lies on an end of it would have no density, so such an end goes."""
    on_end = column.step is not None or bool({column.low, column.high} & set(column.atoms))
    ends = (None, None) if on_end else (column.low, column.high)
    tails = None if column.periodic else False
    return replace(column, step=None, atoms=(), low=ends[0], high=ends[1], tails=tails)


def _without_cells(schema: TableSchema, source: str | Path | None) -> TableSchema:
    """Return the schema with all columns continuous, on the scale of their standard deviations."""
    for column in (*schema.columns, *schema.context):
        if column.labelled or column.missing:
            raise DataError(
                f"smoothing adds noise to numbers, and a column has {'labels' if column.labelled else 'gaps'}",
                source=source,
                column=column.name,
                remedy="Leave the column out, or use the model mixed without smoothing.",
            )
    return replace(
        schema,
        columns=tuple(_smoothed(column) for column in schema.columns),
        context=tuple(replace(c, atoms=()) for c in schema.context),
    )
