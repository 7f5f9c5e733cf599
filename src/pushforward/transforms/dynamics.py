"""What a continuous transform integrates: points, their log-determinant, and penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..networks.fields import VectorField
from .divergence import Divergence


@dataclass(frozen=True, slots=True)
class Dynamics:
    r"""The system of rows :math:`d(x, \ell, q)/dt = (v,\ \nabla \cdot v,\ \text{rates of the penalties})`.

    The rates are :math:`|v|^2`, :math:`|(\partial v/\partial x)\, \epsilon|^2` and :math:`|dv/dt|^2 = |\partial
    v/\partial t + (\partial v/\partial x) v|^2`, along the path.

    Attributes:
        field: The velocity ``v``.
        divergence: Rule of the divergence; None: it is not wanted.
        context: Contexts ``(n, *context)``, or None.
        probes: Probes ``(n, k, D)``, or None.
        penalties: Which of ``PENALTIES`` are wanted.

    References:
        Finlay et al., How to train your neural ODE, 2020, eq. 9. https://arxiv.org/abs/2002.02798
        Kelly et al., Learning differential equations that are easy to solve, 2020. https://arxiv.org/abs/2007.04504
    """

    field: VectorField
    divergence: Divergence | None
    context: Tensor | None
    probes: Tensor | None
    penalties: tuple[str, ...] = ()

    @property
    def moving(self) -> int:
        """How many numbers of a state are the point."""
        return prod(self.field.event_shape)

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        """Return the rates of states ``(n, m)`` at times ``(n,)``."""
        x = u[:, : self.moving].unflatten(1, self.field.event_shape)
        rates = []
        if "jacobian" in self.penalties:
            assert self.probes is not None
            probe = self.probes[:, 0].reshape(x.shape)
            v, pushed = self._pushed(t, x, torch.zeros_like(t), probe)
            rates.append(pushed.flatten(1).square().sum(1))
        if self.divergence is not None:
            v, trace = self.divergence(self.field, t, x, self.context, self.probes)
            rates.insert(0, trace)
        elif not rates:
            v = self.field(t, x, self.context)
        if "kinetic" in self.penalties:
            rates.insert(int(self.divergence is not None), v.flatten(1).square().sum(1))
        if "acceleration" in self.penalties:
            change = self._pushed(t, x, torch.ones_like(t), v)[1]
            rates.append(change.flatten(1).square().sum(1))
        v = v.flatten(1)
        return torch.cat([v, torch.stack(rates, 1)], 1) if rates else v

    def _pushed(self, t: Tensor, x: Tensor, dt: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
        """Return the velocity and its derivative along a direction."""
        # A solve with a gradient of its own computes where derivatives of this kind are off.
        with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
            there = self.field(forward_ad.make_dual(t, dt), forward_ad.make_dual(x, dx), self.context)
            v, change = forward_ad.unpack_dual(there)
        return v, torch.zeros_like(v) if change is None else change

    def take(self, rows: Tensor | slice) -> Dynamics:
        """Return the system of some of the rows."""
        if self.context is None and self.probes is None:
            return self
        return replace(
            self,
            context=None if self.context is None else self.context[rows],
            probes=None if self.probes is None else self.probes[rows],
        )

    def row_tensors(self) -> list[Tensor]:
        """Return the contexts."""
        return [] if self.context is None else [self.context]

    def shared_tensors(self) -> list[Tensor]:
        """Return the parameters of the field."""
        return list(self.field.parameters())

    def with_rows(self, tensors: Sequence[Tensor]) -> Dynamics:
        """Return the system with other contexts."""
        return replace(self, context=tensors[0]) if tensors else self
