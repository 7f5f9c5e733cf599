"""Flows that a diagnosis could take for better or worse than they are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward import Flow, diagnose
from pushforward.configs import MODELS, NSFConfig
from pushforward.distributions import DiagonalNormal
from pushforward.evaluate.subject import prepare
from pushforward.flows import build_flow
from pushforward.transforms import Transform


def shaken(flow: Flow, noise: float, seed: int) -> Flow:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(noise * torch.randn(p.shape, generator=generator))
    return flow


def built(model: str, features: int, seed: int) -> Flow:
    torch.manual_seed(seed)
    return build_flow(MODELS[model](), features)


def share_of_lost_rows(flow: Flow, x: Tensor) -> float:
    """Return how many rows do not come back with one right digit."""
    with torch.no_grad():
        back = flow.transform.inverse(flow.transform(x)[0])[0]
    error = ((back - x).abs() / (1 + x.abs())).amax(1)
    return float((error.nan_to_num(nan=math.inf) > 0.1).double().mean())


@pytest.mark.parametrize(("model", "noise", "seed"), [("realnvp", 0.1, 0), ("nsf-coupling", 1.0, 1)])
def test_a_flow_that_loses_data_but_few_samples_is_broken(model: str, noise: float, seed: int) -> None:
    """Random weights throw the data far off, where the inverse stretches; most of its samples fare well."""
    flow = shaken(built(model, 3, seed), noise, seed)
    x = torch.randn((2600, 3), generator=torch.Generator().manual_seed(seed))
    assert share_of_lost_rows(flow, x[600:]) > 0.05
    d = diagnose(flow, x[:600], rows=300)
    samples = next(s for s in d.stretches if s.where == "samples")
    assert samples.lost_in_data.median < 1e-3
    assert d.verdict == "broken" and "of the data can be trusted" in d.findings[0].text, d.text()


class WrongForSome(Transform):
    """The identity, whose log-determinant is 2 nats too high for the contexts between two ends."""

    def __init__(self, features: int, low: float, high: float) -> None:
        super().__init__((features,), context_shape=(1,))
        self.low, self.high = low, high

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        assert context is not None
        wrong = (context[..., 0] > self.low) & (context[..., 0] < self.high)
        return 1.0 * x, 0 * x.sum(-1) + 2.0 * wrong

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_abs_det = self._forward(y, context)
        return x, -log_abs_det


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize(("low", "high"), [(1.5, 3.1), (1.0, 2.0), (-3.1, -1.5)])
@pytest.mark.parametrize("features", [3, 40, 100])
def test_a_log_determinant_wrong_for_some_contexts_is_found_in_a_sorted_table(
    features: int, low: float, high: float, order: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    context = torch.linspace(-3, 3, 900)[:, None]
    if order == "descending":
        context = context.flip(0)
    elif order == "shuffled":
        context = context[torch.randperm(900, generator=generator)]
    x = torch.randn((900, features), generator=generator)
    d = diagnose(Flow(WrongForSome(features, low, high), DiagonalNormal((features,))), x, context, rows=600)
    assert d.verdict == "broken" and d.blamed == ("transform (WrongForSome)",), d.text()
    assert "off by 2 nats" in d.findings[0].text


def test_samples_are_looked_at_under_other_contexts_than_the_data() -> None:
    x, context = torch.zeros(900, 100), torch.arange(900.0)[:, None]
    flow = Flow(WrongForSome(100, -1.0, -1.0), DiagonalNormal((100,)))
    subject = prepare(flow, x, context, 600, 0)
    data, samples = (p.some(subject.few) for p in subject.points[:2])
    assert data.context is not None and samples.context is not None
    assert len(torch.cat([data.context, samples.context]).unique()) > 1.5 * subject.few


@pytest.mark.parametrize("seed", range(6))
def test_far_points_at_the_seam_of_a_circle_are_not_taken_for_a_wrong_formula(seed: int) -> None:
    """Float64 itself has few digits there: a right log-determinant is up to 1e-5 nats from autograd's."""
    torch.manual_seed(seed)
    flow = shaken(build_flow(NSFConfig(layers=1, bins=4, hidden=(8,)), 2, 0, [1]), 0.3, seed)
    generator = torch.Generator().manual_seed(seed)
    line = torch.randn(300, generator=generator)
    angle = math.pi * (2 * torch.rand(300, generator=generator) - 1)
    near = diagnose(flow, torch.stack([line, angle], 1), rows=300)
    assert near.verdict == "sound", near.text()
    far = diagnose(flow, torch.stack([100 * line, angle], 1), rows=300)
    assert not any(layer.log_det_wrong or layer.round_trip > 1 for layer in far.layers)
    assert all("digit" in f.text for f in far.findings if f.level != "note"), far.text()
