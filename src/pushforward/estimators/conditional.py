"""A flow as a regression that gives the whole density of the target, with intervals that cover what they promise."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d
from torch import Tensor

from ..configs import (
    MODELS,
    ColumnSchema,
    ModelConfig,
    NSFConfig,
    TableSchema,
    TrainConfig,
    default_training,
)
from ..data import check_fittable, infer_schema, to_matrix
from ..evaluate.anomaly import rows_to_promise
from ..training import Points, TableSplit
from .averaged import AveragedQuantiles, cells, ends, held_levels, on_grid, recalibrated
from .base import FlowEstimator, named_model, seed_of
from .contexts import ContextCode
from .inputs import FEWEST_ROWS, fit_table_and_target, points

if TYPE_CHECKING:
    import polars as pl

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
        target_: Spacing and ends of the grid of the target, if it lies on one, as a schema.
        context_: What the columns of ``X`` are, and how they become numbers.
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
            X: Rows to condition on, ``(n, C)``: an array of numbers, or a frame, whose labels become columns of 0 and 1
                and whose gaps are told beside the mean of what is there.
            y: The numbers to predict, ``(n,)``. Where they lie on a grid, as whole numbers do, the flows are fitted to
                cells, by noise of up to half its spacing, so that densities cannot grow without bound on values that
                repeat. Quantiles, intervals and samples are values of the grid, and end where many rows have the last.

        Returns:
            The estimator itself.

        Raises:
            ValueError: Rows that cannot be used, too few of them, targets that are all the same, a model that is not of
                one number.
        """
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")
        table, y = fit_table_and_target(self, X, y, max(FEWEST_ROWS, self.folds))
        seed = seed_of(self.random_state)
        rng = np.random.default_rng(seed)
        found = _schema(table, y)
        self.target_ = found.columns[0]
        x = torch.from_numpy(to_matrix(table, found.context, source="X"))
        self.context_ = ContextCode.fitted(found.context, x)
        noise = (self.target_.step or 0.0) * (rng.uniform(size=len(y)) - 0.5)
        rows = Points(torch.from_numpy(y + noise)[:, None], self.context_(x))
        schema = TableSchema(columns=(ColumnSchema(name=self.target_.name),), context=self.context_.coded)
        folds = [
            torch.from_numpy(np.sort(held)) for held in np.array_split(rng.permutation(len(rows)), self.folds)
        ]
        splits = [_split(schema, rows, held) for held in folds]
        self.members_ = tuple(self._fit_flow(split, seed + k) for k, split in enumerate(splits))
        levels = [
            held_levels(member.flow, split.test.x[:, 0], _context(split.test))
            for member, split in zip(self.members_, splits, strict=True)
        ]
        self.levels_ = torch.cat(levels).sort().values.numpy()
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the mean of the target given each row, ``(n,)``."""
        levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
        # Before values are brought to a grid: the noise has mean 0, and where a rare value starts is known less well.
        mean: NDArray[np.float64] = self._before_grid(self._rows(X), levels).numpy().mean(1)
        return mean.clip(*ends(self.target_))

    def predict_quantiles(self, X: Any, levels: ArrayLike) -> NDArray[np.float64]:
        """Return quantiles of the target given each row.

        Args:
            X: Rows, ``(n, C)``.
            levels: Levels in (0, 1), ``(L,)``.

        Returns:
            Quantiles, ``(n, L)``, rising with the level: the least values that the target is at or below with the
            probability of the level, at least.

        Raises:
            ValueError: Levels outside (0, 1), or rows that do not fit.
        """
        wanted = np.atleast_1d(np.asarray(levels, dtype=np.float64))
        if wanted.ndim != 1 or not ((wanted > 0) & (wanted < 1)).all():
            raise ValueError(f"levels must be a list of numbers in (0, 1), got {levels!r}")
        return self._quantiles(self._rows(X), wanted)

    def predict_interval(self, X: Any, coverage: float = 0.9) -> NDArray[np.float64]:
        """Return an interval that holds the target of a fresh row with the probability ``coverage``.

        As often the target lies below it as above it. On a grid it holds more, since whole values are in it or not.

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
        needed = rows_to_promise(tail)
        if rows < needed:
            raise ValueError(
                f"coverage {coverage:g} cannot be promised by {rows} rows: fit at least {needed} rows, or ask for at "
                f"most {(rows - 1) / (rows + 1):.4g}"
            )
        return self._quantiles(self._rows(X), np.array([tail, 1.0 - tail]))

    def log_prob(self, X: Any, y: ArrayLike) -> NDArray[np.float64]:
        """Return the log-density of targets given their rows in nats, ``(n,)``, in the units of the target.

        It is that of the averaged flows, before their levels are calibrated. On a grid it is the probability of the
        value, divided by the spacing; ``-inf`` off the grid and beyond its ends.
        """
        context = self._rows(X)
        values = torch.from_numpy(np.array(column_or_1d(y), dtype=np.float64))
        check_consistent_length(context, values)
        averaged, step = self._averaged(), self.target_.step
        if step is None:
            return averaged.log_prob(values, context).numpy()
        lower, upper, possible = cells(values, self.target_)
        mass = averaged.log_mass(lower, upper, context).masked_fill(~possible, -torch.inf)
        return mass.numpy() - math.log(step)

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
        values = self._before_grid(context, levels)
        return (values if self.target_.step is None else on_grid(values, self.target_)).numpy()

    def _before_grid(self, context: Tensor, levels: NDArray[np.float64]) -> Tensor:
        """Return the same of the target with its noise."""
        asked = torch.from_numpy(recalibrated(levels, self.levels_))
        return self._averaged().quantiles(asked.expand(len(context), -1), context)

    def _averaged(self) -> AveragedQuantiles:
        return AveragedQuantiles([member.flow for member in self.members_])

    def _rows(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return self.context_(points(self, X, self.context_.columns))

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


def _schema(table: pl.DataFrame, y: NDArray[np.float64]) -> TableSchema:
    """Return what the target and the columns conditioned on are.

    Raises:
        DataError: A column that cannot be used, or a target that has no density.
    """
    import polars as pl

    name = "y"
    while name in table.columns:
        name = f"{name}_"
    schema = infer_schema(table.with_columns(pl.Series(name, y)), condition=table.columns, mixed=True)
    target = replace(schema.columns[0], atoms=())  # a flow has none
    check_fittable(y[:, None], (target,), minimum_rows=FEWEST_ROWS)
    if target.step is not None:
        # Not a hundredth, but a quarter, where all values are multiples of that.
        unit = Fraction(repr(target.step))
        count = np.gcd.reduce(np.rint(y / target.step).astype(np.int64))
        target = replace(target, step=float(unit * int(count)))
    return replace(schema, columns=(target,))


def _split(schema: TableSchema, rows: Points, held: Tensor) -> TableSplit:
    """Return the points with some of them held out: for the choice of the epoch and for the levels."""
    others = torch.ones(len(rows), dtype=torch.bool)
    others[held] = False
    return TableSplit(schema, rows.take(others), rows.take(held), rows.take(held))


def _context(rows: Points) -> Tensor:
    assert rows.context is not None
    return rows.context
