"""A flow as a regression that gives the whole density of the target, with intervals that cover what they promise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from ..configs import (
    MODELS,
    ColumnSchema,
    DataConfig,
    ModelConfig,
    NSFConfig,
    TableSchema,
    TrainConfig,
    default_training,
)
from ..training import Points, TableSplit, split_table
from .averaged import AveragedQuantiles, held_levels, recalibrated
from .base import FlowEstimator, named_model, seed_of
from .inputs import DTYPES, FEWEST_ROWS, column_names

MODELS_OF_ONE = ("made", "maf", "iaf", "nsf")
"""Models whose flow of one number is increasing, to a normal latent."""
_MODELS = tuple(MODELS[name] for name in MODELS_OF_ONE)
_LEVELS = 128  # of the quadrature of means


class FlowConditional(RegressorMixin, FlowEstimator):  # type: ignore[misc]
    r"""A regression of scikit-learn that gives the density :math:`p(y \mid x)` of a number, not its mean only.

    The rows are cut into folds, and for each one a conditional flow is fitted to the others, which chooses its epoch on
    the fold. The prediction has the mean of the flows' quantiles. How often held-out rows fell below each quantile says
    which levels to ask for, so that intervals cover what they promise (cross-fitted distributional conformal
    prediction): on average over rows, whatever the flows missed, and up to what the folds differ from each other. All
    rows serve both, so that small tables keep their promise too.

    Args:
        model: ``"made"`` (normal), ``"maf"``, ``"iaf"``, ``"nsf"`` (splines), or a configuration of one of them; by
            default splines of a size chosen from the number of rows.
        folds: Number of folds, and of flows.
        epochs: Most passes over the training rows.
        batch_size: Rows in a step.
        learning_rate: Peak of the schedule.
        max_seconds: Time budget of all flows together.
        random_state: Seed of the folds, of initial weights and of the order of rows.
        verbose: Whether to print the losses of every epoch.

    Attributes:
        members_: The fitted flows, each with its schema and the record of its training.
        levels_: At which level of its flow's quantiles each row was while held out, in order, ``(n,)``; uniform where
            the flows are right.
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Names of the columns, where ``X`` was a frame.

    References:
        Chernozhukov et al., Distributional conformal prediction, 2021. https://arxiv.org/abs/1909.07889
        Romano et al., Conformalized Quantile Regression, 2019. https://arxiv.org/abs/1905.03222
        Barber et al., Predictive inference with the jackknife+, 2021, section 3 (folds). https://arxiv.org/abs/1905.02928

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 1))
        >>> y = 2 * X[:, 0] + rng.normal(size=200)
        >>> model = FlowConditional(model="made", folds=2, epochs=30, random_state=0).fit(X, y)
        >>> low, high = model.predict_interval([[1.0]], coverage=0.9)[0]
        >>> bool(low < 2 < high), bool(2 < high - low < 5)
        (True, True)
    """

    def __init__(
        self,
        *,
        model: str | ModelConfig | None = None,
        folds: int = 5,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            model=model,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            max_seconds=max_seconds,
            random_state=random_state,
            verbose=verbose,
        )
        self.folds = folds

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Fit the flows.

        Args:
            X: Rows to condition on, numbers, ``(n, C)``.
            y: The numbers to predict, ``(n,)``. Where they lie on a grid, as whole numbers do, noise of up to half its
                spacing is added, so that densities cannot grow without bound on values that repeat.

        Returns:
            The estimator itself.

        Raises:
            ValueError: Rows that cannot be used, too few of them, targets that are all the same, a model that is not of
                one number.
        """
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")
        X, y = validate_data(
            self, X, y, dtype=DTYPES, y_numeric=True, ensure_min_samples=max(FEWEST_ROWS, self.folds)
        )
        seed = self._seed()
        rng = np.random.default_rng(seed)
        schema, points = _points(X, np.asarray(y, dtype=np.float64), column_names(self), rng)
        folds = [
            torch.from_numpy(np.sort(rows))
            for rows in np.array_split(rng.permutation(len(points)), self.folds)
        ]
        splits = [_split(schema, points, rows) for rows in folds]
        self.members_ = tuple(self._fit_flow(split, seed + k) for k, split in enumerate(splits))
        held = [
            held_levels(member.flow, split.test.x[:, 0], _context(split.test))
            for member, split in zip(self.members_, splits, strict=True)
        ]
        self.levels_ = torch.cat(held).sort().values.numpy()
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the mean of the target given each row, ``(n,)``."""
        levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
        mean: NDArray[np.float64] = self._quantiles(self._rows(X), levels).mean(1)
        return mean

    def predict_quantiles(self, X: Any, levels: ArrayLike) -> NDArray[np.float64]:
        """Return quantiles of the target given each row.

        Args:
            X: Rows, ``(n, C)``.
            levels: Levels in (0, 1), ``(L,)``.

        Returns:
            Quantiles, ``(n, L)``, rising with the level.

        Raises:
            ValueError: Levels outside (0, 1), or rows that do not fit.
        """
        wanted = np.atleast_1d(np.asarray(levels, dtype=np.float64))
        if wanted.ndim != 1 or not ((wanted > 0) & (wanted < 1)).all():
            raise ValueError(f"levels must be a list of numbers in (0, 1), got {levels!r}")
        return self._quantiles(self._rows(X), wanted)

    def predict_interval(self, X: Any, coverage: float = 0.9) -> NDArray[np.float64]:
        """Return an interval that holds the target of a fresh row with the probability ``coverage``.

        As often the target lies below it as above it.

        Args:
            X: Rows, ``(n, C)``.
            coverage: The probability, in (0, 1).

        Returns:
            Lower and upper ends, ``(n, 2)``.

        Raises:
            ValueError: A coverage that so few rows cannot promise, or rows that do not fit.
        """
        check_is_fitted(self)
        if not 0.0 < coverage < 1.0:
            raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
        tail, rows = 0.5 * (1.0 - coverage), len(self.levels_)
        if tail * (rows + 1) < 1 - 1e-9:
            needed = math.ceil(1 / tail - 1e-9) - 1
            raise ValueError(
                f"coverage {coverage:g} cannot be promised by {rows} rows: fit at least {needed} rows, or ask for at "
                f"most {(rows - 1) / (rows + 1):.4g}"
            )
        return self._quantiles(self._rows(X), np.array([tail, 1.0 - tail]))

    def log_prob(self, X: Any, y: ArrayLike) -> NDArray[np.float64]:
        """Return the log-density of targets given their rows in nats, ``(n,)``, in the units of the target.

        It is that of the averaged flows, before their levels are calibrated.
        """
        context = self._rows(X)
        values = torch.from_numpy(np.array(column_or_1d(y), dtype=np.float64))
        check_consistent_length(context, values)
        return self._averaged().log_prob(values, context).numpy()

    def sample(
        self, X: Any, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """Return targets drawn given each row, ``(n, n_samples)``.

        Raises:
            ValueError: Fewer than 1, or rows that do not fit.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        context = self._rows(X)
        rng = np.random.default_rng(seed_of(random_state))
        return self._quantiles(context, rng.uniform(size=(len(context), n_samples)))

    def _quantiles(self, context: Tensor, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the quantiles ``(n, L)`` of levels ``(L,)`` or ``(n, L)``."""
        asked = torch.from_numpy(recalibrated(levels, self.levels_))
        return self._averaged().quantiles(asked.expand(len(context), -1), context).numpy()

    def _averaged(self) -> AveragedQuantiles:
        return AveragedQuantiles([member.flow for member in self.members_])

    def _rows(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return torch.from_numpy(validate_data(self, X, reset=False, dtype=np.float64, copy=True))

    def _model(self, rows: int) -> ModelConfig:
        if self.model is None:
            return _default_model(rows)
        model = named_model(self.model)
        if not isinstance(model, _MODELS):
            raise ValueError(
                f"model must be one of {', '.join(MODELS_OF_ONE)}, or a configuration of one, got {self.model!r}"
            )
        return model

    def _training(self, rows: int, seed: int, model: ModelConfig | None) -> TrainConfig:
        given = self._given()
        if self.max_seconds is not None:
            given["max_seconds"] = self.max_seconds / self.folds
        return replace(_default_training(rows, seed), **given)


def _default_model(rows: int) -> ModelConfig:
    """Return splines whose networks are narrower where rows are few."""
    if rows < 1_000:
        return NSFConfig(layers=1, bins=4, hidden=(16,))
    width = 32 if rows < 10_000 else 64
    return NSFConfig(layers=1, bins=8, hidden=(width, width))


def _default_training(rows: int, seed: int) -> TrainConfig:
    """Return settings that keep a flow of few rows from learning them by heart: few epochs, and weight decay."""
    plain = default_training(rows, seed)
    if rows < 1_000:
        return replace(plain, epochs=60, patience=15, learning_rate=5e-3, weight_decay=1.0)
    return replace(plain, epochs=min(plain.epochs, 60), patience=10, weight_decay=0.1)


def _points(
    X: NDArray[np.floating[Any]], y: NDArray[np.float64], names: list[str], rng: np.random.Generator
) -> tuple[TableSchema, Points]:
    """Return the schema of target and rows, and all of them as points, with noise on a target that lies on a grid."""
    import polars as pl

    target = "y"
    while target in names:
        target = f"{target}_"
    frame = pl.from_numpy(X, schema=names, orient="row").with_columns(pl.Series(target, y))
    split = split_table(
        frame, DataConfig(condition=tuple(names)), seed=0, model=NSFConfig(), minimum_rows=FEWEST_ROWS
    )
    found = split.schema.columns[0]
    noise = (found.step or 0.0) * (rng.uniform(size=len(y)) - 0.5)
    schema = TableSchema(columns=(ColumnSchema(name=target),), context=split.schema.context)
    return schema, Points(torch.from_numpy(y + noise)[:, None], torch.from_numpy(X.astype(np.float64)))


def _split(schema: TableSchema, points: Points, held: Tensor) -> TableSplit:
    """Return the points with some of them held out: for the choice of the epoch and for the levels."""
    others = torch.ones(len(points), dtype=torch.bool)
    others[held] = False
    return TableSplit(schema, points.take(others), points.take(held), points.take(held))


def _context(points: Points) -> Tensor:
    assert points.context is not None
    return points.context
