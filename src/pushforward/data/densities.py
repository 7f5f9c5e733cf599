"""The 2-D benchmark densities of the flow literature, with their exact log-density and entropy.

The generators are those of FFJORD's code (Grathwohl et al., 2019, "FFJORD: Free-form Continuous Dynamics for
Scalable Reversible Generative Models", ICLR, arXiv:1810.01367, section 4.1), moons and swiss roll by way of
scikit-learn, the pinwheel after Johnson et al. (2016, arXiv:1603.06277). One thing differs: every row is drawn
independently. FFJORD and scikit-learn put fixed shares of a batch on each moon, spiral, ring and blade, and place
moons and rings at evenly spaced angles. The distribution of one row is the same, but only of independent rows is
``Σ log p(x_i)`` the log-likelihood.

Below, ``ε ~ N(0, I)``; ``u``, ``v``, ``w`` are uniform on [0, 1); ``k`` is uniform on 0, 1, ...;
``e(t) = (cos t, sin t)``; ``s`` is the standard deviation per axis of the noise in the units of ``x``.
``H = -E log p`` is the entropy in nats: the expected negative log-likelihood of a model is ``H`` plus its KL
divergence from the truth.

- ``checkerboard``, H = log 32 = 3.465736: uniform on the 8 squares ``[2i, 2i+2] × [2j, 2j+2]`` with
  ``-2 ≤ i, j ≤ 1`` and ``i + j`` even, which are half of ``[-4, 4]²``, its lower left corner included. There
  ``p = 1/32``.
- ``eight_gaussians``, H = 2.831880: ``x = (4 e(kπ/4) + ε/2) / 1.414``, ``k < 8``.
  ``p = Σ_k N(x; c_k, s² I) / 8`` with ``|c_k| = 2.829`` and ``s = 0.3536``.
- ``moons``, H = 2.393879: ``x = 2 m - (1, 0.2) + 0.2 ε``, where ``m`` is ``e(πu)`` or ``(1, 0.5) - e(πu)``, each
  half the time. ``p = E_m N(x; 2 m - (1, 0.2), s² I)``, ``s = 0.2``.
- ``two_spirals``, H = 2.645450: ``x = ±(n (-cos n, sin n) + (v, w)/2) / 3 + 0.1 ε``, ``n = 3π √u``, either sign
  half the time. ``p = E_a ∏_d 6 [Φ((x_d - a_d)/s) - Φ((x_d - a_d - 1/6)/s)]``, ``a`` being the lower corner of
  the square that ``v`` and ``w`` fill, and ``s = 0.1``.
- ``rings``, H = 2.623183: ``x = r_k e(2πu) + 0.08 ε``, ``r_k = 0.75 (k + 1)``, ``k < 4``.
  ``p = Σ_k exp(-(|x|² + r_k²)/2s²) I_0(|x| r_k/s²) / (8π s²)``, ``s = 0.08``.
- ``swiss_roll``, H = 2.669646: ``x = (t e(t) + ε) / 5``, ``t = 1.5π (1 + 2u)``.
  ``p = E_t N(x; t e(t)/5, s² I)``, ``s = 0.2``.
- ``pinwheel``, H = 2.317788: ``f = (1 + 0.3 ε_1, 0.1 ε_2)``, turned clockwise by ``2πk/5 + exp(f_1)/4``,
  ``k < 5``, and doubled. ``p = (1/4) (1/5) Σ_f N(f) / |1 + f_2 exp(f_1)/4|`` over all ``f`` and ``k`` that lead
  to ``x``.

The means over ``m``, ``a`` and ``t`` are Gauss-Legendre sums. They err by less than 1e-8 where there are data, and
by less than 1e-6 of ``|log p|`` over the plotted rectangle. The entropies are trapezoid sums of ``-p log p`` over
the plane, which converge exponentially.

Example:
    >>> target = density("moons")
    >>> x = target.sample(10_000, generator=torch.Generator().manual_seed(0))
    >>> print(f"{-target.log_prob(x).mean():.2f} nats against {target.entropy:.4f}")
    2.39 nats against 2.3939
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, final

import torch
from torch import Tensor

from ..errors import PushforwardError
from . import _generators

_LARGEST = 1e100  # coordinates are cut to it, so that their squares are finite


@final
@dataclass(frozen=True)
class Density2d:
    """A distribution over the plane with exact log-density, sampler and entropy.

    Args:
        name: As in ``DENSITIES``.
        entropy: Differential entropy in nats.
        entropy_error: Bound on the error of ``entropy``; 0 where it is a closed form.
        bounds: Rectangle ``(x0, x1, y0, y1)`` to plot, in the order of matplotlib's ``extent``; less than one row
            in 1000 falls outside.
        draw: ``(n, generator) -> (n, 2)`` in float64.
        log_density: ``(n, 2) -> (n,)`` in float64, for finite points.

    Example:
        >>> board = density("checkerboard")
        >>> board.log_prob(torch.tensor([[0.5, 0.5], [0.5, 2.5]]))
        tensor([-3.4657,    -inf])
    """

    name: str
    entropy: float
    entropy_error: float
    bounds: tuple[float, float, float, float]
    draw: _generators.Draw = field(repr=False)
    log_density: _generators.LogDensity = field(repr=False)

    def sample(
        self, n: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Draw ``n`` independent rows.

        They are drawn in float64 and then cast: one seed gives the same rows in every dtype, up to rounding.

        Args:
            n: Number of rows, 0 or more.
            generator: Source of randomness; the rows are made on its device. None: torch's own, on the CPU.
            dtype: A floating dtype.

        Returns:
            Tensor ``(n, 2)``.

        Raises:
            PushforwardError: ``n`` is negative or ``dtype`` not floating.
        """
        if n < 0:
            raise PushforwardError(f"n: expected a number of rows, 0 or more, got {n}.")
        if not dtype.is_floating_point:
            raise PushforwardError(f"dtype: expected a floating dtype, got {dtype}.")
        return self.draw(n, generator).to(dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)`` in nats, computed in float64 and differentiable in ``x``.

        Args:
            x: Points ``(*batch, 2)``.

        Returns:
            Tensor ``(*batch,)`` in the dtype of ``x``: -inf outside the support and at infinity; NaN where a
            coordinate is NaN, and nowhere else.

        Raises:
            PushforwardError: ``x`` is not a floating tensor whose last axis has length 2.
        """
        if x.ndim == 0 or x.shape[-1] != 2 or not x.is_floating_point():
            raise PushforwardError(
                f"x: expected a floating tensor of shape (*batch, 2), got {x.dtype}, shape {tuple(x.shape)}."
            )
        rows = x.reshape(-1, 2).double()
        finite = rows.isfinite().all(-1)
        value = self.log_density(rows.where(finite[:, None], 0.0).clamp(-_LARGEST, _LARGEST))
        outside = torch.where(rows.isnan().any(-1), math.nan, -math.inf)
        return torch.where(finite, value, outside).to(x.dtype).reshape(x.shape[:-1])


def density(name: str) -> Density2d:
    """The benchmark density of that name; the table at the head of this module defines each.

    Args:
        name: One of ``DENSITIES``.

    Raises:
        PushforwardError: There is none of that name.

    Example:
        >>> for name in DENSITIES:
        ...     print(f"{name:16s}{density(name).entropy:.4f}")
        checkerboard    3.4657
        eight_gaussians 2.8319
        moons           2.3939
        two_spirals     2.6455
        rings           2.6232
        swiss_roll      2.6696
        pinwheel        2.3178
        >>> density("circles")
        Traceback (most recent call last):
            ...
        pushforward.errors.PushforwardError: name: expected one of checkerboard, ..., pinwheel, got 'circles'.
    """
    if name not in _KNOWN:
        raise PushforwardError(f"name: expected one of {', '.join(DENSITIES)}, got {name!r}.")
    generator, entropy, entropy_error, bounds = _KNOWN[name]
    draw, log_density = generator()
    return Density2d(name, entropy, entropy_error, bounds, draw, log_density)


_SQUARE = (-4.0, 4.0, -4.0, 4.0)
_KNOWN: Final = {
    "checkerboard": (_generators.checkerboard, math.log(32.0), 0.0, _SQUARE),
    "eight_gaussians": (_generators.eight_gaussians, 2.8318804061, 1e-8, _SQUARE),
    "moons": (_generators.moons, 2.3938791960, 1e-8, (-4.0, 4.0, -3.0, 3.0)),
    "two_spirals": (_generators.two_spirals, 2.6454502836, 1e-8, _SQUARE),
    "rings": (_generators.rings, 2.6231827703, 1e-8, _SQUARE),
    "swiss_roll": (_generators.swiss_roll, 2.6696461739, 1e-8, _SQUARE),
    "pinwheel": (_generators.pinwheel, 2.31778803, 1e-7, _SQUARE),
}
DENSITIES: Final = tuple(_KNOWN)
"""The names that ``density`` knows."""
