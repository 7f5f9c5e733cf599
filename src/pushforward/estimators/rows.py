"""Maps of rows whose result for one row does not depend, by a rounding, on the rows beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..flows import Flow, chunk_rows, score

_BLOCK = 64  # products of matrices and kernels compute the last few rows of other batches in another order


def log_densities(flow: Flow, x: Tensor) -> Tensor:
    """Return what ``score`` does, float64 ``(n,)``, equal to the last bit for equal rows."""
    return in_blocks(lambda part: score(flow, part).value, chunk_rows(flow), x)


def in_blocks(function: Callable[..., Tensor], most: int, *rows: Tensor) -> Tensor:
    """Return a function of rows, in float64, computed for whole blocks of them, the last one filled with copies.

    Args:
        function: From tensors of ``n`` rows each to one of ``n`` rows.
        most: How many rows, about, may be computed at once.
        rows: Its arguments.
    """
    n = len(rows[0])
    filled = [torch.cat([part, part[-1:].expand(-n % _BLOCK, *part.shape[1:])]) for part in rows]
    chunks = zip(*(part.split(max(1, most // _BLOCK) * _BLOCK) for part in filled), strict=True)
    return torch.cat([function(*chunk).double() for chunk in chunks])[:n]
