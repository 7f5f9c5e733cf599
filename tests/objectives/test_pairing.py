"""Pairs are short, and pairing changes neither the law of the noise given the context nor that of the data."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from pushforward.objectives import pairing as module
from pushforward.objectives.pairing import PAIRINGS, pair, sinkhorn_plan

NAMES = sorted(PAIRINGS)
SHORT = ["exact", "sinkhorn"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def length(x0: Tensor, x1: Tensor) -> float:
    return (x0 - x1).square().flatten(1).sum(1).mean().item()


def sorted_rows(*columns: Tensor) -> list[list[float]]:
    return sorted(torch.cat([column.flatten(1) for column in columns], 1).tolist())


def distances(x0: Tensor, x1: Tensor) -> Tensor:
    return torch.cdist(x0, x1).square()


def two_classes(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, points far left or far right by their class, and one-hot classes."""
    classes = torch.arange(n) % 2
    x1 = 0.3 * normal(n, 2, seed=1) + (6.0 * classes - 3)[:, None]
    return normal(n, 2), x1, torch.nn.functional.one_hot(classes).float()


@pytest.mark.parametrize("event", [(2,), (), (2, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_exact_is_the_best_of_all_permutations(seed: int, event: tuple[int, ...]) -> None:
    x0, x1 = normal(6, *event, seed=seed), normal(6, *event, seed=100 + seed)
    cost = (x0[:, None] - x1).square().reshape(6, 6, -1).sum(-1)
    best = min(sum(cost[i, j].item() for j, i in enumerate(p)) / 6 for p in permutations(range(6)))
    paired, same, _, _ = pair(x0, x1)
    assert (paired - same).square().reshape(6, -1).sum(1).mean().item() == pytest.approx(best, rel=1e-5)
    assert torch.equal(same, x1)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_exact_is_a_permutation_and_never_longer(n: int) -> None:
    x0, x1 = normal(n, 3), 2 + normal(n, 3, seed=1)
    paired = pair(x0, x1)[0]
    assert sorted_rows(paired) == sorted_rows(x0)
    for seed in range(10):
        other = pair(x0, x1, pairing="independent", generator=seeded(seed))[0]
        assert length(paired, x1) <= length(other, x1) + 1e-5


def test_many_rows_are_paired_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x0, x1 = normal(103, 2), normal(103, 2, seed=1)
    best = length(pair(x0, x1)[0], x1)
    monkeypatch.setattr(module, "BLOCK", 25)
    paired = pair(x0, x1, generator=seeded())[0]
    assert sorted_rows(paired) == sorted_rows(x0)
    assert best < length(paired, x1) < 0.5 * length(x0, x1)


def test_independent_breaks_what_rows_had_in_common() -> None:
    x = normal(2000, 1)
    paired, x1, _, _ = pair(x, x, pairing="independent", generator=seeded())
    assert sorted_rows(paired) == sorted_rows(x)
    assert torch.corrcoef(torch.cat([paired, x1], 1).T)[0, 1].abs() < 0.07


def test_given_is_what_was_given() -> None:
    given = normal(5, 2), normal(5, 2, seed=1), normal(5, 1, seed=2), torch.rand(5)
    assert all(a is b for a, b in zip(pair(*given, pairing="given"), given, strict=True))


def test_sinkhorn_approaches_exact() -> None:
    x0, x1 = normal(60, 2), 0.5 * normal(60, 2, seed=1) + 1
    cost = distances(x0, x1)
    best = length(pair(x0, x1)[0], x1)
    costs = [
        (sinkhorn_plan(cost, regularisation=r, tolerance=1e-4, max_iterations=20_000) * cost).sum().item()
        for r in (10.0, 1.0, 0.1, 0.01)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == pytest.approx(cost.mean().item(), rel=0.05)
    assert best <= costs[-1] < 1.01 * best


@pytest.mark.parametrize("shape", [(60, 60), (30, 50), (1, 1)])
def test_a_plan_has_its_marginals(shape: tuple[int, int]) -> None:
    n, m = shape
    plan = sinkhorn_plan(distances(normal(n, 2), normal(m, 2, seed=1)), tolerance=1e-4, max_iterations=20_000)
    torch.testing.assert_close(plan.sum(0), torch.full((m,), 1 / m))
    assert (plan.sum(1) - 1 / n).abs().sum() < 1e-4
    assert (plan >= 0).all()


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e-18, 1e15])
def test_a_plan_of_any_scale_is_finite(factor: float) -> None:
    cost = factor * distances(normal(20, 2), normal(20, 2, seed=1))
    torch.testing.assert_close(sinkhorn_plan(cost).sum(), torch.tensor(1.0))


def test_a_plan_with_an_outlier_or_too_few_iterations_is_finite() -> None:
    cost = distances(torch.cat([normal(19, 2), torch.full((1, 2), 1e8)]), normal(20, 2, seed=1))
    for settings in ({}, {"regularisation": 1e-6}, {"max_iterations": 1}):
        torch.testing.assert_close(sinkhorn_plan(cost, **settings).sum(), torch.tensor(1.0))


def test_a_plan_stops_where_it_has_converged() -> None:
    cost = distances(normal(60, 2), normal(60, 2, seed=1))
    loose, tight = (sinkhorn_plan(cost, tolerance=t, max_iterations=5000) for t in (0.1, 1e-4))
    errors = [(plan.sum(1) - 1 / 60).abs().sum() for plan in (loose, tight)]
    assert errors[1] < 1e-4 < errors[0] < 0.1


def test_sinkhorn_draws_from_its_plan() -> None:
    """All rows of the noise are drawn about equally often, and pairs are nearly as short as the best."""
    n, repeats = 40, 300
    rows = torch.arange(n)
    x0 = torch.cat([normal(n, 2), 1e-4 * rows[:, None]], 1)
    x1 = torch.cat([normal(n, 2, seed=1), torch.zeros(n, 1)], 1)
    draws = [pair(x0, x1, pairing="sinkhorn", generator=seeded(seed))[0] for seed in range(repeats)]
    counts = torch.stack(draws)[..., 2].div(1e-4).round().long().flatten().bincount(minlength=n) / repeats
    assert counts.mean() == 1
    assert (counts - 1).abs().max() < 0.3
    best, drawn = length(pair(x0, x1)[0], x1), sum(length(x, x1) for x in draws) / repeats
    assert 0.9 * best < drawn < 0.3 * length(x0, x1)


@pytest.mark.parametrize("name", SHORT)
def test_noise_is_independent_of_the_context(name: str) -> None:
    """Without its context, the noise of the right class lies right; with it, the noise is what it was."""
    x0, x1, context = two_classes(400)
    right = context[:, 1] == 1
    coupled = pair(x0, x1, pairing=name, generator=seeded())[0]
    assert coupled[right].mean() - coupled[~right].mean() > 0.8
    paired, same, after, _ = pair(x0, x1, context, pairing=name, generator=seeded())
    assert after is context
    assert same is x1
    for rows in (right, ~right):
        assert (paired[rows].mean(0) - x0[rows].mean(0)).abs().max() < 0.15
        assert (paired[rows].std(0) - x0[rows].std(0)).abs().max() < 0.15
        assert length(paired[rows], x1[rows]) < 0.96 * length(x0[rows], x1[rows])


@pytest.mark.parametrize("name", ["exact", "independent"])
def test_a_permutation_keeps_the_joint_law_with_the_context(name: str) -> None:
    x0, x1, context = two_classes(101)
    paired = pair(x0, x1, context, pairing=name, generator=seeded())[0]
    assert not torch.equal(paired, x0)
    assert sorted_rows(paired, context) == sorted_rows(x0, context)


@pytest.mark.parametrize("name", NAMES)
def test_continuous_contexts_leave_the_rows_alone(name: str) -> None:
    x0, x1, context = normal(50, 2), normal(50, 2, seed=1), normal(50, 1, 2, seed=2)
    assert torch.equal(pair(x0, x1, context, pairing=name, generator=seeded())[0], x0)


@pytest.mark.parametrize("name", ["exact", "independent", "sinkhorn"])
def test_weights_are_shares_of_the_rows(name: str) -> None:
    n = 400
    weights = torch.rand(n, generator=seeded()) * (torch.arange(n) % 5 > 0)
    x1 = torch.arange(n)[:, None].float()
    _, drawn, context, left = pair(normal(n, 1), x1, x1.clone(), weights, pairing=name, generator=seeded(1))
    share = n * weights.double() / weights.double().sum()
    counts = drawn.flatten().long().bincount(minlength=n)
    assert left is None
    assert torch.equal(drawn, context)
    assert len(drawn) == n
    assert (counts >= share.floor()).all()
    assert (counts <= share.ceil()).all()


@pytest.mark.parametrize("name", SHORT)
def test_weighted_data_shares_the_noise_by_weight(name: str) -> None:
    """Three quarters of the noise go to the points of three quarters of the weight; the noise stays as it is."""
    n = 400
    right = torch.arange(n) % 2 == 1
    x1, weights = torch.where(right, 3.0, -3.0)[:, None], torch.where(right, 3.0, 1.0)
    x0, x1, _, _ = pair(normal(n, 1), x1, None, weights, pairing=name, generator=seeded(1))
    assert (x1 > 0).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert x0.mean().abs() < 0.15
    assert x0.std().item() == pytest.approx(1, abs=0.1)
    assert (x0[x1 > 0] > -0.8).float().mean() > 0.85
    assert (x0[x1 < 0] < -0.5).float().mean() > 0.85


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes_are_kept(name: str, dtype: torch.dtype) -> None:
    paired, same, _, _ = pair(normal(20, 3).to(dtype), normal(20, 3).to(dtype), pairing=name)
    assert paired.dtype == same.dtype == dtype


@pytest.mark.parametrize(("shift0", "shift1"), [(4096.0, 4096.0), (0.0, 4096.0), (-4096.0, 4096.0)])
@pytest.mark.parametrize("name", SHORT)
def test_pairs_far_away_are_the_same(name: str, shift0: float, shift1: float) -> None:
    """Squared distances of 1e7 and more would hide, in float32, by how much they differ."""
    x0, x1 = (64 * normal(40, 2, seed=0)).round() / 64, (64 * normal(40, 2, seed=1)).round() / 64
    near, far = (
        pair(x0 + a, x1 + b, pairing=name, generator=seeded())[0] for a, b in ((0.0, 0.0), (shift0, shift1))
    )
    assert torch.equal(far - shift0, near)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_pairs(name: str) -> None:
    x0, x1, context = two_classes(60)
    results = [
        pair(x0, x1, context, torch.rand(60, generator=seeded()), pairing=name, generator=seeded(s))
        for s in (3, 3)
    ]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", SHORT)
def test_pairing_has_no_gradient(name: str) -> None:
    x1 = normal(20, 2).requires_grad_()
    paired, same, _, _ = pair(normal(20, 2, seed=1), x1, pairing=name)
    assert not paired.requires_grad
    assert same.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairing": "ot"}, "pairing must be one of given, independent, exact, sinkhorn, got 'ot'"),
        ({"x1": torch.zeros(0, 2)}, r"x1 must have shape \(n, \*event\) with at least one row, got \(0, 2\)"),
        ({"x1": torch.tensor(1.0)}, r"at least one row, got \(\)"),
        ({"x0": torch.zeros(3, 2)}, r"x0 must have the shape of x1, \(4, 2\), got \(3, 2\)"),
        (
            {"x0": torch.zeros(4, 2, dtype=torch.float64)},
            "x0 must have the dtype of x1, torch.float32, got torch.float64",
        ),
        ({"context": torch.zeros(3, 1)}, r"context must have a row for each of the 4 of x1, got \(3, 1\)"),
        ({"weights": torch.ones(4, 1)}, r"weights must have shape \(4,\), got \(4, 1\)"),
        ({"weights": torch.tensor([1.0, -1, 1, 1])}, "weights must be at least 0 .* got a least one of -1"),
        ({"weights": torch.zeros(4)}, "positive, finite sum, got a least one of 0 and a sum of 0"),
        ({"weights": torch.tensor([1.0, torch.nan, 1, 1])}, "weights must be at least 0 .* a sum of nan"),
        ({"x1": torch.full((4, 2), torch.nan)}, "finite squared distances"),
        ({"x1": torch.full((4, 2), torch.inf), "pairing": "sinkhorn"}, "finite squared distances"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, object], message: str) -> None:
    arguments = {"x0": torch.zeros(4, 2), "x1": torch.zeros(4, 2), **change}
    with pytest.raises(ValueError, match=message):
        pair(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["regularisation", "tolerance", "max_iterations"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_settings_of_a_plan(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got {value}"):
        sinkhorn_plan(torch.ones(2, 2), **{name: value})  # type: ignore[arg-type]
