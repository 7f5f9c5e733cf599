"""Log-densities that are known up to the noise of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Estimate:
    """A log-density known up to the noise of sampling.

    Attributes:
        value: The estimates, in nats, of the batch shape.
        standard_error: Their standard errors, of the same shape; 0 where the value is exact.
        kind: ``"exact"``, ``"estimate"``, or ``"bound"`` where the value is too small on average.
    """

    value: Tensor
    standard_error: Tensor
    kind: str


def log_of_mean(logs: Tensor) -> Estimate:
    r"""Return :math:`\log \frac{1}{S}\sum_s e^{l_s}`, with its standard error by the delta method.

    Args:
        logs: The logarithms :math:`l_s` of ``S`` draws, ``(S, *batch)``.

    Example:
        >>> log_of_mean(torch.tensor([[0.0], [0.0]]))
        Estimate(value=tensor([0.]), standard_error=tensor([0.]), kind='estimate')
    """
    draws = len(logs)
    value = torch.logsumexp(logs, 0) - log(draws)
    # Where the density is 0 all draws agree on it; what is left of NaN stays.
    square = (torch.exp(logs - value).where(value != -torch.inf, 1.0) - 1.0).square().sum(0)
    error = (square / (draws * (draws - 1.0))).sqrt() if draws > 1 else value * torch.nan
    return Estimate(value, error, "estimate")


def mean_of_logs(logs: Tensor, kind: str) -> Estimate:
    r"""Return :math:`\frac{1}{S}\sum_s l_s`, with its standard error.

    Args:
        logs: The logarithms :math:`l_s` of ``S`` draws, ``(S, *batch)``.
        kind: What their mean is.

    Example:
        >>> mean_of_logs(torch.tensor([[0.0], [2.0]]), "bound")
        Estimate(value=tensor([1.]), standard_error=tensor([1.]), kind='bound')
    """
    draws = len(logs)
    error = logs.std(0) / draws**0.5 if draws > 1 else logs[0] * torch.nan
    return Estimate(logs.mean(0), error, kind)
