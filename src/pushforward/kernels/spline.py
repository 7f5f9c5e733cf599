"""The rational-quadratic spline's fused kernel as a function with a gradient."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .build import library
from .calls import FLOAT, INT, LONG, POINTER, Formula, evenly_spaced, followed, gradients_of_formula, serves
from .chain import Map, address

_COMMON: list[Any] = [POINTER, POINTER, LONG, LONG, POINTER, LONG, LONG, FLOAT, FLOAT, INT]


def fused_spline(
    u: Tensor,
    parameters: Tensor,
    tails: Tensor,
    *,
    bins: int,
    minimum: float,
    offset: float,
    inverse: bool,
    formula: Formula,
) -> tuple[Tensor, Tensor] | None:
    """Return value and log-derivative of splines on [-1, 1] from the fused kernel; None where it does not serve.

    It serves many float32 elements on a CPU with a compiler, outside of ``torch.compile`` and ``torch.func``.

    Args:
        u: Points, ``(*batch, D)``.
        parameters: ``(*batch, D, P)``; batch dimensions broadcast.
        tails: Kind of each element's tails, int32, ``(D,)`` or of no dimension.
        bins: Number of bins.
        minimum: Smallest relative bin width, bin height and slope.
        offset: What is added to a raw slope before the softplus.
        inverse: Map back.
        formula: The same map in torch, from which a gradient of the gradient is taken.
    """
    kernel = _kernel(bins, parameters.shape[-1] != 3 * bins - 1) if serves(u, parameters) else None
    if kernel is None:
        return None
    shape = torch.broadcast_shapes(u.shape, parameters.shape[:-1])
    u, parameters = u.expand(shape), parameters.expand(*shape, parameters.shape[-1])
    call = _Call(kernel, minimum, offset, inverse, formula)
    if not torch.is_grad_enabled():
        return _map(u, parameters, tails, call)
    result: tuple[Tensor, Tensor] = _Spline.apply(u, parameters, tails, call)  # type: ignore[no-untyped-call]
    return result


class _How(ctypes.Structure):
    """``spline`` of the C source."""

    _fields_: ClassVar = [
        ("tails", POINTER), ("width", LONG), ("bound", FLOAT), ("minimum", FLOAT), ("offset", FLOAT), ("inverse", INT),
    ]  # fmt: skip


def spline_kernel(
    bins: int, parameters: int, tails: Tensor, *, bound: float, minimum: float, offset: float, inverse: bool
) -> Map | None:
    """Return the map on [-bound, bound] as part of a larger kernel, for no circle; None where there is none."""
    kernel = _kernel(bins, parameters != 3 * bins - 1)
    if kernel is None or tails.device.type != "cpu":
        return None
    how = _How(tails.data_ptr(), tails.numel(), bound, minimum, offset, inverse)
    return Map(address(kernel.spline_part), address(kernel.spline_part_gradient), how, owner=tails)


@functools.cache
def _kernel(bins: int, free_ends: bool) -> ctypes.CDLL | None:
    loaded = library("spline.c", f"BINS={bins}", *(["FREE_ENDS"] if free_ends else []))
    if loaded is not None:
        loaded.spline_map.argtypes = [*_COMMON, POINTER, POINTER]
        loaded.spline_gradient.argtypes = [*_COMMON, POINTER, POINTER, POINTER, POINTER]
        loaded.spline_map.restype = loaded.spline_gradient.restype = None
    return loaded


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call of the kernel is given beside tensors."""

    kernel: ctypes.CDLL
    minimum: float
    offset: float
    inverse: bool
    formula: Formula

    def arguments(self, u: Tensor, parameters: Tensor, tails: Tensor) -> list[int | float]:
        """Return what both functions of the kernel take first; the caller keeps the tensors alive."""
        row, stride = parameters.stride()[-2:]
        return [
            u.data_ptr(), parameters.data_ptr(), row, stride, tails.data_ptr(), tails.numel(), u.numel(),
            self.minimum, self.offset, self.inverse,
        ]  # fmt: skip


def _map(u: Tensor, parameters: Tensor, tails: Tensor, call: _Call) -> tuple[Tensor, Tensor]:
    u, parameters = u.contiguous(), evenly_spaced(parameters)
    value, log_derivative = torch.empty_like(u), torch.empty_like(u)
    call.kernel.spline_map(*call.arguments(u, parameters, tails), value.data_ptr(), log_derivative.data_ptr())
    return value, log_derivative


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, parameters: Tensor, tails: Tensor, call: _Call) -> tuple[Tensor, Tensor]:
        ctx.call = call
        value, log_derivative = _map(u, parameters, tails, call)
        ctx.save_for_backward(u, parameters, tails, value)
        return value, log_derivative

    @staticmethod
    def backward(ctx: Any, g_value: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        u, parameters, tails, value = ctx.saved_tensors
        if followed(g_value, g_log):
            found = gradients_of_formula(ctx, ctx.call.formula, (u, parameters), (g_value, g_log))
            return *found, None, None
        at_x = (value if ctx.call.inverse else u).contiguous()
        spaced = evenly_spaced(parameters)
        g_value, g_log = g_value.contiguous(), g_log.contiguous()
        g_point, g_parameters = torch.empty_like(at_x), at_x.new_empty(parameters.shape)
        ctx.call.kernel.spline_gradient(
            *ctx.call.arguments(at_x, spaced, tails),
            g_value.data_ptr(), g_log.data_ptr(), g_point.data_ptr(), g_parameters.data_ptr(),
        )  # fmt: skip
        return g_point, g_parameters, None, None
