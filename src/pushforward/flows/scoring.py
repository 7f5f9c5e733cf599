"""Log-densities of many points in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from .flow import Estimate, Flow

SCORE_SEED = 0
SCORE_SAMPLES = 16
_CHUNK_ROWS = 8192


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
        for start in range(0, max(len(x), 1), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
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
