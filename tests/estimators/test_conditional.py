"""Averaged quantiles are a density's own; intervals cover what they promise, however well the flows fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pushforward import FlowConditional
from pushforward.configs import MADEConfig, MAFConfig, NSFConfig
from pushforward.estimators.averaged import AveragedQuantiles, held_levels, recalibrated
from pushforward.flows import Flow, build_flow


def random_flow(config: Any, seed: int) -> Flow:
    generator = torch.Generator().manual_seed(seed)
    flow = build_flow(config, 1, 2).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.6, generator=generator)
    return flow


@pytest.fixture(scope="module")
def averaged() -> AveragedQuantiles:
    configs = (
        NSFConfig(layers=1, bins=4, hidden=(8,)),
        MADEConfig(hidden=(8,)),
        MAFConfig(layers=2, hidden=(8,)),
    )
    return AveragedQuantiles([random_flow(config, seed) for seed, config in enumerate(configs)])


@pytest.fixture(scope="module")
def context() -> Tensor:
    return torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def test_quantiles_are_the_mean_of_the_members_and_rise(averaged: AveragedQuantiles, context: Tensor) -> None:
    levels = torch.linspace(0.01, 0.99, 50, dtype=torch.float64).expand(3, -1)
    quantiles = averaged.quantiles(levels, context)
    assert (quantiles.diff(dim=1) > 0).all()
    for i in range(3):
        for j in (0, 20, 49):
            latent = torch.special.ndtri(levels[i, j]).reshape(1)
            own = [flow.from_latent(latent, context[i]) for flow in averaged.flows]
            torch.testing.assert_close(quantiles[i, j], torch.stack(own).mean())


def test_the_density_is_that_of_the_quantiles(averaged: AveragedQuantiles, context: Tensor) -> None:
    ends = averaged.quantiles(torch.tensor([[1e-9, 1 - 1e-9]]).double().expand(3, -1), context)
    inner = averaged.quantiles(torch.tensor([[0.1, 0.5, 0.8]]).double().expand(3, -1), context)
    for i in range(3):
        grid = torch.linspace(float(ends[i, 0]), float(ends[i, 1]), 4001, dtype=torch.float64)
        density = averaged.log_prob(grid, context[i].expand(len(grid), -1)).exp()
        below = torch.cumulative_trapezoid(density, grid)
        assert abs(float(below[-1]) - 1) < 1e-3
        for quantile, level in zip(inner[i], (0.1, 0.5, 0.8), strict=True):
            place = int(torch.searchsorted(grid, quantile)) - 1
            assert abs(float(below[place]) - level) < 4e-3


def test_held_levels_are_those_of_the_quantiles(averaged: AveragedQuantiles, context: Tensor) -> None:
    flow, levels = averaged.flows[0], torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    y = AveragedQuantiles([flow]).quantiles(levels[:, None], context)[:, 0]
    torch.testing.assert_close(held_levels(flow, y, context), levels)


def test_levels_asked_for_keep_the_levels_wanted() -> None:
    rng = np.random.default_rng(0)
    n, repeats = 39, 4000
    for power in (0.3, 1.0, 3.0):  # of levels that are far from uniform
        held = np.sort(rng.uniform(size=(repeats, n)) ** power, axis=1)
        fresh = rng.uniform(size=repeats) ** power
        for level in (0.05, 0.5, 0.975):
            share = np.mean(
                [u <= recalibrated(np.array([level]), row)[0] for u, row in zip(fresh, held, strict=True)]
            )
            assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / repeats) + 1e-3


def table(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 2))
    return X, 100 + 20 * X[:, 0] + (2 + 8 * np.abs(X[:, 1])) * rng.normal(size=rows)


@pytest.fixture(scope="module")
def fitted() -> FlowConditional:
    settings: dict[str, Any] = {"epochs": 40, "learning_rate": 0.02, "folds": 2, "random_state": 0}
    return FlowConditional(model=MADEConfig(hidden=(16,)), **settings).fit(*table(500, 0))


def test_the_law_of_the_target_is_learned(fitted: FlowConditional) -> None:
    X, y = table(3000, 1)
    assert fitted.score(X, y) > 0.7
    width = np.diff(fitted.predict_interval([[0.0, 0.0], [0.0, 2.0]], 0.8))[:, 0]
    assert width[1] > 1.4 * width[0]
    drawn = fitted.sample(X[:5], 4000, random_state=0)
    np.testing.assert_allclose(drawn.mean(1), fitted.predict(X[:5]), atol=1.5)
    np.testing.assert_allclose(
        np.quantile(drawn, 0.9, axis=1), fitted.predict_quantiles(X[:5], 0.9)[:, 0], atol=2.0
    )
    other = y.copy()
    other[:] = np.roll(y, 1)
    assert fitted.log_prob(X, y).mean() > fitted.log_prob(X, other).mean() + 0.5


@pytest.mark.parametrize("epochs", [1, 40])
def test_intervals_cover_what_they_promise_however_well_the_flows_fit(
    epochs: int, fitted: FlowConditional
) -> None:
    if epochs == 1:
        fitted = FlowConditional(model="made", folds=2, epochs=1, random_state=0).fit(*table(500, 0))
    X, y = table(4000, 2)
    for coverage in (0.5, 0.8, 0.95):
        low, high = fitted.predict_interval(X, coverage).T
        spread = np.sqrt(coverage * (1 - coverage) * (1 / 500 + 1 / 4000))
        assert abs(np.mean((low <= y) & (y <= high)) - coverage) < 4 * spread
    assert fitted.levels_.shape == (500,)


def test_targets_that_repeat_get_a_finite_density() -> None:
    X, y = table(200, 3)
    model = FlowConditional(model="nsf", folds=2, epochs=5, random_state=0).fit(X, np.round(y / 20))
    assert model.log_prob(X, np.round(y / 20)).max() < 3


def test_what_cannot_be_asked_is_refused(fitted: FlowConditional) -> None:
    X, y = table(20, 4)
    with pytest.raises(ValueError, match=r"coverage 0\.999 cannot be promised by 500 .* at least 1999 rows"):
        fitted.predict_interval(X, 0.999)
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1, got 0"):
        fitted.predict_interval(X, 0.0)
    with pytest.raises(ValueError, match=r"levels must be a list of numbers in \(0, 1\), got \[1\.0\]"):
        fitted.predict_quantiles(X, [1.0])
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        fitted.sample(X, 0)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.log_prob(X, y[:-1])
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        FlowConditional(folds=1).fit(X, y)
    with pytest.raises(ValueError, match=r"model must be one of made, maf, iaf, nsf.* got 'glow'"):
        FlowConditional(model="glow").fit(X, y)
