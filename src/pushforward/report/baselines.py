r"""What a flow has to beat: a Gaussian, a Gaussian mixture and a kernel density estimate.

Each function fits on training rows, chooses its settings on training or validation rows, and returns the
log-densities of the test rows in nats and in the units of the data. Inside, columns are standardised by the training
rows, so that one regularisation and one bandwidth serve all of them; with scales :math:`s`,
:math:`\log p(x) = \log p_{\text{std}}((x - m)/s) - \sum_i \log s_i`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

REGULARISATIONS = (0.0, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3)
COMPONENTS = {
    "full": (1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 200),
    "tied": (1, 2, 3, 5, 8, 12, 20, 30, 50),
    "diag": (1, 3, 10, 30, 50, 100, 200, 400, 800),
}
BANDWIDTHS = tuple(float(h) for h in np.geomspace(0.05, 2.0, 16))
_SELECTION_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Baseline:
    """How likely a simple model finds the test rows.

    Attributes:
        name: The model, in words.
        mean: Mean log-likelihood of the test rows in nats.
        detail: The settings that were chosen, and on what.
        values: Log-likelihood of each test row, (rows,).
    """

    name: str
    mean: float
    detail: str
    values: Matrix = field(repr=False)


def gaussian(
    train: Matrix, valid: Matrix, test: Matrix, *, regularisations: Sequence[float] = REGULARISATIONS
) -> Baseline:
    r"""A Gaussian with full covariance :math:`S + \lambda I`, :math:`\lambda` chosen on the validation rows.

    Args:
        train: Rows to fit, (rows, columns).
        valid: Rows to choose the regularisation on.
        test: Rows to score.
        regularisations: Candidates for :math:`\lambda`, in units of a column's variance; one that leaves the
            covariance singular is passed over.

    Raises:
        ValueError: Matrices that do not fit together or hold values that are not finite; or no candidate leaves a
            covariance that can be inverted.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(3000, 2))
        >>> fitted = gaussian(x[:1000], x[1000:2000], x[2000:])
        >>> round(fitted.mean, 1), round(-math.log(2 * math.pi * math.e), 1)
        (-2.8, -2.8)
    """
    (t, v, s), shift = _standardised(train, valid, test)
    spectrum, axes = np.linalg.eigh(t.T @ t / len(t))
    spectrum = np.maximum(spectrum, 0.0)

    def log_prob(rows: Matrix, amount: float) -> Matrix:
        variances = spectrum + amount
        distance = ((rows @ axes) ** 2 / variances).sum(1)
        result: Matrix = -0.5 * (distance + np.log(2 * math.pi * variances).sum())
        return result

    floor = len(spectrum) * np.finfo(float).eps * spectrum.max(initial=0.0)
    possible = [amount for amount in regularisations if spectrum.min() + amount > floor]
    if not possible:
        raise ValueError(
            f"regularisations: the covariance is singular, so one of them must be positive, got {regularisations}"
        )
    best = max(possible, key=lambda amount: float(log_prob(v, amount).mean()))
    detail = f"full covariance, regularisation {best:g} of the variance, by validation"
    return _baseline("Gaussian", detail, log_prob(s, best) + shift)


def gaussian_given(
    rows: tuple[Matrix, Matrix, Matrix],
    contexts: tuple[Matrix, Matrix, Matrix],
    *,
    regularisation: float = 1e-6,
) -> Baseline:
    r"""A linear regression with Gaussian errors: :math:`\log N(x, c) - \log N(c)` of one joint Gaussian.

    Args:
        rows: Training, validation and test rows, each (rows, columns).
        contexts: What is given of each of them, (rows, columns given).
        regularisation: Added to the variances, in units of a column's variance.

    Raises:
        ValueError: Matrices that do not fit together or hold values that are not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> c = rng.normal(size=(3000, 1))
        >>> x = 5.0 * c + rng.normal(size=(3000, 1))
        >>> parts = [slice(0, 1000), slice(1000, 2000), slice(2000, 3000)]
        >>> fitted = gaussian_given(tuple(x[part] for part in parts), tuple(c[part] for part in parts))
        >>> round(fitted.mean, 1), round(-0.5 * math.log(2 * math.pi * math.e), 1)
        (-1.4, -1.4)
    """
    joint = [np.hstack(parts) for parts in zip(rows, contexts, strict=True)]
    together, alone = (
        gaussian(*parts, regularisations=(regularisation,)).values for parts in (joint, contexts)
    )
    detail = f"linear regression, regularisation {regularisation:g} of the variance"
    return _baseline("Gaussian given the conditions", detail, together - alone)


def gaussian_mixture(
    train: Matrix,
    valid: Matrix,
    test: Matrix,
    *,
    criterion: str = "bic",
    components: Mapping[str, Sequence[int]] = COMPONENTS,
    regularisations: Sequence[float] = (1e-6,),
    patience: int | None = None,
    seed: int = 0,
) -> Baseline:
    """The best of many Gaussian mixtures, each fitted by expectation maximisation.

    Args:
        train: Rows to fit, (rows, columns).
        valid: Rows to choose on, if the criterion is "validation".
        test: Rows to score.
        criterion: ``"bic"``, the Bayesian information criterion on the training rows, or ``"validation"``.
        components: Candidates for the number of components, by the kind of covariance as scikit-learn names it
            (``"full"``, ``"tied"``, ``"diag"``, ``"spherical"``); more components than rows are passed over.
        regularisations: Candidates for what is added to the variances, in units of a column's variance.
        patience: After so many candidates in a row that are no better than one before them, no more are tried of that
            kind of covariance; None: all are.
        seed: Seed of the starting points.

    Raises:
        ValueError: An unknown criterion, matrices that do not fit together or are not finite, or no candidate that
            can be fitted.

    References:
        Schwarz, Estimating the dimension of a model, 1978.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(900, 1)) + 20.0 * rng.integers(2, size=(900, 1))
        >>> gaussian_mixture(x[:600], x[600:700], x[700:], components={"full": (1, 2, 3)}).detail
        '2 components, full covariances, regularisation 1e-06 of the variance, by BIC'
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if criterion not in ("bic", "validation"):
        raise ValueError(f"criterion must be 'bic' or 'validation', got {criterion!r}")
    (t, v, s), shift = _standardised(train, valid, test)
    words = {"diag": "diagonal", "bic": "BIC"}
    best, best_cost, detail = None, math.inf, ""
    tried = [(kind, n, r) for kind, counts in components.items() for n in counts for r in regularisations]
    least = dict.fromkeys(components, math.inf)
    behind = dict.fromkeys(components, 0)
    for kind, count, amount in tried:
        if count > len(t) or behind[kind] == patience:
            continue
        model = GaussianMixture(count, covariance_type=kind, reg_covar=amount, random_state=seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(t)
        except ValueError:  # a component collapsed onto too few points
            continue
        cost = float(model.bic(t)) if criterion == "bic" else -float(model.score(v))
        behind[kind] = 0 if cost < least[kind] else behind[kind] + 1
        least[kind] = min(cost, least[kind])
        if cost < best_cost:
            best, best_cost = model, cost
            detail = (
                f"{count} component{'s' if count > 1 else ''}, {words.get(kind, kind)} covariances, "
                f"regularisation {amount:g} of the variance, by {words.get(criterion, criterion)}"
            )
    if best is None:
        raise ValueError(
            f"components, covariances, regularisations: none of the mixtures could be fitted to {len(t)} rows; "
            "give fewer components or more regularisation"
        )
    return _baseline("Gaussian mixture", detail, best.score_samples(s) + shift)


def kernel_density(
    train: Matrix, valid: Matrix, test: Matrix, *, bandwidths: Sequence[float] = BANDWIDTHS
) -> Baseline:
    r"""A Gaussian kernel density estimate,

    .. math:: p(x) = \frac1n \sum_j N(x;\ x_j, h^2 I),

    with the bandwidth ``h`` chosen on the first 1000 validation rows.

    Args:
        train: Rows that the kernels stand on, (rows, columns).
        valid: Rows to choose the bandwidth on.
        test: Rows to score.
        bandwidths: Candidates, in units of a column's standard deviation.

    Raises:
        ValueError: Matrices that do not fit together or are not finite; no bandwidth.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(600, 1))
        >>> fitted = kernel_density(x[:200], x[200:400], x[400:])
        >>> round(fitted.mean, 1), round(-0.5 * math.log(2 * math.pi * math.e), 1)
        (-1.4, -1.4)
    """
    from sklearn.neighbors import KernelDensity

    if not bandwidths:
        raise ValueError("bandwidths: at least one is needed, got none")
    (t, v, s), shift = _standardised(train, valid, test)

    def score(rows: Matrix, bandwidth: float) -> Matrix:
        result: Matrix = KernelDensity(bandwidth=bandwidth).fit(t).score_samples(rows)
        return result

    best = max(bandwidths, key=lambda h: float(score(v[:_SELECTION_ROWS], h).mean()))
    detail = f"bandwidth {best:.2g} standard deviations, by validation"
    return _baseline("Kernel density", detail, score(s, best) + shift)


def _baseline(name: str, detail: str, values: Matrix) -> Baseline:
    return Baseline(name, float(values.mean()), detail, values)


def _standardised(train: Matrix, valid: Matrix, test: Matrix) -> tuple[tuple[Matrix, Matrix, Matrix], float]:
    """Standardise by the training rows; also return the log-density's change of units."""
    for name, rows in (("train", train), ("valid", valid), ("test", test)):
        if rows.ndim != 2 or len(rows) == 0 or rows.shape[1:] != train.shape[1:]:
            raise ValueError(
                f"{name} must be a matrix with rows and the columns of train, {train.shape}, got {rows.shape}"
            )
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} must hold finite values only, got some that are not")
    centre, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    a, b, c = ((rows - centre) / scale for rows in (train, valid, test))
    return (a, b, c), -float(np.log(scale).sum())
