"""A flow as an outlier detector, with a rate of false alarms that is kept."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from ..artifact import FittedFlow
from ..configs import ColumnSchema, ModelConfig
from ..data import to_frame
from ..evaluate import alarm_threshold, conformal_p_values, explain
from ..evaluate.anomaly import least_rate, rows_to_promise
from ..training import TableSplit, fit_smoothed, smoothed_training
from .base import FlowEstimator, named_model, seed_of
from .inputs import column_names, fit_table, is_number, points
from .rows import log_densities

if TYPE_CHECKING:
    import polars as pl

_RATE = 0.05
_VALID_SHARE, _CALIBRATION_SHARE, _MOST = 0.1, 0.1, 0.4


class FlowAnomalyDetector(OutlierMixin, FlowEstimator):  # type: ignore[misc]
    r"""An outlier detector of scikit-learn: rows of low density are anomalies.

    The density is that of the rows with normal noise, as of ``pushforward.training.fit_smoothed``, where all columns
    are numbers. The anomaly score is :math:`s(x) = -\log p(x)` in nats, higher where a row is more anomalous. The
    methods that all detectors of scikit-learn have are the other way round: ``score_samples`` is :math:`\log p(x)`,
    and ``decision_function`` is that less the threshold, negative for anomalies.

    The threshold is set in one of two ways:

    - by the rate of false alarms among *normal* rows, ``alarm_rate``: from the scores of a tenth of the rows, or more
      where the rate asks for it, that the flow is not fitted to. If the rows of ``fit`` are normal, a fresh normal row
      raises an alarm with a probability of at most this rate, however well the flow fits;
    - by the share of anomalies *in the rows of* ``fit``, ``contamination``, which then is the share that ``predict``
      finds among them.

    Args:
        model: A model, by name or configuration; chosen from the size of the data by default.
        alarm_rate: The promised rate of false alarms; None: 0.05 where there are rows enough to promise it.
        contamination: ``"auto"``: the threshold is that of the rate of alarms. Or the share of anomalies in the rows of
            ``fit``, in (0, 0.5].
        epochs: Most passes over the training rows.
        batch_size: Rows in a step.
        learning_rate: Peak of the schedule.
        max_seconds: Time budget.
        random_state: Seed of the split, of initial weights and of the order of rows.
        verbose: Whether to print the losses of every epoch.

    Attributes:
        fitted_: The fitted flow, its schema and the record of its training, for ``pushforward.save``.
        calibration_scores_: Anomaly scores of the rows that the flow was not fitted to.
        offset_: The threshold of ``score_samples``, in nats.
        n_features_in_: Number of columns.
        feature_names_in_: Names of the columns, where ``X`` was a frame.

    References:
        Bates et al., Testing for outliers with conformal p-values, 2023. https://arxiv.org/abs/2104.08279

    Example:
        >>> X = np.random.default_rng(0).normal(size=(300, 2))
        >>> detector = FlowAnomalyDetector(model="made", epochs=20, learning_rate=0.01, random_state=0).fit(X)
        >>> detector.predict([[0.0, 0.0], [9.0, -9.0]])
        array([ 1, -1])
    """

    def __init__(
        self,
        *,
        model: str | ModelConfig | None = None,
        alarm_rate: float | None = None,
        contamination: float | str = "auto",
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
        self.alarm_rate = alarm_rate
        self.contamination = contamination

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit the density and set the threshold.

        Args:
            X: Rows, an array of numbers or a frame, ``(n, D)``.
            y: Ignored.

        Returns:
            The estimator itself.

        Raises:
            ValueError: Rows that cannot be used, too few of them for a promised rate, a column with one value only, an
                unknown model, both ways to set the threshold at once.
        """
        self._check_settings()
        table, seed = fit_table(self, X), seed_of(self.random_state)
        split = self._split(table, seed, self._fractions(table.height))
        self._check_promise(table.height, len(split.test))
        self.fitted_ = self._fit_score(split, seed)
        self.calibration_scores_ = self._scores(split.test.x)
        every = np.concatenate([self._scores(part.x) for part in (split.train, split.valid, split.test)])
        self.offset_ = -self._threshold(every)
        return self

    def anomaly_score(self, X: Any) -> NDArray[np.float64]:
        """Return the anomaly score of each row in nats, ``(n,)``: higher is more anomalous."""
        check_is_fitted(self)
        return self._scores(points(self, X, self.fitted_.table.columns))

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return the log-density of each row in nats, ``(n,)``: higher is more normal."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return by how many nats the log-density of each row exceeds the threshold, ``(n,)``; negative: an anomaly."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for each row that is an anomaly, 1 for the others."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def p_values(self, X: Any) -> NDArray[np.float64]:
        r"""Return the conformal p-value of each row, ``(n,)``: small is anomalous.

        Of normal rows a share of at most :math:`\alpha` has a p-value of at most :math:`\alpha`, as of
        ``pushforward.evaluate.conformal_p_values``.
        """
        scores = torch.from_numpy(self.anomaly_score(X))
        return conformal_p_values(scores, torch.from_numpy(self.calibration_scores_)).numpy()

    def explain(self, X: Any, top: int = 3) -> pl.DataFrame:
        """Return the values that make each row anomalous, given its other values.

        Args:
            X: Rows, ``(n, D)``.
            top: How many columns to name for each row, those first whose change would gain most.

        Returns:
            A polars frame with ``row`` (counted from 0), ``score``, ``column``, ``value``, ``likely``, ``gain`` and
            ``surprise``, as of ``pushforward.evaluate.explain``: the gain is infinite where a value cannot be, and 0
            for all columns of a row of infinite score whose values only cannot be together. Values are texts where some
            are no numbers.

        Raises:
            ValueError: Rows that do not fit, ``top`` below 1.
        """
        import polars as pl

        check_is_fitted(self)
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        columns = self.fitted_.table.columns
        x = points(self, X, columns)
        found = explain(self.fitted_.flow, x, columns=columns)
        order = found.order()[:, :top]
        rows = torch.arange(len(x))[:, None].expand_as(order).flatten()
        frame = pl.DataFrame(
            {
                "row": rows.numpy(),
                "score": found.score[rows].numpy(),
                "column": np.array(column_names(self))[order.flatten().numpy()],
            }
        )
        return frame.with_columns(
            _taken(x, order, columns).alias("value"),
            _taken(found.likely, order, columns).alias("likely"),
            pl.Series("gain", found.gain.gather(1, order).flatten().numpy()),
            pl.Series("surprise", found.surprise.gather(1, order).flatten().numpy()),
        )

    def _fit_score(self, split: TableSplit, seed: int) -> FittedFlow:
        """Fit the smoothed density, or where there are labels and gaps, to which no noise can be added, the density."""
        if any(column.labelled or column.missing for column in split.schema.columns):
            return self._fit_flow(split, seed)
        return fit_smoothed(
            split,
            model=named_model(self.model),
            training=replace(smoothed_training(len(split.train), seed), **self._given()),
            seed=seed,
            on_epoch=self._on_epoch(),
        )

    def _check_settings(self) -> None:
        share, rate = self.contamination, self.alarm_rate
        if not (share == "auto" if isinstance(share, str) else 0.0 < share <= 0.5):
            raise ValueError(f"contamination must be 'auto' or a share in (0, 0.5], got {share!r}")
        if share != "auto" and rate is not None:
            raise ValueError(
                f"alarm_rate={rate} and contamination={share} both set the threshold; give one of them"
            )
        if rate is not None and not 0.0 < rate < 1.0:
            raise ValueError(f"alarm_rate must lie between 0 and 1, got {rate}")

    def _fractions(self, rows: int) -> tuple[float, float, float]:
        """Return the shares of rows to fit, to choose the epoch and to calibrate: twice as many as the rate needs."""
        rate = _RATE if self.alarm_rate is None else self.alarm_rate
        calibration = min(max(_CALIBRATION_SHARE, 2 / (rate * rows)), _MOST)
        return 1.0 - _VALID_SHARE - calibration, _VALID_SHARE, calibration

    def _check_promise(self, rows: int, calibration: int) -> None:
        """Refuse a rate that takes more rows, before the flow is fitted."""
        rate = self.alarm_rate
        if rate is not None and calibration < rows_to_promise(rate):
            needed = math.ceil(rows_to_promise(rate) / _MOST)
            raise ValueError(
                f"alarm_rate={rate:g} takes at least {needed} rows, got {rows}: give more rows, or a rate of at least "
                f"{least_rate(calibration):g}"
            )

    def _threshold(self, every: NDArray[np.float64]) -> float:
        """Return the anomaly score above which a row is an anomaly."""
        calibration = torch.from_numpy(self.calibration_scores_)
        if not isinstance(self.contamination, str):
            return float(np.quantile(every, 1.0 - self.contamination))
        if self.alarm_rate is None and len(calibration) < rows_to_promise(_RATE):
            return float(np.quantile(every, 1.0 - _RATE))
        return alarm_threshold(calibration, _RATE if self.alarm_rate is None else self.alarm_rate)

    def _scores(self, x: torch.Tensor) -> NDArray[np.float64]:
        return -log_densities(self.fitted_.flow, x).numpy()


def _taken(x: torch.Tensor, order: torch.Tensor, columns: tuple[ColumnSchema, ...]) -> pl.Series:
    """Return the values of some columns of each row, one row after the other."""
    import polars as pl

    if all(map(is_number, columns)):
        return pl.Series(x.gather(1, order).flatten().numpy())
    texts = to_frame(x.numpy(), columns).select(pl.all().cast(pl.String)).rows()
    return pl.Series(
        [texts[i][j] for i, places in enumerate(order.tolist()) for j in places], dtype=pl.String
    )
