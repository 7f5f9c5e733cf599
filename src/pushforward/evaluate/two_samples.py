"""How far two samples are apart: what a model draws, and what it should."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

_LEAST = 8  # rows of a sample, so that both halves have neighbours to ask
_AT_ONCE = 2**22  # projections of rows that are sorted together


def sliced_wasserstein(x: Tensor, y: Tensor, *, projections: int = 256, generator: torch.Generator) -> float:
    r"""Return the sliced Wasserstein distance of order 2 between two samples.

    .. math:: \mathrm{SW}_2 = \Big(\operatorname{mean}_\theta \int_0^1
        \big(F^{-1}_{\theta^\top x}(q) - F^{-1}_{\theta^\top y}(q)\big)^2 dq\Big)^{1/2}

    over directions of uniform law, drawn in orthogonal sets: where ``projections`` is a multiple of the number of
    elements ``D``, a shift by :math:`m` alone has the distance :math:`\|m\| / \sqrt{D}` to rounding. Quantiles are
    those of the samples, of any two sizes. Two samples of one law are not at distance 0 but at one that falls as their
    sizes grow: measure that too.

    Args:
        x: One sample, ``(n, *event)``, finite.
        y: The other, ``(m, *event)``.
        projections: Number of directions.
        generator: Source of the directions, on the CPU.

    Returns:
        The distance, in the units of the samples; computed in float64.

    Raises:
        ValueError: Samples that do not fit or are not finite, or no directions.

    References:
        Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures, 2015. https://doi.org/10.1007/s10851-014-0506-3
        Rowland et al., Orthogonal Estimation of Wasserstein Distances, 2019. https://arxiv.org/abs/1903.03784

    Example:
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> moved = x + torch.tensor([3.0, 4.0])
        >>> round(sliced_wasserstein(x, moved, generator=torch.Generator().manual_seed(1)), 4)
        3.5355
    """
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    x, y = _rows(x, y, least=1)
    directions = _directions(x.shape[1], projections, generator)
    of_x, of_y, widths = _levels(len(x), len(y))
    total = 0.0
    for some in directions.split(max(1, _AT_ONCE // (len(x) + len(y)))):
        u, v = (torch.sort(some @ rows.T).values for rows in (x, y))
        total += float(((u[:, of_x] - v[:, of_y]).square() @ widths).sum())
    return float((total / projections) ** 0.5)


def classifier_two_sample(x: Tensor, y: Tensor, *, seed: int) -> tuple[float, float]:
    r"""Return how often a classifier tells which of two samples a held-out row is from, with the standard error.

    Accuracy 0.5 is what two samples of one law give, 1 what two that do not overlap. Each sample is cut in halves, and
    the rows of each half are held out in turn: the :math:`k` nearest rows of the other halves vote, :math:`k` being the
    root of their number, among standardised elements. In two dimensions that detects about what boosted trees and
    perceptrons do, in a fraction of the time.

    The rows must be independent: the same row in both samples is a neighbour with the wrong label.

    Args:
        x: One sample, ``(n, *event)``, finite.
        y: The other, ``(m, *event)``; of the larger one so many rows are drawn as the smaller one has.
        seed: Seed of the halves.

    Returns:
        The accuracy and its standard error, :math:`\sqrt{a (1 - a) / N}` of :math:`N` rows.

    Raises:
        ValueError: Samples that do not fit, are not finite or have fewer than 8 rows.

    References:
        Lopez-Paz & Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017. https://arxiv.org/abs/1610.06545

    Example:
        >>> x, y = torch.randn(2, 500, 2, generator=torch.Generator().manual_seed(0))
        >>> classifier_two_sample(x, y + 9, seed=0)
        (1.0, 0.0)
        >>> accuracy, error = classifier_two_sample(x, y, seed=0)
        >>> abs(accuracy - 0.5) < 3 * error
        True
    """
    from sklearn.neighbors import KNeighborsClassifier

    x, y = _rows(x, y, least=_LEAST)
    generator = torch.Generator().manual_seed(seed)
    count = min(len(x), len(y)) // 2 * 2
    x, y = (rows[torch.randperm(len(rows), generator=generator)[:count]] for rows in (x, y))
    both = torch.cat([x, y])
    spread = both.std(0)
    both = ((both - both.mean(0)) / torch.where(spread > 0, spread, 1.0)).reshape(2, 2, count // 2, -1)
    labels = torch.arange(2).repeat_interleave(count // 2).numpy()
    right = 0
    for half in range(2):
        learned, asked = (both[:, h].flatten(0, 1).numpy() for h in (half, 1 - half))
        nearest = KNeighborsClassifier(isqrt(count) | 1).fit(learned, labels)  # odd: no vote is a tie
        right += int((nearest.predict(asked) == labels).sum())
    accuracy = right / (2 * count)
    return accuracy, (accuracy * (1 - accuracy) / (2 * count)) ** 0.5


def _rows(x: Tensor, y: Tensor, *, least: int) -> tuple[Tensor, Tensor]:
    """Return both samples as rows in float64, after a check."""
    if x.ndim < 2 or y.ndim < 2 or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"x and y must have shapes (n, *event) and (m, *event), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    for name, rows in (("x", x), ("y", y)):
        if len(rows) < least:
            raise ValueError(f"{name} must have {least} rows or more, got {len(rows)}")
        bad = int((~rows.isfinite().flatten(1).all(1)).sum())
        if bad:
            raise ValueError(f"{name} must be finite, got {bad} of {len(rows)} rows that are not")
    return x.detach().flatten(1).cpu().double(), y.detach().flatten(1).cpu().double()


def _directions(d: int, count: int, generator: torch.Generator) -> Tensor:
    """Return unit vectors ``(count, d)`` of uniform law but for their sign, every ``d`` of them orthogonal."""
    normal = torch.randn(-(-count // d), d, min(d, count), generator=generator, dtype=torch.float64)
    orthogonal: Tensor = torch.linalg.qr(normal).Q
    return orthogonal.mT.reshape(-1, d)[:count]


def _levels(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pieces of [0, 1] on which both quantile functions are constant: order statistics, and widths."""
    # In units of 1 / (n m).
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return starts // m, starts // n, (ends - starts).double() / (n * m)
