"""Whether the latent points of data look like draws from the base."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributions import DiagonalNormal, Distribution, Logistic, Product, StudentT, Uniform
from .verdict import SHARES, Latent


def normal_scores(base: Distribution, latent: Tensor, context: Tensor | None) -> Tensor | None:
    r"""Return :math:`\Phi^{-1}(F_i(z_i))` of each element under the base's own distribution functions.

    Args:
        base: The base.
        latent: Points ``(n, D)``, float64.
        context: Their contexts.

    Returns:
        Scores ``(n, D)``, standard normal and independent if the points are draws from the base; None for a base
        whose elements are not independent or have no distribution function here.

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> normal_scores(DiagonalNormal((1,)).double(), torch.tensor([[1.5]], dtype=torch.float64), None)
        tensor([[1.5000]], dtype=torch.float64)
    """
    if isinstance(base, DiagonalNormal):
        loc, log_scale = base._location_and_log_scale(context)
        flat = latent.reshape(len(latent), *base.event_shape)
        return ((flat - loc) * torch.exp(-log_scale)).reshape(len(latent), -1)
    if isinstance(base, Product):
        result, start = torch.empty_like(latent), 0
        for part, size in zip(base.parts, base.sizes, strict=True):
            assert isinstance(part, Distribution)
            places = base.order[start : start + size]
            scores = normal_scores(part, latent[:, places], context)
            if scores is None:
                return None
            result[:, places] = scores
            start += size
        return result
    if isinstance(base, Logistic):
        # From the nearer tail, where nothing cancels.
        upper: Tensor = torch.special.ndtri(torch.sigmoid(-latent.abs()))
        return torch.where(latent > 0, -upper, upper)
    if isinstance(base, Uniform):
        quantiles: Tensor = torch.special.ndtri(
            (latent - base.low.flatten()) / (base.high - base.low).flatten()
        )
        return quantiles
    if isinstance(base, StudentT):
        from scipy.stats import t as student

        lower = student.cdf(-latent.abs().numpy(), base.df.flatten().detach().numpy())
        scores = torch.special.ndtri(torch.as_tensor(lower, dtype=torch.float64))
        return torch.where(latent > 0, -scores, scores)
    return None


def compare_latent(scores: Tensor) -> Latent:
    """Hold normal scores ``(n, D)`` against the standard normal, element by element and by their radius.

    Each p-value is multiplied by the number of tests, D + 1. Even a good fit fails a test given enough rows, so that
    the distance itself is reported too.
    """
    from scipy import stats

    count = scores.shape[1] + 1
    safe = scores.nan_to_num(nan=torch.inf)
    tests = [stats.kstest(safe[:, j].numpy(), stats.norm.cdf) for j in range(scores.shape[1])]
    radius = stats.kstest(safe.square().sum(1).numpy(), stats.chi2(scores.shape[1]).cdf)
    finite = scores.clamp(-40.0, 40.0).nan_to_num()
    return Latent(
        tuple(float(t.statistic) for t in tests),
        tuple(min(1.0, count * float(t.pvalue)) for t in tests),
        tuple(finite.mean(0).tolist()),
        tuple(finite.std(0).tolist()),
        float(radius.statistic),
        min(1.0, count * float(radius.pvalue)),
        tuple(tuple(row) for row in finite.quantile(SHARES, 0).mT.tolist()),
    )
