"""Preprocessing that stands inside a flow, in double precision on the CPU wherever the flow is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from ..transforms import Chain, CompressTails, Transform


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
        z, log_abs_det = self._through(x, inverse=False)
        return z.to(like), log_abs_det.to(like)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z`` back to the units of the data, float64 on the CPU."""
        return self._through(z, inverse=True)

    def _through(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        x = x.to("cpu", torch.float64)
        parts = list(self.transform) if isinstance(self.transform, Chain) else [self.transform]
        total: Tensor | None = None
        for part in reversed(parts) if inverse else parts:
            x, log_abs_det = _map(part, x, inverse=inverse)
            total = log_abs_det if total is None else total + log_abs_det
        assert total is not None
        return x, total


def _map(part: Transform, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Take points through a part; of one that draws in tails only heavy columns, since it leaves the others alone."""
    if isinstance(part, CompressTails):
        columns = part.heavy.nonzero().flatten()
        if len(columns) == 0:
            return x, x.new_zeros(()).expand(x.shape[:-1])
        y, log_abs_det = _both_ways(part.select(columns), x[..., columns], inverse=inverse)
        return x.index_copy(-1, columns, y), log_abs_det
    return _both_ways(part, x, inverse=inverse)


def _both_ways(part: Transform, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = part.inverse(x) if inverse else part.forward(x)
    return result
