"""What was once found wrong by using the estimators and the mixed density."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import pushforward as pf
from pushforward.configs import ColumnSchema, DataConfig, MixedConfig, TableSchema, TrainConfig
from pushforward.data import infer_schema, to_frame, to_matrix
from pushforward.flows import MixedFlow
from pushforward.training import fit_smoothed, split_table

BRIEF = TrainConfig(epochs=2, batch_size=64)


def counts(rows: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    zeros = np.where(rng.random(rows) < 0.3, 0.0, rng.exponential(size=rows))
    return np.column_stack([rng.poisson(1.0, rows), zeros, rng.normal(size=rows)])


def test_a_detector_takes_counts_beside_a_column_with_many_zeros() -> None:
    detector = pf.FlowAnomalyDetector(epochs=2, random_state=0).fit(counts())
    assert np.isfinite(detector.anomaly_score(counts())).all()


def test_a_mixed_model_is_not_smoothed() -> None:
    split = split_table(pl.DataFrame(np.random.default_rng(0).normal(size=(60, 2))), DataConfig(), seed=0)
    with pytest.raises(ValueError, match="smoothing adds noise to numbers, and mixed"):
        fit_smoothed(split, model=MixedConfig(), training=BRIEF)


def test_ends_between_two_values_of_a_grid_mean_those_within() -> None:
    column = ColumnSchema(name="n", step=1.0, low=0.5, high=3.5)
    flow = MixedFlow(MixedConfig(hidden=(8,), bins=4), TableSchema(columns=(column,)))
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    flow.preprocess.initialize(x[1:4])
    mass = flow.log_prob(x).exp().detach()
    assert mass[0] == mass[4] == 0 and float(mass.sum()) == pytest.approx(1.0, abs=1e-5)
    assert set(flow.sample((200,)).flatten().tolist()) <= {1.0, 2.0, 3.0}


def test_a_context_that_cannot_be_gives_no_density() -> None:
    context = ColumnSchema(name="c", kind="category", categories=("x", "y"))
    schema = TableSchema(columns=(ColumnSchema(name="a"),), context=(context,))
    flow = MixedFlow(MixedConfig(hidden=(8,), bins=4), schema)
    x = torch.zeros(3, 1, dtype=torch.float64)
    values = flow.log_prob(x, torch.tensor([[1.0], [7.0], [math.nan]], dtype=torch.float64))
    assert values.isnan().tolist() == [False, True, True]


def test_times_drawn_beyond_midnight_stay_on_their_grid() -> None:
    column = ColumnSchema(name="t", kind="time", step=60.0)
    frame = to_frame(np.array([[86_400.0], [86_340.0], [-60.0]]), [column])
    assert to_matrix(frame, [column])[:, 0].tolist() == [86_340.0, 86_340.0, 0.0]


def test_numbers_in_a_frame_may_be_labels() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"c": rng.choice(["10", "20", "x", "y", "z"], 80), "a": rng.normal(size=80)})
    density = pf.FlowDensity(model=MixedConfig(hidden=(8,), bins=4), epochs=2, random_state=0).fit(frame)
    numbers = pl.DataFrame({"c": [10, 20], "a": [0.0, 0.0]})
    expected = density.score_samples(numbers.cast({"c": pl.String}))
    np.testing.assert_array_equal(density.score_samples(numbers), expected)


def test_nan_in_a_frame_is_a_gap_and_few_rows_are_smoothed_as_by_fit() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": [math.nan, *rng.normal(size=79)], "b": rng.normal(size=80)})
    assert infer_schema(frame).columns[0].missing
    assert np.isfinite(pf.FlowDensity(epochs=1, random_state=0).fit(frame).score_samples(frame)).all()
    many = pf.FlowDensity(epochs=1, random_state=0).fit(rng.normal(size=(60, 12)))
    assert many.fitted_.facts.config.noise == 0.1


def test_a_density_of_32_bit_rows_is_that_of_the_decimals_that_they_mean() -> None:
    rng = np.random.default_rng(0)
    amount = np.where(rng.random(300) < 0.4, 0.1, 0.1 + rng.lognormal(size=300))
    single = np.column_stack([rng.normal(size=300), amount]).astype(np.float32)
    decimals = np.vectorize(lambda value: float(str(value)), otypes=[np.float64])(single)
    model = {"model": MixedConfig(hidden=(8,), bins=4), "epochs": 10, "random_state": 0}
    density = pf.FlowDensity(**model).fit(single)
    assert density.fitted_.table.columns[1].atoms == (0.1,)
    expected = pf.FlowDensity(**model).fit(decimals).score_samples(decimals)
    for rows in (single, single.astype(np.float64), decimals):
        np.testing.assert_allclose(density.score_samples(rows), expected, atol=1e-3)


def test_integers_that_a_float_would_round_are_refused() -> None:
    vast = 2**60 + np.arange(60) ** 2
    small = np.random.default_rng(0).normal(size=60)
    for rows, name in (
        (np.column_stack([np.arange(60), -vast]), "x1"),
        (pl.DataFrame({"a": small, "id": vast}), "id"),
        (pd.DataFrame({"id": vast.astype(np.uint64), "a": small}), "id"),
    ):
        for estimator in (pf.FlowDensity(), pf.FlowAnomalyDetector(), pf.FlowConditional()):
            with pytest.raises(
                ValueError, match=rf"X, column '{name}': .* 2\*\*53, .*: subtract an offset, or"
            ):
                estimator.fit(rows, small)
    with pytest.raises(ValueError, match=r"y: the integer 1152\d* reaches 2\*\*53"):
        pf.FlowConditional().fit(small[:, None], vast)
    exact = np.column_stack([2**53 - 1 - np.arange(60) ** 2, np.arange(60)])
    assert np.isfinite(pf.FlowDensity(epochs=1, random_state=0).fit(exact).score_samples(exact)).all()
