"""Supports and standardisation of a table's columns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pushforward.configs import GlowConfig
from pushforward.distributions import DiagonalNormal, Uniform
from pushforward.flows import Flow, Preprocess, build_flow
from pushforward.transforms import Chain, CompressTails, Permutation, Standardise, Support

quick = settings(max_examples=60, deadline=None)
INF = math.inf
# name -> low, high, periodic
COLUMNS: dict[str, tuple[float | None, float | None, bool]] = {
    "free": (None, None, False),
    "below": (2.0, None, False),
    "above": (None, -1.0, False),
    "both": (-1.0, 3.0, False),
    "circle": (0.0, 360.0, True),
}


def support(name: str) -> Support:
    low, high, periodic = COLUMNS[name]
    return Support([low], [high], [periodic])


def density(name: str, dtype: torch.dtype = torch.float64) -> Flow:
    """A normal density on the line, or a uniform one on the circle, brought to the column's units."""
    half_turn = torch.tensor([math.pi])
    base = Uniform(-half_turn, half_turn) if COLUMNS[name][2] else DiagonalNormal((1,))
    return Flow(Permutation([0]), base, preprocess=Preprocess(support(name))).to(dtype)


def nodes(name: str) -> tuple[Tensor, Tensor]:
    """A quadrature rule on the open support: the midpoint rule, in equal ratios towards an end that is far away."""
    low, high, _ = COLUMNS[name]
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    if low is not None and high is not None:
        return low + (high - low) * u, torch.full_like(u, (high - low) / 20_000)
    v = 20 * u - 10
    if low is None and high is None:
        return v, torch.full_like(u, 20 / 20_000)
    weight = v.exp() * 20 / 20_000
    return (low + v.exp(), weight) if low is not None else (high - v.exp(), weight)  # type: ignore[operator]


@pytest.mark.parametrize("name", COLUMNS)
def test_all_mass_lies_on_the_support(name: str) -> None:
    flow = density(name)
    x, weight = nodes(name)
    assert abs((flow.log_prob(x[:, None]).exp() * weight).sum().item() - 1) < 1e-6
    low, high, periodic = COLUMNS[name]
    outside = [] if low is None else [low - 1e-9, low - 100.0, -1e300, -INF]
    outside += [] if high is None else [high, high + 1e-9, high + 100.0, 1e300, INF]
    outside += [low] if low is not None and not periodic else []
    if outside:
        assert flow.log_prob(torch.tensor(outside, dtype=torch.float64)[:, None]).isneginf().all()
    if periodic:
        assert flow.log_prob(torch.tensor([low], dtype=torch.float64)).isfinite()
    assert flow.log_prob(torch.tensor([math.nan])).isnan()


def test_one_column_outside_is_enough_but_nan_is_nan() -> None:
    low, high, periodic = zip(*COLUMNS.values(), strict=True)
    flow = Flow(
        Permutation(range(5)), DiagonalNormal((5,)), preprocess=Preprocess(Support(low, high, periodic))
    )
    good = torch.tensor([0.0, 3.0, -2.0, 1.0, 90.0])
    assert flow.log_prob(good).isfinite()
    for column, bad in ((1, 1.0), (2, 0.0), (3, 9.0), (4, -1.0)):
        x = good.clone()
        x[column] = bad
        assert flow.log_prob(x).isneginf()
        for other in range(5):
            assert flow.log_prob(x.index_fill(0, torch.tensor(other), math.nan)).isnan()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", COLUMNS)
def test_no_latent_leads_out_of_the_support(name: str, dtype: torch.dtype) -> None:
    flow = density(name, dtype)
    half_turn = torch.tensor(math.pi, dtype=dtype)
    far = [0.0, 1e-8, 3.0, 17.0, 38.0, 300.0]
    if COLUMNS[name][2]:
        latent = torch.stack([half_turn, torch.nextafter(half_turn, -half_turn), half_turn / 3])
    else:
        latent = torch.tensor(far, dtype=dtype)
    latent = torch.cat([latent, -latent])[:, None]
    x = flow.from_latent(latent)
    _, log_abs_det = support(name)(x)
    assert log_abs_det.isfinite().all()
    assert flow.sample((1000,), generator=torch.Generator().manual_seed(0)).shape == (1000, 1)


@given(
    ends=st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)),
    share=st.floats(1e-6, 1 - 1e-6),
    kind=st.sampled_from(list(COLUMNS)),
)
@quick
def test_round_trip_for_any_ends(ends: tuple[float, float], share: float, kind: str) -> None:
    a, width = ends
    low, high, periodic = COLUMNS[kind]
    t = Support([None if low is None else a], [None if high is None else a + width], [periodic])
    x = torch.tensor([a + width * share], dtype=torch.float64)
    assume(a < x.item() < a + width)
    x = x.requires_grad_()
    y, log_abs_det = t(x)
    back, log_back = t.inverse(y)
    ulp = 2e-16 * max(abs(a), abs(a + width))
    assert abs(back.item() - x.item()) <= 8 * ulp + 1e-13 * width
    (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert slope.log().item() == pytest.approx(log_abs_det.item(), abs=1e-9)
    # Near an end the distance to it has lost digits already.
    assert log_back.item() == pytest.approx(
        -log_abs_det.item(), abs=1e-9 + 16 * ulp / (width * min(share, 1 - share))
    )


def test_gradients_are_finite_inside_and_outside() -> None:
    low, high, periodic = zip(*COLUMNS.values(), strict=True)
    t = Support(low, high, periodic)
    x = torch.tensor([[0.0, 3.0, -2.0, 1.0, 90.0], [1e30, 2.0, -1.0, 3.0, 360.0]], dtype=torch.float64)
    x.requires_grad_()
    y, log_abs_det = t(x)
    for output in (y.sum(), log_abs_det.sum()):
        assert torch.autograd.grad(output, x, retain_graph=True)[0].isfinite().all()


@pytest.mark.parametrize(
    ("start", "spacing", "count"), [(1.7e18, 1e9, 86_400), (1e12, 1.0, 1000), (-3e9, 60.0, 5000)]
)
def test_a_float32_flow_keeps_the_digits_of_large_columns(start: float, spacing: float, count: int) -> None:
    inner = build_flow(GlowConfig(layers=2, hidden=(8,)), 2)
    standardise = Standardise(2)
    flow = Flow(inner.transform, inner.base, preprocess=Preprocess(standardise))
    steps = torch.randint(0, count, (500,), generator=torch.Generator().manual_seed(0)).double()
    x = torch.stack([start + spacing * steps, -start - spacing * steps.flip(0)], -1)
    standardise.initialize(x)
    for moved in (flow, flow.to(torch.float64).to(torch.float32), flow.half().float()):
        assert moved.base.dtype == torch.float32
        assert torch.equal(standardise.loc, x.mean(0)), "a cast of the flow has reached the preprocess"
        latent = moved.to_latent(x)
        assert latent.dtype == torch.float32
        back = moved.from_latent(latent)
        assert back.dtype == torch.float64
        # What a float32 loses of the standardised value, and a few times that in two layers.
        assert ((back - x).abs() <= 50 * 2.0**-24 * standardise.scale).all()
        assert moved.log_prob(x).isfinite().all()
    if count <= 1000:
        assert torch.equal(torch.round(back), x)


def test_standardise_takes_mean_and_spread_of_what_varies() -> None:
    x = torch.tensor([[1.0, 5.0, 2.0, 1e12], [3.0, 5.0, 4.0, 1e12 + 2]], dtype=torch.float64)
    t = Standardise(4, keep=[2])
    y = t.initialize(x)
    assert y.tolist() == [[-1.0, 0.0, 2.0, -1.0], [1.0, 0.0, 4.0, 1.0]]
    assert t.scale.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert Standardise(1).initialize(torch.tensor([[0.1]] * 3, dtype=torch.float64)).abs().max() < 1e-15


def test_only_heavy_tails_are_drawn_in() -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)).double()
    x[0, 0] = x[0, 2] = 1e6
    t = CompressTails(3, keep=[2])
    y = t.initialize(x)
    assert t.heavy.tolist() == [True, False, False]
    assert torch.equal(y[:, 1:], x[:, 1:])
    assert y[0, 0] < 20 and (y[:, 0].argsort() == x[:, 0].argsort()).all()
    constant = CompressTails(1)
    assert constant.initialize(torch.full((5, 1), 3.0, dtype=torch.float64)).tolist() == [[3.0]] * 5


def test_a_chain_is_fitted_part_by_part() -> None:
    x = torch.rand(200, 1, generator=torch.Generator().manual_seed(0)).double()
    standardise = Standardise(1)
    y = Chain([Support([0.0], [1.0]), standardise]).initialize(x)
    logit = torch.logit(x)
    torch.testing.assert_close(standardise.loc, logit.mean(0))
    torch.testing.assert_close(y, (logit - logit.mean(0)) / logit.std(0, correction=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0], [1.0, 2.0]), "low, high and periodic must have one length.*got 1, 2, 1"),
        (([], []), "low, high and periodic must have one length.*got 0, 0, 0"),
        (([1.0], [1.0]), r"low must be below high in every column, got \[1.0\] and \[1.0\]"),
        (([math.nan], [1.0]), "low must be below high in every column"),
        (([0.0], [None], [True]), "a periodic column needs both ends"),
    ],
)
def test_misuse(arguments: tuple[list[float | None], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Support(*arguments)  # type: ignore[arg-type]
