"""Flow matching: regression of a velocity field."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .pairing import pair
from .paths import named_path

# field(t (n,), x (n, *event), context (n, *context) or None) -> velocities (n, *event)
Field = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def flow_matching_loss(
    field: Field,
    x1: Tensor,
    x0: Tensor,
    context: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    path: str = "linear",
    pairing: str = "exact",
    drop: float = 0.0,
    late: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return the mean squared error of a velocity field along paths from base points to data points.

    .. math:: L = \frac{1}{\sum_n w_n} \sum_n \frac{w_n}{D} \|v(t_n, x_{t_n}, c_n) - u_{t_n}\|^2

    Its minimiser carries the law of ``x0`` at :math:`t = 0` to that of ``x1`` at :math:`t = 1`, given the context.
    ``x0`` may be noise or any other sample. The least value is not 0: it is the variance of the velocities at a point.

    Every row has a time :math:`t = 1 - (1 - u)^l` with ``u`` of uniform law. These are stratified in a batch, one in
    each ``n``-th of the unit interval, so that their spread adds little to that of the loss. An exponent ``late`` of
    more than 1 sees more of times near the data, where the log-density is most sensitive to the velocity.

    With ``drop``, a random share of the rows has the null context, all zeros, and the one field learns both the
    conditional and the unconditional velocity, for ``networks.Guided``. Zeros must mean nothing else: no one-hot class
    has them; a number may, and then needs a column of ones beside it.

    Args:
        field: The field, ``field(t, x, context)``, with ``t`` ``(n,)``.
        x1: Data points, ``(n, *event)``.
        x0: Base points, ``(n, *event)``.
        context: Contexts, ``(n, *context)``.
        weights: Weights ``w``, ``(n,)``; all equal by default. All pairings but ``"given"`` resample by them.
        path: A name of ``PATHS``.
        pairing: A name of ``PAIRINGS``, see ``pair``.
        drop: Probability of the null context, at least 0 and less than 1.
        late: The exponent ``l``, at least 1.
        generator: Source of randomness on the device of ``x1``; None: torch's own.

    Returns:
        A scalar.

    Raises:
        ValueError: An argument that does not fit, or a field that does not return the shape of ``x1``.

    References:
        Lipman et al., Flow Matching for Generative Modeling, ICLR 2023, eq. 9. https://arxiv.org/abs/2210.02747
        Ho, Salimans, Classifier-Free Diffusion Guidance, 2022, algorithm 1. https://arxiv.org/abs/2207.12598

    Example:
        >>> import torch
        >>> def ahead(t, x, context):
        ...     return torch.full_like(x, 3.0)
        >>> x0 = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
        >>> flow_matching_loss(ahead, x0 + 2, x0).item()
        1.0
    """
    along = named_path(path)
    if not 0 <= drop < 1:
        raise ValueError(f"drop must be at least 0 and less than 1, got {drop}")
    if not 1 <= late < float("inf"):
        raise ValueError(f"late must be at least 1 and finite, got {late}")
    if drop and context is None:
        raise ValueError(f"context is needed for drop {drop}, got None")
    x0, x1, context, weights = pair(x0, x1, context, weights, pairing=pairing, generator=generator)
    if drop and context is not None:
        dropped = torch.rand(len(x1), device=x1.device, generator=generator) < drop
        context = context.masked_fill(dropped.reshape(-1, *(1,) * (context.ndim - 1)), 0)
    t = 1 - (1 - _stratified(x1, generator)) ** late
    v = field(t, along.point(t, x0, x1), context)
    if v.shape != x1.shape:
        raise ValueError(f"field must return the shape of x1, {tuple(x1.shape)}, got {tuple(v.shape)}")
    each = (v - along.velocity(t, x0, x1)).square().reshape(len(x1), -1).mean(1)
    return each.mean() if weights is None else (weights * each).sum() / weights.sum()


@torch.no_grad()
def reflow_pairs(
    transport: Callable[[Tensor, Tensor | None], Tensor],
    x0: Tensor,
    context: Tensor | None = None,
    *,
    chunk: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Return the pairs of base points and of where a trained flow carries them.

    A field that is trained on them, ``flow_matching_loss(..., pairing="given")``, has straighter paths to the same
    law, which fewer steps of a solver follow. The contexts go into that training again, row by row.

    Args:
        transport: Solves the trained flow from :math:`t = 0` to 1: takes base points, ``(k, *event)``, and contexts,
            ``(k, *context)`` or None, to points of the same shape.
        x0: Base points, ``(n, *event)``.
        context: Contexts, ``(n, *context)``.
        chunk: Most rows to carry at once.

    Returns:
        ``x0`` and ``x1``, of the same shape.

    Raises:
        ValueError: A chunk of less than 1, contexts of another number than ``x0``, or a ``transport`` that changes the
            shape.

    References:
        Liu et al., Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow, ICLR 2023,
        algorithm 1. https://arxiv.org/abs/2209.03003

    Example:
        >>> import torch
        >>> x0, x1 = reflow_pairs(lambda x, context: 2 * x, torch.tensor([[1.0], [2.0], [3.0]]), chunk=2)
        >>> x1.flatten()
        tensor([2., 4., 6.])
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    if context is not None and len(context) != len(x0):
        raise ValueError(
            f"context must have a row for each of the {len(x0)} of x0, got {tuple(context.shape)}"
        )
    x1 = torch.empty_like(x0)
    for start in range(0, len(x0), chunk):
        rows = slice(start, start + chunk)
        moved = transport(x0[rows], None if context is None else context[rows])
        if moved.shape != x0[rows].shape:
            raise ValueError(
                f"transport must return the shape it is given, {tuple(x0[rows].shape)}, got {tuple(moved.shape)}"
            )
        x1[rows] = moved
    return x0, x1


def _stratified(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a number for each row, one in each ``n``-th of the unit interval, in random order."""
    n = len(x)
    cells = torch.randperm(n, device=x.device, generator=generator)
    return (cells + torch.rand(n, dtype=x.dtype, device=x.device, generator=generator)) / n
