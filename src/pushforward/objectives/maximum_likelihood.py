"""Maximum likelihood."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..flows import Flow


def negative_log_likelihood(
    flow: Flow,
    z: Tensor,
    context: Tensor | None = None,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    penalties: Mapping[str, float] | None = None,
) -> Tensor:
    r"""Return the mean negative log-likelihood of preprocessed points, in nats, with what penalties add to it.

    .. math:: L = \frac{\sum_n w_n \left(-\log p(z_n \mid c_n) + \sum_k \lambda_k q_k(z_n, c_n)\right)}{\sum_n w_n}

    A log-determinant that is estimated is so without bias, and then so is the loss.

    Args:
        flow: The flow.
        z: Preprocessed points, ``(n, *event)``.
        context: Preprocessed contexts, ``(n, *context)``; the flow's embedding is applied here.
        weights: Weights ``w``, ``(n,)``; all equal by default.
        generator: Source of the noise of an estimated log-determinant, and of the ``"jacobian"`` penalty.
        penalties: Weights :math:`\lambda` of the integrals along the paths of continuous transforms, by name:
            ``"kinetic"``, ``"jacobian"``, ``"acceleration"``.

    Returns:
        A scalar. The constant log-determinant of a standardising preprocess is not part of it.

    References:
        Finlay et al., How to train your neural ODE, 2020, eq. 10. https://arxiv.org/abs/2002.02798

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Permutation
        >>> flow = Flow(Permutation([0]), DiagonalNormal((1,)))
        >>> round(negative_log_likelihood(flow, torch.zeros(4, 1)).item(), 4)
        0.9189
    """
    context = flow.embed(context)
    if flow.transform.exact and not penalties:
        losses = -flow.log_prob_preprocessed(z, context)
    else:
        names = tuple(penalties or ())
        solution = flow.transform.solve(z, context, generator=generator, penalties=names)
        losses = -(flow.base.log_prob(solution.y, context) + solution.log_abs_det)
        for name, weight in (penalties or {}).items():
            if name not in solution.penalties:
                raise ValueError(f"penalties: {name!r} is an integral along a path, which this flow has not")
            losses = losses + weight * solution.penalties[name]
    if weights is None:
        return losses.mean()
    return (weights * losses).sum() / weights.sum()
