"""Linear maps of vectors: permutations, LU-factored and orthogonal matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Shape, Transform
from .elementwise import check_bound, limit
from .precision import full_precision


class Permutation(Transform):
    r"""A fixed re-ordering :math:`y_i = x_{\pi(i)}`, with :math:`\log|\det J| = 0`.

    Args:
        permutation: The element of ``x`` that stands at each place of ``y``.

    Raises:
        ValueError: Not a permutation of ``0 .. D-1``.

    Example:
        >>> Permutation([2, 0, 1])(torch.tensor([1.0, 2.0, 3.0]))[0]
        tensor([3., 1., 2.])
    """

    reversible = True
    permutation: Tensor
    back: Tensor

    def __init__(self, permutation: Sequence[int]) -> None:
        order = torch.as_tensor(list(permutation))
        if sorted(order.tolist()) != list(range(len(order))) or len(order) == 0:
            raise ValueError(f"permutation must hold each of 0..{len(order) - 1} once, got {order.tolist()}")
        super().__init__((len(order),))
        self.register_buffer("permutation", order)
        self.register_buffer("back", torch.argsort(order))

    @classmethod
    def reverse(cls, features: int) -> Permutation:
        """Return the permutation that turns the order round."""
        return cls(range(features - 1, -1, -1))

    @classmethod
    def random(cls, features: int, generator: torch.Generator | None = None) -> Permutation:
        """Return a random permutation."""
        return cls(torch.randperm(features, generator=generator).tolist())

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.index_select(-1, self.permutation), x.new_zeros(x.shape[:-1])

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return y.index_select(-1, self.back), y.new_zeros(y.shape[:-1])


class LULinear(Transform):
    r"""An invertible affine map :math:`y = W x + b` with :math:`W = P L U`.

    ``P`` is a fixed permutation, ``L`` lower triangular with unit diagonal, ``U`` upper triangular with diagonal
    :math:`\pm e^{s}`, :math:`s = B\tanh(\tilde s/B)`, so :math:`\log|\det W| = \sum_i s_i` costs nothing, the matrix
    can never become singular, and the inverse is two triangular solves. It starts as a random rotation, or as a random
    permutation.

    With a ``size`` it is the invertible 1x1 convolution of Glow: the same map of the channels at each pixel, with the
    log-determinant times the number of pixels. Its inverse matrix is then computed once a call, not for each image.

    Args:
        features: Number of elements ``D``, or of channels.
        bound: Largest :math:`|s|`.
        size: Rows and columns of an image; (): points are vectors.
        rotate: Start as a random rotation; otherwise as a random permutation, which leaves elements unmixed.
        whiten: ``initialize`` makes it the map to uncorrelated elements of variance 1, by the inverse Cholesky factor
            of a shrunk covariance, so that a flow begins as a Gaussian. For vectors only.

    References:
        Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004 (the shrinkage).
        Kingma & Dhariwal, Glow, 2018, eq. 10-11. https://arxiv.org/abs/1807.03039

    Example:
        >>> _ = torch.manual_seed(0)
        >>> t = LULinear(3)
        >>> x = torch.randn(4, 3)
        >>> y, log_abs_det = t(x)
        >>> torch.allclose(y.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
        True
    """

    reversible = True
    permutation: Tensor
    sign: Tensor

    def __init__(
        self,
        features: int,
        bound: float = 5.0,
        *,
        size: Shape = (),
        rotate: bool = True,
        whiten: bool = False,
    ) -> None:
        super().__init__((features, *size))
        if whiten and size:
            raise ValueError(f"whiten is for vectors, got the size {size}")
        self._whiten = whiten
        if whiten:
            start = torch.eye(features, dtype=torch.float64)
        elif rotate:
            start, _ = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64))
        else:
            start = torch.eye(features, dtype=torch.float64)[torch.randperm(features)]
        p, lower, upper = torch.linalg.lu(start)
        diagonal = upper.diagonal()
        dtype = torch.get_default_dtype()
        self.bound = check_bound(bound)
        self.register_buffer("permutation", p.argmax(-1))
        self.register_buffer("sign", diagonal.sign().to(dtype))
        log_scale = bound * torch.atanh((diagonal.abs().log() / bound).clamp(-0.999, 0.999))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.raw_log_scale = nn.Parameter(log_scale.to(dtype))
        self.shift = nn.Parameter(torch.zeros(features))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Whiten the batch ``x (n, D)``, where that was asked for."""
        if self._whiten:
            from sklearn.covariance import ledoit_wolf

            rows = x.double().cpu()
            centre = rows.mean(0)
            covariance = torch.from_numpy(ledoit_wolf((rows - centre).numpy(), assume_centered=True)[0])
            root = torch.linalg.cholesky(covariance)
            matrix = torch.linalg.solve_triangular(root, torch.eye(len(root), dtype=root.dtype), upper=False)
            scale = matrix.diagonal()
            with torch.no_grad():
                # W = L diag(s): the unit diagonal belongs to L, the rest to U.
                self.lower.copy_((matrix / scale).tril(-1))
                share = (scale.log() / self.bound).clamp(-0.999, 0.999)
                self.raw_log_scale.copy_(self.bound * torch.atanh(share))
                self.shift.copy_(-(matrix @ centre))
        return super().initialize(x, context)

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        log_scale = limit(self.raw_log_scale, self.bound)
        lower = self.lower.tril(-1) + torch.eye(
            len(log_scale), dtype=log_scale.dtype, device=log_scale.device
        )
        upper = self.upper.triu(1) + torch.diag(self.sign * log_scale.exp())
        return lower, upper, log_scale.sum()

    @full_precision
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        lower, upper, log_abs_det = self._factors()
        weight = (lower @ upper).index_select(0, self.permutation)
        dim = -len(self.event_shape)
        y = nn.functional.linear(x.movedim(dim, -1), weight, self.shift).movedim(-1, dim)
        return y, self._over_pixels(log_abs_det, x)

    @full_precision
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        lower, upper, log_abs_det = self._factors()
        dim = -len(self.event_shape)
        rows = y.movedim(dim, -1) - self.shift
        order = torch.argsort(self.permutation)
        if dim == -1:
            x = _solve(lower, upper, rows.index_select(-1, order).reshape(-1, rows.shape[-1])).reshape(
                y.shape
            )
        else:
            identity = torch.eye(len(order), dtype=y.dtype, device=y.device)
            x = (rows @ _solve(lower, upper, identity.index_select(-1, order))).movedim(-1, dim)
        return x, -self._over_pixels(log_abs_det, y)

    def _over_pixels(self, log_abs_det: Tensor, x: Tensor) -> Tensor:
        pixels = math.prod(self.event_shape[1:])
        return (pixels * log_abs_det).expand(x.shape[: x.ndim - len(self.event_shape)])


def _solve(lower: Tensor, upper: Tensor, rows: Tensor) -> Tensor:
    """Return ``x`` for rows :math:`L U x`."""
    half = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False, unitriangular=True)
    x: Tensor = torch.linalg.solve_triangular(upper.mT, half, upper=False, left=False)
    return x


class Orthogonal(Transform):
    r"""A learned rotation or reflection :math:`y = Q x`, :math:`Q = H_1 \cdots H_m`, with :math:`\log|\det Q| = 0`.

    Each :math:`H_i = I - 2 v_i v_i^\top / |v_i|^2` is a Householder reflection, so :math:`Q^{-1} = Q^\top` exactly.

    Args:
        features: Number of elements ``D``.
        reflections: Number of reflections ``m``; ``D`` of them reach every orthogonal matrix.

    References:
        Tomczak & Welling, Improving variational auto-encoders using Householder flow, 2016, eq. 9.
        https://arxiv.org/abs/1611.09630

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(3)
        >>> t = Orthogonal(3)
        >>> torch.allclose(t.inverse(t(x)[0])[0], x, atol=1e-6)
        True
    """

    reversible = True

    def __init__(self, features: int, reflections: int | None = None) -> None:
        super().__init__((features,))
        count = features if reflections is None else reflections
        if count < 1:
            raise ValueError(f"reflections must be at least 1, got {count}")
        self.vectors = nn.Parameter(torch.randn(count, features))

    def matrix(self) -> Tensor:
        """Return ``Q``, ``(D, D)``."""
        v = self.vectors
        q = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        for row in v / v.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny ** 0.5):
            q = q - 2.0 * torch.outer(q @ row, row)
        return q

    @full_precision
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x @ self.matrix().mT, x.new_zeros(x.shape[:-1])

    @full_precision
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return y @ self.matrix(), y.new_zeros(y.shape[:-1])
