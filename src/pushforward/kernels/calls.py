"""What the fused kernels share: when they serve, and the gradient of their gradient."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .tracing import traced

Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
POINTER, LONG, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float
_PLAIN = frozenset([Tensor, torch.nn.Parameter])
_LEAST = 128  # below so many elements torch's own calls are as fast


def plain(x: Tensor) -> bool:
    """Return whether a tensor is float32 numbers in the memory of the CPU, as they stand."""
    return x.dtype is torch.float32 and x.is_cpu and type(x) in _PLAIN and not x.is_neg()


def serves(x: Tensor, *others: Tensor) -> bool:
    """Return whether a kernel may compute with these: many numbers, that nobody follows."""
    return not traced() and x.numel() >= _LEAST and plain(x) and all(map(plain, others))


def evenly_spaced(parameters: Tensor) -> Tensor:
    """Return the parameters such that there is one distance from element to element."""
    if parameters.ndim > 2 and parameters.shape[-2] == 1:
        # One element of many points, as an autoregressive inverse finds it.
        parameters = parameters.squeeze(-2)
    if parameters.ndim == 2 and parameters.stride(0) > 0:
        return parameters
    # As a matrix: what counts as contiguous may have any stride where there is one entry.
    return parameters.reshape(-1, parameters.shape[-1]).contiguous()


def followed(*gradients: Tensor) -> bool:
    """Return whether a backward pass is itself followed, for its gradient, or is that of many gradients at once."""
    return torch.is_grad_enabled() or traced() or not all(map(torch._C._has_storage, gradients))


def gradients_of_formula(
    ctx: Any,
    formula: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    gradients: Sequence[Tensor],
) -> list[Tensor | None]:
    """Return the gradients of a function's first arguments by its formula in torch, which can be followed.

    Args:
        ctx: Of the function that goes backward.
        formula: The same function in torch.
        inputs: Its first arguments, None where there is no tensor.
        gradients: Of what it returns.
    """
    needed = ctx.needs_input_grad[: len(inputs)]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that one argument that was computed from another counts for itself alone.
        fresh = [t if t is None else t.view_as(t) for t in inputs]
        values = formula(*fresh)
        wanted = [t for t, need in zip(fresh, needed, strict=True) if need and t is not None]
        found = iter(
            torch.autograd.grad(values, wanted, gradients, create_graph=again, materialize_grads=True)
        )
    return [next(found) if need else None for need in needed]
