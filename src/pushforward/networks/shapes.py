"""Checks of shapes and dtypes that every public method of a transform or distribution begins with."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


def check_arguments(
    owner: nn.Module, name: str, x: Tensor, event_shape: Shape, context: Tensor | None
) -> Tensor | None:
    """Check one call of a transform or distribution in O(1); return the context, None where it is ignored."""
    check_event(owner, name, x, event_shape)
    if not x.is_floating_point():
        raise ValueError(
            f"{type(owner).__name__}: {name} must be of a floating dtype, got {x.dtype}; "
            f"convert it with {name}.float()"
        )
    context = check_context(owner, context, x.dtype, f"that of {name}")
    if context is None:
        return None
    batch, context_batch = x.shape[: x.ndim - len(event_shape)], context_batch_shape(owner, context)
    padded = (1,) * (len(batch) - len(context_batch)) + context_batch
    # Not `c not in (1, b)`: of a size that is symbolic under torch.compile that is True even where they are equal.
    fits = all(c == 1 or c == b for c, b in zip(padded, batch, strict=False))  # noqa: PLR1714
    if len(padded) != len(batch) or not fits:
        raise ValueError(
            f"{type(owner).__name__}: context batch shape {context_batch} does not broadcast to "
            f"that of {name}, {tuple(batch)}"
        )
    return context


def anchor(module: nn.Module, *, buffers: bool = False) -> Tensor | None:
    """Return the first floating parameter of a module, or buffer where these count; None where there is none.

    Every call of a flow asks for it a few times, and ``Module.parameters`` would walk the whole tree of modules.
    """
    tensors: Iterable[Tensor | None] = module._parameters.values()
    for tensor in chain(tensors, module._buffers.values() if buffers else ()):
        if tensor is not None and tensor.is_floating_point():
            return tensor
    for child in module._modules.values():
        found = None if child is None else anchor(child, buffers=buffers)
        if found is not None:
            return found
    return None


def check_event(owner: nn.Module, name: str, x: Tensor, event_shape: Shape) -> None:
    """Check that ``x`` ends in the event shape."""
    n = len(event_shape)
    if x.ndim < n or tuple(x.shape[x.ndim - n :]) != event_shape:
        raise ValueError(
            f"{type(owner).__name__}: {name} must have shape (..., {_commas(event_shape)}), "
            f"got {tuple(x.shape)}"
        )


def check_context(owner: nn.Module, context: Tensor | None, dtype: torch.dtype, origin: str) -> Tensor | None:
    """Check a context alone, which must have ``dtype``, ``origin``; return None where it is ignored."""
    label = type(owner).__name__
    shape: Shape | None = owner.context_shape  # type: ignore[assignment]
    if shape is None:
        return None
    if context is None:
        raise ValueError(f"{label}: context of shape (..., {_commas(shape)}) is needed, got None")
    m = len(shape)
    if tuple(context.shape[context.ndim - m :]) != shape or context.ndim < m:
        raise ValueError(
            f"{label}: context must have shape (..., {_commas(shape)}), got {tuple(context.shape)}"
        )
    if context.dtype != dtype:
        raise ValueError(f"{label}: context must have the dtype {dtype}, {origin}, got {context.dtype}")
    return context


def need_context(owner: nn.Module, context: Tensor | None) -> Tensor:
    """Return the context that a network cannot do without."""
    if context is None:
        raise ValueError(f"{type(owner).__name__}: context is needed, got None")
    return context


def context_batch_shape(owner: nn.Module, context: Tensor | None) -> Shape:
    """Return the batch shape of a checked context; () where it is ignored."""
    shape: Shape | None = owner.context_shape  # type: ignore[assignment]
    return () if shape is None or context is None else tuple(context.shape[: context.ndim - len(shape)])


def _commas(shape: Shape) -> str:
    return ", ".join(map(str, shape))
