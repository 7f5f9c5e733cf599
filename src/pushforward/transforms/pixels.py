"""Transforms of dequantised pixels: to normal scores by their histograms, and within the cells of their levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .base import Shape, Transform

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_PRIOR = 20.0
"""How many images' weight the histogram of all pixels has in that of each."""
_AT_ONCE = 2**22
"""How many pixels are counted at once."""
_FLAT = 0.01
"""Share of the uniform distribution, so that no level is so unlikely that its cell is lost in rounding."""


class Rescale(Transform):
    r"""A fixed linear map of every element, :math:`y = a x + b`, :math:`\log|\det J| = D \log a`.

    Args:
        event_shape: Shape of one point.
        scale: ``a``, positive.
        shift: ``b``.

    Example:
        >>> Rescale((2,), 2.0, -1.0)(torch.tensor([0.0, 1.0]))
        (tensor([-1.,  1.]), tensor(1.3863))
    """

    reversible = True

    def __init__(self, event_shape: Shape, scale: float, shift: float = 0.0) -> None:
        super().__init__(event_shape)
        if not (0 < scale < math.inf and math.isfinite(shift)):
            raise ValueError(f"Rescale: scale must be positive and both finite, got {scale} and {shift}")
        self.scale, self.shift = scale, shift

    def _total(self, x: Tensor) -> Tensor:
        total = math.prod(self.event_shape) * math.log(self.scale)
        return x.new_full(x.shape[: x.ndim - len(self.event_shape)], total)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x * self.scale + self.shift, self._total(x)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (y - self.shift) / self.scale, -self._total(y)


class Equalise(Transform):
    r"""Normal scores of dequantised pixels, each by its own histogram (histogram equalisation).

    With the frequency :math:`p_{ik}` of level ``k`` at pixel ``i``, for :math:`x_i \in [k, k + 1)`

    .. math:: y_i = \Phi^{-1}\Big(\sum_{j<k} p_{ij} + p_{ik}(x_i - k)\Big), \qquad
        \log|\det J| = \sum_i \log p_{ik} - \log\varphi(y_i).

    Under a standard normal base this alone is the exact density of independent pixels, also of those that are almost
    always 0; what a flow learns after it is how they depend on each other. ``initialize`` counts; a histogram is mixed
    with that of all pixels, weighing 20 images, and with 1% of the uniform one. Outside of
    ``[0, levels]`` the density is 0.

    Args:
        event_shape: Shape of an image.
        levels: Number of levels; pixels lie in ``[0, levels)``.

    References:
        Chen & Gopinath, Gaussianization, 2000; Meng et al., Gaussianization Flows, 2020, section 2.2.
        https://arxiv.org/abs/2003.01941

    Example:
        >>> t = Equalise((1,), 2)
        >>> y, log_abs_det = t(torch.tensor([[0.5], [1.0]]))
        >>> [round(v, 4) for v in y.flatten().tolist()]
        [-0.6745, 0.0]
    """

    reversible = True
    frequencies: Tensor

    def __init__(self, event_shape: Shape, levels: int) -> None:
        super().__init__(event_shape)
        if levels < 2:
            raise ValueError(f"Equalise: levels must be at least 2, got {levels}")
        self.levels = levels
        self.register_buffer("frequencies", torch.full((math.prod(event_shape), levels), 1.0 / levels))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Count the levels of ``x (n, *event_shape)``."""
        with torch.no_grad():
            counts = torch.zeros_like(self.frequencies)
            pixel = torch.arange(counts.shape[0], device=x.device)
            for part in x.flatten(1).split(max(1, _AT_ONCE // counts.shape[0])):
                cells = part.floor().clamp(0, self.levels - 1).long() + pixel * self.levels
                counts += torch.bincount(cells.flatten(), minlength=counts.numel()).reshape(counts.shape)
            overall = counts.sum(0) / counts.sum()
            own = (counts + _PRIOR * overall) / (len(x) + _PRIOR)
            self.frequencies.copy_((1 - _FLAT) * own + _FLAT / self.levels)
        return super().initialize(x, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        flat = x.flatten(x.ndim - len(self.event_shape))
        outside = (flat < 0) | (flat > self.levels)
        inner = flat.clamp(0, self.levels)
        cell = inner.detach().floor().clamp(max=self.levels - 1)
        below, width, above = self._cells(cell)
        # Each half of the normal by the share of its own tail, which has all its digits.
        tiny = torch.finfo(x.dtype).tiny
        low, high = below + width * (inner - cell), above + width * (cell + 1 - inner)
        # The tail alone: of the other half the slope may be infinite, and its gradient not a number.
        y = torch.special.ndtri(torch.minimum(low, high).clamp(min=tiny)) * torch.where(
            low <= high, 1.0, -1.0
        )
        log_slope = width.log() + 0.5 * y.square() + _HALF_LOG_TWO_PI
        return y.reshape(x.shape), log_slope.masked_fill(outside, -torch.inf).sum(-1)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        flat = y.flatten(y.ndim - len(self.event_shape))
        low, high = torch.special.ndtr(flat), torch.special.ndtr(-flat)
        ends = nn.functional.pad(self.frequencies.cumsum(1), (1, 0))
        rows = low.detach().reshape(-1, flat.shape[-1]).T.contiguous()
        cell = (torch.searchsorted(ends, rows, right=True) - 1).clamp(0, self.levels - 1)
        cell = cell.T.reshape(flat.shape).to(y)
        below, width, above = self._cells(cell)
        within = torch.where(flat < 0, (low - below) / width, 1 - (high - above) / width)
        log_slope = width.log() + 0.5 * flat.square() + _HALF_LOG_TWO_PI
        return (cell + within.clamp(0, 1)).reshape(y.shape), -log_slope.sum(-1)

    def _cells(self, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what lies below the cell of each pixel, in it, and above it."""
        # What is not a number is in no cell; it stays so by the differences that callers take.
        pixel, level = torch.arange(cell.shape[-1], device=cell.device), cell.nan_to_num(0.0).long()
        up, down = self.frequencies.cumsum(1), self.frequencies.flip(1).cumsum(1).flip(1)
        below = nn.functional.pad(up, (1, 0))[pixel, level]
        above = nn.functional.pad(down, (0, 1))[pixel, level + 1]
        return below, self.frequencies[pixel, level], above


class Cellwise(Transform):
    r"""A map of the noise within the cell of each level, given the levels: variational dequantisation.

    With the level :math:`k = \lfloor x \rfloor` and the noise :math:`u = 2 (x - k) - 1 \in [-1, 1)` of each pixel,

    .. math:: y = k + \tfrac12 (g(u; k) + 1), \qquad \log|\det J| = \log|\det \partial g(u; k)/\partial u|.

    No point leaves its cell, so a flow that begins with it gives each cell the mass that the rest of it gives, and the
    uniform noise of a dequantisation becomes noise of a learned density :math:`q(\cdot \mid k)`. The mean log-density
    under the uniform noise is then the variational bound of Flow++, and importance weighting works as without it.

    Args:
        noise: A map of ``(-1, 1)^D`` onto itself, ``g``. If it takes a context, that is the levels, scaled to [-1, 1].
        levels: Number of levels.

    References:
        Ho et al., Flow++, 2019, section 3.1, eq. 9-11. https://arxiv.org/abs/1902.00275

    Example:
        >>> from pushforward.transforms import Elementwise, RationalQuadraticSpline
        >>> noise = Elementwise(RationalQuadraticSpline(2, 1.0, "bounded"), (3,))
        >>> [round(v, 4) for v in Cellwise(noise, 4)(torch.tensor([0.25, 1.5, 3.0]))[0].tolist()]
        [0.25, 1.5, 3.0]
    """

    def __init__(self, noise: Transform, levels: int) -> None:
        if noise.context_shape not in (None, noise.event_shape):
            raise ValueError(
                f"Cellwise: noise must take the levels as context, of shape {noise.event_shape}, "
                f"got {noise.context_shape}"
            )
        super().__init__(noise.event_shape)
        self.noise, self.levels = noise, levels

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        level, noise, given = self._parts(x)
        return self._joined(level, *self.noise._forward(noise, given))

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        level, noise, given = self._parts(y)
        return self._joined(level, *self.noise._inverse(noise, given))

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        level = x.detach().floor()
        given = None if self.noise.context_shape is None else level * (2.0 / (self.levels - 1)) - 1.0
        return level, 2.0 * (x - level) - 1.0, given

    def _joined(self, level: Tensor, noise: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
        # What rounding would lift to the next level stays in its cell.
        share = (0.5 * (noise + 1.0)).clamp(0.0, 1.0 - self.levels * torch.finfo(noise.dtype).eps)
        return level + share, log_abs_det

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Initialise the map of the noise."""
        with torch.no_grad():
            _, noise, given = self._parts(x)
            self.noise.initialize(noise, given)
        return super().initialize(x, context)
