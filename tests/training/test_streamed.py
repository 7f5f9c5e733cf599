"""A fit that streams its table: the rows that it takes, its record, and going on after an interruption."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pushforward.artifact import FittedFlow
from pushforward.configs import DataConfig, MAFConfig, MixedConfig, NSFConfig, TrainConfig
from pushforward.data import survey as surveys
from pushforward.errors import ArtifactError, DataError
from pushforward.flows import score
from pushforward.training import (
    Checkpoints,
    Points,
    fit,
    fit_streamed,
    stream_table,
    streamed_training,
    train,
)
from pushforward.training.run import Run

NSF = NSFConfig(layers=1, bins=4, hidden=(8,))
TRAINING = TrainConfig(epochs=2, batch_size=32, learning_rate=1e-2, ema=0.9, seed=3)


def table(rows: int = 600, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    return pl.DataFrame(
        {
            "a": 5 + 2 * a,
            "b": a + rng.normal(size=rows),
            "c": rng.normal(size=rows),
            "n": rng.poisson(3.0, rows),
            "w": rng.integers(0, 3, rows).astype(float),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "rows"
    path.mkdir()
    for number in range(3):
        table(200, number).write_parquet(path / f"{number}.parquet", row_group_size=40)
    return path


def streamed(path: Path, **options: Any) -> FittedFlow:
    settings = {
        "model": NSF,
        "training": TRAINING,
        "data": DataConfig(condition=("c",), weights="w"),
        "rows_per_buffer": 130,
        "on_note": lambda _: None,
    }
    return fit_streamed(path, **(settings | options))


def assert_same(one: FittedFlow, other: FittedFlow) -> None:
    assert replace(one.facts, seconds=0.0) == replace(other.facts, seconds=0.0)
    states = one.flow.state_dict(), other.flow.state_dict()
    assert all(torch.equal(t, states[1][name]) for name, t in states[0].items())


def test_a_streamed_fit_killed_after_any_step_goes_on_as_if_nothing_had_happened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    expected, plain, left = streamed(folder), Run.step, [math.inf]

    def step(self: Run, batch: Any) -> None:
        plain(self, batch)
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    monkeypatch.setattr(Run, "step", step)
    monkeypatch.setattr(Checkpoints, "due", lambda _: True)
    buffers, steps = len(expected.facts.valid_curve), 4 * 3
    assert buffers == 2 * 4
    for kill in (2, 3, 9, 2 * steps - 2):
        left[0] = kill
        with pytest.raises(Killed):
            streamed(folder, checkpoint=tmp_path / str(kill))
        left[0] = math.inf
        assert_same(streamed(folder, checkpoint=tmp_path / str(kill), resume=True), expected)
    left[0] = 5
    with pytest.raises(Killed):
        streamed(folder, checkpoint=tmp_path / "other")
    left[0] = math.inf
    pl.read_parquet(folder / "2.parquet")[:150].write_parquet(folder / "2.parquet", row_group_size=40)
    with pytest.raises(ArtifactError, match=r"another run: .*files was 3 of [0-9,]+ bytes"):
        streamed(folder, checkpoint=tmp_path / "other", resume=True)


def test_each_epoch_takes_the_points_that_it_is_given() -> None:
    def points(epoch: int) -> Points:
        return Points(torch.randn(64, 2, generator=torch.Generator().manual_seed(epoch)) + epoch)

    seen: list[float] = []
    plain = Run.step

    def step(self: Run, batch: Any) -> None:
        seen.append(float(self.train_points.x.mean()))
        plain(self, batch)

    from pushforward.flows import build_flow

    flow = build_flow(MAFConfig(layers=1, hidden=(8,)), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "step", step)
        result = train(flow, points(0), points(9), TrainConfig(epochs=3, batch_size=16), refill=points)
    assert len(result.valid_curve) == 3
    assert np.array_equal(np.round(seen), np.repeat([1, 2, 3], 4))


def test_the_record_says_what_was_streamed_and_its_figures_are_those_of_the_rows(folder: Path) -> None:
    fitted = streamed(folder, data=DataConfig(drop=("w", "n")))
    facts, whole = fitted.facts, pl.concat([table(200, number) for number in range(3)])
    assert facts.train_rows + facts.valid_rows + facts.test_rows == 600
    assert facts.config.epochs == len(facts.valid_curve) == 2 * 4
    assert any("an epoch is a buffer of" in note and "4 make a pass" in note for note in facts.notes)
    split = stream_table(folder, DataConfig(drop=("w", "n")), seed=0)
    for points, mean in ((split.valid, facts.valid_log_prob), (split.test, facts.test_log_prob)):
        assert points.rows is not None
        rows = whole[(points.rows - 1).numpy()].select("a", "b", "c").to_numpy()
        assert np.array_equal(points.x.numpy(), rows)
        assert math.isclose(float(score(fitted.flow, points.x).value.double().mean()), mean, rel_tol=1e-6)


def test_it_learns_what_a_fit_of_the_whole_table_learns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = np.sort(rng.normal(size=4000))  # sorted files: each row group is another stretch
    frame = pl.DataFrame({"a": a, "b": a + 0.3 * rng.normal(size=4000)})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=50)
    model, training = (
        MAFConfig(layers=2, hidden=(16,)),
        TrainConfig(epochs=6, batch_size=64, learning_rate=1e-2),
    )
    options: Any = {"model": model, "training": training, "on_note": lambda _: None}
    whole, part = fit(frame, **options), fit_streamed(tmp_path / "t.parquet", rows_per_buffer=800, **options)
    assert len(part.facts.valid_curve) == 6 * 5  # of 3,200 rows
    x = torch.from_numpy(frame.to_numpy())
    means = [float(score(fitted.flow, x).value.mean()) for fitted in (whole, part)]
    assert abs(means[0] - means[1]) < 0.05


def test_a_mixed_table_is_streamed_with_a_schema_for_all_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "SAMPLE", 100)
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"x": rng.normal(size=500), "kind": np.array(["p", "q"])[rng.integers(0, 2, 500)]}
    ).with_row_index("i")
    frame = frame.with_columns(
        x=pl.when(pl.col("i") == 77).then(None).otherwise("x"),
        kind=pl.when(pl.col("i") == 401).then(pl.lit("rare")).otherwise("kind"),
    ).drop("i")
    frame.write_csv(tmp_path / "t.csv")
    notes: list[str] = []
    fitted = fit_streamed(
        tmp_path / "t.csv",
        model=MixedConfig(hidden=(8,), bins=4),
        training=replace(TRAINING, epochs=1),
        rows_per_buffer=200,
        on_note=notes.append,
    )
    assert [column.missing for column in fitted.table.columns] == [True, False]
    assert fitted.table.columns[1].categories == ("p", "q", "rare")
    assert any("in the order in which they stand" in note for note in notes)


def test_what_cannot_be_streamed_is_refused(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"column 'n': rows of one group cannot be kept together.*--no-stream"
    ):
        streamed(folder, data=DataConfig(group="n"))
    with pytest.raises(DataError, match=r"a batch of 500 rows is more than the 1\d\d rows of a buffer"):
        streamed(folder, training=replace(TRAINING, batch_size=500))
    with pytest.raises(DataError, match=r"column 'W' missing.*Is 'w' meant"):
        streamed(folder, data=DataConfig(drop=("W",)))
    for number in range(3):
        table(200, number).with_columns(w=0.0).write_parquet(folder / f"{number}.parquet")
    with pytest.raises(DataError, match="all weights are 0"):
        streamed(folder)


def test_passes_by_default_take_about_as_many_steps_whatever_the_rows(folder: Path) -> None:
    split = stream_table(folder, DataConfig(), seed=0)
    for rows, passes in ((1_000_000, 20), (5_000_000, 4), (50_000_000, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(split.table, "training_rows", rows)
            assert streamed_training(split).epochs == passes
