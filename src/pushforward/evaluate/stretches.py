"""By how much a map stretches small differences, where Jacobians are too large to be written down."""

from __future__ import annotations

import torch
from torch import Tensor

from .jacobians import Direction

_STEP = 1e-6


def largest_stretch(
    direction: Direction,
    x: Tensor,
    context: Tensor | None = None,
    *,
    iterations: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return estimates from below of the largest singular values of a map's Jacobians.

    Power iteration: :math:`u = J v`, :math:`v \leftarrow J^T u/|J^T u|`, with :math:`J v` by differences and
    :math:`J^T u` by autograd. Every :math:`|J v|` is a lower bound of the largest singular value :math:`\|J\|_2`, up
    to the error of the differences, and it grows towards it.

    Args:
        direction: ``forward`` or ``inverse`` of a transform, in double precision.
        x: Points, float64 ``(n, *event)``.
        context: Their contexts, ``(n, *context)``, or None.
        iterations: Number of iterations.
        generator: Source of the vectors to begin with.

    Returns:
        The estimates, ``(n,)``; NaN where the map is not finite.

    Raises:
        ValueError: Points of another dtype, or fewer than 1 iteration.

    Example:
        >>> from pushforward.transforms import LULinear
        >>> t = LULinear(3).double()
        >>> with torch.no_grad():
        ...     matrix = t(torch.eye(3, dtype=torch.float64))[0] - t(torch.zeros(3, 3, dtype=torch.float64))[0]
        >>> found = largest_stretch(t.forward, torch.zeros(1, 3, dtype=torch.float64), iterations=100)
        >>> bool((found - torch.linalg.matrix_norm(matrix, 2)).abs() < 1e-6)
        True
    """
    if x.dtype != torch.float64:
        raise ValueError(f"x must be float64, for differences lose half of the digits; got {x.dtype}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if len(x) == 0:
        return x.new_zeros(0)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    v = _unit(torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device))
    inner = x.detach().requires_grad_()
    with torch.enable_grad():
        y = direction(inner, context)[0]
    stretch = x.new_zeros(len(x))
    for _ in range(iterations):
        with torch.no_grad():
            u = (direction(x + _STEP * v, context)[0] - y) / _STEP
        size = u.flatten(1).norm(dim=1)
        # Not torch.maximum with an older bound of NaN: what is not finite is said.
        stretch = torch.where(size.isfinite(), torch.maximum(stretch, size), torch.nan)
        (back,) = torch.autograd.grad(y, inner, u, retain_graph=True)
        v = _unit(back)
    return stretch


def _unit(vectors: Tensor) -> Tensor:
    sizes = vectors.flatten(1).norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
    unit: Tensor = vectors / sizes.reshape(-1, *(1,) * (vectors.ndim - 1))
    return unit
