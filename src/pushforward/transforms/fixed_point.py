"""The inverse of an autoregressive map as a fixed point: all elements at once, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Where an inverse has so many elements, element after element takes the time of more sweeps than this. In float64 on
# the CPU more of them are needed, and each takes longer, than that saves.
_ELEMENTS, _SWEEPS = 128, 11
_ROUNDING = 8  # units of the last place within which nothing moves any more


def pays(y: Tensor) -> bool:
    """Return whether a fixed point is worth trying for such points before going from element to element."""
    slow = y.is_cpu and y.dtype is torch.float64
    return y.shape[-1] >= _ELEMENTS and y.numel() > 0 and not slow


def fixed_point(
    sweep: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor
) -> tuple[Tensor, Tensor] | None:
    r"""Return the fixed point of :math:`x \leftarrow f^{-1}(y; g(x))` to rounding; None where it takes too many sweeps.

    Since :math:`g_i` sees elements before ``i`` alone, the first ``k`` elements are exact after ``k`` sweeps, whatever
    the start; where elements depend on each other weakly, all are much sooner. It is given up as soon as the pace of
    the last two sweeps promises no end within the sweeps that pay.

    Args:
        sweep: From a point to the next, and to what it gives beside it.
        start: Where to begin, ``(*batch, D)``.

    References:
        Song et al., Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving, 2021, algorithm 1.
        https://arxiv.org/abs/2002.03629

    Example:
        >>> x, beside = fixed_point(lambda x: (1.0 + 0.01 * x.roll(1) * torch.tensor([0.0, 1.0]), x), torch.zeros(2))
        >>> x
        tensor([1.0000, 1.0100])
    """
    x, before, enough = start, math.inf, _ROUNDING * torch.finfo(start.dtype).eps
    for done in range(1, _SWEEPS + 1):
        new, beside = sweep(x)
        moved = float(((new - x).abs() / (1.0 + new.abs())).amax())
        if moved <= enough:
            return new, beside
        if done > 2:
            if not moved < before:
                return None
            if done + math.log(enough / moved) / math.log(moved / before) > _SWEEPS:
                return None
        x, before = new, moved
    return None
