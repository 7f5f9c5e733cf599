"""A smoothed fit is an ordinary flow of the table, of the law of its rows with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pushforward.artifact import load, save
from pushforward.configs import DataConfig, NSFConfig, TrainConfig
from pushforward.errors import DataError
from pushforward.evaluate import anomaly_score
from pushforward.training import (
    TableSplit,
    fit_smoothed,
    smoothed_training,
    smoothing_noise,
    split_table,
)

SMALL = NSFConfig(bins=8, layers=1, hidden=(16,))


def split(frame: pl.DataFrame) -> TableSplit:
    return split_table(frame, DataConfig(), seed=0)


def test_values_that_repeat_are_spread_by_the_noise() -> None:
    """Of two values, -1 and 1, with noise of one standard deviation, which is 1: a mixture of two normals."""
    values = np.repeat([-1.0, 1.0], 300)
    frame = pl.DataFrame({"a": values, "b": np.random.default_rng(0).normal(size=600)})
    training = TrainConfig(epochs=15, batch_size=64, learning_rate=0.02)
    fitted = fit_smoothed(split(frame), noise=1.0, model=SMALL, training=training)
    a = fitted.flow.sample((20_000,), generator=torch.Generator().manual_seed(0))[:, 0]
    assert abs(a.mean()) < 0.2 and abs(a.var() - 2.0) < 0.3


def test_integers_and_point_masses_are_scored_exactly_and_as_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    zeros = np.where(rng.random(200) < 0.5, 0.0, rng.normal(size=200))
    frame = pl.DataFrame({"count": rng.poisson(3, 200), "zeros": zeros, "far": rng.standard_t(1, 200)})
    fitted = fit_smoothed(split(frame), model=SMALL, training=TrainConfig(epochs=2, batch_size=64))
    assert fitted.flow.surjection is None and fitted.facts.kind == "exact"
    assert "noise of 0.75 standard deviations" in fitted.facts.notes[-1]
    x = torch.from_numpy(frame.cast(pl.Float64).to_numpy())
    scores = anomaly_score(fitted.flow, x)
    assert torch.equal(scores, -fitted.flow.log_prob(x))
    save(fitted, tmp_path / "smoothed.flow")
    assert torch.equal(anomaly_score(load(tmp_path / "smoothed.flow").flow, x), scores)


@pytest.mark.parametrize(
    ("column", "held"), [(["a", "b"] * 50, "labels"), ([None, 1.5, 2.5, 4.0] * 25, "gaps")]
)
def test_columns_that_take_no_noise_are_refused(column: list[object], held: str) -> None:
    frame = pl.DataFrame({"x": np.random.default_rng(2).normal(size=100), "other": column})
    with pytest.raises(DataError, match=f"(?s)other.*{held}"):
        fit_smoothed(split(frame))


def test_noise_falls_with_the_rows_for_each_column() -> None:
    noise = [smoothing_noise(rows, 7) for rows in (5, 100, 500, 2000, 4000, 10**6)]
    assert noise == sorted(noise, reverse=True) and (noise[0], noise[-1]) == (1.0, 0.05)
    assert smoothing_noise(1000, 5) == smoothing_noise(2000, 10)


def test_a_batch_is_never_more_than_the_rows() -> None:
    for rows in (1, 30, 64, 999, 5000, 10**6):
        training = smoothed_training(rows, seed=3)
        assert training.batch_size <= rows and training.seed == 3 and training.epochs >= 10
