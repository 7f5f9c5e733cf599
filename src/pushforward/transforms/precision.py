"""What stays in the precision of the points where networks compute in a lower one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

Owner = TypeVar("Owner")
Direction = Callable[[Owner, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def full_precision(direction: Direction[Owner]) -> Direction[Owner]:
    """Let one direction of a transform whose own formula has matrix products take no part in ``torch.autocast``.

    Args:
        direction: ``_forward`` or ``_inverse``.

    Example:
        >>> from pushforward.transforms import LULinear
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     LULinear(2)(torch.ones(1, 2))[0].dtype
        torch.float32
    """

    @wraps(direction)
    def exact(self: Owner, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        device = points.device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return direction(self, points, context)
        with torch.autocast(device, enabled=False):
            return direction(self, points, context)

    return exact
