"""The laws of a density over columns of several kinds: total mass, samples, gaps, cells, conditioning."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pushforward.configs import ColumnSchema, MixedConfig, NSFConfig, TableSchema
from pushforward.flows import MixedFlow, score, table_flow
from pushforward.flows.columns import CODE, MixedPreprocess
from pushforward.flows.factors import log_normal_between

NAN = math.nan
COLUMNS = {
    "line": ColumnSchema(name="line", missing=True, atoms=(0.0, 2.5)),
    "label": ColumnSchema(name="label", kind="category", categories=("x", "y", "z")),
    "cell": ColumnSchema(name="cell", step=0.5, low=-1.0, high=1.0, missing=True),
    "truth": ColumnSchema(name="truth", kind="boolean", missing=True),
    "angle": ColumnSchema(name="angle", low=0.0, high=360.0, periodic=True),
    "half": ColumnSchema(name="half", low=0.0),
    "whole": ColumnSchema(name="whole", step=1.0),
}
VALUES = {
    "label": [0.0, 1.0, 2.0],
    "cell": [-1.0, -0.5, 0.0, 0.5, 1.0, NAN],
    "truth": [0.0, 1.0, NAN],
    "whole": [float(k) for k in range(-400, 400)],
}
STEPS = {"cell": 0.5}


def rows(names: list[str], count: int) -> Tensor:
    """Rows of a table with these columns."""
    generator = torch.Generator().manual_seed(1)
    drawn = {
        "line": torch.randn(count, generator=generator, dtype=torch.float64),
        "label": torch.randint(3, (count,), generator=generator).double(),
        "cell": torch.randint(-2, 3, (count,), generator=generator) / 2.0,
        "truth": torch.randint(2, (count,), generator=generator).double(),
        "angle": 360.0 * torch.rand(count, generator=generator, dtype=torch.float64),
        "half": torch.rand(count, generator=generator, dtype=torch.float64) + 0.1,
        "whole": torch.randint(-9, 9, (count,), generator=generator).double(),
    }
    x = torch.stack([drawn[name].double() for name in names], 1)
    for j, name in enumerate(names):
        if COLUMNS[name].missing:
            x[j :: len(names) + 3, j] = NAN
        if COLUMNS[name].atoms:
            x[1::4, j] = 0.0
    return x


def flow_of(names: list[str], context: list[str] | None = None, orders: int = 1) -> MixedFlow:
    """A flow of these columns with random weights, in double precision."""
    torch.manual_seed(0)
    given = context or []
    schema = TableSchema(columns=tuple(COLUMNS[n] for n in names), context=tuple(COLUMNS[n] for n in given))
    flow = table_flow(MixedConfig(orders=orders, hidden=(16, 16), bins=6), schema)
    assert isinstance(flow, MixedFlow)
    flow.preprocess.initialize(rows(names, 400))
    if flow.context_preprocess is not None:
        flow.context_preprocess.initialize(rows(given, 400))
    for network in flow.base.networks:
        for layer in network.layers:  # type: ignore[union-attr,operator]
            layer.weight.data = 0.7 * torch.randn_like(layer.weight)
            layer.bias.data = 0.7 * torch.randn_like(layer.bias)
    return flow.double().requires_grad_(False)


@pytest.mark.parametrize(
    ("names", "orders"),
    [(["label", "cell", "truth"], 1), (["truth", "cell", "label"], 3), (["whole", "truth"], 1)],
)
def test_the_probabilities_of_all_discrete_rows_sum_to_1(names: list[str], orders: int) -> None:
    flow = flow_of(names, orders=orders)
    x = torch.tensor(list(itertools.product(*(VALUES[name] for name in names))), dtype=torch.float64)
    step = math.prod(STEPS.get(name, 1.0) for name in names)
    seen = ~x[:, [STEPS.get(name) is not None for name in names]].isnan().any(1)
    weights = torch.where(seen, step, 1.0)  # per unit of the data where there is a value
    assert float((weights * flow.log_prob(x).exp()).sum()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("line", -60.0, 60.0), ("angle", 0.0, 360.0), ("half", 0.0, 400.0)]
)
@pytest.mark.parametrize("first", [True, False])
def test_the_mass_of_a_number_beside_labels_is_1(name: str, low: float, high: float, first: bool) -> None:
    names = [name, "label"] if first else ["label", name]
    flow = flow_of(names)
    ends = torch.linspace(-1.0 if low < 0 else 0.0, 1.0, 40_001, dtype=torch.float64)
    grid = high * (ends if name == "angle" else ends**3)  # finer where most of the mass lies
    middle = 0.5 * (grid[1:] + grid[:-1])
    total = 0.0
    for label in VALUES["label"]:
        at = torch.stack([middle, torch.full_like(middle, label)], 1)
        values = flow.log_prob(at if first else at.flip(1)).exp()
        total += float((values * grid.diff()).sum())
        for special in (*COLUMNS[name].atoms, *([NAN] if COLUMNS[name].missing else [])):
            row = torch.tensor([[special, label]], dtype=torch.float64)
            total += float(flow.log_prob(row if first else row.flip(1)).exp())
    assert total == pytest.approx(1.0, abs=1e-3)


def test_rows_are_drawn_as_often_as_their_probabilities_say() -> None:
    names = ["cell", "label", "truth"]
    flow, count = flow_of(names, orders=2), 40_000
    drawn = flow.sample((count,), generator=torch.Generator().manual_seed(0))
    times = Counter(tuple("gap" if math.isnan(v) else v for v in row) for row in drawn.tolist())
    x = torch.tensor(list(itertools.product(*(VALUES[name] for name in names))), dtype=torch.float64)
    chances = flow.log_prob(x).exp() * torch.where(x[:, 0].isnan(), 1.0, 0.5)
    for row, chance in zip(x.tolist(), chances.tolist(), strict=True):
        seen = times[tuple("gap" if math.isnan(v) else v for v in row)] / count
        assert abs(seen - chance) < 5 * math.sqrt(chance * (1 - chance) / count) + 1e-4


def test_a_drawn_row_is_a_valid_row_with_the_log_density_that_was_returned() -> None:
    names = list(COLUMNS)
    flow = flow_of(names, orders=2)
    x, log_prob = flow.sample_and_log_prob((500,), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flow.log_prob(x), log_prob)
    column = dict(zip(names, x.unbind(1), strict=True))
    assert bool(torch.isfinite(log_prob).all())
    assert set(column["label"].tolist()) <= {0.0, 1.0, 2.0}
    assert bool((column["cell"].nan_to_num() * 2 == (column["cell"].nan_to_num() * 2).round()).all())
    assert bool((column["cell"].nan_to_num().abs() <= 1).all())
    assert bool(((column["angle"] >= 0) & (column["angle"] < 360) & (column["half"] > 0)).all())
    assert bool((column["whole"] == column["whole"].round()).all())
    assert [name for name, values in column.items() if values.isnan().any()] == ["line", "cell", "truth"]
    assert bool((column["line"] == 2.5).any())


def test_the_32_bit_float_nearest_to_an_atom_is_that_atom() -> None:
    tenth, single = (float(torch.tensor(v, dtype=torch.float32)) for v in (0.1, 2.3))
    column = ColumnSchema(name="a", atoms=(0.1, 1e300, single, 2.3))
    values = torch.tensor([[0.1, tenth, 1e300, single, 2.3, 0.1 + 1e-9, math.inf]], dtype=torch.float64).T
    codes = MixedPreprocess([column])(values, values)[0][:, 0, CODE]
    assert codes.tolist() == [1, 1, 2, 3, 4, 0, 0]
    flow = table_flow(MixedConfig(hidden=(8,), bins=4), TableSchema(columns=(replace(column, atoms=(0.1,)),)))
    x = torch.cat(
        [torch.full((60, 1), tenth), torch.randn(40, 1, generator=torch.Generator().manual_seed(0))]
    )
    flow.preprocess.initialize(x)  # type: ignore[union-attr]
    drawn = flow.sample((60,), generator=torch.Generator().manual_seed(0))
    assert bool((drawn == 0.1).any())
    torch.testing.assert_close(flow.log_prob(drawn.float()), flow.log_prob(drawn))
    assert torch.equal(flow.log_prob(x[:1]), flow.log_prob(torch.tensor([[0.1]], dtype=torch.float64)))


def test_what_cannot_be_has_no_density_and_a_gap_where_there_are_none_is_no_number() -> None:
    flow = flow_of(["label", "half", "cell"])
    x = torch.tensor(
        [
            [3.0, 1.0, 0.5],
            [0.5, 1.0, 0.5],
            [1.0, -1.0, 0.5],
            [1.0, 1.0, 1.5],
            [NAN, 1.0, 0.5],
            [1.0, NAN, NAN],
        ],
        dtype=torch.float64,
    )
    values = flow.log_prob(x)
    assert values[:4].tolist() == [-math.inf] * 4 and bool(values[4:].isnan().all())


def test_a_batch_is_a_loop_and_contexts_with_gaps_count() -> None:
    flow = flow_of(["line", "label"], context=["cell", "truth"])
    x, context = rows(["line", "label"], 12), rows(["cell", "truth"], 12)
    each = torch.stack([flow.log_prob(a, c) for a, c in zip(x, context, strict=True)])
    torch.testing.assert_close(flow.log_prob(x, context), each)
    torch.testing.assert_close(score(flow, x, context).value, each)
    other = context.clone()
    other[:, 1] = NAN
    assert bool((flow.log_prob(x, other) != each)[~context[:, 1].isnan()].all())
    draws = flow.sample((3,), context, generator=torch.Generator().manual_seed(0))
    assert draws.shape == (3, 12, 2)


@pytest.mark.parametrize(("known", "exact"), [([True, False, False], True), ([False, True, True], False)])
def test_unknown_values_are_drawn_by_their_conditional_law(known: list[bool], exact: bool) -> None:
    names = ["cell", "label", "truth"]
    flow, count = flow_of(names), 2000
    row = torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64)
    filled = flow.fill(
        row.expand(count, 3), torch.tensor(known), candidates=100, generator=torch.Generator().manual_seed(0)
    )
    assert filled.exact is exact and bool((filled.effective >= 1 - 1e-9).all())
    places = [j for j in range(3) if not known[j]]
    free = list(itertools.product(*(VALUES[names[j]] for j in places)))
    candidates = row.repeat(len(free), 1)
    candidates[:, places] = torch.tensor(free, dtype=torch.float64)
    logs = flow.log_prob(candidates) + torch.where(candidates[:, 0].isnan(), 0.0, math.log(0.5))
    chances = torch.softmax(logs, 0)
    times = Counter(
        tuple("gap" if math.isnan(v) else v for v in each) for each in filled.x[:, places].tolist()
    )
    for values, chance in zip(free, chances.tolist(), strict=True):
        seen = times[tuple("gap" if math.isnan(v) else v for v in values)] / count
        assert abs(seen - chance) < 5 * math.sqrt(chance * (1 - chance) / count) + (1e-4 if exact else 0.01)


def test_probabilities_of_intervals_do_not_cancel() -> None:
    ends = torch.tensor([-35.0, -5.0, 0.0, 5.0, 35.0], dtype=torch.float64)
    narrow = log_normal_between(ends, ends + 1e-9)
    torch.testing.assert_close(
        narrow, -0.5 * ends.square() - 0.5 * math.log(2 * math.pi) + math.log(1e-9), rtol=1e-5, atol=1e-5
    )
    whole = log_normal_between(torch.tensor(-math.inf), torch.tensor(math.inf))
    assert float(whole) == pytest.approx(0.0)
    vast = torch.tensor([-1e300, 1e300], dtype=torch.float64)
    assert log_normal_between(vast, vast + 1.0).tolist() == [-math.inf] * 2


def test_what_a_mixed_density_and_a_flow_refuse() -> None:
    flow = flow_of(["line", "label"])
    with pytest.raises(ValueError, match="no latent codes: no bijection takes categories"):
        flow.to_latent(rows(["line", "label"], 2))
    with pytest.raises(ValueError, match="temperature must be 1"):
        flow.sample((2,), temperature=0.5)
    with pytest.raises(ValueError, match=r"known must be Boolean of shape \(2,\)"):
        flow.fill(rows(["line", "label"], 2), torch.ones(3, dtype=torch.bool))
    schema = TableSchema(columns=(COLUMNS["label"],))
    with pytest.raises(ValueError, match="nsf takes numbers alone, and column 'label' has category"):
        table_flow(NSFConfig(), schema)
