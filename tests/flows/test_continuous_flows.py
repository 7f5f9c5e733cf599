"""Flows whose transform is continuous: exactness, estimates, penalties, training and reload."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cases import randomise, seeded
from pushforward.artifact import FittedFlow, load, save
from pushforward.configs import (
    MODELS,
    AugmentedConfig,
    DataConfig,
    FFJORDConfig,
    FlowMatchingConfig,
    ModelConfig,
    RNODEConfig,
    TrainConfig,
)
from pushforward.flows import Flow, build_flow, score
from pushforward.networks import PerceptronField
from pushforward.objectives import negative_log_likelihood
from pushforward.objectives.objective import objective_of
from pushforward.ode import Adaptive, Fixed
from pushforward.training import fit
from pushforward.training.checkpoints import Checkpoints
from pushforward.training.run import Run
from pushforward.transforms import Continuous

HIDDEN = (8, 8)
NEW = {
    "ffjord": FFJORDConfig(hidden=HIDDEN),
    "squashed": FFJORDConfig(hidden=(4,), field="concatsquash", atol=1e-3, rtol=1e-3),
    "hutchinson": FFJORDConfig(hidden=HIDDEN, divergence="hutchinson", atol=1e-3, rtol=1e-3),
    "hutch++": FFJORDConfig(hidden=(4,), divergence="hutch++", atol=1e-3, rtol=1e-3),
    "rnode": RNODEConfig(hidden=HIDDEN, atol=1e-3, rtol=1e-3),
    "augmented": AugmentedConfig(hidden=HIDDEN),
    "flow-matching": FlowMatchingConfig(hidden=HIDDEN),
}


def made(config: ModelConfig, features: int = 2, context: int = 0, strength: float = 1.0) -> Flow:
    torch.manual_seed(0)
    flow = build_flow(config, features, context).double()
    randomise(flow.transform, strength, seeded(1))
    return flow


def points(n: int, features: int = 2) -> Tensor:
    return 1.5 * torch.randn(n, features, generator=seeded(2), dtype=torch.float64)


def grid(count: int, reach: float, features: int) -> tuple[Tensor, float]:
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    cell = float(axis[1] - axis[0]) ** features
    return torch.cartesian_prod(*[axis] * features).reshape(-1, features), cell


# --- densities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("name", ["ffjord", "flow-matching"])
def test_the_total_mass_is_1_and_samples_agree_with_it(name: str, features: int) -> None:
    flow = made(NEW[name], features)
    x, cell = grid(4001 if features == 1 else 161, 12.0 if features == 1 else 9.0, features)
    with torch.no_grad():
        mass = flow.log_prob(x).exp() * cell
        assert mass.sum().item() == pytest.approx(1.0, abs=2e-3)
        samples = flow.sample((4000,), generator=seeded(3))
        for f in (lambda z: z, lambda z: z.square(), torch.cos, lambda z: (z > 0.5).double()):
            expected = (mass[:, None] * f(x)).sum(0)
            found = f(samples)
            assert ((found.mean(0) - expected).abs() < 4.5 * found.std(0) / 4000**0.5 + 5e-3).all()


def test_round_trips_of_a_tight_tolerance() -> None:
    flow = made(FFJORDConfig(hidden=HIDDEN, atol=1e-8, rtol=1e-8), 3)
    x = points(50, 3)
    with torch.no_grad():
        assert (flow.from_latent(flow.to_latent(x)) - x).abs().max() <= 1e-6
        z, there = flow.transform(x)
        back, again = flow.transform.inverse(z)
        assert (back - x).abs().max() <= 1e-6 and (there + again).abs().max() <= 1e-6


@pytest.mark.parametrize("name", ["ffjord", "squashed", "flow-matching"])
def test_errors_of_log_prob_are_within_a_hundredfold_of_the_tolerance(name: str) -> None:
    config, x = NEW[name], points(8)

    def log_prob(tolerance: float) -> Tensor:
        flow = made(replace(config, atol=tolerance, rtol=tolerance), strength=0.7)
        with torch.no_grad():
            return flow.log_prob(x)

    exact = log_prob(1e-11)
    for exponent in range(3, 10):
        tolerance = 10.0**-exponent
        assert (log_prob(tolerance) - exact).abs().max() <= 100 * tolerance


@pytest.mark.parametrize("name", ["hutchinson", "hutch++", "augmented"])
def test_what_is_not_exact_refuses_to_look_so(name: str) -> None:
    flow = made(NEW[name])
    with pytest.raises(ValueError, match=r"log_prob must be exact.* use estimate_log_prob"):
        flow.log_prob(points(3))
    with pytest.raises(ValueError, match=r"sample_and_log_prob must be exact.* use sample"):
        flow.sample_and_log_prob((3,))
    if name != "augmented":
        for direction in (flow.transform.forward, flow.transform.inverse):
            with pytest.raises(ValueError, match=r"is an estimate: use solve or estimate_log_prob"):
                direction(points(3))


@pytest.mark.parametrize("divergence", ["hutchinson", "hutch++"])
def test_estimates_are_without_bias_and_know_their_errors(divergence: str) -> None:
    config = FFJORDConfig(hidden=(6, 6), divergence=divergence, atol=1e-3, rtol=1e-3)
    flow, x = made(config, 4), points(6, 4)
    with torch.no_grad():
        exact = made(replace(config, divergence="exact", atol=1e-8, rtol=1e-8), 4).log_prob(x)
        estimate = flow.estimate_log_prob(x, generator=seeded(4), num_samples=40)
        assert estimate.kind == "estimate"
        assert ((estimate.value - exact).abs() < 4 * estimate.standard_error + 2e-2).all()
        many = [flow.estimate_log_prob(x, generator=seeded(s), num_samples=6) for s in range(5, 17)]
        spread = torch.stack([e.value for e in many]).std(0)
        claimed = torch.stack([e.standard_error for e in many]).square().mean(0).sqrt()
        assert ((spread / claimed).log().abs() < math.log(3)).all()
        one = flow.estimate_log_prob(x, generator=seeded(4), num_samples=1)
        assert one.standard_error.isnan().all()
        order = torch.tensor([4, 2, 0, 5, 1, 3])
        mixed = flow.estimate_log_prob(x[order], generator=seeded(4), num_samples=3).value
        whole = flow.estimate_log_prob(x, generator=seeded(4), num_samples=3).value
        torch.testing.assert_close(mixed, whole[order], rtol=1e-6, atol=1e-6)


def test_exact_flows_estimate_exactly() -> None:
    flow, x = made(NEW["ffjord"]), points(4)
    estimate = flow.estimate_log_prob(x)
    assert estimate.kind == "exact" and not estimate.standard_error.any()
    assert torch.equal(estimate.value, flow.log_prob(x))


def test_an_augmented_flow_has_an_estimate_whose_mass_is_1_and_bounds_below_it() -> None:
    flow = made(NEW["augmented"], 1, strength=0.6)
    x, cell = grid(161, 8.0, 1)
    with torch.no_grad():
        many = flow.estimate_log_prob(x, generator=seeded(5), num_samples=200)
        assert many.kind == "estimate" and many.value.shape == (161,)
        mass = many.value.exp() * cell
        error = (mass * many.standard_error).sum()  # the same draws serve all points
        assert abs(mass.sum() - 1) < 4 * error + 5e-3
        single = torch.stack(
            [flow.estimate_log_prob(x, generator=seeded(s), num_samples=1).value for s in range(6, 38)]
        )
        near = mass > 1e-4
        below = single.mean(0) - many.value
        assert (below < 4 * single.std(0) / 32**0.5 + 4 * many.standard_error)[near].all()
        assert below[near].mean() < 0


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("name", NEW)
def test_codes_and_samples_need_no_density(name: str, context: int) -> None:
    flow = made(NEW[name], 2, context)
    given = torch.randn(3, 2, generator=seeded(6), dtype=torch.float64) if context else None
    samples = flow.sample((4,), given, generator=seeded(7))
    assert samples.shape == ((4, 3, 2) if context else (4, 2)) and samples.isfinite().all()
    assert torch.equal(samples, flow.sample((4,), given, generator=seeded(7)))
    latent = flow.to_latent(samples, given, generator=seeded(8))
    assert latent.shape == (*samples.shape[:-1], *flow.transform.latent_shape)
    torch.testing.assert_close(flow.from_latent(latent, given), samples, rtol=0.05, atol=0.05)


# --- penalties ------------------------------------------------------------------------------------------------------


def test_penalties_are_the_integrals_along_the_path() -> None:
    torch.manual_seed(0)
    field = PerceptronField(2, hidden=HIDDEN).double()
    randomise(field, 1.0, seeded(1))
    names = ("kinetic", "jacobian", "acceleration")
    x, steps = points(5), 200
    for inverse in (False, True):
        transform = Continuous(field, control=Adaptive(1e-9, 1e-9))
        solution = transform.solve(x, inverse=inverse, generator=seeded(9), penalties=names)
        alone = transform.solve(x, inverse=inverse, generator=seeded(9), penalties=("kinetic",))
        torch.testing.assert_close(
            alone.penalties["kinetic"], solution.penalties["kinetic"], rtol=1e-5, atol=1e-7
        )
        probe = torch.randint(0, 2, (5, 1, 2), generator=seeded(9)).double()[:, 0] * 2 - 1
        total = dict.fromkeys(names, torch.zeros(5, dtype=torch.float64))
        u = x
        for i in range(steps + 1):
            s = i / steps if inverse else 1 - i / steps
            t = torch.full((5,), s, dtype=torch.float64)
            weight = (1 if i in (0, steps) else 4 if i % 2 else 2) / (3 * steps)  # Simpson's rule
            v, change = torch.func.jvp(field, (t, u), (torch.ones_like(t), field(t, u)))
            rows = torch.stack(
                [torch.func.jacrev(lambda at, t=t: field(t[:1], at[None])[0])(u[r]) for r in range(5)]
            )
            total["kinetic"] = total["kinetic"] + weight * v.square().sum(1)
            total["jacobian"] = total["jacobian"] + weight * (rows @ probe[:, :, None])[..., 0].square().sum(
                1
            )
            total["acceleration"] = total["acceleration"] + weight * change.square().sum(1)
            h = (1 if inverse else -1) / steps
            k1 = field(t, u)
            k2 = field(t + h / 2, u + h / 2 * k1)
            k3 = field(t + h / 2, u + h / 2 * k2)
            u = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(t + h, u + h * k3))
        for name in names:
            torch.testing.assert_close(solution.penalties[name], total[name], rtol=1e-4, atol=1e-6, msg=name)
            assert (solution.penalties[name] > 0).all()


def test_an_unknown_penalty_is_refused() -> None:
    with pytest.raises(ValueError, match=r"penalties must be among kinetic, .*got \['speed'\]"):
        made(NEW["ffjord"]).transform.solve(points(2), penalties=("speed",))


def test_the_loss_of_rnode_is_likelihood_and_weighted_penalties() -> None:
    config = RNODEConfig(hidden=HIDDEN, kinetic=0.3, jacobian=0.2, acceleration=0.1)
    flow, z = made(config), points(7)
    objective = objective_of(config)
    assert objective.noisy
    loss = objective.loss(flow, z, None, None, seeded(3))
    solution = flow.transform.solve(z, generator=seeded(3), penalties=("kinetic", "jacobian", "acceleration"))
    nll = -(flow.base.log_prob(solution.y) + solution.log_abs_det)
    q = solution.penalties
    expected = (nll + 0.3 * q["kinetic"] + 0.2 * q["jacobian"] + 0.1 * q["acceleration"]).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        objective.validation(flow, z, None, None, None), -flow.log_prob(z).mean(), rtol=1e-6, atol=1e-6
    )
    weights = torch.arange(7.0, dtype=torch.float64)
    weighted = negative_log_likelihood(flow, z, None, weights, penalties={"kinetic": 0.3})
    each = -flow.log_prob(z) + 0.3 * q["kinetic"]
    torch.testing.assert_close(weighted, (weights * each).sum() / weights.sum(), rtol=1e-4, atol=1e-4)


# --- what is given up -----------------------------------------------------------------------------------------------


def test_a_stiff_solve_ends_with_advice_and_nan() -> None:
    flow = made(replace(NEW["ffjord"], max_steps=5))
    with pytest.warns(
        RuntimeWarning, match=r"needed more than 5 steps: they are NaN\. Larger tolerances .*rnode"
    ):
        value = flow.log_prob(points(6))
    assert value.isnan().any()
    fixed = Continuous(PerceptronField(2, hidden=HIDDEN), control=Fixed(3), method="rk4", gradient="backprop")
    assert fixed(torch.zeros(2, 2))[0].isfinite().all()


def test_rows_that_are_not_finite_are_named() -> None:
    flow, x = made(NEW["ffjord"]), points(4)
    x[2, 0] = math.nan
    with pytest.warns(
        RuntimeWarning,
        match=r"1 of 4 rows of one call, the first of them its row 3, met a velocity .* not finite",
    ):
        value = flow.log_prob(x)
    assert value.isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: Continuous(f, method="rk9"), "method must be one of"),
        (
            lambda f: Continuous(f, gradient="forward"),
            "gradient must be one of checkpointed, backprop, adjoint",
        ),
        (lambda f: Continuous(f, method="rk4"), r"'rk4' has no estimate of its error .* control=Fixed"),
    ],
)
def test_impossible_parts_are_refused(build: Callable[[Any], Continuous], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(PerceptronField(2))


# --- training and files ---------------------------------------------------------------------------------------------


def frame(rows: int = 200) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(2, rows))
    return pl.DataFrame({"a": a, "b": a * 0.5 + rng.normal(size=rows), "n": rng.poisson(3.0, rows), "c": c})


def fitted(model: ModelConfig, whole: bool, **more: Any) -> FittedFlow:
    """With a context and a column of integers, or without."""
    return fit(
        frame() if whole else frame().select("a", "b"),
        model=model,
        training=TrainConfig(epochs=2, batch_size=64),
        data=DataConfig(condition=("c",)) if whole else None,
        **more,
    )


@pytest.mark.parametrize("whole", [False, True], ids=["plain", "whole"])
@pytest.mark.parametrize("name", NEW)
def test_a_saved_flow_is_what_it_was(name: str, whole: bool, tmp_path: Path) -> None:
    before = fitted(NEW[name], whole)
    save(before, tmp_path / "a.flow")
    after = load(tmp_path / "a.flow")
    assert after.model == NEW[name]
    context = torch.tensor([[0.5], [-2.0]], dtype=torch.float64) if whole else None
    one, other = (f.flow.sample((5,), context, generator=seeded(1)) for f in (before, after))
    assert torch.equal(one, other) and one.isfinite().all()
    x, context = (one[:, 0], context[:1]) if context is not None else (one, None)
    values = [score(f.flow, x, context).value for f in (before, after)]
    assert torch.equal(*values) and values[0].isfinite().all()


@pytest.mark.parametrize("name", ["ffjord", "flow-matching"])
def test_equal_seeds_give_equal_weights(name: str) -> None:
    one, other, different = (fitted(NEW[name], False, seed=s).flow.state_dict() for s in (0, 0, 1))
    assert all(torch.equal(t, other[k]) for k, t in one.items())
    assert any(not torch.equal(t, different[k]) for k, t in one.items())


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize("name", ["flow-matching", "rnode"])
def test_a_training_that_was_killed_goes_on_bit_for_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fitted(NEW[name], False)
    step, left = Run.step, [3]

    def dying(self: Run, batch: Any) -> None:
        step(self, batch)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", dying)
        patch.setattr(Checkpoints, "due", lambda _: True)
        with pytest.raises(Killed):
            fitted(NEW[name], False, checkpoint=tmp_path / "a")
    again = fitted(NEW[name], False, checkpoint=tmp_path / "a", resume=True)
    assert replace(again.facts, seconds=0.0) == replace(expected.facts, seconds=0.0)
    states = again.flow.state_dict(), expected.flow.state_dict()
    assert all(torch.equal(t, states[1][k]) for k, t in states[0].items())


def test_every_continuous_model_is_here() -> None:
    continuous = {n for n, c in MODELS.items() if issubclass(c, FFJORDConfig | FlowMatchingConfig)}
    assert {type(c) for c in NEW.values()} == {MODELS[n] for n in continuous}


# --- shapes ---------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@settings(max_examples=25, deadline=None)
@given(batch=SHAPES, keep=st.lists(st.booleans(), min_size=3, max_size=3), drop=st.integers(0, 3))
def test_any_batch_meets_any_context_that_broadcasts_to_it(
    batch: tuple[int, ...], keep: list[bool], drop: int
) -> None:
    flow = made(NEW["ffjord"], 2, 1)
    given_batch = tuple(n if k else 1 for n, k in zip(batch, keep, strict=False))[drop:]
    x = torch.randn(*batch, 2, generator=seeded(), dtype=torch.float64)
    context = torch.randn(*given_batch, 1, generator=seeded(1), dtype=torch.float64)
    with torch.no_grad():
        solution = flow.transform.solve(x, context, generator=seeded(), penalties=("kinetic",))
        assert solution.y.shape == x.shape
        parts = (solution.log_abs_det, solution.penalties["kinetic"], solution.stats.evaluations)
        assert all(part.shape == batch for part in parts)
        assert flow.transform.encode(x, context).shape == x.shape
        spread = context.expand(*batch, 1)
        flat = flow.transform.solve(x.reshape(-1, 2), spread.reshape(-1, 1))
        torch.testing.assert_close(flat.y.reshape(x.shape), solution.y, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            flat.log_abs_det.reshape(batch), solution.log_abs_det, rtol=1e-9, atol=1e-9
        )
