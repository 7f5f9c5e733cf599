"""The total mass of a density: by importance sampling, and in one or two dimensions on a grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .points import Space
from .verdict import Mass

LogDensity = Callable[[Tensor], Tensor]

_DRAWS = 8192
_CHUNK = 4096
_COMPONENTS = 12
_INNER_DF, _OUTER_DF = 8.0, 1.0
_INFLATION, _OUTER_INFLATION, _OUTER_SHARE = 1.3, 9.0, 0.1
_FEWEST_EFFECTIVE = 200.0
_HEAVIEST_TAIL = 0.7
_MOST_MISSED = 0.01
MOST_SAMPLED = 32
"""Elements above which no proposal is close enough."""
_GRID = {1: 4097, 2: 257}
_GRID_TOLERANCE = 2e-3
_SAMPLING, _QUADRATURE = "importance sampling", "quadrature"


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A mixture of multivariate t distributions of the elements on the line, uniform on circles."""

    log_weight: Tensor
    loc: Tensor
    cholesky: Tensor
    df: Tensor
    line: Tensor
    circles: int

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``(count, D)``."""
        which = torch.multinomial(self.log_weight.exp(), count, replacement=True, generator=generator)
        noise = torch.randn((count, self.loc.shape[1]), generator=generator, dtype=torch.float64)
        df = self.df[which]
        gamma = torch._standard_gamma(df / 2, generator=generator)
        spread = torch.einsum("nij,nj->ni", self.cholesky[which], noise) * (df / 2 / gamma).sqrt()[:, None]
        result = math.pi * (
            2 * torch.rand((count, len(self.line)), generator=generator, dtype=torch.float64) - 1
        )
        result[:, self.line] = self.loc[which] + spread
        return result

    def log_prob(self, z: Tensor) -> Tensor:
        """Evaluate at ``(n, D)``."""
        d = self.loc.shape[1]
        each = []
        for k in range(len(self.loc)):
            u = torch.linalg.solve_triangular(
                self.cholesky[k], (z[:, self.line] - self.loc[k]).mT, upper=False
            )
            df, squares = self.df[k], u.square().sum(0)
            norm = torch.lgamma((df + d) / 2) - torch.lgamma(df / 2) - 0.5 * d * torch.log(df * math.pi)
            norm = norm - self.cholesky[k].diagonal().log().sum() + self.log_weight[k]
            each.append(norm - 0.5 * (df + d) * torch.log1p(squares / df))
        return torch.logsumexp(torch.stack(each), 0) - self.circles * math.log(2 * math.pi)


def sampled_mass(
    log_density: LogDensity, fitted_to: Tensor, held_out: Tensor, space: Space, generator: torch.Generator
) -> Mass:
    r"""Estimate :math:`\int p = E_q[p/q]` over draws from a proposal ``q`` that knows the density by samples only.

    The proposal is a mixture of t distributions around a Gaussian mixture fitted to samples, widened, with a tenth of
    its weight on one of Cauchy tails; its own density is exact, whatever the flow claims. The value is withheld where
    it would mislead: a small effective sample size :math:`(\sum w)^2 / \sum w^2`, weights with a tail index above 0.7
    (whose standard error is no longer trustworthy), or held-out samples of the flow where the ratio is higher than at
    any draw, so that the proposal has missed a part.

    Args:
        log_density: Log-density of points ``(n, D)``, float64.
        fitted_to: Points that the proposal is fitted to, ``(n, D)``.
        held_out: Samples of the flow for the last of these tests.
        space: Units; angles are drawn uniformly.
        generator: Source of randomness.

    References:
        Owen, Monte Carlo theory, methods and examples, 2013, chapter 9. https://artowen.su.domains/mc/
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024 (the limit of 0.7). https://arxiv.org/abs/1507.02646
    """
    features = fitted_to.shape[1]
    usable = fitted_to[fitted_to.isfinite().all(1)]
    if len(usable) < 4 * features + 16:
        return Mass.unknown(_SAMPLING, "too few finite samples to fit a proposal to")
    proposal = _fit(usable, space, seed=int(torch.randint(2**31 - 1, (), generator=generator)))
    z = proposal.sample(_DRAWS, generator)
    log_w = (evaluated(log_density, z) - proposal.log_prob(z)).nan_to_num(nan=math.inf, posinf=math.inf)
    if bool((log_w == math.inf).any()):
        return Mass.unknown(_SAMPLING, "the density is not finite everywhere", points=_DRAWS)
    top = log_w.max()
    if top == -math.inf:
        return Mass.unknown(_SAMPLING, "the density is 0 at all draws", points=_DRAWS)
    w = (log_w - top).exp()
    effective = float(w.sum().square() / w.square().sum())
    value, error = (
        float(w.mean().log() + top),
        float((w.std() / w.mean()) / math.sqrt(_DRAWS)),
    )
    seen = held_out[held_out.isfinite().all(1)]
    ratio = evaluated(log_density, seen) - proposal.log_prob(seen)
    missed = float((ratio > top).double().mean()) if len(seen) else 0.0
    reason = ""
    if effective < _FEWEST_EFFECTIVE:
        reason = f"an effective sample size of {effective:.0f} is too small"
    elif _tail_index(w) > _HEAVIEST_TAIL:
        reason = "a few draws carry too much of the weight"
    elif missed > _MOST_MISSED:
        reason = "the draws miss a part of the samples"
    if reason or value > 700:
        return Mass.unknown(_SAMPLING, reason or "the mass overflows", points=_DRAWS, effective=effective)
    return Mass(math.exp(value), math.exp(value) * error, effective, _DRAWS, _SAMPLING, "")


def not_sampled() -> Mass:
    """Return the mass of a density in too many dimensions to be sampled."""
    return Mass.unknown(_SAMPLING, f"not sampled in more than {MOST_SAMPLED} dimensions")


def grid_mass(log_density: LogDensity, points: Tensor, space: Space) -> Mass:
    """Integrate over a box around all points by the trapezoidal rule, in one or two dimensions.

    The rule on every second line of the grid tells the error. Where that is above 0.002, or the density jumps, the
    value is withheld.

    Args:
        log_density: Log-density of points ``(n, D)``, float64.
        points: Samples and data, ``(n, D)``.
        space: Units; angles are integrated over the circle.
    """
    features = points.shape[1]
    usable = points[points.isfinite().all(1)]
    if len(usable) == 0:
        return Mass.unknown(_QUADRATURE, "there are no finite samples")
    low, high = usable.amin(0) - 4 * space.scale, usable.amax(0) + 4 * space.scale
    low, high = low.where(space.period == 0, -math.pi), high.where(space.period == 0, math.pi)
    count = _GRID[features]
    nodes, weights = [], []
    for j in range(features):
        at = torch.lerp(low[j], high[j], torch.linspace(0, 1, count, dtype=torch.float64))
        if bool(space.period[j] > 0):
            at = at.clamp(-math.pi * (1 - 1e-12), math.pi * (1 - 1e-12))
        step = torch.full((count,), float(high[j] - low[j]) / (count - 1), dtype=torch.float64)
        step[0] = step[-1] = step[0] / 2
        nodes.append(at)
        weights.append(step)
    grid = torch.cartesian_prod(*nodes).reshape(-1, features)
    values = evaluated(log_density, grid).exp().reshape([count] * features)
    if _jumps(values):
        return Mass.unknown(_QUADRATURE, "the density ends abruptly inside the grid", points=len(grid))
    fine, coarse = values, values
    for step in weights:
        half = 2 * step[::2]
        half[0], half[-1] = step[1], step[1]
        fine = torch.tensordot(step, fine, dims=([0], [0]))
        coarse = torch.tensordot(half, coarse[::2], dims=([0], [0]))
    value, error = float(fine), abs(float(fine) - float(coarse))
    if not math.isfinite(value) or error > _GRID_TOLERANCE * min(1.0, value):
        reason = (
            "the density is too sharp for the grid" if math.isfinite(value) else "the density is not finite"
        )
        return Mass.unknown(_QUADRATURE, reason, points=len(grid))
    return Mass(value, error, None, len(grid), _QUADRATURE, "")


def _jumps(values: Tensor) -> bool:
    """Return whether a density on a grid goes from 0 to more than a thousandth of its peak in one step."""
    for axis in range(values.ndim):
        steps = values.movedim(axis, 0)
        low, high = torch.minimum(steps[1:], steps[:-1]), torch.maximum(steps[1:], steps[:-1])
        if bool(((low == 0) & (high > 1e-3 * values.max())).any()):
            return True
    return False


def evaluated(log_density: LogDensity, z: Tensor) -> Tensor:
    """Return the log-densities of many points, piece by piece."""
    with torch.no_grad():
        return torch.cat([log_density(piece) for piece in z.split(_CHUNK)]) if len(z) else z.new_zeros(0)


def _fit(points: Tensor, space: Space, seed: int) -> _Proposal:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    line = space.period == 0
    x = points[:, line]
    features, circles = int(line.sum()), int((~line).sum())
    if features == 0:
        empty = torch.zeros((1, 0), dtype=torch.float64)
        matrix, one = torch.zeros((1, 0, 0), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        return _Proposal(one.log(), empty, matrix, one, line, circles)
    centre, scale = x.mean(0), x.std(0)
    scale = scale.where(scale > 0, 1.0)
    count = max(1, min(_COMPONENTS, len(x) // (10 * features + 10)))
    mixture = GaussianMixture(count, reg_covar=1e-6, max_iter=50, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any mixture will do, for its density is exact
        mixture.fit(((x - centre) / scale).numpy())
    covariance = torch.from_numpy(mixture.covariances_) * scale[:, None] * scale
    centred = x - centre
    whole = centred.mT @ centred / len(x) + torch.diag(1e-6 * scale.square())
    covariances = torch.cat([_INFLATION * covariance, _OUTER_INFLATION * whole[None]])
    share = torch.cat(
        [
            (1 - _OUTER_SHARE) * torch.from_numpy(mixture.weights_),
            torch.tensor([_OUTER_SHARE], dtype=torch.float64),
        ]
    )
    df = torch.full((count + 1,), _INNER_DF, dtype=torch.float64)
    df[-1] = _OUTER_DF
    loc = torch.cat([torch.from_numpy(mixture.means_) * scale + centre, centre[None]])
    return _Proposal(share.log(), loc, torch.linalg.cholesky(covariances), df, line, circles)


def _tail_index(w: Tensor) -> float:
    """Return Hill's estimate of the tail index of weights, from the largest of them."""
    count = min(len(w) // 5, round(3 * math.sqrt(len(w))))
    largest = w.sort(descending=True).values[: count + 1].clamp(min=torch.finfo(w.dtype).tiny)
    return float((largest[:-1] / largest[-1]).log().mean())
