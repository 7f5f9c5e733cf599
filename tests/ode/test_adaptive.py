"""Steps as long as the tolerance allows, for each row by itself."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ode_systems import PROBLEMS, Equations, plan, starts
from pushforward.ode import Adaptive, solve

PAIRS = ("heun", "bosh3", "dopri5")
LEAST = {"heun": -5, "bosh3": -6, "dopri5": -9}


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["ahead", "back"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", PAIRS)
def test_errors_follow_the_tolerance(name: str, problem: str, ends: tuple[float, float]) -> None:
    p = PROBLEMS[problem]
    begin, end = (p.solution(t, starts()) for t in ends)
    errors = []
    for exponent in range(-3, LEAST[name] - 1, -1):
        tolerance = 10.0**exponent
        control = Adaptive(tolerance, tolerance, max_steps=20000)
        solved = solve(Equations(p.rates), begin, plan(name, control, ends=ends))
        errors.append((solved.u - end).abs().max().item())
        # Backwards the logistic equation makes of an error thirty of them.
        assert errors[-1] <= 200 * tolerance and solved.status.tolist() == [0] * 3
    assert all(b < a for a, b in pairwise(errors)), errors
    assert errors[-1] < 30 * errors[0] * 10 ** (LEAST[name] + 3), errors


def pulses(t: Tensor, u: Tensor, rate: Tensor) -> Tensor:
    """Rows of very different rates, of sums and products alone, whose bits no other row can move."""
    x, y = u[:, :1], u[:, 1:]
    bump = 1 / (1 + 400 * rate * (t - 0.5) * (t - 0.5))
    return torch.cat([rate * y + bump * rate, -rate * x], 1)


def rows(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return u, torch.logspace(-1, 1.3, n, dtype=torch.float64)[torch.randperm(n, generator=generator), None]


def test_a_row_is_the_same_alone_and_in_any_company() -> None:
    u, rate = rows(23)
    control = plan(control=Adaptive(1e-6, 1e-6))
    together = solve(Equations(pulses, [rate]), u, control)
    assert together.rejected.max() > 3 and together.accepted.max() > 10 * together.accepted.min()
    # A power in a vector register and one alone differ in the last bit, and so do lengths of steps.
    same = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-13)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    mixed = solve(Equations(pulses, [rate[order]]), u[order], control)
    for name in ("u", "accepted", "rejected", "evaluations", "status"):
        same(getattr(together, name)[order], getattr(mixed, name))
    for i in range(23):
        alone = solve(Equations(pulses, [rate[i : i + 1]]), u[i : i + 1], control)
        for name in ("u", "accepted", "rejected", "evaluations"):
            same(getattr(together, name)[i], getattr(alone, name)[0])


@pytest.mark.parametrize("name", PAIRS)
def test_work_is_counted_as_it_was_asked_for(name: str) -> None:
    u, rate = rows(4)
    for i in range(4):
        equations = Equations(pulses, [rate[i : i + 1]], ids=torch.tensor([i]))
        solved = solve(equations, u[i : i + 1], plan(name, Adaptive(1e-3, 1e-3, 100000)))
        assert solved.evaluations.tolist() == [equations.seen[i]]
        assert solved.accepted.item() > 0
    equations = Equations(pulses, [rate], ids=torch.arange(4))
    solved = solve(equations, u, plan(name, Adaptive(1e-3, 1e-3, 100000)))
    assert all(equations.seen[i] >= n for i, n in enumerate(solved.evaluations.tolist()))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_agreement_with_scipy(problem: str) -> None:
    from scipy.integrate import solve_ivp

    p = PROBLEMS[problem]
    solved = solve(Equations(p.rates), starts(), plan())
    for i, u in enumerate(starts()):
        expected = solve_ivp(
            lambda t, y: p.rates(torch.tensor([[t]]), torch.from_numpy(y)[None])[0].numpy(),
            (0.0, 1.0),
            u.numpy(),
            method="DOP853",
            rtol=1e-12,
            atol=1e-12,
        ).y[:, -1]
        torch.testing.assert_close(solved.u[i], torch.from_numpy(expected), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_agreement_with_torchdiffeq(problem: str) -> None:
    torchdiffeq = pytest.importorskip("torchdiffeq")
    p = PROBLEMS[problem]
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torchdiffeq.odeint(
        lambda t, u: p.rates(t.expand(len(u), 1), u), starts(), ends, rtol=1e-9, atol=1e-9, method="dopri5"
    )[-1]
    torch.testing.assert_close(solve(Equations(p.rates), starts(), plan()).u, expected, rtol=3e-8, atol=3e-8)


# --- what cannot be solved ------------------------------------------------------------------------------------------


def mixed(t: Tensor, u: Tensor, kind: Tensor) -> Tensor:
    """Kinds 0: easy; 1: stiff; 2: infinite above 2; 3: unknown after t = 0.5; 4: NaN at once."""
    easy = -u
    stiff = -1e8 * (u - torch.cos(10 * t))
    wall = torch.where(u > 2, torch.inf, 5.0)
    unknown = torch.where(t > 0.5, torch.nan, 1.0)
    result = torch.where(kind == 1, stiff, easy)
    result = torch.where(kind == 2, wall, result)
    result = torch.where(kind == 3, unknown, result)
    return torch.where(kind == 4, torch.nan, result)


KINDS = torch.tensor([[0.0], [1], [0], [2], [3], [4], [0]], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_rows_that_cannot_be_solved_are_nan_and_leave_the_others_alone(name: str, dtype: torch.dtype) -> None:
    control = plan(name, Adaptive(1e-4, 1e-4, 300))
    u, kinds = torch.ones(7, 2, dtype=dtype), KINDS.to(dtype)
    solved = solve(Equations(mixed, [kinds]), u, control)
    assert solved.u.isnan().all(1).tolist() == [False, True, False, True, True, True, False]
    assert solved.status[[0, 2, 6]].tolist() == [0, 0, 0]
    assert solved.status[1] == 1 or dtype == torch.float32
    assert (solved.status[[1, 3, 4, 5]] > 0).all() and solved.status[5] == 2
    assert ((solved.accepted + solved.rejected) <= 300).all()
    alone = solve(Equations(mixed, [kinds[:1]]), u[:1], control)
    torch.testing.assert_close(solved.u[[0, 2, 6]], alone.u.expand(3, -1), rtol=1e-6, atol=1e-6)
    assert (solved.u[0] - math.exp(-1)).abs().max() < 1e-2


def test_steps_too_short_for_the_arithmetic_are_given_up_before_the_last() -> None:
    solved = solve(Equations(mixed, [KINDS[4:5]]), torch.ones(1, 2, dtype=torch.float64), plan())
    assert solved.status.tolist() == [3] and solved.accepted + solved.rejected < 1000


def test_a_row_that_begins_without_a_finite_velocity_takes_no_step() -> None:
    u = torch.tensor([[1.0, 1.0], [math.nan, 1.0], [math.inf, 1.0]], dtype=torch.float64)
    solved = solve(Equations(PROBLEMS["decay"].rates), u, plan())
    assert solved.status.tolist() == [0, 2, 2] and solved.accepted.tolist()[1:] == [0, 0]
    assert solved.u[1:].isnan().all()


@pytest.mark.parametrize("gradient", ["checkpointed", "backprop", "adjoint"])
def test_no_rows_are_solved_at_once(gradient: str) -> None:
    u = torch.zeros(0, 2, dtype=torch.float64, requires_grad=True)
    solved = solve(Equations(PROBLEMS["decay"].rates, moving=2), u, plan(), gradient=gradient)
    assert solved.u.shape == (0, 2) and solved.evaluations.shape == (0,)
    (g,) = torch.autograd.grad(solved.u.sum(), u)
    assert g.shape == (0, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"atol": 0.0}, "atol must be positive and finite, got 0.0"),
        ({"rtol": math.inf}, "rtol must be positive and finite, got inf"),
        ({"atol": math.nan}, "atol must be positive and finite, got nan"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
    ],
)
def test_impossible_tolerances_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptive(**settings)  # type: ignore[arg-type]
