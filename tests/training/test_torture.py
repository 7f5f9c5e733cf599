"""Every recipe on tables that break fits: no NaN, a mass of 1, nothing outside a support, degenerate data named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from pushforward import diagnose
from pushforward.artifact import FittedFlow
from pushforward.configs import MODELS, DataConfig, ModelConfig, TrainConfig
from pushforward.errors import DataError
from pushforward.flows import build_flow, score
from pushforward.training import Points, fit, train

ROWS = 250
SMALL = {"layers": 3, "hidden": (12, 12), "rank": 2, "bins": 6}
TRAINING = TrainConfig(epochs=6, batch_size=32, learning_rate=5e-3)

Table = Callable[[np.random.Generator], dict[str, np.ndarray]]


def cauchy(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"a": rng.standard_cauchy(ROWS), "b": np.abs(rng.standard_cauchy(ROWS))}


def duplicates(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: np.repeat(rng.normal(size=50), ROWS // 50) for name in "ab"}


def scales_in_two_columns(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"a": 1e12 * rng.normal(size=ROWS), "b": 1e-12 * rng.normal(size=ROWS)}


def scales_in_one_column(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "a": np.where(rng.uniform(size=ROWS) < 0.5, 1e12, 1e-12) * rng.normal(size=ROWS),
        "b": rng.normal(size=ROWS),
    }


def almost_beyond_all_numbers(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"a": 1e300 * rng.normal(size=ROWS), "b": 1e-300 * rng.normal(size=ROWS)}


def correlated(rng: np.random.Generator) -> dict[str, np.ndarray]:
    a = rng.normal(size=ROWS)
    return {"a": a, "b": -3.0 * a + 1.0}


TABLES: dict[Table, str] = {
    cauchy: "",
    duplicates: "of the rows are copies",
    scales_in_two_columns: "",
    scales_in_one_column: "",
    almost_beyond_all_numbers: "",
    correlated: "Column 'b' is a linear function",
}


def small(name: str, **fields: object) -> ModelConfig:
    config = MODELS[name]()
    return replace(config, **{k: v for k, v in (SMALL | fields).items() if hasattr(config, k)})  # type: ignore[arg-type]


def fitted(
    table: Table, name: str, data: DataConfig | None = None
) -> tuple[FittedFlow, torch.Tensor, list[str]]:
    frame, notes = pl.DataFrame(table(np.random.default_rng(0))), []
    flow = fit(frame, model=small(name), training=TRAINING, data=data, on_note=notes.append)
    return flow, torch.from_numpy(frame.to_numpy()), notes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.__name__)
def test_fits_of_terrible_tables_are_densities(table: Table, name: str) -> None:
    found, x, notes = fitted(table, name)
    expected = TABLES[table]
    assert [expected in note for note in notes if "is not finite" not in note] == [True] * bool(expected), (
        notes
    )
    assert found.facts.notes == tuple(notes)
    assert all(math.isfinite(loss) for loss in (*found.facts.train_curve, *found.facts.valid_curve))
    assert bool(torch.isfinite(score(found.flow, x).value).all())
    generator = torch.Generator().manual_seed(0)
    if found.flow.augment is not None:
        assert bool(torch.isfinite(found.flow.sample((200,), generator=generator)).all())
        return
    samples, log_prob = found.flow.sample_and_log_prob((200,), generator=generator)
    assert bool(torch.isfinite(samples).all()) and bool(torch.isfinite(log_prob).all())
    diagnosis = diagnose(found.flow, x, rows=100)
    assert diagnosis.verdict != "broken", diagnosis.text()
    for mass in diagnosis.masses:
        assert mass.value is None or abs(mass.value - 1.0) < 0.01 + 5.0 * (mass.error or 0.0), mass


def test_rows_without_a_density_are_said_and_one_far_value_does_not_crush_a_column() -> None:
    """A value of 1e200 beside ordinary ones: among the training rows or among those to test."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    x[7, 0] = 1e200
    frame = pl.DataFrame(x, schema=["a", "b"])
    said = []
    for seed in range(4):
        notes: list[str] = []
        config = replace(TRAINING, epochs=20, seed=seed)
        facts = fit(frame, model=small("maf"), training=config, seed=seed, on_note=notes.append).facts
        lost = [note for note in notes if "have no finite log-density, the first of them row 8" in note]
        said.append(bool(lost))
        parts = (facts.train_log_prob, facts.valid_log_prob, facts.test_log_prob)
        assert bool(lost) == (not all(math.isfinite(value) for value in parts))
        assert facts.valid_log_prob > -6.0 or not math.isfinite(facts.valid_log_prob)
    assert any(said) and not all(said)


@pytest.mark.parametrize("name", MODELS)
def test_no_density_is_left_outside_a_declared_support(name: str) -> None:
    data = DataConfig(bounds={"b": (0.0, None), "a": (-1e6, 1e6)})
    found, x, _ = fitted(cauchy, name, data)
    samples = found.flow.sample((500,), generator=torch.Generator().manual_seed(0))
    assert bool((samples[:, 1] > 0).all()) and bool((samples[:, 0].abs() < 1e6).all())
    outside = x.clone()
    outside[:, 1] *= -1.0
    assert bool(torch.isneginf(score(found.flow, outside).value).all())
    for ends in (1e-300, 1e300):
        near = x.clone()
        near[:, 1] = ends
        assert not bool(torch.isnan(score(found.flow, near).value).any())


@pytest.mark.parametrize("name", MODELS)
def test_a_constant_column_and_three_rows_are_refused_in_words(name: str) -> None:
    frame = pl.DataFrame({"a": np.random.default_rng(0).normal(size=ROWS), "k": np.full(ROWS, 3.5)})
    with pytest.raises(DataError, match=r"column 'k': all 250 values are 3\.5, so it has no density"):
        fit(frame, model=small(name), training=TRAINING)
    with pytest.raises(DataError, match=r"3 rows, but at least 20 are needed"):
        fit(frame.select(a="a", b=pl.col("a").sin()).head(3), model=small(name), training=TRAINING)


@pytest.mark.parametrize("name", MODELS)
def test_a_constant_column_and_three_rows_give_no_nan_even_so(name: str) -> None:
    """Below the checks of tables, where a researcher trains."""
    torch.manual_seed(0)
    flow = build_flow(small(name), 3)
    x = torch.randn(3, 3)
    x[:, 2] = 3.5
    result = train(
        flow, Points(x), Points(x), replace(TRAINING, epochs=30, batch_size=3), on_note=lambda _: None
    )
    assert all(math.isfinite(loss) for loss in result.train_curve)
    density = flow.estimate_log_prob(x, generator=torch.Generator().manual_seed(0)).value
    assert bool(torch.isfinite(density).all())
    assert bool(torch.isfinite(flow.sample((100,), generator=torch.Generator().manual_seed(0))).all())


@pytest.mark.parametrize("name", MODELS)
def test_five_hundred_columns(name: str) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{j}": rng.normal(size=100) * 10.0 ** rng.uniform(-6, 6) for j in range(500)})
    notes: list[str] = []
    model = small(name, layers=1, hidden=(8,))
    found = fit(frame, model=model, training=replace(TRAINING, epochs=1), on_note=notes.append)
    assert [note.split(":")[0] for note in notes] == [
        "There are no more training rows (80) than columns (500)"
    ]
    assert math.isfinite(found.facts.test_log_prob)
    assert bool(torch.isfinite(found.flow.sample((5,), generator=torch.Generator().manual_seed(0))).all())
