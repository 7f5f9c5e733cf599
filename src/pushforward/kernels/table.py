"""The table by which the kernel of chains is called, and its calls."""

from __future__ import annotations

import ctypes
import functools
import platform
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .build import library
from .calls import LONG, POINTER

if TYPE_CHECKING:
    from .chain import Move, Stairs

# Elsewhere, as with Apple's matrix units, torch's own products are the faster ones.
_MACHINES = {"x86_64", "AMD64"}
_LARGE = 31 * 2**20  # bytes; glibc learns from no block above 32 MiB
_LINK, _LAYER = 13, 7  # words of ``link`` and ``layer`` of the C source


class Form(NamedTuple):
    """A link without its tensors, which autograd must see; of these a link has its context, then weights and biases."""

    stairs: Sequence[Stairs | None]
    move: Move | None


def available() -> bool:
    """Return whether there is a kernel on this machine."""
    return _kernel() is not None


class Table:
    """Links as the kernel reads them: words for each link, and then for each layer.

    Args:
        forms: The links.
        tensors: Their tensors.
        features: Number of elements of a point.
        found: Where the gradients of the tensors go; None: nowhere.

    Attributes:
        address: Where it is.
        links: How many links there are.
        features: Number of elements of a point.
        moves: Whether they move points.
        needs_result: Whether the way back needs what the way forward gave.
        outputs: How many numbers the last layer gives.
        kept_each: How many numbers the kernel keeps of a point where it keeps what the way back needs.
    """

    def __init__(
        self,
        forms: Sequence[Form],
        tensors: Sequence[Any],
        features: int,
        found: Sequence[Tensor | None] | None = None,
    ) -> None:
        last = forms[-1].move
        self.links, self.features, self.moves = len(forms), features, last is not None
        self.needs_result = last is not None and last.inverse
        heads: list[int] = []
        rows: list[int] = []
        self._owned: list[Any] = [forms]  # what lives as long as its address is used
        own, place, kept = self._own, 0, features * (len(forms) - 1)
        for stairs, move in forms:
            context, inputs = tensors[place], tensors[place + 1].shape[1]
            heads += (len(stairs), _LINK * len(forms) + len(rows))
            if move is None:
                heads += (0, 0, 0, 0, 0, 0, inputs, 0)
            else:
                how, stay, moved = move.map, move.stay, move.move
                heads += (ctypes.addressof(how.how), how.forward, how.gradient, move.inverse)
                heads += (
                    _address(stay),
                    _address(moved),
                    inputs,
                    features if moved is None else moved.numel(),
                )
                kept += 0 if stay is None else inputs
            heads += (
                (0, 0) if context is None else (own(context), context.shape[1] if len(context) > 1 else 0)
            )
            heads.append(0 if found is None else _address(found[place]))
            place += 1
            for each in stairs:
                bias = tensors[place + 1]
                self.outputs = outputs = bias.numel()
                rows += (outputs, own(tensors[place]), own(bias))
                rows += (0, 0) if each is None else (each.reach.data_ptr(), each.first.data_ptr())
                rows += (0, 0) if found is None else (_address(found[place]), _address(found[place + 1]))
                kept += outputs
                place += 2
        self.kept_each = kept if self.moves else kept - self.outputs
        self._words = array("q", heads + rows)
        self.address = self._words.buffer_info()[0]

    def shift_gradients(self, distance: int) -> None:
        """Let the gradients of weights and biases go to addresses so far from where they went."""
        for end in range(_LINK * self.links + _LAYER, len(self._words) + 1, _LAYER):
            for word in (end - 2, end - 1):
                if self._words[word]:
                    self._words[word] += distance

    def _own(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._owned.append(tensor)
        return tensor.data_ptr()


def forward(x: Tensor, table: Table, *, keep: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return points, log-determinants, and what the way back needs, if it is to be kept."""
    x, points = x.contiguous(), len(x)
    y = x.new_empty(points, table.features if table.moves else table.outputs)
    log_abs_det = x.new_empty(points) if table.moves else None
    kept = x.new_empty(points * table.kept_each) if keep else None
    _check(
        _loaded().chain_forward(
            table.address, table.links, x.data_ptr(), points, table.features, _pointer(kept), y.data_ptr(),
            _pointer(log_abs_det),
        )
    )  # fmt: skip
    return y, log_abs_det, kept


def backward(
    x: Tensor,
    table: Table,
    kept: tuple[Tensor, Tensor | None],
    gradients: tuple[Tensor, Tensor | None],
    *,
    wanted: bool,
) -> Tensor | None:
    """Write the gradients where the table says, and return that of the points, if it is wanted.

    Args:
        x: The points.
        table: The links, and where their gradients go.
        kept: What the way forward kept, and what it gave where the table needs that.
        gradients: Of points and log-determinants.
        wanted: Whether to return the gradient of the points.
    """
    x = x.contiguous()
    g_y, g_log = (None if g is None else g.contiguous() for g in gradients)
    g_x = torch.empty_like(x) if wanted else None
    pointers = [_pointer(t) for t in (*kept, g_y, g_log, g_x)]
    _check(
        _loaded().chain_backward(table.address, table.links, x.data_ptr(), len(x), table.features, *pointers)
    )
    return g_x


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(status: int) -> None:
    if status:
        raise MemoryError("there is not enough memory for the products of a network's layers")


def _loaded() -> ctypes.CDLL:
    kernel = _kernel()
    assert kernel is not None
    return kernel


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    loaded = library("chain.c") if platform.machine() in _MACHINES else None
    if loaded is not None:
        # An allocator that sees a large block come and go (glibc's) keeps what is freed, up to twice its size. Else
        # every step gives its memory back to the system, and the next waits for a thousand fresh pages.
        torch.empty(_LARGE, dtype=torch.uint8, device="cpu")
        begin: list[Any] = [POINTER, LONG, POINTER, LONG, LONG]
        pointers: list[Any] = [POINTER] * 5
        loaded.chain_forward.argtypes = [*begin, *pointers[:3]]
        loaded.chain_backward.argtypes = [*begin, *pointers]
        loaded.chain_forward.restype = loaded.chain_backward.restype = ctypes.c_int32
    return loaded
