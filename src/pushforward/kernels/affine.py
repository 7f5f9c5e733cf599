"""The affine map's fused kernel as a function with a gradient."""

from __future__ import annotations

import ctypes
import functools
from typing import Any, ClassVar

import torch
from torch import Tensor

from .build import library
from .calls import FLOAT, INT, LONG, POINTER, Formula, evenly_spaced, followed, gradients_of_formula, serves
from .chain import Map, address

_MOST_BOUND = 80.0  # beyond, the scale may overflow, which the kernel does not follow


def fused_affine(
    x: Tensor, parameters: Tensor, *, bound: float, inverse: bool, formula: Formula
) -> tuple[Tensor, Tensor] | None:
    """Return value and log-derivative of affine maps from the fused kernel; None where it does not serve.

    Args:
        x: Points, ``(*batch, D)``.
        parameters: Shift and raw log-scale, ``(*batch, D, 2)``; batch dimensions broadcast.
        bound: Largest log-scale.
        inverse: Map back.
        formula: The same map in torch, from which a gradient of the gradient is taken.
    """
    kernel = _kernel() if bound <= _MOST_BOUND and serves(x, parameters) else None
    if kernel is None:
        return None
    shape = torch.broadcast_shapes(x.shape, parameters.shape[:-1])
    inputs = x.expand(shape), parameters.expand(*shape, 2), (kernel, (bound, inverse))
    if not torch.is_grad_enabled():
        return _map(*inputs)
    result: tuple[Tensor, Tensor] = _Affine.apply(*inputs, formula)  # type: ignore[no-untyped-call]
    return result


class _How(ctypes.Structure):
    """``affine`` of the C source."""

    _fields_: ClassVar = [("bound", FLOAT), ("inverse", INT)]


@functools.cache
def affine_kernel(bound: float, inverse: bool) -> Map | None:
    """Return the map as part of a larger kernel; None where there is none."""
    kernel = _kernel() if bound <= _MOST_BOUND else None
    if kernel is None:
        return None
    return Map(address(kernel.affine_part), address(kernel.affine_part_gradient), _How(bound, inverse))


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    loaded = library("affine.c")
    if loaded is not None:
        rest: list[Any] = [LONG, FLOAT, INT, POINTER, POINTER]
        loaded.affine_map.argtypes = [POINTER, POINTER, LONG, LONG, *rest]
        loaded.affine_gradient.argtypes = [POINTER, POINTER, *rest, POINTER, POINTER]
        loaded.affine_map.restype = loaded.affine_gradient.restype = None
    return loaded


def _map(
    x: Tensor, parameters: Tensor, call: tuple[ctypes.CDLL, tuple[float, bool]]
) -> tuple[Tensor, Tensor]:
    kernel, how = call
    x, parameters = x.contiguous(), evenly_spaced(parameters)
    value, log_derivative = torch.empty_like(x), torch.empty_like(x)
    row, stride = parameters.stride()[-2:]
    kernel.affine_map(
        x.data_ptr(), parameters.data_ptr(), row, stride, x.numel(), *how, value.data_ptr(),
        log_derivative.data_ptr(),
    )  # fmt: skip
    return value, log_derivative


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        parameters: Tensor,
        call: tuple[ctypes.CDLL, tuple[float, bool]],
        formula: Formula,
    ) -> tuple[Tensor, Tensor]:
        (ctx.kernel, ctx.how), ctx.formula = call, formula
        value, log_derivative = _map(x, parameters, call)
        ctx.save_for_backward(x, parameters, value)
        return value, log_derivative

    @staticmethod
    def backward(ctx: Any, g_value: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        x, parameters, value = ctx.saved_tensors
        rest = (None,) * 2
        if followed(g_value, g_log):
            return *gradients_of_formula(ctx, ctx.formula, (x, parameters), (g_value, g_log)), *rest
        x, parameters = (value if ctx.how[1] else x).contiguous(), parameters.contiguous()
        g_value, g_log = g_value.contiguous(), g_log.contiguous()
        g_point, g_parameters = torch.empty_like(x), torch.empty_like(parameters)
        ctx.kernel.affine_gradient(
            x.data_ptr(), parameters.data_ptr(), x.numel(), *ctx.how, g_value.data_ptr(),
            g_log.data_ptr(), g_point.data_ptr(), g_parameters.data_ptr(),
        )  # fmt: skip
        return g_point, g_parameters, *rest
