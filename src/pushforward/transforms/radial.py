"""The radial flow, with its inverse in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..networks import ParameterSource
from .base import Transform
from .planar import MIN_SLOPE, positive


class Radial(Transform):
    r"""The radial flow: points move along the rays from a centre :math:`x_0`.

    With :math:`r = |x - x_0|`, :math:`q = \alpha / (\alpha + r)` and the slope at the centre
    :math:`k = 1 + \beta / \alpha`,

    .. math::
        y = x + \beta \frac{x - x_0}{\alpha + r}, \qquad
        \log|\det J| = (D - 1) \log(1 - q + k q) + \log(1 - q^2 + k q^2),

    that is, :math:`y - x_0 = (1 - q + k q) (x - x_0)`. The paper asks for :math:`\beta > -\alpha`; here
    :math:`k > 0.001` (``MIN_SLOPE``), so each of the D factors of the determinant, which lie between ``k``
    and 1, is above 0.001 too or above 1. :math:`\alpha` and ``k`` come from free parameters by
    ``positive``.

    The inverse: :math:`\rho = |y - x_0|` gives ``r`` as the positive root of
    :math:`r^2 + (\alpha k - \rho) r - \alpha \rho = 0`, taken in the form without cancellation, and ``r`` the
    factor to divide by.

    Args:
        features: Dimension ``D``.
        context_features: Width of the context; 0: none.
        hidden: Hidden widths of the network of the context.

    Shapes:
        ``x (*batch, D)``, ``context (*context_batch, context_features)`` -> ``y (*batch, D)``, ``log_abs_det
        batch``, in nats.

    Raises:
        ValueError: ``features`` below 1.

    References:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, eq. 14 and appendix A.2.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> radial, x = Radial(3), torch.randn(5, 3)
        >>> y, log_abs_det = radial(x)
        >>> torch.allclose(radial.inverse(y)[0], x, atol=1e-5)
        True
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden: Sequence[int] = (64, 64)) -> None:
        if features < 1:
            raise ValueError(f"features must be at least 1, got {features}")
        super().__init__((features,), context_shape=(context_features,) if context_features else None)
        # A centre among standardised data, a radius of about 1, a slope at the centre of about 1.
        initial = torch.cat([torch.randn(features), 2 * torch.rand(2) - 1])
        self.source = ParameterSource(initial, context_features=context_features, hidden=hidden)

    def _unpack(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return x0, (..., D), alpha and k, (...)."""
        (features,) = self.event_shape
        centre, alpha, slope = self.source(context).split([features, 1, 1], dim=-1)
        return (
            centre,
            positive(alpha.squeeze(-1)),
            MIN_SLOPE + (1 - MIN_SLOPE) * positive(slope.squeeze(-1)),
        )

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        centre, alpha, slope = self._unpack(context)
        offset = x - centre
        r = _norm(offset)
        stretch = (slope - 1) * alpha / (alpha + r)
        return x + stretch.unsqueeze(-1) * offset, self._log_abs_det(r, alpha, slope)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        centre, alpha, slope = self._unpack(context)
        offset = y - centre
        r = _solve_radius(_norm(offset), alpha, slope)
        factor = (r + slope * alpha) / (alpha + r)
        return centre + offset / factor.unsqueeze(-1), -self._log_abs_det(r, alpha, slope)

    def _log_abs_det(self, r: Tensor, alpha: Tensor, slope: Tensor) -> Tensor:
        (features,) = self.event_shape
        # p is 1 - q: sums of positive terms, so that a small k keeps its digits.
        q, p = alpha / (alpha + r), r / (alpha + r)
        return (features - 1) * (p + slope * q).log() + (p * (1 + q) + slope * q * q).log()


def _norm(offset: Tensor) -> Tensor:
    """Return the Euclidean norm; its derivatives of any order are 0, not NaN, at 0."""
    square = offset.square().sum(-1)
    away = square > 0
    return torch.where(away, torch.where(away, square, 1.0).sqrt(), 0.0)


def _solve_radius(rho: Tensor, alpha: Tensor, slope: Tensor) -> Tensor:
    """Return the positive root of r^2 + p r - alpha rho = 0, p = alpha slope - rho."""
    p = alpha * slope - rho
    size = torch.where(p > 0, p, -p)  # not abs: its derivative at 0 is 0
    larger = 0.5 * (size + torch.sqrt(p * p + 4 * alpha * rho))
    return torch.where(p > 0, alpha * rho / larger, larger)
