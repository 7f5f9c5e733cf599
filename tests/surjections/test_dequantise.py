"""Discrete columns: encoding, decoding and the likelihood that is estimated."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pushforward.distributions import GaussianMixture
from pushforward.flows import Flow, Preprocess
from pushforward.surjections import Dequantise
from pushforward.transforms import Chain, Elementwise, RationalQuadraticSpline, Standardise, Support

quick = settings(max_examples=60, deadline=None)
STEPS = ["1", "2", "10", "0.5", "0.25", "0.1", "0.01", "0.001", "0.3", "0.15", "2.5", "100", "1e-6"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def grids(draw: st.DrawFn) -> tuple[list[float], Tensor]:
    """Steps of a few columns, and decimal numbers that are multiples of them, up to 1e9."""
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        counts = [draw(st.integers(-(10**9), 10**9)) for _ in steps]
        rows.append([float(k * Decimal(s)) for k, s in zip(counts, steps, strict=True)])
    return [float(s) for s in steps], torch.tensor(rows, dtype=torch.float64)


@given(grid=grids(), seed=st.integers(0, 2**31), shared=st.booleans())
@quick
def test_decoding_gives_back_what_was_encoded(
    grid: tuple[list[float], Tensor], seed: int, shared: bool
) -> None:
    steps, x = grid
    surjection = Dequantise(steps)
    z, log_weight = surjection.encode(x, generator=seeded(seed), shared=shared)
    assert torch.equal(surjection.decode(z), x)
    assert torch.equal(surjection.decode(x), x)
    assert torch.equal(log_weight, torch.zeros(len(x), dtype=torch.float64))
    assert (z > x).all() and (z <= x + surjection.steps).all()


@given(grid=grids(), u=st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]))
@quick
def test_the_ends_of_a_cell_belong_to_it(grid: tuple[list[float], Tensor], u: float) -> None:
    steps, x = grid
    surjection = Dequantise(steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, u, dtype=torch.float64))
        z, _ = surjection.encode(x)
    assert torch.equal(surjection.decode(z), x)


def test_noise_is_uniform_on_the_cell_and_continuous_columns_pass() -> None:
    surjection = Dequantise([0.5, 0.0])
    x = torch.tensor([3.0, 0.7], dtype=torch.float64).expand(20_000, 2)
    z, _ = surjection.encode(x, generator=seeded(0))
    assert torch.equal(z[:, 1], x[:, 1])
    share = (z[:, 0] - 3.0).sort().values / 0.5
    expected = (torch.arange(20_000) + 0.5) / 20_000
    assert (share - expected).abs().max() < 2.0 / math.sqrt(20_000)
    shared, _ = surjection.encode(x, generator=seeded(0), shared=True)
    assert (shared == shared[0]).all()


def test_casts_and_moves_do_not_touch_the_steps() -> None:
    surjection = Dequantise([0.1, 0.3])
    x = torch.tensor([[123456.7, 123456.9]], dtype=torch.float64)
    for cast in (surjection.float(), surjection.half(), surjection.to(torch.bfloat16)):
        assert cast.steps.dtype == torch.float64
        assert torch.equal(cast.decode(x), x)


def test_nan_stays_nan() -> None:
    z, _ = Dequantise([1.0, 0.0]).encode(torch.full((1, 2), math.nan))
    assert z.isnan().all() and Dequantise([1.0, 0.0]).decode(z).isnan().all()


def one_dimensional(step: float) -> Flow:
    """A density with several bumps over about twenty cells."""
    spline = Elementwise(RationalQuadraticSpline(6, 3.0), (1,))
    torch.nn.init.normal_(spline.source.value, generator=seeded(1))  # type: ignore[union-attr]
    flow = Flow(
        spline,
        GaussianMixture((1,), 2, generator=seeded(0)),
        preprocess=Preprocess(Standardise(1)),
        surjection=Dequantise([step]),
    ).double()
    flow.preprocess.transform.initialize(step * torch.arange(-7.0, 8.0, dtype=torch.float64)[:, None])  # type: ignore[union-attr]
    return flow


@pytest.mark.parametrize("step", [1.0, 0.1])
def test_estimates_agree_with_the_integral_over_the_cell(step: float) -> None:
    flow = one_dimensional(step)
    x = step * torch.arange(-10.0, 11.0, dtype=torch.float64)[:, None]
    exact = Flow(flow.transform, flow.base, preprocess=flow.preprocess)
    inside = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    with torch.no_grad():
        density = exact.log_prob(x[:, None] + step * inside[:, None]).exp().mean(-1)
        estimate = flow.estimate_log_prob(x, generator=seeded(3), num_samples=1000)
        assert estimate.kind == "estimate" and (estimate.standard_error > 0).all()
        error = (estimate.value.exp() - density) / density
        assert (error.abs() <= 4.5 * estimate.standard_error + 1e-6).all()
        # One step each: the cells cover the line.
        wide = step * torch.arange(-60.0, 61.0, dtype=torch.float64)[:, None]
        values = flow.estimate_log_prob(wide, generator=seeded(4), num_samples=300).value
    assert abs(step * values.exp().sum().item() - 1) < 0.02


def test_estimates_depend_neither_on_order_nor_on_chunks() -> None:
    flow = one_dimensional(1.0)
    x = torch.randint(-9, 9, (50, 1), generator=seeded(0)).double()

    def estimate(rows: Tensor) -> Tensor:
        value: Tensor = flow.estimate_log_prob(rows, generator=seeded(7)).value
        return value

    whole = estimate(x)
    order = torch.randperm(50, generator=seeded(1))
    torch.testing.assert_close(estimate(x[order]), whole[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([estimate(c) for c in x.split(7)]), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack([estimate(row) for row in x]), whole, rtol=0, atol=1e-12)


def test_impossible_and_unknown_values_and_single_draws() -> None:
    flow = one_dimensional(1.0)
    preprocess = Preprocess(Chain([Support([0.0], [4.0]), Standardise(1)]))
    bounded = Flow(flow.transform, flow.base, preprocess=preprocess, surjection=flow.surjection)
    estimate = bounded.estimate_log_prob(
        torch.tensor([[-1.0], [0.0], [3.0], [4.0], [math.nan]]), generator=seeded(0)
    )
    assert estimate.value.isneginf().tolist() == [True, False, False, True, False]
    assert estimate.standard_error[[0, 3]].tolist() == [0.0, 0.0]
    assert estimate.value[4].isnan() and estimate.standard_error[4].isnan()
    single = flow.estimate_log_prob(torch.zeros(1, 1), generator=seeded(0), num_samples=1)
    assert single.value.isfinite().all() and single.standard_error.isnan().all()


def test_samples_lie_on_the_grid_and_come_as_often_as_the_density_says() -> None:
    flow = one_dimensional(0.1)
    samples = flow.sample((20_000,), generator=seeded(0))
    cells = torch.round(samples / 0.1)
    assert torch.equal(samples, cells / 10)
    values, counts = samples.unique(return_counts=True)
    probability = (
        0.1 * flow.estimate_log_prob(values[:, None], generator=seeded(0), num_samples=500).value.exp()
    )
    spread = (probability * (1 - probability) / 20_000).sqrt()
    assert ((counts / 20_000 - probability).abs() <= 5 * spread + 0.02 * probability).all()


def test_misuse() -> None:
    flow = one_dimensional(1.0)
    with pytest.raises(ValueError, match=r"log_prob must be exact, but Dequantise .* use estimate_log_prob"):
        flow.log_prob(torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"sample_and_log_prob must be exact, but .* use sample"):
        flow.sample_and_log_prob((2,))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 1\), got \(4, 3\)"):
        flow.estimate_log_prob(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        flow.estimate_log_prob(torch.zeros(1, 1), num_samples=0)
    with pytest.raises(ValueError, match="surjection needs a preprocess"):
        Flow(flow.transform, flow.base, surjection=flow.surjection)
    for steps in ([-1.0], [math.nan], [math.inf], []):
        with pytest.raises(ValueError, match="steps must be finite, at least 0 and at least one, got"):
            Dequantise(steps)
    with pytest.raises(
        ValueError, match=r"x must have shape \(\.\.\., 2\) and a floating dtype, got \(4, 1\)"
    ):
        Dequantise([1.0, 1.0]).encode(torch.zeros(4, 1))
    with pytest.raises(
        ValueError, match=r"z must have shape .* and a floating dtype, got \(4, 2\) and torch.int64"
    ):
        Dequantise([1.0, 1.0]).decode(torch.zeros(4, 2, dtype=torch.long))
