"""Jacobians by automatic differentiation, and by how much a map stretches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..transforms import Transform

Direction = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]

_MOST_COPIES = 2048


def jacobian(direction: Direction, x: Tensor, context: Tensor | None) -> Tensor:
    r"""Return the Jacobians :math:`\partial y_i / \partial x_j` of a map at points that do not see each other.

    Each point is copied once for each output, so that one backward pass gives all rows of its matrix.

    Args:
        direction: ``forward`` or ``inverse`` of a transform.
        x: Points, ``(n, *event)``.
        context: Their contexts, ``(n, *context)``, one context for all, or None.

    Returns:
        Matrices, ``(n, outputs, inputs)``, of events laid flat.

    Example:
        >>> from pushforward.transforms import Affine, Elementwise
        >>> jacobian(Elementwise(Affine(), (2,)).forward, torch.zeros(1, 2), None)
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    if len(x) == 0:
        width = x[0:0].reshape(0, -1).shape[1] if x.ndim > 1 else 1
        return x.new_zeros((0, width, width))
    with torch.no_grad():
        outputs = direction(x[:1], _rows(context, len(x), slice(0, 1)))[0].numel()
    rows = max(1, _MOST_COPIES // outputs)
    parts = []
    for start in range(0, len(x), rows):
        piece = x[start : start + rows]
        given = _rows(context, len(x), slice(start, start + rows))
        copied = piece.detach().repeat_interleave(outputs, 0).requires_grad_()
        with torch.enable_grad():
            y = direction(copied, None if given is None else given.repeat_interleave(outputs, 0))[0]
            unit = torch.eye(outputs, dtype=y.dtype, device=y.device).repeat(len(piece), 1).reshape(y.shape)
            (gradient,) = torch.autograd.grad(y, copied, unit)
        parts.append(gradient.reshape(len(piece), outputs, -1))
    return torch.cat(parts)


def largest_singular_value(matrices: Tensor) -> Tensor:
    """Return the largest singular values ``(n,)`` of matrices ``(n, i, j)``; NaN where an entry is not finite."""
    finite = matrices.isfinite().flatten(1).all(1)
    safe = matrices.where(finite[:, None, None], 0.0)
    norm: Tensor = torch.linalg.matrix_norm(safe, 2)
    return norm.where(finite, torch.nan)


def local_lipschitz(transform: Transform, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Return by how much the inverse, and the forward map, stretch a small difference at ``x`` at most.

    These are :math:`\max(1, \|J_{f^{-1}}(f(x))\|_2)` and :math:`\max(1, \|J_f(x)\|_2)`: rounding at the end of a
    computation is not undone by a map that shrinks.

    Args:
        transform: The map.
        x: Points, ``(n, *event)``.
        context: Their contexts.

    Returns:
        The two stretches, ``(n,)`` each.

    Example:
        >>> from pushforward.transforms import Standardise
        >>> t = Standardise(2)
        >>> _ = t.initialize(torch.tensor([[0.0, 0.0], [8.0, 2.0]], dtype=torch.float64))
        >>> [round(s.item(), 6) for s in local_lipschitz(t, torch.zeros(1, 2, dtype=torch.float64), None)]
        [4.0, 1.0]
    """
    with torch.no_grad():
        y = transform(x, context)[0]
    inverse, forward = jacobian(transform.inverse, y, context), jacobian(transform.forward, x, context)
    to_data, to_latent = (torch.linalg.matrix_norm(m, 2).clamp(min=1.0) for m in (inverse, forward))
    return to_data, to_latent


def _rows(context: Tensor | None, count: int, rows: slice) -> Tensor | None:
    """Return the contexts of some of the points, one for each."""
    if context is None:
        return None
    if context.ndim < 2 or len(context) != count:
        context = context.expand(count, *context.shape[-1:])
    return context[rows]
