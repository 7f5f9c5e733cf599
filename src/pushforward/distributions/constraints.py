"""Parametrisations that keep a learned value inside its domain, and checks of the starting value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The square of exp(20) x is finite in float32 up to x = 1e10.
LOG_SCALE_BOUND = 20.0


def bounded_log_scale(raw: Tensor) -> Tensor:
    r"""Return :math:`B \tanh(r / B)`: close to ``raw`` where it is small, never beyond the bound ``B``."""
    return LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND)


def inverse_softplus(y: Tensor) -> Tensor:
    r"""Return :math:`\log(e^y - 1)`, which softplus maps to ``y > 0``."""
    return y + torch.log(-torch.expm1(-y))


def check_values(owner: str, name: str, value: Tensor, expected: str, valid: Tensor) -> None:
    """Refuse a starting value of an integer dtype or with an element that is not ``valid``."""
    if not value.is_floating_point():
        raise ValueError(f"{owner}: {name} must be of a floating dtype, got {value.dtype}")
    if not bool(valid.all()):
        raise ValueError(f"{owner}: {name} must be {expected}, got {value.tolist()}")


def register(module: nn.Module, name: str, value: Tensor, *, trainable: bool) -> None:
    """Give a module a copy of ``value``, as a parameter or as a buffer."""
    value = value.detach().clone(memory_format=torch.contiguous_format)
    if trainable:
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)
