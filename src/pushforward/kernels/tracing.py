"""Whether somebody follows every operation."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def traced() -> bool:
    """Return whether a compiler, a transform of ``torch.func`` or forward-mode differentiation follows every operation.

    Then none may hide in a function with a gradient of its own.
    """
    # The last two have no public question to ask.
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
