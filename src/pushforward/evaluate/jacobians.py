"""Jacobians by automatic differentiation, and by how much a map stretches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..transforms import Transform

Direction = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]

_MOST_COPIES = 2048
_STEP = 1e-5


def jacobian(
    direction: Direction,
    x: Tensor,
    context: Tensor | None,
    *,
    context_dims: int = 1,
    piece: int | None = None,
) -> Tensor:
    r"""Return the Jacobians :math:`\partial y_i / \partial x_j` of a map at points that do not see each other.

    Each point is copied once for each output, so that one backward pass gives all rows of its matrix.

    Args:
        direction: ``forward`` or ``inverse`` of a transform.
        x: Points, ``(n, *event)``.
        context: Their contexts, ``(n, *context)``, one context for all, or None.
        context_dims: Number of dimensions of one context.
        piece: Differentiate so many outputs of one point at a time, where all of them would take too much memory.

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
        outputs = direction(x[:1], _rows(context, len(x), slice(0, 1), context_dims))[0].numel()
    if piece is not None and piece < outputs:
        return torch.stack(
            [
                _in_pieces(
                    direction, x[i : i + 1], _rows(context, len(x), slice(i, i + 1), context_dims), piece
                )
                for i in range(len(x))
            ]
        )
    rows = max(1, _MOST_COPIES // outputs)
    parts = []
    for start in range(0, len(x), rows):
        some = x[start : start + rows]
        given = _rows(context, len(x), slice(start, start + rows), context_dims)
        copied = some.detach().repeat_interleave(outputs, 0).requires_grad_()
        with torch.enable_grad():
            y = direction(copied, None if given is None else given.repeat_interleave(outputs, 0))[0]
            unit = torch.eye(outputs, dtype=y.dtype, device=y.device).repeat(len(some), 1).reshape(y.shape)
            (gradient,) = torch.autograd.grad(y, copied, unit)
        parts.append(gradient.reshape(len(some), outputs, -1))
    return torch.cat(parts)


def _in_pieces(direction: Direction, x: Tensor, context: Tensor | None, piece: int) -> Tensor:
    """Return the Jacobian at one point, some of its rows at a time: what was computed once serves all of them."""
    copied = x.detach().expand(piece, *x.shape[1:]).clone().requires_grad_()
    with torch.enable_grad():
        y = direction(copied, None if context is None else context.expand(piece, *context.shape[1:]))[0]
    outputs = y[0].numel()
    parts = []
    for start in range(0, outputs, piece):
        unit = torch.zeros((piece, outputs), dtype=y.dtype, device=y.device)
        rows = torch.arange(min(piece, outputs - start))
        unit[rows, start + rows] = 1.0
        (gradient,) = torch.autograd.grad(y, copied, unit.reshape(y.shape), retain_graph=True)
        parts.append(gradient.reshape(piece, -1)[: len(rows)])
    return torch.cat(parts)


def strongest(
    direction: Direction,
    x: Tensor,
    context: Tensor | None,
    *,
    iterations: int,
    generator: torch.Generator,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return by how much a map stretches a small difference, and the difference that it stretches so.

    Power iteration on :math:`A = \operatorname{diag}(b)^{-1} J \operatorname{diag}(a)`, with :math:`J v` by central
    differences and :math:`J^T u` by autograd. Every :math:`|A v|` is a bound of :math:`\|A\|_2` from below, up to the
    error of the differences, and they grow towards it.

    Args:
        direction: ``forward`` or ``inverse`` of a transform, float64.
        x: Points, ``(n, *event)``.
        context: Their contexts, ``(n, *context)``, or None.
        iterations: Number of iterations.
        generator: Source of the differences to begin with.
        before: Units ``a`` of the inputs, laid flat, ``(D,)``; 1 by default.
        after: Units ``b`` of the outputs.

    Returns:
        The stretches ``(n,)``, NaN where the map is not finite, and unit vectors ``v (n, D)`` in the units ``a``.

    Example:
        >>> from pushforward.transforms import Standardise
        >>> t = Standardise(2)
        >>> _ = t.initialize(torch.tensor([[0.0, 0.0], [8.0, 2.0]], dtype=torch.float64))
        >>> generator, x = torch.Generator().manual_seed(0), torch.zeros(1, 2, dtype=torch.float64)
        >>> stretch, v = strongest(t.inverse, x, None, iterations=20, generator=generator)
        >>> round(stretch.item(), 6), round(v[0, 0].abs().item(), 6)
        (4.0, 1.0)
    """
    n = len(x)
    v = _unit(torch.randn((n, x[0].numel() if n else 1), generator=generator, dtype=torch.float64))
    if n == 0:
        return v.new_zeros(0), v
    a = v.new_ones(()) if before is None else before
    inner = x.detach().requires_grad_()
    with torch.enable_grad():
        y = direction(inner, context)[0]
    b = v.new_ones(()) if after is None else after
    stretch, best = v.new_zeros(n), v
    for _ in range(iterations):
        u = pushed(direction, x, context, a * v) / b
        size = u.norm(dim=1)
        better = (size > stretch) | ~size.isfinite()
        stretch, best = torch.where(better, size, stretch), torch.where(better[:, None], v, best)
        (back,) = torch.autograd.grad(y, inner, (u / b).reshape(y.shape), retain_graph=True)
        v = _unit(back.flatten(1) * a)
    return stretch.where(stretch.isfinite(), torch.nan), best


def pushed(direction: Direction, x: Tensor, context: Tensor | None, v: Tensor) -> Tensor:
    """Return the derivatives ``J v`` of a map along ``v (n, D)``, laid flat, by central differences in float64."""
    size = v.norm(dim=1, keepdim=True)
    step = (_STEP * v / size.clamp(min=torch.finfo(v.dtype).tiny)).reshape(x.shape)
    with torch.no_grad():
        ahead, behind = (direction(x + sign * step, context)[0].flatten(1) for sign in (1.0, -1.0))
    derivative: Tensor = (ahead - behind) * (size / (2.0 * _STEP))
    return derivative


def _unit(vectors: Tensor) -> Tensor:
    sizes: Tensor = vectors.norm(dim=1, keepdim=True)
    return vectors / sizes.clamp(min=torch.finfo(vectors.dtype).tiny)


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
    dims = len(transform.context_shape or (1,))
    inverse = jacobian(transform.inverse, y, context, context_dims=dims)
    forward = jacobian(transform.forward, x, context, context_dims=dims)
    to_data, to_latent = (torch.linalg.matrix_norm(m, 2).clamp(min=1.0) for m in (inverse, forward))
    return to_data, to_latent


def _rows(context: Tensor | None, count: int, rows: slice, dims: int) -> Tensor | None:
    """Return the contexts of some of the points, one for each."""
    if context is None:
        return None
    if context.ndim <= dims or len(context) != count:
        context = context.expand(count, *context.shape[context.ndim - dims :])
    return context[rows]
