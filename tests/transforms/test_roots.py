"""The root finder: exact where Newton fails, exact derivatives, no data-dependent step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, vmap

from pushforward.transforms.roots import solve_monotone

Function = Callable[[Tensor], Tensor]

# Torch's own forward mode imports scripted rules.
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

# Functions of t - root on which plain Newton steps diverge, leap away from the root, stall or meet a slope of almost 0.
HARD: dict[str, tuple[Function, Function]] = {
    "diverges": (lambda d: torch.atan(1e4 * d), lambda d: 1e4 / (1 + (1e4 * d) ** 2)),
    "leaps": (lambda d: d.sign() * d.abs() ** (1 / 9), lambda d: d.abs() ** (-8 / 9) / 9),
    "stalls": (lambda d: d**3 + 1e-3 * d, lambda d: 3 * d**2 + 1e-3),
    "flat ends": (torch.tanh, lambda d: 1 - torch.tanh(d) ** 2),
    "overflows": (lambda d: torch.expm1(50 * d), lambda d: 50 * torch.exp(50 * d)),
    "kink": (lambda d: torch.where(d > 0, 1e3 * d, 1e-3 * d), lambda d: torch.where(d > 0, 1e3, 1e-3)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HARD)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(root=st.floats(-40, 40), below=st.floats(0, 1), above=st.floats(0, 1))
def test_exact_where_newton_fails(
    name: str, dtype: torch.dtype, root: float, below: float, above: float
) -> None:
    function, derivative = HARD[name]
    target = torch.tensor(root, dtype=dtype)
    lower, upper = target - 80 * below, target + 80 * above
    with torch.no_grad():
        found = solve_monotone(lambda t: function(t - target), lambda t: derivative(t - target), lower, upper)
    allowed = torch.finfo(dtype).eps * (lower.abs() + upper.abs() + 1e-3)
    assert (found - target).abs() <= allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_root_far_smaller_than_its_bracket_keeps_its_digits(dtype: torch.dtype) -> None:
    target = torch.logspace(-12, 0, 25, dtype=dtype)
    found = solve_monotone(
        lambda t: torch.sinh(t) - target, torch.cosh, -torch.ones(()).to(dtype), target + 1
    )
    torch.testing.assert_close(found, torch.asinh(target), rtol=8 * torch.finfo(dtype).eps, atol=0)


def cubic_root(a: Tensor, b: Tensor) -> Tensor:
    """Solve t^3 + a t = b, a > 0."""
    return solve_monotone(lambda t: t**3 + a * t - b, lambda t: 3 * t**2 + a, -b.abs() / a, b.abs() / a)


def test_first_and_second_derivatives_are_exact() -> None:
    a = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([-3.0, 0.1, 7.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cubic_root, (a, b))
    assert torch.autograd.gradgradcheck(cubic_root, (a, b))


def logarithm(a: Tensor) -> Tensor:
    return solve_monotone(lambda t: t.exp() - a, torch.exp, a * 0 - 9, a * 0 + 9)


def test_derivatives_to_the_third_order() -> None:
    a = torch.tensor(1.7, dtype=torch.float64)
    orders = [logarithm, grad(logarithm), grad(grad(logarithm)), grad(grad(grad(logarithm)))]
    expected = [a.log(), 1 / a, -1 / a**2, 2 / a**3]
    for derivative, value in zip(orders, expected, strict=True):
        torch.testing.assert_close(derivative(a), value, rtol=1e-12, atol=0)


@FORWARD_MODE
def test_composes_with_function_transforms() -> None:
    a = torch.tensor([0.4, 1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(vmap(logarithm)(a), a.log())
    torch.testing.assert_close(vmap(grad(logarithm))(a), 1 / a)
    torch.testing.assert_close(jacrev(logarithm)(a), torch.diag(1 / a))
    torch.testing.assert_close(jacfwd(logarithm)(a), torch.diag(1 / a))
    torch.testing.assert_close(vmap(hessian(logarithm))(a), -1 / a**2)


@FORWARD_MODE
def test_brackets_carry_no_derivative_and_nan_stays_nan() -> None:
    edge = torch.tensor(5.0, requires_grad=True)

    def root(edge: Tensor) -> Tensor:
        return solve_monotone(lambda t: t.exp() - 2, torch.exp, -edge, edge)

    assert not root(edge).requires_grad
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(edge.detach(), torch.ones(()))
        assert forward_ad.unpack_dual(root(dual)).tangent is None
    bad = torch.tensor([1.0, torch.nan])
    found = solve_monotone(lambda t: t - bad, torch.ones_like, torch.full((2,), -3.0), torch.full((2,), 3.0))
    assert found.isnan().tolist() == [False, True]


def test_compiles_into_one_graph() -> None:
    compiled = torch.compile(logarithm, backend="aot_eager", fullgraph=True)
    a = torch.tensor([0.3, 4.0], requires_grad=True)
    value = compiled(a)
    torch.testing.assert_close(value, a.log())
    value.sum().backward()
    torch.testing.assert_close(a.grad, 1 / a.detach())
