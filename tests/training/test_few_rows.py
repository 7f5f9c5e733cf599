"""Fits to few rows: a flow that begins as a Gaussian, noise on training points, and what a saved flow keeps of it."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

import pushforward as pf
from pushforward.configs import MixedConfig, NSFConfig, TrainConfig, default_model, default_training
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow, build_flow, score
from pushforward.objectives import MAXIMUM_LIKELIHOOD, smoothed_likelihood_objective
from pushforward.training import Points, train
from pushforward.transforms import ActNorm, LULinear

CORRELATED = np.random.default_rng(0).normal(size=(60, 4)) @ np.random.default_rng(1).normal(size=(4, 4))


def test_whitening_gives_the_shrunk_covariance_of_ledoit_and_wolf() -> None:
    from sklearn.covariance import LedoitWolf

    x = torch.from_numpy(CORRELATED + 3.0)
    transform = LULinear(4, whiten=True).double()
    y = transform.initialize(x)
    jacobian = torch.autograd.functional.jacobian(lambda row: transform(row)[0], x[0])
    covariance = torch.linalg.inv(jacobian.T @ jacobian)
    torch.testing.assert_close(covariance, torch.from_numpy(LedoitWolf().fit(x.numpy()).covariance_))
    torch.testing.assert_close(y.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_whitened_flow_begins_as_a_gaussian() -> None:
    torch.manual_seed(0)
    flow = build_flow(NSFConfig(layers=2, hidden=(8,), whiten=True), 4).double()
    x = torch.from_numpy(CORRELATED)
    flow.initialize(x)
    whitening = next(part for part in flow.transform if isinstance(part, LULinear))  # type: ignore[attr-defined]
    y, log_abs_det = whitening(x)
    normal = torch.distributions.Normal(torch.zeros(4, dtype=torch.float64), 1.0).log_prob(y).sum(-1)
    torch.testing.assert_close(flow.log_prob(x), normal + log_abs_det)
    with pytest.raises(ValueError, match="whiten: angles cannot be mixed"):
        build_flow(NSFConfig(whiten=True), 2, periodic=[0])


def test_few_rows_for_each_column_begin_as_a_gaussian_under_noise() -> None:
    few, many = default_model(1100, 12), default_model(1300, 12)
    assert not default_model(100, 11).whiten  # type: ignore[union-attr]
    assert isinstance(few, NSFConfig) and few.whiten and default_training(1100, 0, few).noise == 0.1
    assert isinstance(many, NSFConfig) and not many.whiten and default_training(1300, 0, many).noise == 0.0
    assert default_model(99, 12, angles=True) == NSFConfig(bins=16, hidden=(32, 32, 32))
    assert isinstance(default_model(99, 12, mixed=True), MixedConfig)


@pytest.mark.parametrize("smoothed", [True, False])
def test_a_run_adds_noise_to_training_points_and_to_those_of_validation_if_it_smooths(smoothed: bool) -> None:
    """At a rate of next to nothing the flow stays as it is, and losses differ by the variance that noise adds."""
    x = Points(torch.randn(20_000, 2, generator=torch.Generator().manual_seed(7)))
    objective = smoothed_likelihood_objective(0.5) if smoothed else MAXIMUM_LIKELIHOOD
    results = []
    for noise in (0.0, 0.5):
        flow = Flow(ActNorm(2), DiagonalNormal((2,)))
        config = TrainConfig(epochs=1, learning_rate=1e-12, noise=0.0 if smoothed else noise)
        results.append(train(flow, x, x, config, objective=objective if noise else MAXIMUM_LIKELIHOOD))
    plain, noisy = results
    assert noisy.train_curve[0] - plain.train_curve[0] == pytest.approx(0.5**2, rel=0.05)
    more = noisy.valid_curve[0] - plain.valid_curve[0]
    assert more == pytest.approx(0.5**2 if smoothed else 0.0, rel=0.05, abs=1e-6)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_noise_out_of_range_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="noise must be positive and finite, got"):
        smoothed_likelihood_objective(noise)
    with pytest.raises(ValueError, match="noise must not be negative"):
        TrainConfig(noise=-0.1)


def test_a_saved_flow_keeps_the_log_densities_of_its_test_rows(tmp_path: pytest.TempPathFactory) -> None:
    frame = pl.DataFrame({"a": CORRELATED[:, 0], "w": np.ones(60)})
    small = {
        "model": NSFConfig(layers=1, hidden=(8,), bins=4),
        "training": TrainConfig(epochs=1, batch_size=16),
    }
    fitted = pf.fit(frame.select("a"), **small)  # type: ignore[arg-type]
    assert fitted.held_out is not None and fitted.held_out.dtype == torch.float64
    assert len(fitted.held_out) == fitted.facts.test_rows == 6
    assert float(fitted.held_out.mean()) == pytest.approx(fitted.facts.test_log_prob, rel=1e-6)
    assert torch.equal(fitted.held_out, fitted.held_out.sort().values)
    scores = score(fitted.flow, torch.from_numpy(frame["a"].to_numpy().copy())[:, None]).value.double()
    assert set(fitted.held_out.tolist()) <= set(scores.tolist())
    pf.save(fitted, tmp_path / "a.flow")  # type: ignore[operator]
    again = pf.load(tmp_path / "a.flow").held_out  # type: ignore[operator]
    assert again is not None and torch.equal(again, fitted.held_out)
    weighted = pf.fit(frame, data=pf.DataConfig(weights="w"), **small)  # type: ignore[arg-type]
    assert weighted.held_out is None
