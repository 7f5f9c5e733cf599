"""Probability integral transforms: uniform where data and draws have one law, of whatever kind, and not elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest, norm

from pushforward.evaluate.calibration import calibrate

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.sampled_from(["normal", "poisson", "constant"]))
@settings(max_examples=15, deadline=None)
def test_ranks_are_uniform_where_the_laws_are_equal_also_with_ties(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda shape: rng.normal(size=shape),
        "poisson": lambda shape: rng.poisson(1.5, shape).astype(float),
        "constant": lambda shape: np.full(shape, 7.0),
    }[kind]
    shared = calibrate(draw((400, 2)), draw((900, 2)), seed=seed)
    own = calibrate(draw((400, 2)), draw((30, 400, 2)), seed=seed)
    for found in (shared, own):
        assert ((found.pit >= 0) & (found.pit <= 1)).all()
        assert min(found.p_values) > 1e-5
    assert kstest(own.pit[:, 0], "uniform").pvalue > 1e-6
    assert own.effective == (400.0, 400.0) and shared.effective == (400 * 900 / 1300,) * 2


@given(SEEDS, st.integers(20, 300), st.integers(20, 300))
@settings(max_examples=20, deadline=None)
def test_without_ties_the_test_of_shared_draws_is_that_of_two_samples(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0.3, 1.0, (n, 1)), rng.normal(size=(m, 1))
    found, expected = calibrate(x, y), ks_2samp(x[:, 0], y[:, 0])
    assert found.distances[0] == pytest.approx(expected.statistic, abs=1 / (m + 1) + 1e-12)


def test_the_p_value_is_a_probability_under_the_null() -> None:
    rng = np.random.default_rng(0)
    p = [calibrate(rng.normal(size=(80, 1)), rng.normal(size=(120, 1))).p_values[0] for _ in range(300)]
    assert kstest(p, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("shift", [0.3, 0.6, 1.0])
def test_a_shift_is_found_and_its_distance_is_the_error_of_the_probabilities(shift: float) -> None:
    rng = np.random.default_rng(1)
    found = calibrate(rng.normal((0.0, shift), size=(5000, 2)), rng.normal(size=(5000, 2)))
    assert found.fits == (True, False)
    assert found.distances[1] == pytest.approx(2 * norm.cdf(shift / 2) - 1, abs=0.04)


def test_each_row_is_ranked_among_its_own_draws() -> None:
    rng = np.random.default_rng(2)
    centre = np.linspace(-50, 50, 300)[:, None]
    right, wrong = (rng.normal(size=(50, 300, 1)) + c for c in (centre, centre[::-1]))
    assert calibrate(rng.normal(size=(300, 1)) + centre, right).fits == (True,)
    assert calibrate(rng.normal(size=(300, 1)) + centre, wrong).fits == (False,)


def test_missing_values_are_left_out() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(200, 2)), rng.normal(size=(500, 2))
    holes, gaps = x.copy(), y.copy()
    holes[::3, 0], gaps[::5, 0] = np.nan, np.nan
    found = calibrate(holes, gaps)
    alone = calibrate(holes[~np.isnan(holes[:, 0])][:, :1], gaps[~np.isnan(gaps[:, 0])][:, :1])
    assert np.isnan(found.pit[::3, 0]).all() and not np.isnan(found.pit[:, 1]).any()
    assert found.distances[0] == alone.distances[0] and found.effective[0] == alone.effective[0]
    nothing = calibrate(np.full((9, 1), np.nan), y[:, :1])
    assert np.isnan(nothing.distances[0]) and nothing.p_values == (1.0,) and nothing.fits == (True,)


@pytest.mark.parametrize(
    ("x", "drawn", "says"),
    [
        (np.zeros(3), np.zeros((3, 1)), r"x must have shape \(n, D\)"),
        (np.zeros((0, 2)), np.zeros((3, 2)), "n of at least 1"),
        (np.zeros((4, 2)), np.zeros((3, 1)), r"drawn must have shape \(m, 2\) or \(m, 4, 2\)"),
        (np.zeros((4, 2)), np.zeros((0, 2)), "m of at least 1"),
        (np.zeros((4, 2)), np.zeros((5, 3, 2)), r"got \(5, 3, 2\)"),
        (np.zeros((4, 2)), np.full((5, 4, 2), np.nan), "no missing values"),
    ],
)
def test_draws_of_another_shape_are_refused(x: np.ndarray, drawn: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        calibrate(x, drawn)
