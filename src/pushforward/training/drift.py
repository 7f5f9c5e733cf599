"""Training with memory that does not grow with depth, and whether the layers give their inputs back."""

from __future__ import annotations

import torch
from torch import Tensor

from ..flows import Flow, with_transform
from ..transforms.recomputed import recomputed
from ..transforms.walk import named, walk


def with_constant_memory(flow: Flow) -> Flow:
    """Return the same flow, made of the same modules, whose backward pass recomputes what it needs.

    Args:
        flow: The flow.
    """
    return with_transform(flow, recomputed(flow.transform))


def find_drift(flow: Flow, z: Tensor, context: Tensor | None = None) -> str | None:
    r"""Compare the points that training with constant memory recovers between the layers with those that were there.

    Rounding adds up from the last layer to the first. Of the points :math:`X` before each layer and the recovered ones
    :math:`\hat X`, :math:`\|\hat X - X\| \le \epsilon^{2/3} \|X\|` is asked for, with :math:`\epsilon` the rounding of
    the dtype: two thirds of the digits must be right, an error of 2.4e-05 in float32. Gradients are off by about as
    little, save where a unit of a network stands so near to its kink that rounding turns it in any case.

    Args:
        flow: The flow.
        z: Preprocessed points, ``(n, *event)``.
        context: Preprocessed contexts, ``(n, *context)``.

    Returns:
        In words, which layer is the first, seen from the base, that does not give its input back; None where all do,
        or where not even the way forward is finite.

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import ActNorm, Chain
        >>> flow = Flow(Chain([ActNorm(1), ActNorm(1)]), DiagonalNormal((1,)))
        >>> find_drift(flow, torch.tensor([[1.0], [2.0]]))
        >>> _ = torch.nn.init.constant_(flow.transform.transforms[1].loc, 1e6)
        >>> print(find_drift(flow, torch.tensor([[1.0], [2.1]])))
        memory='constant' recovers ... transform.transforms[1] (ActNorm) ... relative error of 0.011, ...
    """
    tolerance = torch.finfo(z.dtype).eps ** (2 / 3)
    parts = walk(flow.transform)
    with torch.no_grad():
        context = flow.embed(context)
        inputs = [z]
        for _, part in parts:
            inputs.append(part.forward(inputs[-1], context)[0])
        if not bool(torch.isfinite(inputs[-1]).all()):
            return None
        found = inputs[-1]
        for x, (path, part) in zip(reversed(inputs[:-1]), reversed(parts), strict=True):
            found = part.inverse(found, context)[0] if part.reversible else x
            error = ((found - x).norm() / x.norm().clamp(min=torch.finfo(x.dtype).tiny)).item()
            if not error <= tolerance:
                digits = str(z.dtype).removeprefix("torch.")
                return (
                    "memory='constant' recovers the input of each layer from its output, which is not accurate enough "
                    f"for this flow: before {named(path, part)} the points come back with a relative error of "
                    f"{error:.2g}, and {tolerance:.2g}, two thirds of the digits of {digits}, are allowed. "
                    "Set memory='ordinary', or train in float64."
                )
    return None
