"""Densities of one number, averaged at equal levels, and levels that hold on rows that a flow has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.special import ndtri

from ..configs import ColumnSchema
from ..flows import Flow
from ..flows.factors import log_normal_between
from ..surjections import Dequantise
from .rows import in_blocks

_ELEMENTS = 2**18  # rows times levels that are computed together
_HALVINGS = 40
_ROUNDINGS = 8.0  # in units of the machine epsilon, that may separate a value from the grid


class AveragedQuantiles:
    r"""The density of one number whose quantiles are the means of those of several flows,

    .. math:: Q(u \mid x) = \frac1K \sum_k Q_k(u \mid x), \qquad Q_k(u \mid x) = f_k^{-1}(\Phi^{-1}(u); x),

    :math:`f_k` increasing and to a standard normal latent. It is as sharp as the flows are on average, where a mixture
    of them is wider, and its quantiles have a closed form. Since :math:`Q' = \frac1K \sum_k 1 / p_k`, its density is
    the harmonic mean of the flows' densities at their quantiles of one level.

    Args:
        flows: Flows of one element under the same contexts.

    References:
        Ratcliff, Group reaction time distributions and an analysis of distribution statistics, 1979.
        Lichtendahl et al., Is it better to average probabilities or quantiles?, 2013.
        https://doi.org/10.1287/mnsc.1120.1667
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        self.flows = tuple(flows)

    def quantiles(self, levels: Tensor, context: Tensor) -> Tensor:
        """Return the quantiles ``(n, L)`` of levels ``(n, L)`` given contexts ``(n, C)``."""
        # Levels of 0 and 1, which rounding may give, have no finite quantile.
        latent = ndtri(levels.double().clamp(torch.finfo(torch.float64).tiny, 1 - 2**-53))
        with torch.no_grad():
            return in_blocks(self._inverse, _ELEMENTS // latent.shape[1], latent, context)

    def log_prob(self, y: Tensor, context: Tensor) -> Tensor:
        """Return the log-densities of values ``(n,)`` given contexts ``(n, C)``, in nats."""
        with torch.no_grad():
            return in_blocks(self._log_prob, _ELEMENTS, y, context)

    def log_mass(self, lower: Tensor, upper: Tensor, context: Tensor) -> Tensor:
        """Return the log-probabilities of the intervals between ends ``(n,)``, which may be infinite."""
        # In double precision, since the ends may be close together.
        exact = AveragedQuantiles([deepcopy(flow).double() for flow in self.flows])
        with torch.no_grad():
            latents = [
                torch.where(
                    y.isinf(), y, in_blocks(exact._latent, _ELEMENTS, y.where(~y.isinf(), 0.0), context)
                )
                for y in (lower, upper)
            ]
        return log_normal_between(*latents)

    def _inverse(self, latent: Tensor, context: Tensor) -> Tensor:
        """Return the values ``(n, L)`` of latents ``(n, L)``."""
        return torch.stack([_from_latent(flow, latent, context) for flow in self.flows]).mean(0)

    def _latent(self, y: Tensor, context: Tensor) -> Tensor:
        """Return the latents ``(n,)`` of values ``(n,)``: the inverse of ``_inverse``."""
        # Each flow's own latent of the value: between the lowest and the highest lies that of the average.
        own = torch.stack([flow.to_latent(y[:, None], context)[:, 0] for flow in self.flows]).double()
        low, high = own.amin(0), own.amax(0)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below = self._inverse(middle[:, None], context)[:, 0] < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def _log_prob(self, y: Tensor, context: Tensor) -> Tensor:
        latent = self._latent(y, context)[:, None]
        logs = torch.stack(
            [flow.log_prob(_from_latent(flow, latent, context), context) for flow in self.flows]
        ).double()
        return math.log(len(logs)) - (-logs).logsumexp(0)


def held_levels(flow: Flow, y: Tensor, context: Tensor) -> Tensor:
    r"""Return at which levels of its own quantiles a flow sees values, :math:`u = \Phi(f(y; x))`, float64 ``(n,)``.

    Of rows that it was not fitted to they are uniform where the flow is right.
    """
    with torch.no_grad():
        latent = in_blocks(lambda y, given: flow.to_latent(y[:, None], given)[:, 0], _ELEMENTS, y, context)
    levels: Tensor = torch.special.ndtr(latent)
    return levels


def recalibrated(levels: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Return the levels that have to be asked for so that the levels wanted are kept.

    A fresh value lies below the quantile of the :math:`i`-th smallest of :math:`n` held levels with a probability of
    :math:`i / (n + 1)`, if its own level is exchangeable with them; between them levels are interpolated.

    Args:
        levels: Levels wanted.
        held: Levels of rows that the flows were not fitted to, in order.

    References:
        Chernozhukov et al., Distributional conformal prediction, 2021, algorithm 1. https://arxiv.org/abs/1909.07889
        Kuleshov et al., Accurate Uncertainties for Deep Learning Using Calibrated Regression, 2018, algorithm 1.
        https://arxiv.org/abs/1807.00263

    Example:
        >>> recalibrated(np.array([0.25, 0.5, 0.75]), np.array([0.1, 0.5, 0.9]))
        array([0.1, 0.5, 0.9])
    """
    n = len(held)
    asked: NDArray[np.float64] = np.interp(
        levels, np.arange(n + 2) / (n + 1), np.concatenate([[0.0], held, [1.0]])
    )
    return asked


def on_grid(values: Tensor, column: ColumnSchema) -> Tensor:
    r"""Return the values of a grid that are nearest to values; those of quantiles are the grid's own quantiles.

    A value of the grid stands for the cell of half a step to both sides, or to infinity at an end of the support. So
    the least one with :math:`F(y) \ge u` is that whose cell holds the quantile of level :math:`u` of a density.

    Example:
        >>> on_grid(torch.tensor([-0.7, 0.24, 0.26]).double(), ColumnSchema(name="y", step=0.1, low=0.0))
        tensor([0.0000, 0.2000, 0.3000], dtype=torch.float64)
    """
    assert column.step is not None
    return _nearest(values, column.step).clamp(*ends(column))


def cells(values: Tensor, column: ColumnSchema) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ends of the cells of a grid's values, and which values are of it and in the support; ``(n,)`` each.

    A value of the grid may be stored in 32 bits.
    """
    assert column.step is not None
    half, (low, high) = 0.5 * column.step, ends(column)
    nearest = _nearest(values, column.step)
    off = (values - nearest).abs() > _ROUNDINGS * torch.finfo(values.dtype).eps * values.abs()
    off &= values != nearest.float().to(values)
    values = torch.where(values.isfinite(), nearest, values)
    # Half a step of room, so that a decimal grid's rounding matters to no comparison.
    lower = torch.where(values < low + half, -torch.inf, values - half)
    upper = torch.where(values > high - half, torch.inf, values + half)
    return lower, upper, ~(off | (values < low - half) | (values > high + half))


def _nearest(values: Tensor, step: float) -> Tensor:
    return Dequantise([step]).decode(values[..., None] + 0.5 * step)[..., 0]


def ends(column: ColumnSchema) -> tuple[float, float]:
    """Return where the support of a column ends, infinite where it does not."""
    low, high = column.low, column.high
    return -math.inf if low is None else low, math.inf if high is None else high


def _from_latent(flow: Flow, latent: Tensor, context: Tensor) -> Tensor:
    """Return the values ``(n, L)`` of latents ``(n, L)``; the network sees each context once."""
    many = latent.T[..., None].to(flow.like)
    return flow.from_latent(many, context)[..., 0].T
