"""Roots of increasing functions: one solver for every map whose inverse has no formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_NEWTON_STEPS = 3


def solve_monotone(
    function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor
) -> Tensor:
    r"""Solve :math:`f(t; \theta) = 0` for increasing ``f``, element by element, in a known bracket.

    Bisection halves the bracket once for every bit of the dtype (53 times in float64, 24 in float32); three
    Newton steps that cannot leave what is left of it then sharpen roots much smaller than the bracket was. The
    count is fixed, so nothing waits for the device and the loop compiles into one graph; and under a fixed
    count no method has a better worst case than bisection. Guaranteed for any increasing ``f``:

    .. math::
        |t - t^*| \le \frac{\epsilon}{2}\, (\text{upper} - \text{lower}) + \epsilon |t^*| + \delta f / f'(t^*),

    where the last term is what the rounding :math:`\delta f` of the values of ``f`` makes unavoidable.

    The gradient is that of the implicit function theorem, :math:`\partial t / \partial\theta = -f_\theta / f'`.
    The search is not recorded; two Newton steps :math:`N(t, \theta) = t - f / f'` are, with their value taken
    off. As a function of :math:`\theta` the constant found by the search is right to order 0, that is, wrong
    by :math:`O(\delta\theta)`. A Newton step squares this error: one leaves :math:`O(\delta\theta^2)`, two
    leave :math:`O(\delta\theta^4)`, so first, second and third derivatives are exact. It is plain arithmetic,
    in which autograd, ``torch.func`` and ``torch.compile`` need no help.

    Args:
        function: ``f``, increasing, elementwise; whatever it needs of :math:`\theta` it closes over.
        derivative: ``f'``, positive at the root.
        lower: Lower ends of the brackets, of the shape of the roots or broadcasting to it.
        upper: Upper ends, likewise; their dtype sets the number of steps.

    Returns:
        The roots, ``t``; NaN where ``f`` or the bracket is NaN.

    Example:
        >>> import torch
        >>> a = torch.tensor(2.0, requires_grad=True)
        >>> log_a = solve_monotone(lambda t: t.exp() - a, torch.exp, torch.tensor(-9.0), torch.tensor(9.0))
        >>> log_a.backward()
        >>> round(log_a.item(), 4), round(a.grad.item(), 4)
        (0.6931, 0.5)
    """
    halvings = 1 - round(math.log2(torch.finfo(upper.dtype).eps))
    with torch.no_grad():
        for _ in range(halvings):
            middle = torch.lerp(lower, upper, 0.5)
            below = function(middle) < 0
            lower = torch.where(below, middle, lower)
            upper = torch.where(below, upper, middle)
        root = torch.lerp(lower, upper, 0.5)
        for _ in range(_NEWTON_STEPS):
            root = (root - function(root) / derivative(root)).clamp(lower, upper)
    root = root.detach()  # no_grad does not stop forward-mode derivatives
    for _ in range(2):
        step = function(root) / derivative(root)
        root = root - (step - step.detach())
    return root
