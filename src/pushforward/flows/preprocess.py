"""Preprocessing that stands inside a flow, in double precision on the CPU wherever the flow is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from ..transforms import Transform


class Preprocess(nn.Module):
    r"""A fixed transform from the units of the data to those of the model.

    It keeps float64 on the CPU whatever the flow is moved or cast to: a float32 cannot hold a timestamp, and an
    accelerator may have no float64. Its log-determinant is part of every density, which so is in the units of the data.

    Args:
        transform: The transform, without context; its tensors are made float64.

    Shapes:
        As those of the transform. ``forward`` casts its result to the dtype and device asked for; ``inverse`` returns
        float64 on the CPU.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform.to(device="cpu", dtype=torch.float64)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return self

    def forward(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x`` to the model's units; the results have the dtype and device of ``like``."""
        z, log_abs_det = self.transform.forward(x.to("cpu", torch.float64))
        return z.to(like), log_abs_det.to(like)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z`` back to the units of the data, float64 on the CPU."""
        result: tuple[Tensor, Tensor] = self.transform.inverse(z.to("cpu", torch.float64))
        return result
