"""Log-densities of noisy curves in the plane: Gauss-Legendre sums, Bessel functions, and a twisted Gaussian.

Everything takes points ``x`` of shape ``(n, 2)`` in float64 and gives ``(n,)``, differentiable in ``x``. Without a
gradient the memory stays bounded whatever ``n`` is: points are taken a few hundred to a few thousand at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_BLOCK = 2**18  # elements in a (points, nodes) block: 2 MiB in float64, which a core's cache can hold
_TINY = 1e-200  # a density below it is taken again in logarithms
_BISECTIONS = 32  # from a bracket of 2π to 1.5e-9; the Newton step after it ends at rounding
_TWIST_CAP = 8.0  # radius beyond which the twist grows no more: 23 standard deviations out
_ROOTS = 16  # preimages kept per branch; those left out weigh less than e^-19 of those kept


def gauss_legendre(count: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights with ``Σ_j w_j f(t_j) ≈ ∫ f(t) dt`` over ``[low, high]``, each ``(count,)``."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    half = 0.5 * (high - low)
    return torch.from_numpy(low + half * (nodes + 1.0)), torch.from_numpy(half * weights)


def _blockwise(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """``function(x)``, a block of rows at a time, for a function that needs ``width`` numbers a row."""
    count = max(1, _BLOCK // width)
    return torch.cat([function(x[i : i + count]) for i in range(0, max(1, len(x)), count)])


def log_gaussians(x: Tensor, centres: Tensor, log_weights: Tensor, scale: float) -> Tensor:
    """``log Σ_j w_j N(x; c_j, s² I)``.

    Args:
        x: Points ``(n, 2)``.
        centres: ``(m, 2)``.
        log_weights: ``(m,)``.
        scale: Standard deviation ``s`` per axis.
    """
    centres = centres.to(x) / scale
    constants = log_weights.to(x) - 0.5 * centres.square().sum(-1) - math.log(2.0 * math.pi * scale**2)

    def block(rows: Tensor) -> Tensor:
        rows = rows / scale
        return torch.logsumexp(torch.addmm(constants, rows, centres.T), -1) - 0.5 * rows.square().sum(-1)

    return _blockwise(block, x, len(centres))


def log_box_gaussians(
    x: Tensor, centres: Tensor, log_weights: Tensor, half_width: float, scale: float
) -> Tensor:
    """``log Σ_j w_j (U ∗ N)(x - c_j)``, ``U`` uniform on ``[-h, h]²`` and ``N = N(0, s² I)``.

    With ``q = s√2``, ``z = |x - c|``, ``A = (z - h)/q`` and ``B = (z + h)/q``, an axis contributes
    ``[erfc(A) - erfc(B)] / 4h``. Far from every box, where this underflows, the same difference is taken as
    ``exp(-A²) [erfcx(A) - exp(A² - B²) erfcx(B)] / 4h``; not everywhere, as ``erfcx`` takes four times as
    long.

    Args:
        x: Points ``(n, 2)``.
        centres: Centres ``c_j`` of the boxes, ``(m, 2)``.
        log_weights: ``(m,)``.
        half_width: ``h``.
        scale: ``s``.
    """
    q = scale * math.sqrt(2.0)
    h = half_width / q
    centres = centres.to(x) / q
    log_weights = log_weights.to(x) - 2.0 * math.log(4.0 * half_width)
    weights = log_weights.exp()

    def axis(z: Tensor) -> Tensor:
        return torch.erfc(z - h) - torch.erfc(z + h)

    def scaled_axis(z: Tensor) -> Tensor:
        ends: Tensor = torch.special.erfcx(torch.stack((z - h, z + h)))
        return ends[0] - torch.exp(-4.0 * h * z) * ends[1]

    def block(rows: Tensor) -> Tensor:
        u, v = ((rows[:, i, None] / q - centres[:, i]).abs() for i in range(2))
        value = torch.mv(axis(u) * axis(v), weights)
        far = value < _TINY
        value = value.masked_fill(far, 1.0).log()
        if far.any():
            u, v = u[far], v[far]
            terms = torch.log(scaled_axis(u) * scaled_axis(v)) - (u - h).square() - (v - h).square()
            value = value.masked_scatter(far, torch.logsumexp(terms + log_weights, -1))
        return value

    return _blockwise(block, x, len(centres))


def log_rings(x: Tensor, radii: Tensor, scale: float) -> Tensor:
    """Log-density of a point uniform on one of ``m`` circles about the origin, plus ``N(0, s² I)``.

    With ``ρ = |x|`` and ``i0e(u) = exp(-u) I_0(u)``,

        ``p(x) = (1/m) Σ_j exp(-(ρ - r_j)²/2s²) i0e(ρ r_j/s²) / (2π s²)``.

    Args:
        x: Points ``(n, 2)``.
        radii: ``r_j``, ``(m,)``.
        scale: ``s``.
    """
    radius = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / scale
    radii = radii.to(x) / scale
    terms = torch.log(torch.special.i0e(radius * radii)) - 0.5 * (radius - radii).square()
    return torch.logsumexp(terms, -1) - math.log(len(radii) * 2.0 * math.pi * scale**2)


def log_pinwheel(x: Tensor, blades: int, mean: float, scales: tuple[float, float], rate: float) -> Tensor:
    """Log-density of ``f ~ N((mean, 0), diag(scales²))`` turned clockwise by ``2πk/blades + rate exp(f_1)``.

    ``k`` is uniform. The turn keeps the radius ``ρ`` and moves the polar angle ``ψ`` of ``f`` to
    ``θ = ψ - rate exp(ρ cos ψ) - 2πk/blades``. As it depends on ``f_1`` and not on ``ρ``, its Jacobian is not 1 but
    ``dθ/dψ = 1 + rate f_2 exp(f_1)``, and where that is negative (``f_2 < -exp(-f_1)/rate``, far in the tails) the
    map folds. The density is therefore a sum over all preimages,

        ``p(x) = (1/blades) Σ_{ψ: θ(ψ) = θ} N(f(ψ)) / |dθ/dψ|``.

    ``-sin ψ exp(ρ cos ψ)`` has one maximum, so that a period has one increasing and at most one decreasing branch;
    each root is bisected in its branch, and a last Newton step makes it differentiable (once). From ``ρ = 8`` on the
    exponent is ``8 cos ψ``.

    Args:
        x: Points ``(n, 2)``.
        blades: Number of blades.
        mean: Mean radius.
        scales: Radial and tangential standard deviation.
        rate: Strength of the twist.
    """
    return _blockwise(lambda rows: _log_pinwheel(rows, blades, mean, scales, rate), x, 2 * _ROOTS)


def _log_pinwheel(x: Tensor, blades: int, mean: float, scales: tuple[float, float], rate: float) -> Tensor:
    radius: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    capped = radius.clamp(max=_TWIST_CAP)

    def twisted(psi: Tensor) -> Tensor:
        return psi - torch.exp(capped * psi.cos()) * rate

    def slope(psi: Tensor) -> Tensor:
        return torch.exp(capped * psi.cos()) * psi.sin() * capped * rate + 1.0

    # So near the centre the squares in the gradient of the angle underflow; all blades together have none there.
    turned = x.where(radius > 1e-150, x.detach())
    angle = torch.atan2(turned[:, 1:], turned[:, :1])
    with torch.no_grad():
        # The slope is smallest at -peak, and changes its sign at most once on either side. Where it never does, near
        # and far are both -peak: the decreasing branch is empty, and the increasing one is the whole period.
        peak = torch.acos(2.0 * capped / (1.0 + torch.sqrt(1.0 + 4.0 * capped.square())))
        near = _bisect(lambda psi: slope(psi) > 0.0, torch.zeros_like(peak), -peak)
        far = _bisect(lambda psi: slope(psi) > 0.0, torch.full_like(peak, -math.pi), -peak)
        rising = _preimages(twisted, near, far + 2.0 * math.pi, angle, 2.0 * math.pi / blades)
        falling = _preimages(twisted, near, far, angle, 2.0 * math.pi / blades)
        roots, targets, found = (torch.cat(pair, -1) for pair in zip(rising, falling, strict=True))
    targets = targets + (angle - angle.detach())
    psi = roots - (twisted(roots) - targets) / _away_from_zero(slope(roots).detach())
    radial = (radius * psi.cos() - mean) / scales[0]
    tangential = radius * psi.sin() / scales[1]
    terms = -0.5 * (radial.square() + tangential.square()) - _away_from_zero(slope(psi)).abs().log()
    terms = terms.masked_fill(~found, -math.inf)
    return torch.logsumexp(terms, -1) - math.log(blades * 2.0 * math.pi * scales[0] * scales[1])


def _preimages(
    twisted: Callable[[Tensor], Tensor], start: Tensor, stop: Tensor, angle: Tensor, spacing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``ψ`` with ``twisted(ψ) = angle + j spacing``, from ``start`` to ``stop``, along which ``twisted`` grows.

    Returns:
        The roots, their right-hand sides, and which of them exist, each ``(n, k)``, ``k`` as large as is needed.
    """
    low, high = twisted(start), twisted(stop)
    most = ((high - low) / spacing).clamp(0, _ROOTS - 1).max() if len(angle) else 0
    steps = torch.arange(int(most) + 1, dtype=angle.dtype, device=angle.device)
    targets = angle + (torch.ceil((low - angle) / spacing) + steps) * spacing
    roots = _bisect(lambda psi: twisted(psi) < targets, start.expand_as(targets), stop.expand_as(targets))
    return roots, targets, targets < high


def _bisect(before: Callable[[Tensor], Tensor], start: Tensor, stop: Tensor) -> Tensor:
    """Where, from ``start`` to ``stop``, ``before`` turns from true to false; ``stop`` where it never does."""
    for _ in range(_BISECTIONS):
        middle = 0.5 * (start + stop)
        passed = before(middle)
        start, stop = torch.where(passed, middle, start), torch.where(passed, stop, middle)
    return stop


def _away_from_zero(slope: Tensor) -> Tensor:
    """The slope, or 1e-9 where it is smaller: at a fold itself the density is infinite."""
    return torch.where(slope.abs() < 1e-9, 1e-9, slope)
