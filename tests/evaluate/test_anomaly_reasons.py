"""Reasons agree with closed forms, in any units, also where columns have grids, labels, atoms and gaps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pushforward.configs import ColumnSchema, MAFConfig
from pushforward.distributions import DiagonalNormal
from pushforward.evaluate import anomaly_score, explain
from pushforward.flows import Flow, Preprocess, build_flow, score
from pushforward.flows.flow import Estimate
from pushforward.surjections import Dequantise
from pushforward.transforms import LULinear, Standardise


def gaussian_flow(d: int, seed: int) -> tuple[Flow, Tensor, Tensor]:
    """A flow that is a Gaussian, its mean and its precision matrix."""
    torch.manual_seed(seed)  # of its permutation
    flow = Flow(LULinear(d), DiagonalNormal((d,))).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.7, generator=generator)
    zero = torch.zeros(1, d, dtype=torch.float64)
    with torch.no_grad():
        root = (flow.to_latent(torch.eye(d, dtype=torch.float64)) - flow.to_latent(zero)).T
        mean = flow.from_latent(zero)[0]
    return flow, mean, root.T @ root


def samples(flow: Flow, rows: int, seed: int = 0) -> Tensor:
    return flow.sample((rows,), generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("seed", range(3))
def test_reasons_agree_with_the_closed_form_of_a_gaussian(seed: int) -> None:
    flow, mean, precision = gaussian_flow(4, seed)
    x, pool = samples(flow, 100, seed + 1), samples(flow, 4096)
    found = explain(flow, x, references=pool)
    variance = 1 / precision.diagonal()
    likely = x - (x - mean) @ precision * variance
    gain = 0.5 * (x - likely) ** 2 / variance
    # Not where the flow would have to guess: outside of the references.
    margin = 4 * variance.sqrt()
    inside = (likely - pool.amin(0) > margin) & (pool.amax(0) - likely > margin)
    assert inside.double().mean() > 0.3
    assert ((found.likely - likely).abs() < 0.1 * variance.sqrt())[inside].all()
    assert ((found.gain - gain).abs() < 0.01)[inside].all()
    surprise = gain + 0.5 * (2 * math.pi * variance).log()
    away = (found.surprise - surprise).abs()[inside]
    assert away.max() < 0.25 and away.mean() < 0.02
    torch.testing.assert_close(found.score, anomaly_score(flow, x))


def test_the_odd_value_comes_first() -> None:
    flow, mean, precision = gaussian_flow(4, 7)
    x = mean.repeat(4, 1) + torch.eye(4, dtype=torch.float64) * 8 / precision.diagonal().sqrt()
    found = explain(flow, x)
    assert (found.gain >= 0).all()
    assert torch.equal(found.order()[:, 0], torch.arange(4))
    # With the value that it names the row has the density that it promises.
    for j in range(4):
        repaired = x.clone()
        repaired[:, j] = found.likely[:, j]
        torch.testing.assert_close(found.score - anomaly_score(flow, repaired), found.gain[:, j])


def test_a_change_of_units_changes_no_gain() -> None:
    flow, _, _ = gaussian_flow(3, 5)
    x, pool = samples(flow, 20, 1), samples(flow, 500)
    scale = torch.tensor([1e-3, 1.0, 1e4], dtype=torch.float64)
    standardise = Standardise(3)
    standardise.initialize(torch.stack([-scale, scale]))  # y is x times the scale
    other = Flow(flow.transform, flow.base, preprocess=Preprocess(standardise))
    here, there = explain(flow, x, references=pool), explain(other, x * scale, references=pool * scale)
    torch.testing.assert_close(there.gain, here.gain, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(there.likely, here.likely * scale)
    torch.testing.assert_close(there.surprise, here.surprise + scale.log(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("step", "tolerance"), [(0.5, 0.01), (0.02, 0.03)])
def test_a_discrete_column_is_summed(step: float, tolerance: float) -> None:
    inner, _, _ = gaussian_flow(2, 3)
    standardise = Standardise(2)
    standardise.initialize(torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64))
    surjection = Dequantise([step, 0.0])
    flow = Flow(inner.transform, inner.base, preprocess=Preprocess(standardise), surjection=surjection)
    x = samples(flow, 15, 1)
    cells = torch.round(x[:, 0] / step)
    torch.testing.assert_close(cells * step, x[:, 0])
    found = explain(flow, x)
    reach = round(20 / step)
    grid = torch.arange(-reach, reach + 1) * step
    points = x[:, None].repeat(1, len(grid), 1)
    points[..., 0] = grid
    mass = score(flow, points.flatten(0, 1)).value.double().reshape(len(x), -1) + math.log(step)
    own = score(flow, x).value.double() + math.log(step)
    torch.testing.assert_close(found.surprise[:, 0], mass.logsumexp(1) - own, atol=tolerance, rtol=0.0)
    torch.testing.assert_close(found.gain[:, 0], mass.amax(1) - own, atol=1e-6, rtol=0.0)
    assert (found.surprise[:, 0] > -1e-6).all()  # of a probability


class Mixed(Flow):
    """A label, and given it a number that is missing, 0, or normal."""

    PRIOR = torch.tensor([0.7, 0.29, 0.01], dtype=torch.float64)
    GAP = torch.tensor([0.1, 0.8, 0.2], dtype=torch.float64)
    ATOM = torch.tensor([0.6, 0.1, 0.2], dtype=torch.float64)
    MEAN = torch.tensor([0.0, 5.0, -5.0], dtype=torch.float64)

    def __init__(self) -> None:
        super().__init__(LULinear(2), DiagonalNormal((2,)))

    def estimate_log_prob(self, x: Tensor, context: Tensor | None = None, **_: Any) -> Estimate:
        label, number = x[:, 0].long(), x[:, 1].double()
        density = (1 - self.GAP - self.ATOM)[label] * torch.exp(-0.5 * (number - self.MEAN[label]) ** 2)
        rest = torch.where(number == 0, self.ATOM[label], density / math.sqrt(2 * math.pi))
        value = (self.PRIOR[label] * torch.where(number.isnan(), self.GAP[label], rest)).log()
        return Estimate(value, torch.zeros_like(value), "exact")


def test_labels_atoms_and_gaps_have_probabilities() -> None:
    flow = Mixed()
    columns = (
        ColumnSchema(name="label", kind="category", categories=("a", "b", "c")),
        ColumnSchema(name="number", missing=True, atoms=(0.0,)),
    )
    x = torch.tensor([[0, 0.0], [0, 5.5], [1, torch.nan], [2, 0.0], [2, -5.0]], dtype=torch.float64)
    numbers = torch.linspace(-7.5, 7.5, 200, dtype=torch.float64)
    references = torch.stack([torch.zeros_like(numbers), numbers], 1)
    found = explain(flow, x, references=references, columns=columns)

    joint = torch.stack(
        [
            flow.estimate_log_prob(torch.stack([torch.full_like(x[:, 0], k), x[:, 1]], 1)).value
            for k in range(3)
        ],
        1,
    )
    own = flow.estimate_log_prob(x).value
    torch.testing.assert_close(found.surprise[:, 0], joint.logsumexp(1) - own)
    torch.testing.assert_close(found.gain[:, 0], joint.amax(1) - own)
    assert torch.equal(found.likely[:, 0], joint.argmax(1).double())
    given_label = flow.PRIOR[x[:, 0].long()].log()
    torch.testing.assert_close(found.surprise[:, 1], given_label - own, atol=0.02, rtol=0.0)
    # 0 and the gap are the likeliest numbers of the first two labels: 60 and 80 % against densities of one number.
    assert found.likely[:2, 1].tolist() == [0.0, 0.0]
    assert found.gain[0, 1] == found.gain[2, 1] == 0
    assert bool(found.likely[2, 1].isnan())


class Pairs(Flow):
    """Four numbers above the context, of which the first two, and the last two, are no further than 1 apart."""

    def __init__(self) -> None:
        super().__init__(LULinear(4), DiagonalNormal((4,)))

    def estimate_log_prob(self, x: Tensor, context: Tensor | None = None, **_: Any) -> Estimate:
        apart = torch.stack([x[:, 0] - x[:, 1], x[:, 2] - x[:, 3]]).abs()
        possible = (x > (0.0 if context is None else context)).all(1) & (apart <= 1).all(0)
        value = torch.where(possible, -x.double().sum(1), -torch.inf)
        return Estimate(value, torch.zeros_like(value), "exact")


@pytest.mark.parametrize("low", [None, 2.0])
def test_values_that_cannot_be_are_named_where_there_are_several(low: float | None) -> None:
    values = torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    x = torch.tensor(
        [
            [3, 3, 3, 3],
            [-1, 3, 3, 3],  # one is enough to be found by a single change
            [-1, 3, -2, 3],
            [-1, -1, 3, 5],  # with both replaced the others are impossible together
            [3, 5, 3, 5],
        ],
        dtype=torch.float64,
    )
    context = None if low is None else torch.full((5, 1), low, dtype=torch.float64)
    found = explain(Pairs(), x, context, references=values.repeat_interleave(2, 1))
    assert found.gain.isinf().tolist() == [
        [False, False, False, False],
        [True, False, False, False],
        [True, False, True, False],
        [True, True, False, False],
        [False, False, False, False],
    ]
    assert (found.gain[4] == 0).all() and found.score.isinf().tolist() == [False, True, True, True, True]
    mended = torch.where(found.gain.isinf(), found.likely, x)
    assert (
        explain(Pairs(), mended, context, references=mended).score.isinf().tolist()
        == [False] * 3 + [True] * 2
    )


def test_contexts_stay_with_their_rows() -> None:
    flow = build_flow(MAFConfig(layers=1, hidden=(8,)), 2, 1).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    context = torch.linspace(-3, 3, 5, dtype=torch.float64)[:, None]
    x = flow.sample((), context, generator=torch.Generator().manual_seed(1))
    references = flow.sample((100,), context[:1], generator=torch.Generator().manual_seed(2))[:, 0]
    together = explain(flow, x, context, references=references)
    for i in range(5):
        alone = explain(flow, x[i : i + 1], context[i : i + 1], references=references)
        torch.testing.assert_close(alone.gain[0], together.gain[i])
        torch.testing.assert_close(alone.surprise[0], together.surprise[i])
    assert explain(flow, x, context).gain.shape == (5, 2)
    assert explain(flow, x[:0], context[:0], references=x).gain.shape == (0, 2)


def test_what_cannot_be_explained_is_refused() -> None:
    flow = build_flow(MAFConfig(layers=1), 2)
    x = torch.zeros(3, 2)
    for arguments, message in (
        ({"x": x[:, :1]}, r"x must have shape \(rows, 2\), got \(3, 1\)"),
        ({"x": x, "references": x[0]}, r"references must have shape \(rows, 2\), got \(2,\)"),
        (
            {"x": x, "columns": [ColumnSchema(name="a")]},
            "columns must be the schemas of the flow's 2 columns, got 1",
        ),
        ({"x": x, "candidates": 1}, "candidates must be at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(flow, **arguments)
