"""Whether somebody follows every operation."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def traced() -> bool:
    """Return whether somebody follows every operation: a compiler, a tracer, ``torch.func``, forward-mode derivatives.

    Then none may hide in a function with a gradient of its own.
    """
    # All but the first have no public question to ask.
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
    )
