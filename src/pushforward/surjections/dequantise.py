"""Discrete columns as continuous ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Surjection


class Dequantise(Surjection):
    r"""Uniform dequantisation, :math:`z_i = x_i + \delta_i u_i` with :math:`u_i \sim U[0, 1)`.

    The column has step :math:`\delta_i`; a continuous column (step 0) passes unchanged.

    The likelihood is :math:`p(x) = E_u[p(x + \delta u)]`, with respect to steps times counting measure: for integers it
    is the probability of the value, in general a density in the units of the data. Without the noise a density could
    grow without bound on values that repeat.

    Args:
        steps: Spacing of the values of each column, 0 where it is continuous.

    References:
        Theis et al., A note on the evaluation of generative models, 2016, section 3.1. https://arxiv.org/abs/1511.01844

    Example:
        >>> surjection = Dequantise([1.0, 0.0])
        >>> z, log_weight = surjection.encode(torch.tensor([[2.0, 0.5]]), generator=torch.Generator().manual_seed(0))
        >>> surjection.decode(z)
        tensor([[2.0000, 0.5000]])
    """

    steps: Tensor

    def __init__(self, steps: Sequence[float]) -> None:
        super().__init__()
        values = torch.as_tensor(list(steps), dtype=torch.float64)
        if bool((values < 0).any()):
            raise ValueError(f"steps must not be negative, got {values.tolist()}")
        self.register_buffer("steps", values)

    def encode(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Add noise within the cell of each discrete value; the log-weight is 0."""
        shape = x.shape[-1:] if shared else x.shape
        noise = torch.rand(shape, dtype=x.dtype, generator=generator)
        steps = self.steps.to(x.dtype)
        z = x + steps * noise
        # Rounding may lift a large value with noise near 1 into the next cell.
        return torch.where(z < x + steps, z, x), x.new_zeros(x.shape[:-1])

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Round down to the grid of each discrete column."""
        steps = torch.where(self.steps > 0, self.steps, 1.0).to(z.dtype)
        cell = torch.floor(z / steps + 1e-9)  # a value on the grid may divide to just below a whole number
        per_unit = torch.round(1.0 / steps).clamp(min=1.0)
        value = torch.where(steps < 1.0, cell / per_unit, cell * steps)
        return torch.where(self.steps > 0, value, z)
