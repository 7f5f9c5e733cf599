"""A flow as a density estimator and transformer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from ..data import to_frame
from ..data.names import listed
from ..flows import Flow, MixedFlow, chunk_rows
from ..surjections import Dequantise
from .base import FlowEstimator, seed_of
from .inputs import fit_table, is_number, points
from .rows import in_blocks, log_densities

if TYPE_CHECKING:
    import polars as pl


class FlowDensity(DensityMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, FlowEstimator):  # type: ignore[misc]
    r"""The density of rows, as a density estimator and transformer of scikit-learn.

    .. math:: \log p(x) = \log p_0(f(x)) + \log |\det \partial f(x)/\partial x|,

    with the latent :math:`z = f(x)` under a simple base density :math:`p_0`, a standard normal by default.
    ``transform`` is :math:`f`, so that data can be made normal in a pipeline. All densities are in the units of ``X``.
    Whole numbers and other grids that ``X`` is found to lie on are dequantised, as by ``pushforward.fit``. A pickle
    holds the flow in the format of ``pushforward.save``.

    Args:
        model: A model, by name or configuration; chosen from the size of the data by default.
        epochs: Most passes over the training rows.
        batch_size: Rows in a step.
        learning_rate: Peak of the schedule.
        max_seconds: Time budget.
        random_state: Seed of the split, of initial weights and of the order of rows.
        verbose: Whether to print the losses of every epoch.

    Attributes:
        fitted_: The fitted flow, its schema and the record of its training, for ``pushforward.save``.
        n_features_in_: Number of columns.
        feature_names_in_: Names of the columns, where ``X`` was a frame.

    Example:
        >>> X = np.random.default_rng(0).normal([1.0, -1.0], size=(200, 2))
        >>> density = FlowDensity(model="made", epochs=3, random_state=0).fit(X)
        >>> density.score_samples(X).shape, density.transform(X).shape, density.sample(3).shape
        ((200,), (200, 2), (3, 2))
    """

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit the density.

        Args:
            X: Rows, an array of numbers or a frame, ``(n, D)``.
            y: Ignored.

        Returns:
            The estimator itself.

        Raises:
            ValueError: Rows that cannot be used, too few of them, a column with one value only, an unknown model.
        """
        table, seed = fit_table(self, X), seed_of(self.random_state)
        self.fitted_ = self._fit_flow(self._split(table, seed), seed)
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return the log-density of each row in nats, ``(n,)``; ``-inf`` outside the support."""
        check_is_fitted(self)
        return log_densities(self.fitted_.flow, points(self, X, self.fitted_.table.columns)).numpy()

    def score(self, X: Any, y: object = None) -> float:
        """Return the mean log-density of the rows in nats, by which cross-validation chooses."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[np.float64] | pl.DataFrame:
        """Return rows drawn from the density, ``(n_samples, D)``; a polars frame where there are labels, dates or gaps.

        Raises:
            ValueError: Fewer than 1.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        generator = torch.Generator().manual_seed(seed_of(random_state))
        rows = self.fitted_.flow.sample((n_samples,), generator=generator).double().numpy()
        columns = self.fitted_.table.columns
        return rows if all(map(is_number, columns)) else to_frame(rows, columns)

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Return the latents of rows, ``(n, D)``; a discrete value is taken for the middle of its cell.

        Raises:
            ValueError: Rows that do not fit; a density of the model mixed, which has no latents.
        """
        flow = self._with_latents()
        x = points(self, X, self.fitted_.table.columns)
        with torch.no_grad():
            return in_blocks(partial(_latent, flow), chunk_rows(flow), x).numpy()

    def inverse_transform(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Return the rows that latents ``(n, D)`` stand for."""
        flow = self._with_latents()
        latent = torch.from_numpy(check_array(Z, dtype=np.float64, copy=True)).to(flow.like)
        with torch.no_grad():
            return flow.from_latent(latent).double().numpy()

    @property
    def _n_features_out(self) -> int:
        return self._with_latents().transform.latent_shape[0]

    def _with_latents(self) -> Flow:
        """Return the fitted flow, if it has latents."""
        check_is_fitted(self)
        if not isinstance(self.fitted_.flow, MixedFlow):
            return self.fitted_.flow
        columns = self.fitted_.table.columns
        others = [column.name for column in columns if column.labelled or column.missing]
        if others:
            raise ValueError(
                f"labels and gaps have no transform: encode or fill {listed(others)}, and fit FlowDensity(model='nsf')"
            )
        masses = [column.name for column in columns if column.atoms]
        chosen = f", chosen for a value that fills many rows of {listed(masses)}," if masses else ""
        raise ValueError(f"the model 'mixed'{chosen} has no transform: FlowDensity(model='nsf') has one")


def _latent(flow: Flow, x: torch.Tensor) -> torch.Tensor:
    """Return latents without the noise of dequantisation, so that equal rows have equal latents."""
    if not isinstance(flow.surjection, Dequantise):
        return flow.to_latent(x)
    x = x + 0.5 * flow.surjection.steps
    assert flow.preprocess is not None
    latent: torch.Tensor = flow.transform.encode(flow.preprocess(x, flow.like)[0], None)
    return latent
