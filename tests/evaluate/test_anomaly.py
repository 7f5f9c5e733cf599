"""Calibrated alarms keep their promises, and typicality is a test."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from pushforward.configs import MAFConfig
from pushforward.evaluate import (
    alarm_threshold,
    anomaly_score,
    conformal_p_values,
    score_ratio,
    typicality,
)
from pushforward.flows import build_flow


def draws(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_are_higher_where_densities_are_lower() -> None:
    flow, background = (build_flow(MAFConfig(layers=1, hidden=(8,)), 3) for _ in range(2))
    x = draws(50, 3, seed=0).float()
    with torch.no_grad():
        log_prob, of_background = flow.log_prob(x), background.log_prob(x)
    torch.testing.assert_close(anomaly_score(flow, x), -log_prob)
    torch.testing.assert_close(score_ratio(flow, background, x), of_background - log_prob)
    with pytest.raises(ValueError, match=r"background must have the event shape of flow, \(3,\), got \(2,\)"):
        score_ratio(flow, build_flow(MAFConfig(layers=1), 2), x)


def test_p_values_count_the_calibration() -> None:
    calibration = torch.tensor([3.0, 1.0, 2.0, 2.0, math.inf])
    p = conformal_p_values(torch.tensor([[0.0, 2.0], [5.0, math.inf]]), calibration)
    assert torch.equal(p * 6, torch.tensor([[6.0, 5.0], [2.0, 2.0]], dtype=torch.float64))


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_the_threshold_is_that_of_the_p_values(rate: float) -> None:
    for seed in range(20):
        calibration, scores = draws(150, seed=seed).round(decimals=1), draws(400, seed=seed + 1000)
        for tested in (scores, scores.round(decimals=1)):
            alarms = tested > alarm_threshold(calibration, rate)
            assert torch.equal(alarms, conformal_p_values(tested, calibration) <= rate + 1e-12)


@pytest.mark.parametrize(("rate", "n"), [(0.01, 99), (0.05, 200), (0.1, 37)])
def test_false_alarms_follow_the_beta_binomial_law(rate: float, n: int) -> None:
    m, repeats = 60, 4000
    k = math.floor(rate * (n + 1) + 1e-9)
    law = stats.betabinom(m, k, n + 1 - k)
    calibrations, fresh = draws(repeats, n, seed=1), draws(repeats, m, seed=2)
    thresholds = torch.tensor([alarm_threshold(row, rate) for row in calibrations], dtype=torch.float64)
    counts = (fresh > thresholds[:, None]).sum(1)
    assert abs(counts.double().mean() - law.mean()) < 4 * law.std() / math.sqrt(repeats)
    for level in range(6):
        share, expected = float((counts <= level).double().mean()), float(law.cdf(level))
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / repeats) + 1e-3
    # Ties can only lower the rate.
    tied = torch.tensor([alarm_threshold(row, rate) for row in calibrations.round()], dtype=torch.float64)
    share = float((fresh.round() > tied[:, None]).double().mean())
    assert share < rate + 4 * law.std() / m / math.sqrt(repeats)


def test_a_rate_that_cannot_be_promised_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate 0.01 cannot be promised by 98 .* at least 99 rows"):
        alarm_threshold(torch.zeros(98), 0.01)
    for rate in (0.01, 0.07, 1 / 3):  # as many rows as the message asks for are enough
        with pytest.raises(ValueError) as refused:
            alarm_threshold(torch.zeros(1), rate)
        needed = int(str(refused.value).split("at least ")[1].split()[0])
        assert alarm_threshold(torch.arange(float(needed)), rate) == needed - 1
    with pytest.raises(ValueError, match="rate must lie between 0 and 1, got 1"):
        alarm_threshold(torch.zeros(9), 1.0)
    with pytest.raises(ValueError, match=r"calibration must have shape \(rows,\) .* got \(0,\)"):
        conformal_p_values(torch.zeros(2), torch.zeros(0))
    with pytest.raises(ValueError, match="scores must be numbers, got 1 of 2 that are NaN"):
        conformal_p_values(torch.tensor([0.0, math.nan]), torch.zeros(3))


@pytest.mark.parametrize("size", [1, 5, 20])
def test_typicality_is_a_test_on_both_sides(size: int) -> None:
    groups, n = 2000, 2000
    shape = (groups,) if size == 1 else (groups, size)
    generator = torch.Generator().manual_seed(0)
    calibration = draws(n, seed=1).exp()
    p = typicality(draws(*shape, seed=2).exp(), calibration, generator=generator)
    for level in (0.05, 0.2, 0.5):
        spread = math.sqrt(level * (1 - level) * (1 / groups + size / n))
        assert abs(float((p <= level).double().mean()) - level) < 4 * spread
    mean = calibration.mean()
    for shift in (-30.0, 30.0):  # too likely, too unlikely
        assert typicality(torch.full(shape, float(mean) + shift), calibration).max() < 0.01
    assert typicality(torch.full(shape, math.inf), calibration).max() < 0.01


def test_typicality_of_rows_is_that_of_their_definition() -> None:
    calibration, scores = draws(30, seed=3), draws(40, seed=4) * 2
    for score, p in zip(scores, typicality(scores, calibration), strict=True):
        away = (torch.cat([calibration, score[None]]) - torch.cat([calibration, score[None]]).mean()).abs()
        assert round(float(p) * 31) == int((away >= away[-1]).sum())


def test_typicality_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="calibration must be finite, got 1"):
        typicality(torch.zeros(2), torch.tensor([0.0, math.inf]))
    with pytest.raises(ValueError, match=r"scores must have shape .* got \(2, 0\)"):
        typicality(torch.zeros(2, 0), torch.zeros(2))
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        typicality(torch.zeros(2, 1), torch.zeros(2), resamples=0)
