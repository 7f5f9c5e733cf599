"""The monotone rational-quadratic spline, on the line, an interval or a circle."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels import Map, fused_spline, spline_kernel
from .elementwise import ElementwiseMap

TAILS = ("linear", "bounded", "circular")


class RationalQuadraticSpline(ElementwiseMap):
    r"""A monotone spline of rational-quadratic pieces between learned knots :math:`(x_k, y_k)` with slopes :math:`d_k`.

    In bin :math:`k`, with :math:`\theta = (x - x_k)/w_k`, :math:`s_k = h_k/w_k`,

    .. math:: y = y_k + \frac{h_k (s_k\theta^2 + d_k\theta(1-\theta))}
                             {s_k + (d_{k+1} + d_k - 2 s_k)\theta(1-\theta)}.

    The knots cover :math:`[-B, B]`; the tails say what happens at its ends:

    - ``linear``: slope 1 at both ends and the identity outside: a map of the line;
    - ``bounded``: free slopes, a map of the interval onto itself; outside it the identity, for what lies there
      has no mass under a base on the interval;
    - ``circular``: the ends are one point with one slope, followed by a learned rotation: a map of the circle
      :math:`[-B, B)` onto itself.

    Widths and heights are at least ``minimum`` of the interval and slopes at the knots at least ``minimum``, so both
    directions stay finite. The input is made safe before the formula, so values and gradients are finite outside too.

    Args:
        bins: Number of bins ``K``.
        bound: Half the width of the interval, ``B``, one for all elements or one each.
        tails: One of the three kinds for all elements, or one each.
        minimum: Smallest relative bin width, bin height and slope.

    Raises:
        ValueError: An unknown kind of tail, fewer than 2 bins, a bound that is not positive, too large a minimum,
            numbers of bounds and tails that differ.

    References:
        Durkan et al., Neural Spline Flows, 2019, eq. 4-8 and 29 in appendix A.1. https://arxiv.org/abs/1906.04032
        Rezende et al., Normalizing Flows on Tori and Spheres, 2020, section 2.1.2 (circle).
        https://arxiv.org/abs/2002.02428

    Example:
        >>> spline = RationalQuadraticSpline(bins=4, bound=3.0)
        >>> spline.parameters_each
        11
        >>> y, log_derivative = spline(torch.tensor([0.5, 7.0]), torch.zeros(2, 11))
        >>> [round(v, 4) for v in y.tolist()]
        [0.5, 7.0]
    """

    bound: Tensor

    def __init__(
        self,
        bins: int = 8,
        bound: float | Sequence[float] = 5.0,
        tails: str | Sequence[str] = "linear",
        minimum: float = 1e-3,
    ) -> None:
        super().__init__()
        kinds = {tails} if isinstance(tails, str) else set(tails)
        if not kinds <= set(TAILS) or not kinds:
            raise ValueError(
                f"tails must be among {', '.join(TAILS)}, got {', '.join(sorted(kinds)) or 'none'}"
            )
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}")
        if not 0 < minimum * bins < 1:
            raise ValueError(f"minimum must lie in (0, 1/bins) = (0, {1 / bins:.4g}), got {minimum}")
        limits = torch.as_tensor(bound, dtype=torch.float64)
        if not bool(((limits > 0) & torch.isfinite(limits)).all()):
            raise ValueError(f"bound must be positive and finite, got {bound}")
        self.bins, self.minimum, self.kinds = bins, minimum, frozenset(kinds)
        self.reversible = "circular" not in kinds
        self.register_buffer("bound", limits.to(torch.get_default_dtype()))
        each = torch.tensor(
            TAILS.index(tails) if isinstance(tails, str) else [TAILS.index(t) for t in tails],
            dtype=torch.int32,
        )
        if len({limits.numel(), each.numel()} - {1}) > 1:
            raise ValueError(
                f"tails must be one or as many as the bounds, {limits.numel()}, got {each.numel()}"
            )
        self.register_buffer("tail", each, persistent=False)
        # With this a raw slope of 0 is a slope of 1.
        self._offset = math.log(math.expm1(1.0 - minimum))
        self.parameters_each = 3 * bins - 1 if kinds == {"linear"} else 3 * bins + 1

    tail: Tensor

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map through the spline, then rotate where it is circular."""
        v, log_derivative = self._map(self._wrap(x / self.bound), parameters, inverse=False)
        return self._rotate(v, parameters, 1.0) * self.bound, log_derivative

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate back where it is circular, then solve the quadratic equation of the bin."""
        v = self._rotate(self._wrap(y / self.bound), parameters, -1.0)
        u, log_derivative = self._map(v, parameters, inverse=True)
        return u * self.bound, log_derivative

    def kernel(self, *, inverse: bool) -> Map | None:
        """Return the fused kernel of one direction, where there is no circle and one bound."""
        if "circular" in self.kinds or self.bound.numel() > 1 or type(self) is not RationalQuadraticSpline:
            return None
        return spline_kernel(
            self.bins,
            self.parameters_each,
            self.tail,
            bound=float(self.bound),
            minimum=self.minimum,
            offset=self._offset,
            inverse=inverse,
        )

    def select(self, elements: Tensor) -> RationalQuadraticSpline:
        """Return the spline with the bounds and tails of these elements."""
        constants = {"bound": self.bound, "tail": self.tail}
        if all(c.numel() == 1 for c in constants.values()):
            return self
        chosen = copy.copy(self)
        chosen._buffers = {k: c if c.numel() == 1 else c[elements] for k, c in constants.items()}
        return chosen

    def _map(self, u: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map [-1, 1], by the fused kernel where it serves."""
        formula = self._invert_formula if inverse else self._formula
        fused = fused_spline(
            u,
            parameters,
            self.tail,
            bins=self.bins,
            minimum=self.minimum,
            offset=self._offset,
            inverse=inverse,
            formula=formula,
        )
        return formula(u, parameters) if fused is None else fused

    def _formula(self, u: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside, u_in = _restrict(u)
        x0, w, y0, h, d0, d1 = _bin(u_in, self._knots(parameters), 0)
        theta = (u_in - x0) / w
        s, product = h / w, theta * (1 - theta)
        denominator = s + (d0 + d1 - 2 * s) * product
        v = self._keep_inside(y0 + h * (s * theta.square() + d0 * product) / denominator)
        log_derivative = _log_derivative(theta, s, d0, d1)
        return torch.where(inside, v, u), torch.where(inside, log_derivative, 0.0)

    def _invert_formula(self, v: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside, v_in = _restrict(v)
        x0, w, y0, h, d0, d1 = _bin(v_in, self._knots(parameters), 1)
        s, rise = h / w, (v_in - y0)
        excess = rise * (d0 + d1 - 2 * s)
        a, b, c = h * (s - d0) + excess, h * d0 - excess, -s * rise
        # The true discriminant is positive; the clamp only keeps rounding from making it negative.
        root = (b.square() - 4 * a * c).clamp(min=torch.finfo(v.dtype).tiny).sqrt()
        # Of the two forms of the solution the one in which nothing cancels.
        rising = b >= 0
        theta = torch.where(rising, -2 * c, root - b) / torch.where(rising, b + root, 2 * a)
        theta = theta.clamp(0.0, 1.0)
        u = self._keep_inside(x0 + theta * w)
        log_derivative = -_log_derivative(theta, s, d0, d1)
        return torch.where(inside, u, v), torch.where(inside, log_derivative, 0.0)

    def _knots(self, parameters: Tensor) -> Tensor:
        """Return x, y and slope of the K+1 knots on [-1, 1], ``(..., 3, K+1)``."""
        k = self.bins
        share = torch.softmax(parameters[..., : 2 * k].unflatten(-1, (2, k)), -1)
        corners = torch.cumsum(2.0 * self.minimum + (2.0 - 2.0 * self.minimum * k) * share, -1) - 1.0
        positive = self.minimum + F.softplus(parameters[..., 2 * k :] + self._offset)
        if self.kinds == {"linear"}:
            slopes = F.pad(positive, (1, 1), value=1.0)
        else:
            # Slots: K-1 inner slopes, then the first, then the last; a circle uses the first at both ends and the
            # last slot is its rotation.
            inner, first, last = positive[..., : k - 1], positive[..., k - 1 : k], positive[..., k:]
            linear, circular = (self.tail == 0)[..., None], (self.tail == 2)[..., None]
            first = torch.where(linear, 1.0, first)
            last = torch.where(linear, 1.0, torch.where(circular, first, last))
            slopes = torch.cat([first, inner, last], -1)
        # The last corner is 1 and not what rounding makes of it, so that no point lies beyond.
        corners = F.pad(F.pad(corners[..., :-1], (1, 0), value=-1.0), (0, 1), value=1.0)
        return torch.cat([corners, slopes[..., None, :]], -2)

    def _keep_inside(self, v: Tensor) -> Tensor:
        # Rounding must not carry a point over the edge of a box, where it has no density.
        return v.clamp(-1.0, 1.0) if "bounded" in self.kinds else v

    def _wrap(self, u: Tensor) -> Tensor:
        if "circular" not in self.kinds:
            return u
        turned = torch.remainder(u + 1.0, 2.0) - 1.0
        turned = torch.where(turned >= 1.0, turned - 2.0, turned)  # the remainder may round up to 2
        return torch.where(self.tail == 2, turned, u)

    def _rotate(self, v: Tensor, parameters: Tensor, sign: float) -> Tensor:
        if "circular" not in self.kinds:
            return v
        return self._wrap(v + sign * torch.where(self.tail == 2, torch.tanh(parameters[..., -1]), 0.0))


def _restrict(u: Tensor) -> tuple[Tensor, Tensor]:
    inside = (u >= -1.0) & (u <= 1.0)
    return inside, torch.where(inside, u, 0.0)


def _bin(at: Tensor, knots: Tensor, row: int) -> tuple[Tensor, ...]:
    """Find the bin of ``at`` among the knots' coordinates in ``row``; return its corner, sizes and slopes."""
    index = (at[..., None] >= knots[..., row, 1:-1]).sum(-1)[..., None, None]
    shape = torch.broadcast_shapes(index.shape[:-2], knots.shape[:-2])
    ends = torch.cat([index, index + 1], -1).expand(*shape, 3, 2)
    (x0, y0, d0), (x1, y1, d1) = (
        c.unbind(-1) for c in knots.expand(*shape, *knots.shape[-2:]).gather(-1, ends).unbind(-1)
    )
    return x0, x1 - x0, y0, y1 - y0, d0, d1


def _log_derivative(theta: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    rest = 1.0 - theta
    product = theta * rest
    numerator = d1 * theta.square() + 2.0 * s * product + d0 * rest.square()
    return 2.0 * (s.log() - (s + (d0 + d1 - 2.0 * s) * product).log()) + numerator.log()
