"""Reasons of alarms as they are written, also of rows that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import pushforward as pf
from pushforward.cli.alarms import Alarms, alarms_of
from pushforward.cli.options import UsageError
from pushforward.configs import DataConfig, MADEConfig, TrainConfig
from pushforward.flows import Estimate, score


@pytest.fixture(scope="module")
def fitted() -> pf.FittedFlow:
    values = np.random.default_rng(0).exponential(size=(200, 3))
    return pf.fit(
        pl.DataFrame(values, schema=["a", "b", "c"]),
        model=MADEConfig(hidden=(8,)),
        training=TrainConfig(epochs=1, batch_size=64),
        data=DataConfig(bounds={"a": (0.0, None), "b": (0.0, None)}),
    )


def reasons(fitted: pf.FittedFlow, rows: list[list[float]], estimate: Estimate | None = None) -> list[str]:
    assert fitted.held_out is not None
    x = torch.tensor(rows, dtype=torch.float64)
    alarms = Alarms(fitted, -fitted.held_out, threshold=-100.0, explain=True)
    return alarms.columns(estimate or score(fitted.flow, x), x, None)[-1].to_list()


def test_every_value_that_cannot_be_is_a_reason(fitted: pf.FittedFlow) -> None:
    one, two, odd = reasons(fitted, [[-1.0, 1.0, 1.0], [-1.0, -2.0, 1.0], [1.0, 1.0, 40.0]])
    assert one.startswith("a -1 (impossible; likely 0.")
    assert two.startswith("a -1 (impossible; likely 0.") and "; b -2 (impossible; likely 0." in two
    assert odd.startswith("c 40 (+") and " nats; likely " in odd


def test_a_row_whose_values_cannot_be_together_says_so(
    fitted: pf.FittedFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = torch.full((1,), -torch.inf)
    monkeypatch.setattr(
        type(fitted.flow),
        "estimate_log_prob",
        lambda _, x, *args, **kwargs: Estimate(never.expand(len(x)), torch.zeros(len(x)), "exact"),
    )
    told = reasons(fitted, [[1.0, 1.0, 1.0]])
    assert told == ["impossible together, though each value may be by itself"]


def test_a_rate_says_which_rows_it_lacks(fitted: pf.FittedFlow) -> None:
    message = (
        r"--alarm-rate: rate 0\.01 cannot be promised by 20 calibration rows: give at least 99 rows, or a rate of "
        r"at least 0\.048\. These are the rows that the fit held out"
    )
    with pytest.raises(UsageError, match=message):
        alarms_of(fitted, Path("m.flow"), 0.01, explain=False)
