"""Log-densities of many points in bounded memory."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .flow import Estimate, Flow

SCORE_SEED = 0
SCORE_SAMPLES = 16
_CHUNK_ROWS = 8192
_CHUNK_ELEMENTS = 2**18


def chunk_rows(flow: Flow) -> int:
    """Return how many points to compute at once: fewer of wide ones, so that memory stays bounded.

    Example:
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> chunk_rows(build_flow(MAFConfig(layers=1, hidden=(8,)), 2))
        8192
    """
    return max(1, min(_CHUNK_ROWS, _CHUNK_ELEMENTS // prod(flow.event_shape)))


def score(
    flow: Flow, x: Tensor, context: Tensor | None = None, *, num_samples: int = SCORE_SAMPLES
) -> Estimate:
    """Return the log-density of each point, chunk by chunk and without gradient.

    Discrete elements are dequantised with one fixed set of noise vectors, the same for every point, so the score of a
    row depends neither on its place nor on what stands beside it.

    Args:
        flow: The flow.
        x: Points in the units of the data, ``(n, *event_shape)``.
        context: Their contexts, ``(n, *context_shape)``.
        num_samples: Draws of the noise for discrete elements.

    Returns:
        Log-densities in nats with their standard errors, ``(n,)`` each, and whether they are exact.

    Example:
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> flow = build_flow(MAFConfig(layers=1), 2)
        >>> score(flow, torch.zeros(3, 2)).kind
        'exact'
    """
    values, errors, kind = [], [], "exact"
    with torch.no_grad():
        most = chunk_rows(flow)
        for start in range(0, max(len(x), 1), most):
            rows = slice(start, start + most)
            estimate = flow.estimate_log_prob(
                x[rows],
                None if context is None else context[rows],
                generator=torch.Generator().manual_seed(SCORE_SEED),
                num_samples=num_samples,
            )
            values.append(estimate.value)
            errors.append(estimate.standard_error)
            kind = estimate.kind
    return Estimate(torch.cat(values), torch.cat(errors), kind)
