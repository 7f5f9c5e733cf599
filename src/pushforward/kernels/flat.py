"""Chains that are laid out once for many passes: with weights where they are, or in one vector with one gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .chain import Link, forms_of
from .table import Table, backward, forward


class FlatChain:
    """Links, without contexts, whose weights and biases are views of one vector.

    Autograd then sees two tensors, points and vector, where ``chain`` shows it every weight, and the table that the
    kernel reads is made once. The links are taken as they are now, and only the numbers in the vector may change. No
    weight may be in two links, since gradients are written, and not added, where they belong.

    Args:
        links: What to take points through.
        vector: Where the weights lie, float32 on the CPU.
        starts: Where in it each of them begins; those that are not there get no gradient.
        features: Number of elements of a point.
    """

    def __init__(
        self, links: Sequence[Link], vector: Tensor, starts: Mapping[Tensor, int], features: int
    ) -> None:
        self._vector = vector
        self._factor, self._folded = None, vector.detach()
        if any(layer.factor is not None for link in links for layer in link.layers):
            self._factor, self._folded = torch.ones_like(self._folded), torch.empty_like(self._folded)
        tensors: list[Tensor | None] = []
        found: list[Tensor | None] = []

        def add(tensor: Tensor, factor: Tensor | None) -> None:
            start = starts.get(tensor)
            if start is None:
                tensors.append(tensor.detach() if factor is None else tensor.detach() * factor)
                found.append(None)
                return
            if factor is not None and self._factor is not None:
                _part(self._factor, start, tensor).copy_(factor)
            tensors.append(_part(self._folded, start, tensor))
            # As far from the beginning of the vector as from that of a gradient.
            found.append(_part(vector.detach(), start, tensor))

        for layers, _, _ in links:
            tensors.append(None)
            found.append(None)
            for layer in layers:
                add(layer.weight, layer.factor)
                add(layer.bias, None)
        self._table, self._aim = Table(forms_of(links), tensors, features, found), vector.data_ptr()
        self._whole = sum(t.numel() for t in found if t is not None) == vector.numel()

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return points ``(points, D)`` taken through the links, and their log-determinants."""
        result: tuple[Tensor, Tensor] = _Flat.apply(x, self._vector, self)  # type: ignore[no-untyped-call]
        return result

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return points, log-determinants, and what the way back needs."""
        if self._factor is not None:
            torch.mul(self._vector.detach(), self._factor, out=self._folded)
        y, log_abs_det, kept = forward(x, self._table, keep=True)
        assert log_abs_det is not None
        assert kept is not None
        return y, log_abs_det, kept

    def backward(
        self,
        x: Tensor,
        kept: tuple[Tensor, Tensor | None],
        gradients: tuple[Tensor, Tensor],
        *,
        wanted: bool,
    ) -> tuple[Tensor | None, Tensor]:
        """Return the gradients of the points, if wanted, and of the vector."""
        vector = self._vector.detach()
        gradient = torch.empty_like(vector) if self._whole else torch.zeros_like(vector)
        self._table.shift_gradients(gradient.data_ptr() - self._aim)
        self._aim = gradient.data_ptr()
        g_x = backward(x, self._table, kept, gradients, wanted=wanted)
        return g_x, gradient if self._factor is None else gradient.mul_(self._factor)

    @property
    def needs_result(self) -> bool:
        """Whether the way back needs what the way forward gave."""
        return self._table.needs_result


class FixedChain:
    """Links, without contexts, that are laid out once for many passes without gradients.

    The links are taken as they are now, and only the numbers in their weights may change.

    Args:
        links: What to take points through.
        features: Number of elements of a point.
    """

    def __init__(self, links: Sequence[Link], features: int) -> None:
        self._folds: list[tuple[Tensor, Tensor, Tensor]] = []
        tensors: list[Tensor | None] = []
        for layers, _, _ in links:
            tensors.append(None)
            for layer in layers:
                weight = layer.weight.detach()
                if layer.factor is not None:
                    self._folds.append((weight, layer.factor, torch.empty_like(weight)))
                    weight = self._folds[-1][-1]
                tensors += (weight, layer.bias.detach())
        self._table = Table(forms_of(links), tensors, features)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return points ``(points, D)`` taken through the links, and their log-determinants."""
        for weight, factor, folded in self._folds:
            torch.mul(weight, factor, out=folded)
        y, log_abs_det, _ = forward(x, self._table, keep=False)
        assert log_abs_det is not None
        return y, log_abs_det


class _Flat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, vector: Tensor, chain: FlatChain) -> tuple[Tensor, Tensor]:
        y, log_abs_det, kept = chain.forward(x)
        ctx.chain = chain
        # The vector among them, so that one that is changed in between is noticed.
        ctx.save_for_backward(x, kept, y if chain.needs_result else None, vector)
        return y, log_abs_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_y: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, y, _ = ctx.saved_tensors
        return *ctx.chain.backward(x, (kept, y), (g_y, g_log), wanted=ctx.needs_input_grad[0]), None


def _part(vector: Tensor, start: int, like: Tensor) -> Tensor:
    return vector[start : start + like.numel()].view(like.shape)
