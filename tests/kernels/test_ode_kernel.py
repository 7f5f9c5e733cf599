"""The kernel of continuous flows, against a loop in torch that solves one row at a time."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pushforward.kernels.ode import (
    DONE,
    NOT_FINITE,
    TOO_MANY,
    TOO_SMALL,
    Course,
    Solved,
    Weights,
    can_solve,
    solve,
)
from pushforward.networks import PerceptronField
from pushforward.transforms import Continuous


class Tableau(NamedTuple):
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    e: tuple[float, ...] | None
    order: int
    fsal: bool


_A = (
    (), (1 / 5,), (3 / 40, 9 / 40), (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)  # fmt: skip
_LESS = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_B, _C = (*_A[-1], 0.0), (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
DOPRI5 = Tableau(_A, _B, _C, tuple(map(float.__sub__, _B, _LESS)), 5, True)
RK4 = Tableau(
    ((), (0.5,), (0, 0.5), (0, 0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0, 0.5, 0.5, 1), None, 4, False
)
# Bogacki and Shampine's method without the use of its last stage as the first of the next step.
BOSH3 = Tableau(
    ((), (0.5,), (0, 0.75), (2 / 9, 1 / 3, 4 / 9)), (2 / 9, 1 / 3, 4 / 9, 0), (0, 0.5, 0.75, 1),
    (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8), 3, False,
)  # fmt: skip
STEPS = Course(0.0, 1.0, 1000, (1e-6, 1e-5))
GATED = pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
# Each with its slope.
_FORMULAS = {
    "tanh": (torch.tanh, lambda z: 1 - z.tanh() ** 2),
    "silu": (F.silu, lambda z: z.sigmoid() * (1 + z * (1 - z.sigmoid()))),
    "softplus": (F.softplus, torch.sigmoid),
}


class Case(NamedTuple):
    x: Tensor
    context: Tensor
    weights: Weights
    probe: Tensor


def case(
    n: int, d: int, first: int, second: int, frequencies: int, *, gated: bool = False, gain: float = 2.0
) -> Case:
    g = torch.Generator().manual_seed(17 * n + d)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    weights = Weights(
        1.5 * normal(first, d) / d**0.5, normal(first, 1 + 2 * frequencies) / 2, normal(first) / 3,
        1.5 * normal(second, first) / first**0.5, normal(second) / 3, gain * normal(d, second) / second**0.5, normal(d),
    )  # fmt: skip
    given = Case(normal(n, d), normal(n, first) / 2, weights, normal(n, d))
    gate = normal(first, 1 + 2 * frequencies) / 4 if gated else None
    return given._replace(weights=dataclasses.replace(weights, gate=gate))


def kernel(given: Case, activation: str, tableau: Tableau, course: Course, **asked: bool) -> Solved:
    x, context, weights, probe = given
    asked = {"log_det": True, "kinetic": True, "probe": True, "context": True} | asked
    return solve(
        x, context if asked["context"] else None, weights, activation=activation, tableau=tableau, course=course,
        log_det=asked["log_det"], kinetic=asked["kinetic"], probe=probe if asked["probe"] else None,
    )  # fmt: skip


class Loop:
    """One row, solved as the kernel is told to, all parts of its state in one vector (x, l, kinetic, jacobian)."""

    def __init__(self, given: Case, row: int, activation: str, tableau: Tableau, course: Course) -> None:
        self.x, self.context, self.probe = given.x[row], given.context[row], given.probe[row]
        self.weights, self.formulas = given.weights, _FORMULAS[activation]
        self.tableau, self.course = tableau, course
        self.count, self.evaluations, self.rejected = len(self.x) + 1, 0, 0
        self.steps: list[tuple[float, float]] = []

    def rates(self, u: Tensor, t: float) -> Tensor:
        self.evaluations += 1
        w, (a, slope), x = self.weights, self.formulas, u[: self.count - 1]
        waves = [f(math.pi * k * t) for k in range(1, w.v.shape[1] // 2 + 1) for f in (math.sin, math.cos)]
        time = torch.tensor([t, *waves], dtype=x.dtype)
        gate = torch.ones_like(w.b1) if w.gate is None else (w.gate @ time).exp()
        z1 = (w.w1 @ x + w.b1) * gate + w.v @ time + self.context
        z2 = w.w2 @ a(z1) + w.b2
        v, matrix = w.w3 @ a(z2) + w.b3, (w.w3 * slope(z2)) @ (w.w2 * slope(z1) * gate) @ w.w1
        return torch.cat([v, torch.stack([matrix.trace(), v @ v, (matrix @ self.probe).square().sum()])])

    def norm(self, values: Tensor, u: Tensor, other: Tensor) -> float:
        atol, rtol = self.course.tolerances
        scale = atol + rtol * torch.maximum(u.abs(), other.abs())
        return (values / scale)[: self.count].square().mean().sqrt().item()

    def step(self, u: Tensor, t: float, h: float, known: Tensor | None = None) -> list[Tensor]:
        k = [self.rates(u, t) if known is None else known]
        for row, c in zip(self.tableau.a[1:], self.tableau.c[1:], strict=True):
            k.append(self.rates(u + h * sum(w * r for w, r in zip(row, k, strict=False)), t + c * h))
        return k

    def after(self, u: Tensor, h: float, k: list[Tensor]) -> Tensor:
        return u + h * sum(w * r for w, r in zip(self.tableau.b, k, strict=True))

    def first(self, u: Tensor, f0: Tensor) -> float:
        t0, t1, p = self.course.t0, self.course.t1, self.tableau.order
        sign, d0, d1 = math.copysign(1, t1 - t0), self.norm(u, u, u), self.norm(f0, u, u)
        h0 = 1e-6 if min(d0, d1) < 1e-5 else 0.01 * d0 / d1
        d2 = self.norm(self.rates(u + sign * h0 * f0, t0 + sign * h0) - f0, u, u) / h0
        most = max(d1, d2)
        h1 = max(1e-6, h0 * 1e-3) if most <= 1e-15 else (0.01 / most) ** (1 / p)
        return sign * min(100 * h0, h1, abs(t1 - t0))

    def solve(self) -> Tensor:
        u, t, t1 = torch.cat([self.x, self.x.new_zeros(3)]), self.course.t0, self.course.t1
        known = self.rates(u, t)
        h, shrunk = self.first(u, known), False
        while t != t1:
            last = abs(t1 - t) <= abs(h) * (1 + 1e-6)
            h = t1 - t if last else h
            k = self.step(u, t, h, known)
            new = self.after(u, h, k)
            error = self.norm(h * sum(w * r for w, r in zip(self.tableau.e, k, strict=True)), u, new)
            factor = 10.0 if error == 0 else min(10.0, max(0.2, 0.9 * error ** (-1 / self.tableau.order)))
            if error <= 1:
                self.steps.append((t, h))
                u, t, known = new, t1 if last else t + h, k[-1] if self.tableau.fsal else None
                factor = min(factor, 1.0) if shrunk else factor
            else:
                known = k[0]
                self.rejected += 1
            shrunk = error > 1
            h *= factor
        return u

    def again(self, given: Case, row: int) -> Tensor:
        """Take the same steps once more, so that torch can follow them."""
        self.x, self.context = given.x[row], given.context[row]
        u = torch.cat([self.x, self.x.new_zeros(3)])
        for t, h in self.steps:
            u = self.after(u, h, self.step(u, t, h))
        return u


def parts(s: Solved) -> Tensor:
    return torch.cat([s.x, torch.stack([s.log_det, s.kinetic, s.jacobian], 1)], 1)


def close(got: Tensor, want: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * want.abs().max().item())


def single(given: Case) -> Case:
    """Return the case in float32."""
    weights = Weights(*(t.float() for t in given.weights.tensors()))
    return Case(given.x.float(), given.context.float(), weights, given.probe.float())


SOLVES = {
    "dopri5": ("tanh", DOPRI5, STEPS, (4, 2, 32, 40, 3)),
    "back": ("silu", DOPRI5, dataclasses.replace(STEPS, t0=1.0, t1=0.0), (4, 3, 7, 13, 0)),
    "bosh3": ("softplus", BOSH3, dataclasses.replace(STEPS, t1=0.5), (11, 5, 19, 6, 1)),
    "thin": ("tanh", BOSH3, STEPS, (3, 1, 1, 2, 2)),
}


@GATED
@pytest.mark.parametrize("name", SOLVES)
def test_a_solve_and_its_gradient_are_those_of_a_loop(name: str, gated: bool) -> None:
    activation, tableau, course, sizes = SOLVES[name]
    given = case(*sizes, gated=gated)
    assert can_solve(given.x, given.weights, activation)
    loops = [Loop(given, row, activation, tableau, course) for row in range(sizes[0])]
    want = torch.stack([loop.solve() for loop in loops])
    counts = torch.tensor([[loop.evaluations, len(loop.steps), loop.rejected] for loop in loops])
    assert counts[:, 1].min() > 2
    leaves = [given.x, given.context, *given.weights.tensors()]
    for leaf in leaves:
        leaf.requires_grad_()
    got = kernel(given, activation, tableau, course)
    assert got.status.eq(DONE).all()
    assert torch.stack([got.evaluations, got.accepted, got.rejected], 1).equal(counts.int())
    close(parts(got), want, 1e-12)
    weight = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    followed = torch.stack([loop.again(given, row) for row, loop in enumerate(loops)])
    expected = torch.autograd.grad((weight * followed).sum(), leaves)
    found = torch.autograd.grad((weight * parts(got)).sum(), leaves)
    for g, e in zip(found, expected, strict=True):
        close(g, e, 1e-9)


@GATED
@pytest.mark.parametrize("asked", ["log_det", "kinetic", "probe", "context"])
def test_what_is_not_asked_for_changes_nothing_else(asked: str, gated: bool) -> None:
    given, course = case(5, 2, 9, 8, 1, gated=gated), Course(0.0, 1.0, 6, None)
    for leaf in (given.x, *given.weights.tensors()):
        leaf.requires_grad_()
    if asked == "context":
        given.context.zero_()
    full, less = kernel(given, "tanh", RK4, course), kernel(given, "tanh", RK4, course, **{asked: False})
    field = {"probe": "jacobian"}.get(asked, asked)
    kept = [name for name in ("x", "log_det", "kinetic", "jacobian") if name != field]
    for name in kept:
        assert getattr(full, name).equal(getattr(less, name))
    assert asked == "context" or getattr(less, field) is None
    leaves = [given.x, *given.weights.tensors()]
    sums = [sum(getattr(s, name).sum() for name in kept) for s in (full, less)]
    for g, e in zip(*(torch.autograd.grad(total, leaves) for total in sums), strict=True):
        close(g, e, 1e-12)


@GATED
@pytest.mark.parametrize("activation", ["tanh", "silu", "softplus"])
def test_float32_agrees_with_float64(activation: str, gated: bool) -> None:
    given, course, found = case(40, 6, 50, 33, 2, gated=gated), Course(0.0, 1.0, 12, None), []
    for one in (given, single(given)):
        for leaf in (one.x, one.context, *one.weights.tensors()):
            leaf.requires_grad_()
        got = kernel(one, activation, RK4, course)
        leaves = (one.x, one.context, *one.weights.tensors())
        found.append([parts(got), *torch.autograd.grad(parts(got).mean(), leaves)])
    for e, g in zip(*found, strict=True):
        close(g.double(), e, 2e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("method", [DOPRI5, BOSH3], ids=["dopri5", "gated bosh3"])
def test_a_row_depends_neither_on_company_nor_on_threads(precision: torch.dtype, method: Tableau) -> None:
    given = case(53, 3, 20, 17, 2, gated=method is BOSH3)
    given = single(given) if precision is torch.float32 else given
    course = dataclasses.replace(STEPS, tolerances=(1e-4, 1e-4))
    together = parts(kernel(given, "tanh", method, course))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert parts(kernel(given, "tanh", method, course)).equal(together)
    finally:
        torch.set_num_threads(threads)
    for size in (1, 7, 16):
        for at in range(0, 53, size):
            own = slice(at, at + size)
            some = Case(given.x[own], given.context[own], given.weights, given.probe[own])
            assert parts(kernel(some, "tanh", method, course)).equal(together[own])


@GATED
def test_threads_share_the_sum_of_gradients(gated: bool) -> None:
    given, threads, found = case(70, 2, 12, 12, 1, gated=gated), torch.get_num_threads(), []
    leaves = [given.x, given.context, *given.weights.tensors()]
    for leaf in leaves:
        leaf.requires_grad_()
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(torch.autograd.grad(parts(kernel(given, "silu", DOPRI5, STEPS)).sum(), leaves))
    finally:
        torch.set_num_threads(threads)
    for one, two, again in zip(*found, strict=True):
        close(two, one, 1e-12)
        assert two.equal(again)


def test_rows_that_fail_say_why_and_give_no_gradient() -> None:
    given = case(20, 2, 16, 16, 1)
    given.x[3, 0], given.context[11, 1] = math.nan, math.nan
    given.x.requires_grad_()
    given.weights.w1.requires_grad_()
    got = kernel(given, "tanh", DOPRI5, STEPS)
    lost = torch.zeros(20, dtype=torch.bool)
    lost[[3, 11]] = True
    assert got.status.eq(NOT_FINITE).equal(lost)
    assert got.status[~lost].eq(DONE).all()
    assert parts(got).isnan().all(1).equal(lost)
    parts(got)[~lost].sum().backward()
    assert given.x.grad[lost].eq(0).all()
    assert given.weights.w1.grad.isfinite().all()
    few = kernel(given, "tanh", DOPRI5, dataclasses.replace(STEPS, limit=2))
    assert few.status[~lost].eq(TOO_MANY).all()
    assert (few.accepted + few.rejected)[~lost].eq(2).all()
    assert few.x.isnan().all()


def test_a_step_that_becomes_too_small_ends_a_row() -> None:
    given = case(3, 1, 8, 8, 0, gain=1e9)
    got = kernel(given, "tanh", DOPRI5, Course(0.0, 1.0, 100000, (1e-300, 0.0)), log_det=False)
    assert got.status.eq(TOO_SMALL).all()
    assert got.x.isnan().all()


def test_a_field_of_zeros_is_solved_in_both_precisions() -> None:
    given = case(3, 2, 8, 8, 1)
    given.weights.w3.zero_(), given.weights.b3.zero_()
    for one in (given, single(given)):
        got = kernel(one, "tanh", DOPRI5, STEPS)
        assert got.status.eq(DONE).all()
        assert got.x.equal(one.x)
        assert got.log_det.eq(0).all()


@pytest.mark.parametrize(("method", "order"), [(DOPRI5, 5), (RK4, 4)], ids=["dopri5", "rk4"])
def test_equal_steps_converge_by_the_methods_order(method: Tableau, order: int) -> None:
    given = case(8, 2, 16, 16, 1, gain=1.0)
    exact = parts(kernel(given, "tanh", RK4, Course(0.0, 1.0, 2000, None)))
    errors = [
        (parts(kernel(given, "tanh", method, Course(0.0, 1.0, n, None))) - exact).norm().item()
        for n in (20, 40)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)
    got = kernel(given, "tanh", method, Course(0.0, 1.0, 20, None))
    assert got.accepted.eq(20).all()
    assert got.evaluations.eq(20 * (6 if method.fsal else 4)).all()


def test_no_rows_no_time_and_inference_mode() -> None:
    given = case(4, 2, 8, 8, 1)
    none = Case(given.x[:0], given.context[:0], given.weights, given.probe[:0])
    assert parts(kernel(none, "tanh", DOPRI5, STEPS)).shape == (0, 5)
    given.x.requires_grad_()
    still = kernel(given, "tanh", DOPRI5, dataclasses.replace(STEPS, t1=0.0))
    assert still.x.equal(given.x)
    assert torch.autograd.grad(still.x.sum(), given.x)[0].eq(1).all()
    with torch.inference_mode():
        assert parts(kernel(given, "tanh", DOPRI5, STEPS)).isfinite().all()
    assert not can_solve(given.x.half(), given.weights, "tanh")
    assert not can_solve(given.x, given.weights, "relu")


def test_inputs_may_lie_in_any_order_and_under_autocast() -> None:
    given = single(case(6, 3, 8, 9, 1))
    x, context, w1 = (t.T.contiguous().T for t in (given.x, given.context, given.weights.w1))
    turned = Case(x, context, dataclasses.replace(given.weights, w1=w1), given.probe)
    found = []
    for one in (given, turned):
        leaves = [one.x.requires_grad_(), one.context.requires_grad_(), one.weights.w1.requires_grad_()]
        with torch.autocast("cpu", enabled=one is turned):
            value = parts(kernel(one, "tanh", DOPRI5, STEPS))
        found.append([value, *torch.autograd.grad(value.sum(), leaves)])
    for g, e in zip(*found, strict=True):
        close(g, e, 1e-5)


@GATED
def test_a_gradient_can_be_taken_twice_but_not_followed(gated: bool) -> None:
    given = case(4, 2, 8, 8, 1, gated=gated)
    given.x.requires_grad_()
    value = parts(kernel(given, "tanh", DOPRI5, STEPS)).sum()
    once = torch.autograd.grad(value, given.x, retain_graph=True)[0]
    assert once.equal(torch.autograd.grad(value, given.x, retain_graph=True)[0])
    with pytest.raises(RuntimeError, match="has no gradient itself"):
        torch.autograd.grad(value, given.x, create_graph=True)
    given.weights.v.requires_grad_()
    assert once.equal(torch.autograd.grad(parts(kernel(given, "tanh", DOPRI5, STEPS)).sum(), given.x)[0])


@GATED
def test_a_flow_is_the_same_without_the_kernel(gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    field, found = PerceptronField(3, context_features=2, hidden=(14, 11), gated=gated).double(), []
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, context = (torch.randn(7, width, dtype=torch.float64, requires_grad=True) for width in (3, 2))
    for missing in ("solve", "fused"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pushforward.transforms.continuous.{missing}", lambda *_, **__: None)
            noise = torch.Generator().manual_seed(0)
            got = Continuous(field).solve(x, context, generator=noise, penalties=("kinetic", "jacobian"))
            value = torch.cat([got.y, torch.stack([got.log_abs_det, *got.penalties.values()], 1)], 1)
            g = torch.autograd.grad(value.cos().sum(), [x, context, *field.parameters()])
        found.append([value, got.stats.accepted.double(), *g])
    for with_kernel, without in zip(*found, strict=True):
        close(with_kernel, without, 1e-9)
