r"""Anomaly scores, and thresholds that keep the rate of false alarms that they promise.

One convention everywhere: a score is in nats, and higher is more anomalous. Calibration scores are those of normal rows
that the flow was not fitted to: a flow finds its own training rows too likely.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..flows import Flow, score

_RESAMPLES_AT_ONCE = 2**22  # drawn scores that are held together


def anomaly_score(flow: Flow, x: Tensor, context: Tensor | None = None) -> Tensor:
    r"""Return the anomaly score of each row, :math:`s(x) = -\log p(x \mid c)`: higher is more anomalous.

    Args:
        flow: The density.
        x: Rows in the units of the data, ``(n, *event_shape)``.
        context: Their contexts, ``(n, *context_shape)``.

    Returns:
        Scores in nats, ``(n,)``; ``inf`` outside the support. Discrete columns are scored as by ``score``.

    Raises:
        ValueError: Shapes or dtypes that do not fit.

    References:
        Bishop, Novelty detection and neural network validation, 1994. https://doi.org/10.1049/ip-vis:19941330

    Example:
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> scores = anomaly_score(build_flow(MAFConfig(layers=1), 2), torch.tensor([[0.0, 0.0], [9.0, 9.0]]))
        >>> bool(scores[0] < scores[1])
        True
    """
    return -score(flow, x, context).value


def score_ratio(flow: Flow, background: Flow, x: Tensor, context: Tensor | None = None) -> Tensor:
    r"""Return the log-likelihood ratio of a background density, :math:`\log p_b(x) - \log p(x)`.

    Higher is more anomalous. What both densities find as likely, such as plain rows in a table of busy ones, cancels.

    Args:
        flow: The density of normal rows.
        background: The density of rows at large, or of normal rows that were perturbed, in the same units.
        x: Rows, ``(n, *event_shape)``.
        context: Their contexts, ``(n, *context_shape)``, for both flows.

    Returns:
        Scores in nats, ``(n,)``; NaN where both densities are 0.

    Raises:
        ValueError: Flows of different rows; shapes or dtypes that do not fit.

    References:
        Ren et al., Likelihood Ratios for Out-of-Distribution Detection, 2019, eq. 2 (with the opposite sign).
        https://arxiv.org/abs/1906.02845

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import LULinear
        >>> flow = Flow(LULinear(2), DiagonalNormal((2,)))
        >>> score_ratio(flow, flow, torch.randn(3, 2, generator=torch.Generator().manual_seed(0))).tolist()
        [0.0, 0.0, 0.0]
    """
    if flow.event_shape != background.event_shape:
        raise ValueError(
            f"background must have the event shape of flow, {flow.event_shape}, got {background.event_shape}"
        )
    return anomaly_score(flow, x, context) - anomaly_score(background, x, context)


def conformal_p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    r"""Return how unusual scores are among those of held-out normal rows,

    .. math:: p(s) = \frac{1 + \#\{i : s_i \ge s\}}{n + 1}.

    For a normal row, exchangeable with the :math:`n` of the calibration, :math:`P(p \le \alpha) \le \alpha` for every
    :math:`\alpha`, whatever the quality of the flow. The p-values of several rows share the calibration: they depend on
    each other positively, so that the false discovery rate may be controlled by the method of Benjamini and Hochberg.

    Args:
        scores: Anomaly scores, of any shape.
        calibration: Scores of normal rows that the flow was not fitted to, ``(n,)``.

    Returns:
        P-values of the shape of ``scores``, float64, at least :math:`1/(n+1)`.

    Raises:
        ValueError: No calibration scores, or scores that are NaN.

    References:
        Vovk et al., Algorithmic Learning in a Random World, 2005. Bates et al., Testing for outliers with conformal
        p-values, 2023, eq. 2. https://arxiv.org/abs/2104.08279

    Example:
        >>> conformal_p_values(torch.tensor([0.5, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1.0000, 0.2500], dtype=torch.float64)
    """
    scores, ordered = _checked("scores", scores), _calibration(calibration)
    return (1 + _at_least(scores, ordered)) / (len(ordered) + 1)


def alarm_threshold(calibration: Tensor, rate: float) -> float:
    r"""Return the threshold above which a score is an alarm, with a promised rate of false alarms.

    It is the :math:`k`-th largest calibration score, :math:`k = \lfloor \alpha (n + 1) \rfloor`, so that ``score >
    threshold`` where ``conformal_p_values(score, calibration) <= rate``. Over draws of the calibration and of the row,
    a normal row exceeds it with a probability of at most :math:`\alpha`; of :math:`m` normal rows, as many as a
    beta-binomial variable of :math:`m, k, n + 1 - k` says, or fewer where scores tie.

    Args:
        calibration: Scores of normal rows that the flow was not fitted to, ``(n,)``.
        rate: The rate of false alarms :math:`\alpha`, between 0 and 1.

    Returns:
        The threshold, in nats.

    Raises:
        ValueError: A rate that so few calibration rows cannot promise; the text says how many it takes.

    References:
        Bates et al., Testing for outliers with conformal p-values, 2023, section 2. https://arxiv.org/abs/2104.08279

    Example:
        >>> alarm_threshold(torch.arange(99.0), 0.05)
        94.0
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"rate must lie between 0 and 1, got {rate}")
    ordered = _calibration(calibration)
    n = len(ordered)
    # A product such as 0.07 * 100 may miss its whole number by a rounding.
    count = math.floor(rate * (n + 1) * (1 + 1e-12))
    if count < 1:
        raise ValueError(
            f"rate {rate:g} cannot be promised by {n} calibration rows: give at least {rows_to_promise(rate)} rows, or "
            f"a rate of at least {least_rate(n):g}"
        )
    return float(ordered[n - count])


def rows_to_promise(rate: float) -> int:
    """Return the fewest calibration rows that can promise a rate of false alarms.

    Example:
        >>> rows_to_promise(0.01)
        99
    """
    return math.ceil((1 - 1e-12) / rate) - 1


def least_rate(rows: int) -> float:
    """Return the least rate of two digits that so many calibration rows can promise.

    Example:
        >>> least_rate(60)
        0.017
    """
    least = 1 / (rows + 1)
    digits = 1 - math.floor(math.log10(least))
    return float(math.ceil(least * (1 - 1e-12) * 10**digits) / 10**digits)


def typicality(
    scores: Tensor, calibration: Tensor, *, resamples: int = 10_000, generator: torch.Generator | None = None
) -> Tensor:
    r"""Return how typical the scores of rows, or of groups of rows, are: p-values of a test on both sides.

    A row may be anomalous since it is too likely. For a group of :math:`m` rows the deviation of its mean score,
    :math:`\epsilon = |\bar s - \hat H|`, is held against those of ``resamples`` groups drawn with replacement from the
    calibration, :math:`p = (1 + \#\{\epsilon_k \ge \epsilon\}) / (K + 1)`; :math:`\hat H`, the mean of the calibration,
    is the entropy as the flow sees it. The calibration should be much larger than a group. For single rows the p-value
    is exact: each of the :math:`n + 1` scores deviates from the mean of all, and they are exchangeable.

    Args:
        scores: Anomaly scores, ``(n,)`` of single rows or ``(groups, m)``.
        calibration: Scores of normal rows that the flow was not fitted to, finite.
        resamples: Number of groups that are drawn, :math:`K`.
        generator: Source of randomness, for groups.

    Returns:
        P-values, one for each row or group, float64; small: not typical.

    Raises:
        ValueError: No calibration scores, or some that are not finite; another shape; NaN among the scores; no
            resamples.

    References:
        Nalisnick et al., Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality, 2019,
        algorithm 1. https://arxiv.org/abs/1906.02994

    Example:
        >>> calibration = torch.linspace(0.0, 10.0, 99)
        >>> typicality(torch.tensor([-4.0, 5.0, 14.0]), calibration)
        tensor([0.0100, 1.0000, 0.0100], dtype=torch.float64)
    """
    scores, ordered = _checked("scores", scores), _calibration(calibration)
    if not bool(ordered.isfinite().all()):
        raise ValueError(f"calibration must be finite, got {int(ordered.isinf().sum())} scores that are not")
    if scores.ndim == 1:
        return _typicality_of_rows(scores, ordered)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(
            f"scores must have shape (rows,) or (groups, rows of each), got {tuple(scores.shape)}"
        )
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    drawn = _resampled_means(ordered, scores.shape[1], resamples, generator)
    deviations = (drawn - ordered.mean()).abs().sort().values
    return (1 + _at_least((scores.mean(1) - ordered.mean()).abs(), deviations)) / (resamples + 1)


def _typicality_of_rows(scores: Tensor, ordered: Tensor) -> Tensor:
    n = len(ordered)
    mean = (ordered.sum() + scores) / (n + 1)
    away = (scores - mean).abs()
    below = torch.searchsorted(ordered, mean - away, right=True)
    above = _at_least(mean + away, ordered)
    # Where the deviation is 0 a score at the mean would count on both sides.
    as_far = torch.where(scores.isinf(), 0.0, (below + above).clamp(max=n))
    return (1 + as_far) / (n + 1)


def _resampled_means(
    calibration: Tensor, size: int, resamples: int, generator: torch.Generator | None
) -> Tensor:
    at_once = max(1, _RESAMPLES_AT_ONCE // size)
    means = [
        calibration[
            torch.randint(len(calibration), (min(at_once, resamples - start), size), generator=generator)
        ].mean(1)
        for start in range(0, resamples, at_once)
    ]
    return torch.cat(means)


def _at_least(scores: Tensor, ordered: Tensor) -> Tensor:
    """Return how many of the ordered scores are as high as each score, or higher; float64."""
    return (len(ordered) - torch.searchsorted(ordered, scores.contiguous())).double()


def _calibration(scores: Tensor) -> Tensor:
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            f"calibration must have shape (rows,) with a row at least, got {tuple(scores.shape)}"
        )
    return _checked("calibration", scores).sort().values


def _checked(name: str, scores: Tensor) -> Tensor:
    scores = scores.detach().to("cpu", torch.float64)
    bad = int(scores.isnan().sum())
    if bad:
        raise ValueError(f"{name} must be numbers, got {bad} of {scores.numel()} that are NaN")
    return scores
