"""Fixed maps that bring the columns of a table to comparable units: supports and standardisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Transform
from .elementwise import softplus


class Support(Transform):
    r"""Map each column's support onto the line, or its circle onto :math:`[-\pi, \pi)`.

    With ends :math:`a, b` of a column:

    - no ends: :math:`y = x`;
    - below only: :math:`y = \log(x - a)`; above only: :math:`y = -\log(b - x)`;
    - both: :math:`y = \log\frac{x - a}{b - x}`;
    - periodic: :math:`y = 2\pi\frac{x - a}{b - a} - \pi`.

    A point outside the open support (or outside :math:`[a, b)` of a circle) has ``log_abs_det`` :math:`-\infty`,
    since no density that is pulled back by this map puts mass there; its image is 0. NaN stays NaN.

    Args:
        low: Lower ends; None or ``-inf``: none.
        high: Upper ends; None or ``inf``: none.
        periodic: Which columns are circles; none by default.

    Raises:
        ValueError: Lengths that differ, ends not in order, a circle without both ends.

    Example:
        >>> t = Support([0.0, None], [1.0, None])
        >>> y, log_abs_det = t(torch.tensor([[0.5, 3.0], [2.0, 3.0]]))
        >>> y.tolist(), [round(v, 4) for v in log_abs_det.tolist()]
        ([[0.0, 3.0], [0.0, 3.0]], [1.3863, -inf])
    """

    low: Tensor
    high: Tensor
    periodic: Tensor

    def __init__(
        self,
        low: Sequence[float | None],
        high: Sequence[float | None],
        periodic: Sequence[bool] | None = None,
    ) -> None:
        circles = [False] * len(low) if periodic is None else list(periodic)
        if not len(low) == len(high) == len(circles) or not low:
            raise ValueError(
                f"low, high and periodic must have one length, at least 1, got {len(low)}, {len(high)}, {len(circles)}"
            )
        super().__init__((len(low),))
        a = torch.tensor([-math.inf if v is None else v for v in low], dtype=torch.float64)
        b = torch.tensor([math.inf if v is None else v for v in high], dtype=torch.float64)
        circle = torch.tensor(circles)
        if not bool((a < b).all()):
            raise ValueError(f"low must be below high in every column, got {a.tolist()} and {b.tolist()}")
        if bool((circle & ~(torch.isfinite(a) & torch.isfinite(b))).any()):
            raise ValueError("a periodic column needs both ends")
        self.register_buffer("low", a)
        self.register_buffer("high", b)
        self.register_buffer("periodic", circle)

    def _ends(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return which columns end below and above, and ends that are finite everywhere."""
        below, above = torch.isfinite(self.low), torch.isfinite(self.high)
        return below, above, self.low.where(below, 0.0).to(dtype), self.high.where(above, 1.0).to(dtype)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        below, above, a, b = self._ends(x.dtype)
        low, high = self.low.to(x.dtype), self.high.to(x.dtype)
        outside = torch.where(
            self.periodic, (x < low) | (x >= high), (below & (x <= low)) | (above & (x >= high))
        )
        middle = torch.where(below & above, 0.5 * (a + b), torch.where(below, a + 1.0, b - 1.0))
        x = torch.where(outside, middle.where(below | above, 0.0), x)
        log_up = torch.log((x - a).where(below & ~self.periodic, 1.0))
        log_down = torch.log((b - x).where(above & ~self.periodic, 1.0))
        both = below & above
        log_width = torch.log((b - a).where(both, 1.0))
        turn = 2.0 * math.pi / (b - a).where(both, 1.0)
        y = torch.where(
            self.periodic, (x - a) * turn - math.pi, torch.where(below | above, log_up - log_down, x)
        )
        log_derivative = torch.where(
            self.periodic, turn.log(), torch.where(both, log_width - log_up - log_down, -log_up - log_down)
        )
        y = torch.where(outside, 0.0, y)
        return y, torch.where(outside, -math.inf, log_derivative).sum(-1)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        below, above, a, b = self._ends(y.dtype)
        both = below & above
        width = (b - a).where(both, 1.0)
        log_up, log_down = -softplus(-y), -softplus(y)
        interval = torch.where(y < 0, a + width * log_up.exp(), b - width * log_down.exp())
        x = torch.where(
            below, a + y.where(below & ~above, 0.0).exp(), b - (-y).where(above & ~below, 0.0).exp()
        )
        x = torch.where(below | above, torch.where(both, interval, x), y)
        # Rounding may reach an end, which no longer belongs to the support.
        x = torch.where(below, torch.maximum(x, torch.nextafter(a, a + 1.0)), x)
        x = torch.where(above, torch.minimum(x, torch.nextafter(b, b - 1.0)), x)
        turned = a + torch.remainder(y + math.pi, 2.0 * math.pi) * width / (2.0 * math.pi)
        x = torch.where(self.periodic, torch.where(turned < b, turned, a), x)
        log_derivative = torch.where(both, width.log() + log_up + log_down, torch.where(below, y, -y))
        log_derivative = torch.where(below | above, log_derivative, 0.0)
        log_derivative = torch.where(self.periodic, (width / (2.0 * math.pi)).log(), log_derivative)
        return x, log_derivative.sum(-1)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column of ``x (n, D)``, also where sums of squares would overflow."""
    # In units of a power of 2, which rounds nothing.
    _, exponent = torch.frexp(x.abs().amax(0))
    unit = torch.ldexp(torch.ones_like(x[0]), exponent - 1)
    mean = (x / unit).mean(0)
    return mean * unit, (x / unit - mean).square().mean(0).sqrt() * unit


class Standardise(Transform):
    r"""The fixed affine map :math:`y_i = (x_i - m_i)/s_i`, :math:`\log|\det J| = -\sum_i \log s_i`.

    ``initialize`` takes mean and standard deviation of each column from a batch. Columns named in ``keep`` pass
    unchanged. A column that does not vary is divided by 1.

    Args:
        features: Number of columns.
        keep: Columns that pass unchanged (angles).

    Example:
        >>> t = Standardise(1)
        >>> t.initialize(torch.tensor([[1.0], [3.0]], dtype=torch.float64)).flatten().tolist()
        [-1.0, 1.0]
    """

    loc: Tensor
    scale: Tensor
    keep: Tensor

    def __init__(self, features: int, keep: Sequence[int] = ()) -> None:
        super().__init__((features,))
        self.register_buffer("loc", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(features, dtype=torch.float64))
        mask = torch.zeros(features, dtype=torch.bool)
        mask[list(keep)] = True
        self.register_buffer("keep", mask)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Take location and scale from ``x (n, D)``."""
        largest = x.abs().amax(0)
        loc, scale = moments(x)
        varies = scale > torch.finfo(x.dtype).eps * largest
        self.loc.copy_(torch.where(self.keep, 0.0, loc))
        self.scale.copy_(torch.where(self.keep | ~varies, 1.0, scale))
        return super().initialize(x, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        scale = self.scale.to(x.dtype)
        return x.sub(self.loc.to(x.dtype)).div_(scale), -scale.log().sum().expand(x.shape[:-1])

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        scale = self.scale.to(y.dtype)
        return y * scale + self.loc.to(y.dtype), scale.log().sum().expand(y.shape[:-1])
