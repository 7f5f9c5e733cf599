"""Von Mises distribution on the circle, with independent elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.shapes import Shape
from .base import Distribution
from .constraints import check_values, inverse_softplus, register


class VonMises(Distribution):
    r"""The von Mises distribution of each element, an angle in :math:`[-\pi, \pi)`.

    .. math:: \log p(x) = \sum_i \kappa_i \cos(x_i - \mu_i) - \log\left(2\pi I_0(\kappa_i)\right)

    and :math:`-\infty` outside of :math:`[-\pi, \pi)`. A learned concentration is
    :math:`\kappa = \text{softplus}(r)`; a location counts modulo :math:`2\pi`. Sampling is by rejection, and
    waits for the device a few times.

    Args:
        loc: Locations :math:`\mu` in radians (at first, when they are learned), ``event_shape``.
        concentration: Concentrations :math:`\kappa`, likewise; 0 is uniform.
        trainable: Learn both.

    Shapes:
        ``x (*batch, *event_shape)`` -> ``(*batch,)``.

    Raises:
        ValueError: ``loc`` not finite, ``concentration`` not finite and at least 0 (above 0 when learned), or
            the two of different shapes or dtypes.

    References:
        Best and Fisher, Efficient Simulation of the von Mises Distribution, Applied Statistics 28 (2), 1979.
        Rezende et al., Normalizing Flows on Tori and Spheres, 2020. https://arxiv.org/abs/2002.02428

    Example:
        >>> import torch
        >>> base = VonMises(torch.tensor([0.0]), torch.tensor([4.0]))
        >>> base.log_prob(torch.tensor([[0.0], [-3.0], [3.5]]))
        tensor([-0.2628, -8.2228,    -inf])
    """

    has_rsample = False
    has_temperature = False
    loc: Tensor
    raw: Tensor

    def __init__(self, loc: Tensor, concentration: Tensor, *, trainable: bool = False) -> None:
        super().__init__(tuple(loc.shape))
        if concentration.shape != loc.shape or concentration.dtype != loc.dtype:
            raise ValueError(
                "VonMises: concentration must have the shape and dtype of loc, "
                f"{tuple(loc.shape)} {loc.dtype}, got {tuple(concentration.shape)} {concentration.dtype}"
            )
        check_values("VonMises", "loc", loc, "finite", loc.isfinite())
        lowest = "above 0" if trainable else "at least 0"
        valid = (concentration > 0 if trainable else concentration >= 0) & concentration.isfinite()
        check_values("VonMises", "concentration", concentration, f"finite and {lowest}", valid)
        self.trainable = trainable
        start = inverse_softplus(concentration.detach()) if trainable else concentration
        register(self, "loc", loc, trainable=trainable)
        register(self, "raw", start, trainable=trainable)

    @property
    def concentration(self) -> Tensor:
        r"""Concentrations :math:`\kappa`, ``event_shape``."""
        return F.softplus(self.raw) if self.trainable else self.raw

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        outside = (x < -math.pi) | (x >= math.pi)
        kappa = self.concentration
        # kappa (cos d - 1) and log(e^-kappa I0), for kappa cos d and log I0 cancel, and the latter overflows.
        half = (x.masked_fill(outside, 0) - self.loc) / 2
        value = -2 * kappa * torch.sin(half).square() - torch.log(2 * math.pi * torch.special.i0e(kappa))
        return self._sum_event(value.masked_fill(outside, -torch.inf))

    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        angle = self._empty(shape)
        kappa = self.concentration.expand_as(angle).reshape(-1)
        distance = _sample_one_minus_cosine(kappa, generator).view_as(angle)
        size = 2 * torch.asin(torch.sqrt((distance / 2).clamp(max=1)))
        left = angle.uniform_(generator=generator) < 0.5
        angle = torch.remainder(torch.where(left, -size, size) + self.loc + math.pi, 2 * math.pi) - math.pi
        # The remainder of a small negative number is rounded to the divisor.
        return angle.masked_fill(angle >= math.pi, -math.pi)


def _sample_one_minus_cosine(kappa: Tensor, generator: torch.Generator | None) -> Tensor:
    r"""Draw :math:`w = 1 - \cos \theta`, by the rejection method of Best and Fisher.

    Theirs is :math:`r = (1 + \sqrt{1 + 4\kappa^2}) / 2\kappa`, a proposal
    :math:`f = (1 + rz) / (r + z)` of :math:`\cos \theta`, and :math:`c = \kappa (r - f)`. With
    :math:`q = 2\kappa (r - 1)` that is :math:`w = 1 - f = q (1 - z) / (q + 2\kappa (1 + z))` and
    :math:`c = q / 2 + \kappa w`: every term is positive, so that nothing cancels for large :math:`\kappa`,
    and no small one divides.
    """
    result = torch.empty_like(kappa)
    pending = torch.arange(len(kappa), device=kappa.device)
    while len(pending) > 0:
        k = kappa[pending]
        u, v = torch.rand((2, len(k)), generator=generator, dtype=k.dtype, device=k.device)
        q = 1 + 1 / (torch.hypot(torch.ones_like(k), 2 * k) + 2 * k)
        w = 2 * q * torch.sin(math.pi / 2 * u).square()
        w = w / (q + 4 * k * torch.cos(math.pi / 2 * u).square())
        c = q / 2 + k * w
        result[pending] = w
        # Written so that NaN, from a parameter that is NaN, is not proposed anew for ever.
        pending = pending[torch.log(c) - torch.log(v) + 1 - c < 0]
    return result
