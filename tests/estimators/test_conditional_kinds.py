"""Targets on a grid get a law of that grid; columns of any kind may be conditioned on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from pushforward import FlowConditional
from pushforward.configs import ColumnSchema, MADEConfig, NSFConfig
from pushforward.estimators.contexts import ContextCode

BRIEF: dict[str, Any] = {"folds": 2, "random_state": 0}
LAWS = {
    "coin": lambda X, rng: rng.integers(0, 2, len(X)).astype(float),
    "counts": lambda X, rng: rng.poisson(np.exp(0.5 + 0.5 * X[:, 0])).astype(float),
    "tenths": lambda X, rng: np.round((X[:, 0] + 2 * rng.normal(size=len(X))) / 0.3) * 3 / 10,
}


def table(law: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 1))
    return X, LAWS[law](X, rng)


@pytest.fixture(scope="module", params=LAWS)
def on_grid(request: pytest.FixtureRequest) -> tuple[str, FlowConditional]:
    model = NSFConfig(layers=1, bins=4, hidden=(8,))
    fitted = FlowConditional(model=model, epochs=25, learning_rate=0.02, **BRIEF)
    return request.param, fitted.fit(*table(request.param, 600, 0))


def test_intervals_on_a_grid_cover_what_they_promise(on_grid: tuple[str, FlowConditional]) -> None:
    law, fitted = on_grid
    X, y = table(law, 3000, 1)
    for coverage in (0.4, 0.8, 0.9, 0.95):
        low, high = fitted.predict_interval(X, coverage).T
        spread = np.sqrt(coverage * (1 - coverage) * (1 / 600 + 1 / 3000))
        assert np.mean((low <= y) & (y <= high)) > coverage - 3 * spread


def test_quantiles_and_probabilities_are_those_of_one_law_on_the_grid(
    on_grid: tuple[str, FlowConditional],
) -> None:
    law, fitted = on_grid
    step = 0.3 if law == "tenths" else 1.0
    assert fitted.target_.step == step
    X, given = np.array([[-1.0], [0.7]]), fitted.levels_
    grid = (np.arange(-100, 100) * 3 / 10) if law == "tenths" else np.arange(-20.0, 60.0)
    logs = np.array([fitted.log_prob(np.repeat(x[None], len(grid), 0), grid) for x in X])
    mass = np.exp(logs) * step
    np.testing.assert_allclose(mass.sum(1), 1, atol=1e-6)
    levels = np.array([0.03, 0.2, 0.5, 0.77, 0.98])
    try:
        fitted.levels_ = np.arange(1, 1000) / 1000  # of flows that need no calibration
        quantiles = fitted.predict_quantiles(X, levels)
        drawn = fitted.sample(X, 4000, random_state=0)
        mean = fitted.predict(X)
    finally:
        fitted.levels_ = given
    assert np.isin(quantiles, grid).all() and np.isin(drawn, grid).all()
    for row in range(2):
        place = np.searchsorted(grid, quantiles[row])
        below = mass[row].cumsum()
        assert (below[place] >= levels - 1e-3).all() and (below[place - 1] < levels + 1e-3).all()
        likely = mass[row] > 0.05
        shares = (drawn[row][:, None] == grid[likely]).mean(0)
        np.testing.assert_allclose(shares, mass[row, likely], atol=0.04)
        np.testing.assert_allclose(mean[row], mass[row] @ grid, atol=0.25 * step)


def test_counts_end_at_zero_and_have_their_probabilities(on_grid: tuple[str, FlowConditional]) -> None:
    law, fitted = on_grid
    if law == "tenths":
        assert (fitted.target_.low, fitted.target_.high) == (None, None)
        return
    X, y = table(law, 1000, 2)
    impossible = fitted.log_prob(X[:2], [-1.0, -5.0])
    assert (impossible == -np.inf).all() and np.isnan(fitted.log_prob(X[:1], [np.nan])).all()
    rate = np.exp(0.5 + 0.5 * X[:, 0])
    truth = np.full(len(y), np.log(0.5)) if law == "coin" else stats.poisson.logpmf(y, rate)
    assert -0.03 < (truth - fitted.log_prob(X, y)).mean() < 0.1


def test_what_is_no_value_of_the_grid_has_no_probability(on_grid: tuple[str, FlowConditional]) -> None:
    law, fitted = on_grid
    step = 0.3 if law == "tenths" else 1.0
    X = np.zeros((4, 1))
    assert (fitted.log_prob(X, [0.5 * step, 0.99 * step, 1e300, -1e300]) == -np.inf).all()
    single, double = np.float32(step), np.float64(step)
    stored = [fitted.log_prob(X[:1], np.array([value])) for value in (double, single, np.float64(single))]
    assert np.isfinite(stored).all() and len(set(np.ravel(stored))) == 1


def test_decimals_in_32_bits_are_the_grid_that_they_mean() -> None:
    X, y = table("tenths", 200, 4)
    y = np.round(y + 0.1, 1)
    model = FlowConditional(model=MADEConfig(hidden=(8,)), epochs=2, **BRIEF)
    expected = model.fit(X, y).predict(X)
    assert model.target_.step == 0.1
    for rows in (X, pd.DataFrame({"a": X[:, 0]})):
        model.fit(rows, y.astype(np.float32))
        assert model.target_.step == 0.1 and np.array_equal(model.predict(rows), expected)
    labelled = pd.DataFrame({"a": X[:, 0], "c": ["u", "v"] * 100})
    assert model.fit(labelled, y.astype(np.float32)).target_.step == 0.1


def test_new_columns_give_way_to_names_that_are_there() -> None:
    label = ColumnSchema(name="city", kind="category", categories=("Bern", "Oslo"), missing=True)
    others = [ColumnSchema(name=name) for name in ("city=Bern", "city=Bern_", "city is missing")]
    code = ContextCode((label, *others), (0.0,) * 4)
    assert [column.name for column in code.coded] == [
        "city=Bern__",
        "city=Oslo",
        "city is missing_",
        "city=Bern",
        "city=Bern_",
        "city is missing",
    ]


def kinds(rows: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    colour, on, gap = (
        rng.choice(["blue", "red", "teal"], rows),
        rng.random(rows) < 0.5,
        rng.random(rows) < 0.3,
    )
    size = rng.normal(size=rows)
    y = 5.0 * (colour == "red") + 3 * on + np.where(gap, 4.0, size) + 0.3 * rng.normal(size=rows)
    frame = pl.DataFrame({"colour": colour, "on": on, "size": np.where(gap, np.nan, size)})
    return frame.with_columns(pl.col("size").fill_nan(None)), y


@pytest.fixture(scope="module")
def of_kinds() -> FlowConditional:
    model = FlowConditional(model=MADEConfig(hidden=(32,)), epochs=60, learning_rate=0.02, **BRIEF)
    return model.fit(*kinds(400, 0))


def test_labels_truth_values_and_gaps_are_conditioned_on(of_kinds: FlowConditional) -> None:
    names = [column.name for column in of_kinds.context_.coded]
    assert names == ["colour=blue", "colour=red", "colour=teal", "on", "size", "size is missing"]
    frame, y = kinds(400, 1)
    assert of_kinds.score(frame, y) > 0.95  # 0.75 at most without one of them
    pandas = pd.DataFrame(
        {
            "colour": pd.Categorical(frame["colour"].to_list()),
            "on": frame["on"].to_numpy(),
            "size": frame["size"].to_numpy(),
        }
    )
    assert np.array_equal(of_kinds.predict(pandas), of_kinds.predict(frame))
    again = FlowConditional(**of_kinds.get_params()).fit(pandas[:400], kinds(400, 1)[1])
    assert again.score(*kinds(400, 0)) > 0.95


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("colour", "green", "column 'colour': unknown label 'green'"),
        ("on", None, "column 'on': missing value"),
        ("size", "many", "column 'size': text where a number"),
    ],
)
def test_a_value_that_was_not_there_in_fit_is_named(
    of_kinds: FlowConditional, column: str, value: Any, message: str
) -> None:
    frame = kinds(3, 2)[0].with_columns(pl.lit(value).alias(column))
    with pytest.raises(ValueError, match=message):
        of_kinds.predict(frame)


def test_targets_that_do_not_fit_a_frame_are_refused() -> None:
    frame, y = kinds(20, 3)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FlowConditional().fit(frame, y[:-1])
    with pytest.raises(ValueError, match="Input y contains NaN"):
        FlowConditional().fit(frame, np.where(y > y[0], np.nan, y))
    with pytest.raises(ValueError, match="X must have at least 6 rows, got 5"):
        FlowConditional(folds=6).fit(frame[:5], y[:5])
    for rows in (frame, np.zeros((20, 1))):
        with pytest.raises(ValueError, match="requires y to be passed"):
            FlowConditional().fit(rows, None)  # type: ignore[arg-type]
