"""Whether each column of a model is distributed as that of the data: probability integral transforms by draws."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .verdict import KS_DISTANCE, KS_LEVEL

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How evenly the ranks of real values among a model's draws are spread, column by column.

    Attributes:
        pit: Ranks from 0 to 1, ``(n, D)``; NaN where the value is missing.
        distances: Kolmogorov-Smirnov distance between the ranks of each column and the uniform distribution: by how
            much the probability of staying below a value is wrong, at most. NaN for a column without values.
        p_values: Chance that a model without error gives such distances, each multiplied by the number of columns
            (Bonferroni), at most 1.
        effective: Size of the sample that a distance is as uncertain as, of each column: that of the rows where each
            row has draws of its own; :math:`n m / (n + m)` where all share :math:`m` of them.
    """

    pit: Matrix = field(repr=False)
    distances: tuple[float, ...]
    p_values: tuple[float, ...]
    effective: tuple[float, ...]

    @property
    def fits(self) -> tuple[bool, ...]:
        """For each column, whether its distance is at most 0.05 or within chance."""
        return tuple(
            not (d > KS_DISTANCE and p < KS_LEVEL) for d, p in zip(self.distances, self.p_values, strict=True)
        )


def calibrate(x: Matrix, drawn: Matrix, *, seed: int = 0) -> Calibration:
    r"""Return where the values of data lie among draws from a model, and how far that is from even.

    The probability integral transform of a value is its rank among the draws of its column, ties broken by chance:

    .. math:: u = \frac{\#\{y < x\} + v\,(\#\{y = x\} + 1)}{m + 1}, \qquad v \sim U(0, 1)

    It is uniform, also for discrete columns, if data and model have the same marginal distribution. That asks nothing
    of the model but draws. It says nothing about how columns depend on each other.

    Args:
        x: Rows of data, ``(n, D)``; NaN stands for a missing value, which is left out.
        drawn: Draws: the same for all rows, ``(m, D)``, or for each row its own, under its own condition,
            ``(m, n, D)``. Missing ones are left out where all rows share the draws.
        seed: Seed of what breaks ties.

    Returns:
        The ranks, and a test of each column.

    Raises:
        ValueError: Draws of another shape; no rows or no draws; missing values among draws of single rows.

    References:
        Czado, Gneiting, Held, Predictive Model Assessment for Count Data, 2009, eq. 2.
        https://doi.org/10.1111/j.1541-0420.2009.01191.x

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = calibrate(rng.normal(size=(500, 2)) * [1.0, 2.0], rng.normal(size=(2000, 2)))
        >>> found.fits
        (True, False)
    """
    _check(x, drawn)
    rng = np.random.default_rng(seed)
    pit = np.full(x.shape, np.nan)
    distances, p_values, effective = [], [], []
    for j in range(x.shape[1]):
        there = ~np.isnan(x[:, j])
        if drawn.ndim == 3:
            below, equal, draws = _among_own(x[there, j], drawn[:, there, j])
            size = float(there.sum())
        else:
            column = drawn[~np.isnan(drawn[:, j]), j]
            below, equal, draws = _among_shared(x[there, j], column)
            size = int(there.sum()) * draws / max(int(there.sum()) + draws, 1)
        pit[there, j] = (below + rng.random(len(below)) * (equal + 1)) / (draws + 1)
        distance, p_value = _test(pit[there, j], size)
        distances.append(distance)
        p_values.append(min(1.0, x.shape[1] * p_value))
        effective.append(size)
    return Calibration(pit, tuple(distances), tuple(p_values), tuple(effective))


def _among_own(x: Matrix, drawn: Matrix) -> tuple[Matrix, Matrix, int]:
    return (drawn < x).sum(0).astype(float), (drawn == x).sum(0).astype(float), len(drawn)


def _among_shared(x: Matrix, drawn: Matrix) -> tuple[Matrix, Matrix, int]:
    ordered = np.sort(drawn)
    below, up_to = (np.searchsorted(ordered, x, side=side).astype(float) for side in ("left", "right"))
    return below, up_to - below, len(drawn)


def _test(pit: Matrix, size: float) -> tuple[float, float]:
    """Return the distance of ranks from the uniform distribution, and its p-value for a sample of that size."""
    from scipy.stats import kstwo

    if not len(pit):
        return float("nan"), 1.0
    ordered = np.sort(pit)
    steps = np.arange(len(pit) + 1) / len(pit)
    distance = float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    return distance, float(kstwo.sf(distance, max(1, round(size))))


def _check(x: Matrix, drawn: Matrix) -> None:
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x must have shape (n, D) with n of at least 1, got {x.shape}")
    expected = x.shape if drawn.ndim == 3 else x.shape[1:]
    if drawn.ndim not in (2, 3) or drawn.shape[1:] != expected or not len(drawn):
        n, d = x.shape
        raise ValueError(
            f"drawn must have shape (m, {d}) or (m, {n}, {d}) with m of at least 1, got {drawn.shape}"
        )
    if drawn.ndim == 3 and np.isnan(drawn).any():
        raise ValueError(
            f"drawn must have no missing values where each row has draws of its own, got {int(np.isnan(drawn).sum())}"
        )
