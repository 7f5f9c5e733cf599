"""Maximum likelihood of points with noise: a density that is smooth by construction."""

from __future__ import annotations

import math
from dataclasses import replace

from .objective import MAXIMUM_LIKELIHOOD, Objective


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
        Rothfuss et al., Noise Regularization for Conditional Density Estimation, 2019, section 4.
        https://arxiv.org/abs/1907.08982

    Example:
        >>> smoothed_likelihood_objective(2.0).noise
        2.0
    """
    if not 0 < noise < math.inf:
        raise ValueError(f"noise must be positive and finite, got {noise}")
    return replace(MAXIMUM_LIKELIHOOD, noise=noise, smoothed=True, bounded=True)
