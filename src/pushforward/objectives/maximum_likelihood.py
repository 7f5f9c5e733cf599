"""Maximum likelihood."""

from __future__ import annotations

from torch import Tensor

from ..flows import Flow


def negative_log_likelihood(
    flow: Flow, z: Tensor, context: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    r"""Return the mean negative log-likelihood of preprocessed points, in nats.

    .. math:: L = -\frac{\sum_n w_n \log p(z_n \mid c_n)}{\sum_n w_n}

    Args:
        flow: The flow.
        z: Preprocessed points, ``(n, *event)``.
        context: Preprocessed contexts, ``(n, *context)``; the flow's embedding is applied here.
        weights: Weights ``w``, ``(n,)``; all equal by default.

    Returns:
        A scalar. The constant log-determinant of a standardising preprocess is not part of it.

    Example:
        >>> import torch
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Permutation
        >>> flow = Flow(Permutation([0]), DiagonalNormal((1,)))
        >>> round(negative_log_likelihood(flow, torch.zeros(4, 1)).item(), 4)
        0.9189
    """
    log_prob = flow.log_prob_preprocessed(z, flow.embed(context))
    if weights is None:
        return -log_prob.mean()
    return -(weights * log_prob).sum() / weights.sum()
