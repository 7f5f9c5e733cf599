"""Integrals and sums of a function that is known by its logarithms at ordered places."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_integral(places: Tensor, logs: Tensor) -> Tensor:
    r"""Return the logarithm of an integral, the logarithms taken for linear between the places.

    With :math:`f_i` at :math:`v_i`,

    .. math:: \int f \approx \sum_i (v_{i+1} - v_i) \frac{f_{i+1} - f_i}{\log f_{i+1} - \log f_i}.

    Args:
        places: Places in order, ``(n, k)``; one may stand twice.
        logs: Logarithms there, ``(n, k)``.

    Returns:
        Logarithms of the integrals from the first to the last place, ``(n,)``.

    Example:
        >>> places = torch.tensor([[0.0, 1.0, 50.0]])
        >>> log_integral(places, -places).exp().round(decimals=4)
        tensor([1.])
    """
    low, high, width = logs[:, :-1], logs[:, 1:], places.diff(dim=1)
    fall = _fall(low, high)
    mean = torch.where(fall < 1e-5, -fall / 2, _log1mexp(fall) - fall.log())
    parts = torch.maximum(low, high) + mean + width.log()
    return torch.where(width > 0, parts, -torch.inf).logsumexp(1)


def log_sum(places: Tensor, logs: Tensor, step: float) -> Tensor:
    r"""Return the logarithm of a sum over a grid times its spacing, the logarithms taken for linear between the places.

    Exact where every place of the grid is given. Between :math:`f_i` and :math:`f_{i+1}`, :math:`m` cells further, a
    geometric series with the ratio :math:`r = (f_{i+1} / f_i)^{1/m}`,

    .. math:: \sum_{l=0}^{m-1} f_i r^l = f_i \frac{1 - r^m}{1 - r}.

    Args:
        places: Places on the grid in order, ``(n, k)``; one may stand twice.
        logs: Logarithms there, ``(n, k)``.
        step: Spacing of the grid.

    Returns:
        Logarithms of the sums from the first to the last place, ``(n,)``.

    Example:
        >>> places = torch.tensor([[0.0, 2.0, 3.0]])
        >>> log_sum(places, torch.tensor([0.25, 0.25, 0.25]).log()[None], 1.0).abs() < 1e-6
        tensor([True])
    """
    low, high, cells = logs[:, :-1], logs[:, 1:], (places.diff(dim=1) / step).round()
    fall = _fall(low, high)
    ratio = fall / cells
    series = torch.where(fall > 0, _log1mexp(fall) - _log1mexp(ratio), cells.log())
    parts = torch.where(high > low, high - ratio, low) + series
    parts = torch.where(cells > 0, parts, -torch.inf)
    return torch.cat([parts, logs[:, -1:]], 1).logsumexp(1) + math.log(step)


def _fall(low: Tensor, high: Tensor) -> Tensor:
    """Return by how much two logarithms differ; by 0 where both are those of 0."""
    return torch.where(low == high, 0.0, (high - low).abs())


def _log1mexp(x: Tensor) -> Tensor:
    return torch.log(-torch.expm1(-x))
