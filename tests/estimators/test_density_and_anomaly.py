"""Densities integrate and invert; detectors keep the rates that they promise, and say why."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from pushforward import FlowAnomalyDetector, FlowDensity, MADEConfig, alarm_threshold, conformal_p_values

SMALL = {"model": MADEConfig(hidden=(8,)), "random_state": 0}


def normal(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal([1.0, -2.0], [1.0, 3.0], size=(rows, 2))


@pytest.fixture(scope="module")
def density() -> FlowDensity:
    return FlowDensity(epochs=30, learning_rate=0.02, **SMALL).fit(normal(400, 0))


@pytest.fixture(scope="module")
def detector() -> FlowAnomalyDetector:
    return FlowAnomalyDetector(alarm_rate=0.02, epochs=20, learning_rate=0.02, **SMALL).fit(normal(400, 0))


def test_the_density_is_that_of_its_flow_and_near_the_truth(density: FlowDensity) -> None:
    X = normal(2000, 1)
    values = density.score_samples(X)
    with torch.no_grad():
        own = density.fitted_.flow.log_prob(torch.from_numpy(X)).double().numpy()
    np.testing.assert_allclose(values, own, rtol=1e-5, atol=1e-5)
    truth = stats.norm.logpdf(X, [1.0, -2.0], [1.0, 3.0]).sum(1)
    assert 0 < (truth - values).mean() < 0.05
    assert density.score(X) == pytest.approx(values.mean())


def test_a_row_scores_the_same_wherever_it_stands(density: FlowDensity) -> None:
    X = normal(300, 2)
    values = density.score_samples(X)
    for rows in (np.arange(1), np.arange(290, 300), np.random.default_rng(0).permutation(300)):
        assert np.array_equal(density.score_samples(X[rows]), values[rows])


def test_latents_are_normal_and_lead_back(density: FlowDensity) -> None:
    X = normal(2000, 3)
    Z = density.transform(X)
    assert stats.kstest(Z.ravel(), "norm").statistic < 0.05
    np.testing.assert_allclose(density.inverse_transform(Z), X, atol=1e-4)


def test_samples_are_drawn_by_their_seed(density: FlowDensity) -> None:
    drawn = density.sample(3000, random_state=1)
    assert np.array_equal(drawn, density.sample(3000, random_state=1))
    assert not np.array_equal(drawn, density.sample(3000, random_state=2))
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=0.4)
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        density.sample(0)


def test_whole_numbers_are_dequantised_and_rows_off_their_grid_are_scored() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.poisson(4.0, 200), rng.normal(size=200)])
    density = FlowDensity(epochs=2, **SMALL).fit(X)
    assert density.fitted_.table.dequantised == ("x0",)
    assert np.isfinite(density.score_samples([[2.0, 0.0], [2.5, 0.0]])).all()
    assert np.array_equal(density.transform(X), density.transform(X))
    np.testing.assert_allclose(density.inverse_transform(density.transform(X)), X, atol=1e-4)


def test_tables_of_several_kinds_need_no_encoding() -> None:
    rng = np.random.default_rng(0)
    label = rng.choice(["blue", "red"], 150, p=[0.9, 0.1])
    number = np.where(rng.uniform(size=150) < 0.2, np.nan, rng.normal(size=150))
    frame = pl.DataFrame({"label": label, "number": number}).with_columns(pl.col("number").fill_nan(None))
    detector = FlowAnomalyDetector(epochs=8, learning_rate=0.02, random_state=0).fit(frame)
    assert detector.predict(frame).shape == (150,)
    odd = pl.DataFrame({"label": ["blue", "red"], "number": [30.0, None]})
    reasons = detector.explain(odd, top=1)
    assert reasons["column"][0] == "number" and reasons["value"][0] == "30.0"
    drawn = FlowDensity(epochs=1, random_state=0).fit(frame).sample(50, random_state=0)
    assert drawn.schema == frame.schema and set(drawn["label"]) <= {"blue", "red"}
    with pytest.raises(
        ValueError, match=r"no transform: encode or fill 'label', 'number', and fit .*model='nsf'"
    ):
        FlowDensity(epochs=1, random_state=0).fit(frame).transform(frame)


def test_a_density_of_values_that_fill_many_rows_says_which_model_has_a_transform() -> None:
    X = normal(120, 0)
    X[:40, 0] = 0.0
    density = FlowDensity(epochs=1, random_state=0).fit(X)
    for use in (density.transform, density.inverse_transform, lambda _: density.get_feature_names_out()):
        with pytest.raises(
            ValueError, match=r"'mixed', chosen for .* rows of 'x0', .* FlowDensity\(model='nsf'\)"
        ):
            use(X)
    with pytest.warns(UserWarning, match="One value fills a good part of column 'x0'"):
        assert FlowDensity(model="nsf", epochs=1, random_state=0).fit_transform(X).shape == X.shape


def test_scores_have_two_signs_and_one_threshold(detector: FlowAnomalyDetector) -> None:
    X = normal(200, 4)
    scores = detector.anomaly_score(X)
    assert np.array_equal(detector.score_samples(X), -scores)
    assert np.array_equal(detector.decision_function(X), -scores - detector.offset_)
    assert np.array_equal(detector.predict(X), np.where(scores > -detector.offset_, -1, 1))
    calibration = torch.from_numpy(detector.calibration_scores_)
    assert -detector.offset_ == alarm_threshold(calibration, 0.02)
    assert np.array_equal(
        detector.p_values(X), conformal_p_values(torch.from_numpy(scores), calibration).numpy()
    )
    assert np.array_equal(detector.p_values(X) <= 0.02, detector.predict(X) == -1)
    assert (detector.predict([[9.0, -2.0], [1.0, 30.0]]) == -1).all()


@pytest.mark.parametrize("epochs", [1, 20])
def test_fresh_rows_alarm_no_more_often_than_promised(epochs: int) -> None:
    rate, m = 0.05, 5000
    detector = FlowAnomalyDetector(alarm_rate=rate, epochs=epochs, **SMALL).fit(normal(400, 5))
    n = len(detector.calibration_scores_)
    k = int(rate * (n + 1))
    low, high = stats.betabinom(m, k, n + 1 - k).ppf([1e-4, 1 - 1e-4])
    assert low <= (detector.predict(normal(m, 6)) == -1).sum() <= high


def test_a_rate_takes_the_rows_that_it_needs_and_says_so_before_the_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = FlowAnomalyDetector(alarm_rate=0.01, epochs=1, **SMALL).fit(normal(248, 0))
    assert len(detector.calibration_scores_) >= 99
    monkeypatch.setattr(FlowAnomalyDetector, "_fit_score", None)
    with pytest.raises(
        ValueError, match=r"alarm_rate=0\.01 takes at least 248 rows, got 240: .* least 0\.011"
    ):
        detector.fit(normal(240, 0))
    with pytest.raises(
        ValueError, match=r"alarm_rate=0\.001 takes at least 2498 rows, got 300: .* least 0\.0083"
    ):
        detector.set_params(alarm_rate=0.001).fit(normal(300, 0))


def test_contamination_is_the_share_that_is_found() -> None:
    X = normal(200, 7)
    for share in (0.05, 0.3):
        detector = FlowAnomalyDetector(contamination=share, epochs=1, **SMALL)
        assert (detector.fit_predict(X) == -1).sum() == share * 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contamination": "some"}, "contamination must be 'auto' or a share in .* got 'some'"),
        ({"contamination": 0.6}, "contamination must be 'auto' or a share in .* got 0.6"),
        ({"contamination": 0.1, "alarm_rate": 0.1}, "both set the threshold"),
        ({"alarm_rate": 1.0}, "alarm_rate must lie between 0 and 1, got 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowAnomalyDetector(**settings).fit(normal(50, 0))


def test_reasons_name_the_column_that_is_odd(detector: FlowAnomalyDetector) -> None:
    reasons = detector.explain([[1.0, 40.0], [-9.0, -2.0]], top=1)
    assert reasons["row"].to_list() == [0, 1]
    assert reasons["column"].to_list() == ["x1", "x0"]
    assert reasons["value"].to_list() == [40.0, -9.0]
    assert (reasons["likely"] - pl.Series([-2.0, 1.0])).abs().max() < 1.0
    assert (reasons["gain"] > 20).all()
    assert len(detector.explain(normal(5, 0))) == 10
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        detector.explain(normal(5, 0), top=0)
