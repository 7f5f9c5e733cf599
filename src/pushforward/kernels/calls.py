"""What the fused kernels share: when they serve, and the gradient of their gradient."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .tracing import traced

Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
POINTER, LONG, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float
_LEAST = 128  # below so many elements torch's own calls are as fast


def serves(x: Tensor, parameters: Tensor) -> bool:
    """Return whether a kernel may compute these: many float32 elements on a CPU, that nobody follows."""
    return (
        x.numel() >= _LEAST
        and x.dtype == parameters.dtype == torch.float32
        and x.device.type == parameters.device.type == "cpu"
        and not traced()
    )


def evenly_spaced(parameters: Tensor) -> Tensor:
    """Return the parameters such that there is one distance from element to element."""
    if parameters.ndim > 2 and parameters.shape[-2] == 1:
        parameters = parameters.squeeze(
            -2
        )  # one element of many points, as an autoregressive inverse finds it
    return parameters if parameters.ndim == 2 and parameters.stride(0) > 0 else parameters.contiguous()


def gradient_of_formula(
    ctx: Any, formula: Formula, inputs: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of point and parameters by the formula in torch, for who wants their gradients in turn."""
    needed = ctx.needs_input_grad[:2]
    wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(formula(*inputs), wanted, gradients, create_graph=True))
    of_x, of_parameters = (next(found) if need else None for need in needed)
    return of_x, of_parameters
