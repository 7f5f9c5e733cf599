"""What holds for the rational-quadratic spline in particular."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pushforward.transforms import RationalQuadraticSpline

BINS = 6
BOUND = 3.0
KINDS = ("linear", "bounded", "circular")
each_kind = pytest.mark.parametrize("tails", KINDS)
each_direction = pytest.mark.parametrize("direction", ["forward", "inverse"])
quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)
strengths = st.sampled_from([0.1, 1.0, 5.0, 50.0])


def spline(tails: str, dtype: torch.dtype = torch.float64) -> RationalQuadraticSpline:
    return RationalQuadraticSpline(BINS, BOUND, tails).to(dtype)


def parameters(
    t: RationalQuadraticSpline, seed: int, strength: float, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (strength * torch.randn(t.parameters_each, generator=generator)).to(dtype)


def knots(t: RationalQuadraticSpline, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the pieces meet, from the definition: x, y (before the rotation) and slopes of the inner ones."""
    share_x, share_y = (
        t.minimum + (1 - BINS * t.minimum) * torch.softmax(part, -1)
        for part in (raw[:BINS], raw[BINS : 2 * BINS])
    )
    x, y = (2 * BOUND * torch.cumsum(s, -1)[:-1] - BOUND for s in (share_x, share_y))
    slopes = t.minimum + torch.log1p(
        torch.exp(raw[2 * BINS : 3 * BINS - 1] + math.log(math.expm1(1 - t.minimum)))
    )
    return x, y, slopes


def turn(difference: Tensor) -> Tensor:
    """The short way round a circle."""
    return difference - 2 * BOUND * torch.round(difference / (2 * BOUND))


@each_kind
@given(seed=seeds)
@quick
def test_the_inner_knots_lie_where_the_parameters_put_them(tails: str, seed: int) -> None:
    t = spline(tails)
    raw = parameters(t, seed, 1.0)
    x, expected, slopes = knots(t, raw)
    y, log_derivative = t(x, raw.expand(len(x), -1))
    if tails == "circular":
        expected = expected + BOUND * torch.tanh(raw[-1])
    torch.testing.assert_close(turn(y - expected), torch.zeros_like(y), rtol=0, atol=1e-12)
    torch.testing.assert_close(log_derivative.exp(), slopes, rtol=1e-9, atol=1e-12)


@each_kind
@given(seed=seeds, strength=strengths)
@quick
def test_value_and_slope_are_continuous_at_knots_and_ends(tails: str, seed: int, strength: float) -> None:
    t = spline(tails)
    raw = parameters(t, seed, strength)
    at = torch.cat([knots(t, raw)[0], torch.tensor([-BOUND, BOUND], dtype=torch.float64)])
    left, right = at - 1e-12, at + 1e-12
    (y_left, d_left), (y_right, d_right) = (t(x, raw.expand(len(x), -1)) for x in (left, right))
    # Between the two the map may climb by its slope, and a slope may change by its own steepness.
    assert (
        turn(y_right - y_left).abs() <= 1e-12 * (10 + 4 * torch.maximum(d_left, d_right).exp()) + 1e-14
    ).all()
    inner = slice(None) if tails != "bounded" else slice(0, -2)
    if strength <= 1:  # the slope's own steepness has no bound to speak of for wilder parameters
        torch.testing.assert_close(d_left[inner], d_right[inner], rtol=0, atol=1e-5)


@each_kind
@given(seed=seeds, strength=strengths)
@quick
def test_the_map_increases(tails: str, seed: int, strength: float) -> None:
    t = spline(tails)
    raw = parameters(t, seed, strength)
    x = torch.linspace(-BOUND, BOUND, 1001, dtype=torch.float64)[:-1]
    for direction in (t.forward, t.inverse):
        y, log_derivative = direction(x, raw.expand(len(x), -1))
        assert torch.isfinite(log_derivative).all()
        steps = torch.diff(y)
        if tails == "circular":  # once round, and from the last point on to the first
            steps = torch.remainder(torch.cat([steps, y[:1] - y[-1:]]), 2 * BOUND)
            assert abs(steps.sum().item() - 2 * BOUND) < 1e-9
            assert (steps < BOUND * 2).all()
        assert (steps >= -1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_direction
@each_kind
@given(seed=seeds, strength=strengths)
@quick
def test_values_and_gradients_are_finite_everywhere(
    dtype: torch.dtype, direction: str, tails: str, seed: int, strength: float
) -> None:
    t = spline(tails, dtype)
    raw = parameters(t, seed, strength, dtype).requires_grad_()
    x_knots, y_knots, _ = knots(t, raw.detach())
    ends = [-BOUND, BOUND, math.nextafter(BOUND, 9), math.nextafter(-BOUND, 9), 0.0]
    far = [s * v for v in (4.0, 1e3, 1e30) for s in (1, -1)]
    x = torch.cat([x_knots, y_knots, torch.tensor(ends + far, dtype=dtype)]).requires_grad_()
    y, log_derivative = getattr(t, direction)(x, raw.expand(len(x), -1))
    assert torch.isfinite(y).all() and torch.isfinite(log_derivative).all()
    for output in (y, log_derivative):
        for gradient in torch.autograd.grad(output.sum(), [x, raw], retain_graph=True):
            assert torch.isfinite(gradient).all()
    if tails == "circular":
        assert (y.abs() <= BOUND).all()
    else:
        outside = x.abs() > BOUND
        torch.testing.assert_close(y[outside], x[outside], rtol=1e-6, atol=0)
        assert (log_derivative[outside] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_direction
def test_no_rounding_leaves_the_interval(dtype: torch.dtype, direction: str) -> None:
    t = spline("bounded", dtype)
    generator = torch.Generator().manual_seed(0)
    bound = torch.tensor(BOUND, dtype=dtype)
    inner = torch.nextafter(bound, torch.zeros_like(bound))
    for strength in (1.0, 5.0):
        raw = (strength * torch.randn((20_000, 1, t.parameters_each), generator=generator)).to(dtype)
        y, _ = getattr(t, direction)(torch.stack([bound, inner, -inner, -bound]), raw)
        assert (y.abs() <= bound).all()
        if direction == "forward":  # a spline that is nearly flat at its end has no sharp inverse there
            assert ((y.abs() - bound).abs() < 1e-3).all() and (
                (y[:, [0, 3]].abs() - bound).abs() < 1e-5
            ).all()


@given(seed=seeds, strength=strengths, turns=st.integers(-3, 3))
@quick
def test_a_circle_has_no_seam_and_no_beginning(seed: int, strength: float, turns: int) -> None:
    t = spline("circular")
    raw = parameters(t, seed, strength)
    x = torch.linspace(-BOUND, BOUND, 64, dtype=torch.float64)
    for direction in (t.forward, t.inverse):
        here, d_here = direction(x, raw.expand(len(x), -1))
        there, d_there = direction(x + 2 * BOUND * turns, raw.expand(len(x), -1))
        slope = d_here.exp().clamp(min=1.0)
        assert (turn(here - there).abs() <= 1e-13 * slope).all()
        if strength <= 1:
            torch.testing.assert_close(d_here, d_there, rtol=0, atol=1e-8)
        assert abs(turn(here[0] - here[-1]).item()) <= 1e-13 * slope[0].item()


@each_direction
@each_kind
def test_zero_parameters_are_the_identity(direction: str, tails: str) -> None:
    t = spline(tails)
    x = torch.linspace(-BOUND, BOUND, 97, dtype=torch.float64)[:-1]
    y, log_derivative = getattr(t, direction)(x, x.new_zeros(len(x), t.parameters_each))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-14)
    torch.testing.assert_close(log_derivative, torch.zeros_like(x), rtol=0, atol=1e-14)


@each_direction
@each_kind
def test_nan_stays_nan(direction: str, tails: str) -> None:
    t = spline(tails)
    y, _ = getattr(t, direction)(torch.tensor([math.nan]).double(), parameters(t, 0, 1.0)[None])
    assert y.isnan().all()


def test_elements_with_tails_of_their_own_are_single_splines() -> None:
    bounds = [1.0, 2.0, 3.0]
    mixed = RationalQuadraticSpline(4, bounds, KINDS).double()
    raw = torch.randn(3, mixed.parameters_each, generator=torch.Generator().manual_seed(0)).double()
    x = torch.tensor([0.7, -1.9, 2.9], dtype=torch.float64)
    for direction in ("forward", "inverse"):
        y, log_derivative = getattr(mixed, direction)(x, raw)
        for i, (bound, tails) in enumerate(zip(bounds, KINDS, strict=True)):
            alone = RationalQuadraticSpline(4, bound, tails).double()
            one, log_one = getattr(alone, direction)(x[i], raw[i, : alone.parameters_each])
            torch.testing.assert_close(y[i], one, rtol=0, atol=1e-14)
            torch.testing.assert_close(log_derivative[i], log_one, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tails": "round"}, "tails must be among linear, bounded, circular, got round"),
        ({"tails": []}, "tails must be among linear, bounded, circular, got none"),
        ({"bins": 1}, "bins must be at least 2, got 1"),
        ({"bound": 0.0}, "bound must be positive and finite, got 0.0"),
        ({"bound": [1.0, math.inf]}, r"bound must be positive and finite, got \[1.0, inf\]"),
        ({"minimum": 0.2}, r"minimum must lie in \(0, 1/bins\) = \(0, 0.125\), got 0.2"),
        ({"bound": [1.0, 2.0], "tails": list(KINDS)}, "tails must be one or as many as the bounds, 2, got 3"),
    ],
)
def test_misuse(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RationalQuadraticSpline(**arguments)  # type: ignore[arg-type]
