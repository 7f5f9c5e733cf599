"""Probability paths from a base point to a data point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Schedule(NamedTuple):
    """Weights of the two ends at some times, and their derivatives by time."""

    alpha: Tensor
    sigma: Tensor
    alpha_rate: Tensor
    sigma_rate: Tensor


@dataclass(frozen=True)
class Path:
    r"""A path that weights a base point and a data point.

    .. math:: x_t = \alpha_t x_1 + \sigma_t x_0, \qquad u_t = \alpha_t' x_1 + \sigma_t' x_0

    Every path of ``PATHS`` begins at :math:`x_0` for :math:`t = 0` and ends at :math:`x_1` for :math:`t = 1`, to
    rounding, and its velocity is finite at both.

    Args:
        schedule: Gives :math:`\alpha, \sigma, \alpha', \sigma'` at times ``(n,)``, each ``(n,)``.

    References:
        Albergo, Vanden-Eijnden, Building Normalizing Flows with Stochastic Interpolants, ICLR 2023, section 2.
        https://arxiv.org/abs/2209.15571

    Example:
        >>> import torch
        >>> t, x0, x1 = torch.tensor([0.25]), torch.tensor([[0.0, 4.0]]), torch.tensor([[8.0, 4.0]])
        >>> PATHS["linear"].point(t, x0, x1)
        tensor([[2., 4.]])
        >>> PATHS["linear"].velocity(t, x0, x1)
        tensor([[8., 0.]])
    """

    schedule: Callable[[Tensor], Schedule]

    def point(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the points at times ``t``.

        Args:
            t: Times from 0 to 1, ``(n,)``.
            x0: Base points, ``(n, *event)``.
            x1: Data points, ``(n, *event)``.

        Returns:
            Points of shape ``(n, *event)``.

        Raises:
            ValueError: Shapes that do not fit.
        """
        weights = self.schedule(t)
        return _weighted(weights.alpha, weights.sigma, x0, x1)

    def velocity(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the derivatives of the points by time; arguments, shape and errors as in ``point``."""
        weights = self.schedule(t)
        return _weighted(weights.alpha_rate, weights.sigma_rate, x0, x1)


def named_path(name: str) -> Path:
    """Return the path of ``PATHS`` with this name.

    Raises:
        ValueError: There is none.
    """
    if name not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {name!r}")
    return PATHS[name]


def _weighted(of_x1: Tensor, of_x0: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    if x0.shape != x1.shape:
        raise ValueError(f"x0 must have the shape of x1, {tuple(x1.shape)}, got {tuple(x0.shape)}")
    if of_x1.shape != x1.shape[:1]:
        raise ValueError(f"t must have shape {tuple(x1.shape[:1])}, got {tuple(of_x1.shape)}")
    shape = (-1, *(1,) * (x1.ndim - 1))
    return of_x1.reshape(shape) * x1 + of_x0.reshape(shape) * x0


def _linear(t: Tensor) -> Schedule:
    """Keep a constant velocity from end to end.

    Liu et al. 2023, eq. 1; Lipman et al. 2023, eq. 22, with ``sigma_min`` 0: a positive one would only blur the data
    that the flow learns.
    """
    one = torch.ones_like(t)
    return Schedule(t, 1 - t, one, -one)


def _trigonometric(t: Tensor) -> Schedule:
    """Go along a quarter circle, on which independent ends of variance 1 keep that variance.

    Albergo, Vanden-Eijnden 2023. Both weights are sines, for the cosine of a rounded right angle is not 0.
    """
    angle, rest, speed = math.pi / 2 * t, math.pi / 2 * (1 - t), math.pi / 2
    alpha, sigma = torch.sin(angle), torch.sin(rest)
    return Schedule(alpha, sigma, speed * torch.cos(angle), -speed * torch.cos(rest))


def _variance_preserving(t: Tensor) -> Schedule:
    r"""Follow the diffusion whose noise rate :math:`\beta` is linear in the time :math:`s = 1 - t`.

    .. math:: a_s = \exp(-\tfrac14 \beta_{\max} s^2), \qquad
        \alpha_t = \frac{a_s - a_1}{1 - a_1}, \qquad \sigma_t = \sqrt{1 - \alpha_t^2}

    Lipman et al. 2023, eq. 18-19, and Song et al. 2021 take :math:`\alpha_t = a_s` with a rate that begins at
    :math:`\beta_{\min} = 0.1`. That path misses both ends: at :math:`t = 0` there is
    :math:`a_1 = e^{-5.025} = 0.0066` of the data in the noise, and the velocity has no bound as :math:`t \to 1`, which
    is why they stop short of it, at :math:`1 - 10^{-5}`. Here, :math:`a` is shifted and scaled so that the path begins
    at noise (Lin et al. 2024, algorithm 1), and :math:`\beta_{\min} = 0`, with which :math:`\sigma_t` falls to 0
    linearly instead of as a root: no time is left out.
    """
    beta = 20.0
    s = 1 - t
    # Held off 0, where the quotient below would be 0 / 0; there it is 1 in every dtype.
    exponent = (beta / 4 * s.square()).clamp(min=1e-30)
    lost = -math.expm1(-beta / 4)
    # 1 - alpha = s^2 * curve. The factor s of sigma stands apart, so that it cancels in sigma's rate.
    curve = beta / 4 * (-torch.expm1(-exponent) / exponent) / lost
    gap = s.square() * curve
    alpha = 1 - gap
    slope = torch.sqrt(curve * (2 - gap))
    rate = beta / 2 * torch.exp(-exponent) / lost
    return Schedule(alpha, s * slope, s * rate, -alpha * rate / slope)


PATHS = {
    "linear": Path(_linear),
    "variance-preserving": Path(_variance_preserving),
    "trigonometric": Path(_trigonometric),
}
