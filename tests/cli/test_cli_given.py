"""Rows given values of some columns: in parts, each row under its own condition, and the flow's refusals in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from cli_runs import done, refused
from torch import Tensor

from pushforward.artifact import FittedFlow, load
from pushforward.cli.given import Given, draw
from pushforward.flows import MixedFlow

SETTINGS = '[model]\nname = "mixed"\nhidden = [4]\norders = 1\n[training]\nepochs = 1\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow of a and b given c."""
    place = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"a": rng.choice(["x", "y"], 60), "b": rng.normal(size=60), "c": rng.normal(size=60)}
    )
    frame.write_csv(place / "t.csv")
    (place / "s.toml").write_text(SETTINGS)
    done("fit", place / "t.csv", "-o", place / "t.flow", "--config", place / "s.toml", "--condition", "c")
    return place / "t.flow"


def drawn(fitted: FittedFlow, rows: int, fixed: Mapping[str, str | float]) -> tuple[Tensor, float]:
    context = np.linspace(-1, 1, rows)[:, None]
    given = Given(context, pl.DataFrame({"c": context[:, 0]}))
    return draw(fitted, rows, given, fixed, temperature=1.0, generator=torch.Generator().manual_seed(0))


def test_candidates_are_made_for_some_rows_at_once_each_under_its_own_condition(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Tensor] = []

    def resampled(
        flow: MixedFlow, x: Tensor, known: Tensor, context: Tensor, *_: object, before: int
    ) -> tuple[Tensor, Tensor]:
        assert before == sum(map(len, parts))
        parts.append(context)
        return context[:, :, 0].double().expand(-1, 2), torch.full((len(x),), 60.0 - len(parts))

    monkeypatch.setattr(MixedFlow, "_resampled", resampled)
    fitted = load(model)
    last = fitted.flow.base.networks[0].order.tolist().index(1)
    code = {"a": 1.0, "b": 0.25}[fitted.table.names[last]]
    x, effective = drawn(fitted, 1200, {fitted.table.names[last]: "y" if code == 1.0 else code})
    assert max(map(len, parts)) <= 512
    assert x[:, last].unique().tolist() == [code]
    contexts = torch.linspace(-1, 1, 1200, dtype=torch.float64)[:, None]
    assert fitted.flow.context_preprocess is not None
    entered, _ = fitted.flow.context_preprocess(contexts, fitted.flow.like)
    torch.testing.assert_close(torch.cat(parts), entered)
    assert torch.equal(x[:, 1 - last].float(), torch.cat(parts)[:, 0, 0])
    assert effective == 60.0 - len(parts)  # of the worst part


def test_first_columns_are_given_exactly_and_others_by_candidates(model: Path) -> None:
    fitted = load(model)
    order = fitted.flow.base.networks[0].order.tolist()
    names = [fitted.table.names[order.index(rank)] for rank in range(2)]
    values: dict[str, str | float] = {"a": "x", "b": 0.25}
    for name, exact in zip(names, (True, False), strict=True):
        x, effective = drawn(fitted, 600, {name: values[name]})
        assert x.shape == (600, 2) and (effective == math.inf) == exact
        assert x[:, fitted.table.names.index(name)].unique().tolist() == [{"a": 0.0, "b": 0.25}[name]]


def test_another_temperature_is_refused_by_the_flow_itself(model: Path, tmp_path: Path) -> None:
    for given in ((), ("--set", "a=x")):
        refused(
            "sample", model, "-o", tmp_path / "r.csv", "--set", "c=0", *given, "--temperature", 0.5,
            code=2, says=["temperature must be 1 for a mixed density", "got 0.5"],
        )  # fmt: skip
