"""The three gradients of a solve, against each other and against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ode_systems import Equations, plan
from pushforward.ode import GRADIENTS, METHODS, Adaptive, Control, Fixed, solve

EXACT = Adaptive(1e-11, 1e-11)
every = pytest.mark.parametrize("gradient", GRADIENTS)


def rates(t: Tensor, u: Tensor, own: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Points of two numbers, with an integral of their speed."""
    v = torch.tanh(u[:, :2] @ w + own) * torch.cos(2 * t) + b
    return torch.cat([v, v.square().sum(1, keepdim=True)], 1)


def inputs(n: int = 4) -> list[Tensor]:
    """Starts, what belongs to rows, and two shared tensors."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((n, 2), (n, 2), (2, 2), (2,))
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def loss(tensors: list[Tensor], gradient: str, control: Control = EXACT, method: str = "dopri5") -> Tensor:
    u, own, w, b = tensors
    start = torch.cat([u, torch.zeros_like(u[:, :1])], 1)
    system = Equations(rates, [own], [w, b], moving=2)
    end = solve(system, start, plan(method, control, ends=(1.0, 0.0), m=3), gradient=gradient).u
    weights = torch.arange(1.0, 1.0 + end.numel(), dtype=end.dtype).reshape(end.shape) / end.numel()
    return (weights * end).sum() + 0.1 * end.square().sum()


def differences(tensors: list[Tensor], towards: list[Tensor], control: Control, method: str) -> Tensor:
    step = 1e-4
    with torch.no_grad():
        ahead, behind = (
            loss(
                [x + s * step * d for x, d in zip(tensors, towards, strict=True)], "backprop", control, method
            )
            for s in (1, -1)
        )
    return (ahead - behind) / (2 * step)


@pytest.mark.parametrize("control", [EXACT, Fixed(10)], ids=["adaptive", "equal"])
@every
def test_gradients_are_those_of_differences(gradient: str, control: Control) -> None:
    tensors = inputs()
    found = torch.autograd.grad(loss(tensors, gradient, control), tensors)
    # By the adjoint equation a gradient is not that of the discrete solution.
    tolerance = 1e-3 if gradient == "adjoint" and isinstance(control, Fixed) else 1e-6
    for i in range(len(tensors)):
        towards = [torch.zeros_like(x) for x in tensors]
        towards[i] = torch.randn(
            tensors[i].shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64
        )
        expected = differences(tensors, towards, control, "dopri5")
        assert ((found[i] * towards[i]).sum() - expected).abs() < tolerance, i


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].e is not None])
def test_the_gradients_agree(method: str) -> None:
    control = EXACT if method == "dopri5" else Adaptive(1e-5, 1e-5)
    tensors = inputs()
    by = {g: torch.autograd.grad(loss(tensors, g, control, method), tensors) for g in GRADIENTS}
    for a, b, c in zip(*by.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            c, b, rtol=1e-3 if method != "dopri5" else 1e-7, atol=1e-3 if method != "dopri5" else 1e-8
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_gradients_of_equal_steps_agree(method: str) -> None:
    tensors = inputs()
    by = [torch.autograd.grad(loss(tensors, g, Fixed(6), method), tensors) for g in GRADIENTS[:2]]
    for a, b in zip(*by, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@every
def test_the_value_does_not_depend_on_who_follows(gradient: str) -> None:
    tensors = inputs()
    with torch.no_grad():
        quiet = loss(tensors, gradient)
    torch.testing.assert_close(loss(tensors, gradient), quiet, rtol=1e-14, atol=1e-14)
    some = [x.detach().requires_grad_(i == 2) for i, x in enumerate(tensors)]
    (g,) = torch.autograd.grad(loss(some, gradient), some[2])
    (whole,) = torch.autograd.grad(loss(tensors, gradient), tensors[2])
    torch.testing.assert_close(g, whole, rtol=1e-7, atol=1e-9)


def test_backprop_can_be_differentiated_twice() -> None:
    tensors = inputs(2)
    towards = torch.randn(2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def slope(u: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(loss([u, *tensors[1:]], "backprop"), u, create_graph=True)
        return g.square().sum()

    (second,) = torch.autograd.grad(slope(tensors[0]), tensors[0])
    ahead, behind = (slope((tensors[0] + s * 1e-4 * towards).detach().requires_grad_()) for s in (1, -1))
    assert ((second * towards).sum() - (ahead - behind) / 2e-4).abs() < 1e-5


@pytest.mark.parametrize("gradient", ["checkpointed", "adjoint"])
@pytest.mark.parametrize("control", [EXACT, Fixed(4)], ids=["adaptive", "equal"])
def test_the_others_refuse_a_second_time(gradient: str, control: Control) -> None:
    tensors = inputs(2)
    with pytest.raises(RuntimeError, match="gradient='backprop'"):
        torch.autograd.grad(loss(tensors, gradient, control), tensors[0], create_graph=True)


def walled(t: Tensor, u: Tensor, own: Tensor) -> Tensor:
    return torch.where(u > 2, torch.inf, own + 0 * u)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_row_that_was_given_up_has_no_gradient_and_takes_nobody_elses(gradient: str) -> None:
    u = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    own = torch.tensor([[1.0], [5.0], [1.5]], dtype=torch.float64, requires_grad=True)
    solved = solve(
        Equations(walled, [own], moving=1), u, plan(control=Adaptive(1e-4, 1e-4), m=1), gradient=gradient
    )
    assert solved.u.isnan().flatten().tolist() == [False, True, False]
    for g in torch.autograd.grad(solved.u.sum(), [u, own]):
        assert g[[0, 2]].flatten().tolist() == pytest.approx([1.0, 1.0])
        assert g[1].tolist() == [0.0]
