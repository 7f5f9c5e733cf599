"""Noise on the points of a training, against spikes and learning by heart."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..flows import Flow
from .objective import MAXIMUM_LIKELIHOOD, Loss, Objective


def with_noise(objective: Objective, noise: float) -> Objective:
    r"""Return an objective that is trained on points with normal noise, and validated as it was.

    .. math:: L(z + \sigma \varepsilon), \qquad \varepsilon \sim N(0, I) \text{ drawn anew in every step}

    Args:
        objective: What is minimised.
        noise: The standard deviation :math:`\sigma`, in preprocessed space.

    References:
        Rothfuss et al., Noise Regularization for Conditional Density Estimation, 2019, section 4.
        https://arxiv.org/abs/1907.08982

    Example:
        >>> with_noise(MAXIMUM_LIKELIHOOD, 0.1).noisy
        True
    """
    return replace(objective, loss=_on_noisy_points(objective.loss, noise), noisy=True)


def smoothed_likelihood_objective(noise: float) -> Objective:
    r"""Return the objective of a density that is smoothed by a normal kernel, in preprocessed space.

    .. math:: L = \frac{1}{\sum_n w_n} \sum_n -w_n \log p(z_n + \sigma \varepsilon_n \mid c_n), \qquad
              \varepsilon_n \sim N(0, I)

    Its minimiser over all densities is :math:`p_\sigma = p_\text{data} * N(0, \sigma^2 I)`. Of ``N`` rows that is the
    kernel density estimate of bandwidth :math:`\sigma`; a flow that cannot follow each row generalises further. Other
    noise comes with every step, so that few rows are not learned by heart and values that repeat get no spikes.

    Args:
        noise: The standard deviation :math:`\sigma`, where 1 is that of a column after standardising.

    Returns:
        The objective; losses are in nats, and the flow itself is the smoothed density.

    Raises:
        ValueError: Noise that is not positive and finite.

    References:
        Vincent, A Connection Between Score Matching and Denoising Autoencoders, 2011, section 4.1 (the Parzen density
        :math:`q_\sigma`). https://doi.org/10.1162/NECO_a_00142

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Permutation
        >>> flow, z = Flow(Permutation([0]), DiagonalNormal((1,))), torch.zeros(100_000, 1)
        >>> objective = smoothed_likelihood_objective(2.0)
        >>> loss = objective.loss(flow, z, None, None, torch.Generator().manual_seed(0))
        >>> round(loss.item(), 1)  # log(2 pi) / 2 + 2 ** 2 / 2
        2.9
    """
    if not 0 < noise < math.inf:
        raise ValueError(f"noise must be positive and finite, got {noise}")
    loss = _on_noisy_points(MAXIMUM_LIKELIHOOD.loss, noise)
    return Objective(loss, loss, noisy=True, bounded=True)


def _on_noisy_points(loss: Loss, noise: float) -> Loss:
    def noisy(
        flow: Flow,
        z: Tensor,
        context: Tensor | None,
        weights: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        drawn = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        return loss(flow, z + noise * drawn, context, weights, generator)

    return noisy
