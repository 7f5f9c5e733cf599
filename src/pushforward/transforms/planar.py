"""The planar flow, with an inverse; and the scalar map that it shares with Sylvester's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..networks import ParameterSource
from .base import Transform
from .roots import solve_monotone

MIN_SLOPE = 1e-3
"""How near to 0 each factor of the determinant of a planar, radial or Sylvester flow may come."""


def positive(v: Tensor) -> Tensor:
    r"""Return :math:`e(v) = v + \sqrt{1 + v^2} > 0`, smooth and increasing, 1 at 0.

    It makes a real parameter positive, as ``exp`` does, without its overflow at 90 in float32.
    """
    size = torch.where(v >= 0, v, -v)  # not abs: its derivative at 0 is 0
    root = size + torch.sqrt(1 + v * v)
    return torch.where(v >= 0, root, root.reciprocal())


def bound_product(product: Tensor) -> tuple[Tensor, Tensor]:
    r"""Scale one factor of a product so that the product stays above :math:`-1`.

    With :math:`q = 1 - \epsilon`, :math:`\epsilon` = ``MIN_SLOPE``, and :math:`e = e(p / 2q)` of
    ``positive``, the factor :math:`g = e / (1 + e)` gives :math:`g p = q (e - 1) > -q`. The map :math:`p
    \to g p` is smooth, increasing and onto :math:`(-q, \infty)`: no pair of factors with a product above
    :math:`-q` is lost, and nothing is divided by a norm.

    Args:
        product: The free product ``p``, any shape.

    Returns:
        The factor ``g`` in (0, 1), and the slope :math:`1 + g p \ge \epsilon`, free of cancellation.
    """
    e = positive(product / (2 * (1 - MIN_SLOPE)))
    return e / (1 + e), MIN_SLOPE + (1 - MIN_SLOPE) * e


def tanh_slope(s: Tensor, slope: Tensor) -> Tensor:
    r"""Return :math:`\tanh^2 s + m\,\mathrm{sech}^2 s`, the derivative of :math:`s + (m - 1) \tanh s`.

    Args:
        s: Points.
        slope: The slope at 0, ``m > 0``.
    """
    # Not 1 - tanh^2, which loses all digits where a large m still matters.
    sech2 = 4 * torch.sigmoid(2 * s) * torch.sigmoid(-2 * s)
    return torch.tanh(s).square() + slope * sech2


def solve_tanh(target: Tensor, slope: Tensor) -> Tensor:
    r"""Solve :math:`s + (m - 1) \tanh s = \kappa` for ``s``, to rounding, differentiably.

    The left side is odd and increasing, so the root has the sign of :math:`\kappa`. With :math:`c = m - 1` and
    for :math:`\kappa \ge 0`, :math:`0 \le \tanh s \le \min(1, s)` puts it between :math:`\kappa` and
    :math:`\kappa / m`, and no further than :math:`|c|` from :math:`\kappa`. For a large ``c``, the distance
    :math:`v = s - \max(\kappa - c, 0)` satisfies :math:`v e^{2v} \le 2c`, hence
    :math:`v \le \frac12 + \frac12 \log(1 + 4c)`: the bracket stays short whatever the parameters.

    Args:
        target: :math:`\kappa`.
        slope: ``m > 0``, broadcasting with ``target``.
    """
    excess = slope - 1
    with torch.no_grad():
        size, reach = target.abs(), excess.abs()
        near = torch.maximum(torch.minimum(size, size / slope), size - reach)
        far = torch.minimum(torch.maximum(size, size / slope), size + reach)
        far = torch.minimum(far, (size - excess).relu() + 0.5 + 0.5 * torch.log1p(4 * excess.relu()))
        lower, upper = torch.where(target < 0, -far, near), torch.where(target < 0, -near, far)
    return solve_monotone(
        lambda s: s + excess * torch.tanh(s) - target, lambda s: tanh_slope(s, slope), lower, upper
    )


class Planar(Transform):
    r"""The planar flow: a bump of :math:`\tanh` along one direction, across a hyperplane.

    .. math::
        y = x + \hat u \tanh(s), \qquad s = w^T x + b, \qquad
        \log|\det J| = \log(\tanh^2 s + m\,\mathrm{sech}^2 s), \qquad m = 1 + w^T \hat u.

    It is invertible if and only if :math:`m > 0`. The paper adds a multiple of :math:`w / |w|^2` to ``u``,
    which diverges as :math:`w \to 0` and lets ``m`` come as near to 0 as it likes. Here ``u`` is shortened
    instead (``bound_product``), which is smooth for every ``w``, and :math:`m > 0.001` (``MIN_SLOPE``); so
    the determinant, which lies between ``m`` and 1, is above 0.001 too or above 1.

    The inverse: the product of ``w`` with the first equation leaves the scalar equation
    :math:`s + (m - 1) \tanh s = w^T y + b` for ``s`` (``solve_tanh``); then :math:`x = y - \hat u \tanh s`.

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
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, eq. 10-12 and appendix A.1.
        https://arxiv.org/abs/1505.05770

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> planar, x = Planar(2), torch.randn(5, 2)
        >>> y, log_abs_det = planar(x)
        >>> torch.allclose(planar.inverse(y)[0], x, atol=1e-5)
        True
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden: Sequence[int] = (64, 64)) -> None:
        if features < 1:
            raise ValueError(f"features must be at least 1, got {features}")
        super().__init__((features,), context_shape=(context_features,) if context_features else None)
        initial = (2 * torch.rand(2 * features + 1) - 1) / math.sqrt(features)
        self.source = ParameterSource(initial, context_features=context_features, hidden=hidden)

    def _unpack(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return u_hat and w, (..., D), b and m, (...)."""
        (features,) = self.event_shape
        u, w, b = self.source(context).split([features, features, 1], dim=-1)
        scale, slope = bound_product((w * u).sum(-1))
        return u * scale.unsqueeze(-1), w, b.squeeze(-1), slope

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        u, w, b, slope = self._unpack(context)
        s = (w * x).sum(-1) + b
        return x + u * torch.tanh(s).unsqueeze(-1), tanh_slope(s, slope).log()

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        u, w, b, slope = self._unpack(context)
        s = solve_tanh((w * y).sum(-1) + b, slope)
        return y - u * torch.tanh(s).unsqueeze(-1), -tanh_slope(s, slope).log()
