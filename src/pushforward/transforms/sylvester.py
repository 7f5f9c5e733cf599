"""The Sylvester flow, with an inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..networks import ParameterSource
from .base import Transform
from .planar import bound_product, solve_tanh, tanh_slope
from .precision import full_precision


class _Parameters(NamedTuple):
    q: Tensor
    """Orthonormal columns, (..., D, M)."""
    r: Tensor
    """Upper triangular, (..., M, M), its diagonal made safe."""
    inner: Tensor
    """R~: upper triangular, (..., M, M)."""
    b: Tensor
    """Shifts, (..., M)."""
    slope: Tensor
    """1 + r_ii r~_ii, (..., M)."""


class Sylvester(Transform):
    r"""The Sylvester flow: a planar flow in ``M`` directions at once.

    .. math::
        y = x + Q R \tanh(s), \qquad s = \tilde R Q^T x + b, \qquad
        \log|\det J| = \sum_{i=1}^M \log(\tanh^2 s_i + m_i\,\mathrm{sech}^2 s_i), \qquad
        m_i = 1 + r_{ii} \tilde r_{ii},

    with ``M`` orthonormal columns ``Q (D, M)`` and upper triangular :math:`R, \tilde R (M, M)`. It is
    invertible if all :math:`m_i > 0`. The paper bounds the diagonals by :math:`\tanh`, and so each
    :math:`m_i` by 2; here :math:`r_{ii}` is shortened as far as needed (``bound_product``): :math:`m_i >
    0.001` (``MIN_SLOPE``) has no upper bound, and each of the M factors of the determinant lies between
    :math:`m_i` and 1.

    ``Q`` holds the first columns of a product of ``M`` Householder reflections. The vector of reflection
    ``i`` is 0 above element ``i`` and 1 there: this reaches every set of columns up to their signs, which
    :math:`R, \tilde R` make up for, without a redundant parameter or a vector that could vanish.

    The inverse: :math:`z = Q^T x` follows from :math:`Q^T y = z + R \tanh(\tilde R z + b)`, last element
    first; each is one scalar equation as in ``Planar``. What is orthogonal to ``Q`` does not change.

    Args:
        features: Dimension ``D``.
        rank: Number of directions ``M``, at most ``D``.
        context_features: Width of the context; 0: none.
        hidden: Hidden widths of the network of the context.

    Shapes:
        ``x (*batch, D)``, ``context (*context_batch, context_features)`` -> ``y (*batch, D)``, ``log_abs_det
        batch``, in nats.

    Raises:
        ValueError: ``rank`` outside 1..``features``.

    References:
        van den Berg et al., Sylvester Normalizing Flows for Variational Inference, 2018, theorem 2, in its
        Householder version. https://arxiv.org/abs/1803.05649

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> sylvester, x = Sylvester(4, 2), torch.randn(5, 4)
        >>> y, log_abs_det = sylvester(x)
        >>> torch.allclose(sylvester.inverse(y)[0], x, atol=1e-5)
        True
    """

    layout: Tensor

    def __init__(
        self, features: int, rank: int, *, context_features: int = 0, hidden: Sequence[int] = (64, 64)
    ) -> None:
        if not 1 <= rank <= features:
            raise ValueError(f"rank must be in 1..features, 1..{features}, got {rank}")
        super().__init__((features,), context_shape=(context_features,) if context_features else None)
        self.rank = rank
        layout, count = _layout(features, rank)
        self.register_buffer("layout", layout)
        initial = (2 * torch.rand(count) - 1) / math.sqrt(features)
        self.source = ParameterSource(initial, context_features=context_features, hidden=hidden)

    def _unpack(self, context: Tensor | None) -> _Parameters:
        (features,) = self.event_shape
        flat = self.source(context)
        zero = torch.zeros_like(flat[..., :1])
        entries = torch.cat([zero, zero + 1, flat], -1).index_select(-1, self.layout)
        rows = entries.reshape(*entries.shape[:-1], features + 2 * self.rank + 1, self.rank)
        v, r, inner, b = torch.split(rows, [features, self.rank, self.rank, 1], dim=-2)
        diagonal = r.diagonal(dim1=-2, dim2=-1)
        scale, slope = bound_product(diagonal * inner.diagonal(dim1=-2, dim2=-1))
        r = r + torch.diag_embed(diagonal * (scale - 1))
        return _Parameters(_reflect(v), r, inner, b.squeeze(-2), slope)

    @full_precision
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        p = self._unpack(context)
        s = _rows(_rows(x, p.q), p.inner.mT) + p.b
        return x + _rows(torch.tanh(s), (p.q @ p.r).mT), tanh_slope(s, p.slope).log().sum(-1)

    @full_precision
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        p = self._unpack(context)
        # What is left of Q^T y and of b once the elements found so far are moved to the other side.
        rest, shift = _rows(y, p.q), p.b
        found: list[Tensor] = []
        for i in reversed(range(self.rank)):
            target = p.inner[..., i, i] * rest[..., i] + shift[..., i]
            s = solve_tanh(target, p.slope[..., i])
            t = torch.tanh(s).unsqueeze(-1)
            rest = rest - p.r[..., :, i] * t
            shift = shift + p.inner[..., :, i] * rest[..., i, None]
            found.append(s)
        s = torch.stack(found[::-1], -1)
        return y - _rows(torch.tanh(s), (p.q @ p.r).mT), -tanh_slope(s, p.slope).log().sum(-1)


def _rows(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Multiply row vectors (..., n) by matrices (..., n, k), batch shapes broadcasting."""
    return (vectors.unsqueeze(-2) @ matrix).squeeze(-2)


def _layout(features: int, rank: int) -> tuple[Tensor, int]:
    """Return where each entry of V, R, R~, b stands in (0, 1, parameters), and the number of parameters."""
    upper = torch.ones(rank, rank).triu()
    free = torch.cat([torch.ones(features, rank).tril(-1), upper, upper, torch.ones(1, rank)]).flatten() > 0
    count = int(free.sum())
    layout = torch.zeros(free.shape, dtype=torch.long)
    layout[free] = 2 + torch.arange(count)
    layout[torch.arange(rank) * (rank + 1)] = 1
    return layout, count


def _reflect(v: Tensor) -> Tensor:
    r"""Return the first columns of :math:`H_1 \cdots H_M`, :math:`H_i = I - 2 v_i v_i^T / |v_i|^2`.

    For unit columns the product is :math:`I - V T V^T` with :math:`T^{-1} = I / 2` plus the part of
    :math:`V^T V` above the diagonal.
    """
    rank = v.shape[-1]
    v = v / v.square().sum(-2, keepdim=True).sqrt()
    identity = torch.eye(v.shape[-2], rank, dtype=v.dtype, device=v.device)
    inverse_t = (v.mT @ v).triu(1) + 0.5 * identity[:rank]
    t_v: Tensor = torch.linalg.solve_triangular(inverse_t, v[..., :rank, :].mT, upper=True)
    return identity - v @ t_v
