"""The divergence of a velocity field: exact, or estimated from few products with its Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..networks.fields import VectorField

_MOST_COPIES = 4096
NOISES = ("rademacher", "gaussian")


@dataclass(frozen=True, slots=True)
class Exact:
    r"""The trace of the Jacobian, :math:`\sum_i \partial v_i/\partial x_i`.

    Where the field knows it from its structure that is used; else each point is copied once for each element, so that
    one backward pass gives all rows of the Jacobian, for events of any shape.
    """

    exact = True
    probes = 0

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return velocity and divergence ``(n,)``."""
        known = field.with_divergence(t, x, context)
        return _by_copies(field, t, x, context) if known is None else known


@dataclass(frozen=True, slots=True)
class Hutchinson:
    r"""An unbiased estimate, :math:`\epsilon^\top \frac{\partial v}{\partial x} \epsilon`, the mean over probes.

    Attributes:
        noise: Distribution of the probes, ``"rademacher"`` (of the smaller variance) or ``"gaussian"``.
        probes: Number of probes, each of the price of a backward pass.

    References:
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990; Grathwohl et al., FFJORD, 2019,
        eq. 7-8. https://arxiv.org/abs/1810.01367
    """

    noise: str = "rademacher"
    probes: int = 1
    exact = False

    def __post_init__(self) -> None:
        _check_noise(self.noise, self.probes, 1)

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return velocity and an estimate of the divergence ``(n,)``, with probes ``(n, probes, D)``."""
        assert noise is not None
        v, pulled = _pulled(field, t, x, context, noise)
        return v, (pulled * noise).sum(-1).mean(-1)


@dataclass(frozen=True, slots=True)
class HutchPlusPlus:
    r"""An unbiased estimate of less variance where few directions carry most of the trace.

    With ``probes`` products a third spans a subspace ``Q``, on which the trace is exact; Hutchinson's estimate with
    the last third is for the rest: :math:`\operatorname{tr} Q^\top A Q + \frac{1}{m} \operatorname{tr} G^\top P A P
    G`, :math:`P = I - Q Q^\top`. With 3 products for each element it is exact.

    Attributes:
        noise: As of ``Hutchinson``.
        probes: Number of products, a multiple of 3.

    References:
        Meyer et al., Hutch++: Optimal Stochastic Trace Estimation, 2021, algorithm 1. https://arxiv.org/abs/2010.09649
    """

    noise: str = "rademacher"
    probes: int = 3
    exact = False

    def __post_init__(self) -> None:
        _check_noise(self.noise, self.probes, 3)

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return velocity and an estimate of the divergence ``(n,)``, with probes ``(n, 2 probes / 3, D)``."""
        assert noise is not None
        d = noise.shape[-1]
        sketch, rest = noise.chunk(2, 1)
        v, seen = _pulled(field, t, x, context, sketch[:, : min(sketch.shape[1], d)])
        # Without bias for any subspace, and so for its gradient too where that is held fixed.
        basis = torch.linalg.qr(seen.detach().transpose(1, 2)).Q.transpose(1, 2)
        apart = rest - (rest @ basis.transpose(1, 2)) @ basis
        both = torch.cat([basis, apart], 1)
        _, pulled = _pulled(field, t, x, context, both)
        each = (pulled * both).sum(-1)
        k = basis.shape[1]
        return v, each[:, :k].sum(-1) + each[:, k:].mean(-1)


Divergence = Exact | Hutchinson | HutchPlusPlus


def draw_probes(
    divergence: Divergence,
    x: Tensor,
    generator: torch.Generator | None,
    *,
    shared: bool,
    extra: bool,
) -> Tensor | None:
    """Return the probes ``(n, k, D)`` that are held fixed during one solve, or None where none are needed.

    Args:
        divergence: The rule.
        x: Points ``(n, *event)``.
        generator: Source of the probes.
        shared: Whether all rows have the same ones.
        extra: Whether one is needed beside the rule's own, for the norm of the Jacobian.
    """
    count = {Exact: 0, Hutchinson: divergence.probes, HutchPlusPlus: 2 * divergence.probes // 3}[
        type(divergence)
    ]
    count = max(count, int(extra))
    if count == 0:
        return None
    n, d = len(x), prod(x.shape[1:])
    shape = (1 if shared else n, count, d)
    if isinstance(divergence, Exact) or divergence.noise == "rademacher":
        probes = torch.randint(0, 2, shape, generator=generator, device=_place(generator, x)) * 2 - 1
    else:
        probes = torch.randn(shape, generator=generator, device=_place(generator, x))
    return probes.to(x).expand(n, count, d)


def _place(generator: torch.Generator | None, x: Tensor) -> torch.device:
    return x.device if generator is None else generator.device


def _check_noise(noise: str, probes: int, multiple: int) -> None:
    if noise not in NOISES:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
    if probes < 1 or probes % multiple:
        raise ValueError(f"probes must be a positive multiple of {multiple}, got {probes}")


def pullback(velocity: Callable[[Tensor], Tensor], x: Tensor, covectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return a velocity and the product of covectors with its Jacobian, followed where somebody follows.

    Args:
        velocity: The field at fixed time and context.
        x: Points.
        covectors: What the Jacobian is multiplied with, of the shape of ``x``.
    """
    follow = torch.is_grad_enabled()
    with torch.enable_grad():
        inner = x if follow and x.requires_grad else x.detach().requires_grad_()
        v = velocity(inner)
        (pulled,) = torch.autograd.grad(
            v, inner, covectors, create_graph=follow, materialize_grads=True, allow_unused=True
        )
    return (v, pulled) if follow else (v.detach(), pulled)


def _pulled(
    field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the velocity and products of probes ``(n, k, D)`` with the Jacobian, ``(n, k, D)``."""
    n, k, d = probes.shape
    copies, t, context = _copied(k, t, x, context)
    v, pulled = pullback(lambda at: field(t, at, context), copies, probes.reshape(copies.shape))
    return v.unflatten(0, (n, k))[:, 0], pulled.reshape(n, k, d)


def _copied(k: int, t: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each row ``k`` times."""
    if k == 1:
        return x, t, context
    return (
        x.repeat_interleave(k, 0),
        t.repeat_interleave(k, 0),
        None if context is None else context.repeat_interleave(k, 0),
    )


def _by_copies(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    n, d = len(x), prod(x.shape[1:])
    unit = torch.eye(d, dtype=x.dtype, device=x.device)
    most = max(1, _MOST_COPIES // max(n, 1))
    v, total = x, x.new_zeros(n)
    for start in range(0, d, most):
        some = unit[start : start + most].expand(n, -1, d)
        v, pulled = _pulled(field, t, x, context, some)
        total = total + (pulled * some).sum((-1, -2))
    return v, total
