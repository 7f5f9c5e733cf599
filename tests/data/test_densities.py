"""Laws of the 2-D benchmark densities, against their definitions written out a second time."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_moons, make_swiss_roll
from torch import Tensor

from pushforward.data._curves import gauss_legendre, log_box_gaussians
from pushforward.data.densities import DENSITIES, density

SMOOTH = tuple(name for name in DENSITIES if name != "checkerboard")
# Monte Carlo values that circulate for the generators of FFJORD's code, in nats.
PUBLISHED = {
    "checkerboard": math.log(32),
    "eight_gaussians": 2.834,
    "moons": 2.395,
    "two_spirals": 2.649,
    "rings": 2.630,
    "swiss_roll": 2.667,
}
CELL, FINE = 0.4, 8  # squares of side 0.4, of 8 x 8 grid points each
HALF_WIDTH = {"eight_gaussians": 6.4, "moons": 4.8, "swiss_roll": 4.8, "pinwheel": 6.4}

known = cache(density)


@cache
def rows(name: str) -> Tensor:
    return known(name).sample(10_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@cache
def grid_log_prob(name: str) -> tuple[Tensor, float, float]:
    """Log-density on a grid of midpoints, its half width and its step."""
    half, step = HALF_WIDTH.get(name, 4.0), CELL / FINE
    axis = torch.arange(-half + step / 2, half, step, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    return known(name).log_prob(x).view(len(axis), len(axis)), half, step


@pytest.mark.parametrize("name", DENSITIES)
def test_total_mass_is_one(name: str) -> None:
    log_p, _, step = grid_log_prob(name)
    assert log_p.exp().sum().item() * step**2 == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("name", DENSITIES)
def test_entropy_is_that_of_the_density(name: str) -> None:
    log_p, _, step = grid_log_prob(name)
    p = log_p.exp()
    entropy = -torch.special.xlogy(p, p).sum().item() * step**2
    assert known(name).entropy == pytest.approx(entropy, abs=max(1e-7, 10 * known(name).entropy_error))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_entropy(name: str) -> None:
    assert known(name).entropy == pytest.approx(PUBLISHED[name], abs=0.0 if name == "checkerboard" else 0.01)


@pytest.mark.parametrize("name", DENSITIES)
def test_mean_surprise_of_rows_is_the_entropy(name: str) -> None:
    surprise = -known(name).log_prob(rows(name))
    error = surprise.std() / len(surprise) ** 0.5
    assert (surprise.mean() - known(name).entropy).abs() <= 4 * error + 1e-12


@pytest.mark.parametrize("name", DENSITIES)
def test_histogram_of_rows_is_that_of_the_density(name: str) -> None:
    x = rows(name).numpy()
    log_p, half, step = grid_log_prob(name)
    cells = len(log_p) // FINE
    expected = log_p.exp().view(cells, FINE, cells, FINE).sum((1, 3)).numpy() * step**2 * len(x)
    counted, _, _ = np.histogram2d(x[:, 0], x[:, 1], bins=cells, range=[[-half, half]] * 2)
    often = expected > 10
    counted, expected = counted[often], expected[often]
    if name == "checkerboard":  # every cell is full or empty
        assert counted.sum() == len(x)
    else:
        counted, expected = (np.append(n, len(x) - n.sum()) for n in (counted, expected))
    statistic = torch.tensor(((counted - expected) ** 2 / expected).sum())
    p_value = torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2).to(statistic), statistic / 2)
    assert p_value > 1e-3


@pytest.mark.parametrize("name", DENSITIES)
def test_bounds_leave_out_less_than_one_row_in_1000(name: str) -> None:
    x0, x1, y0, y1 = known(name).bounds
    x = rows(name)
    inside = (x[:, 0] >= x0) & (x[:, 0] <= x1) & (x[:, 1] >= y0) & (x[:, 1] <= y1)
    assert inside.double().mean() > 0.999


def midpoints(n: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n


def noiseless(name: str) -> tuple[Tensor, float]:
    """The generator's rows without their Gaussian noise, on a fine grid of its other numbers, and the noise's scale."""
    root = math.sqrt(0.5)
    if name == "eight_gaussians":
        ring = [(1, 0), (-1, 0), (0, 1), (0, -1), (root, root), (root, -root), (-root, root), (-root, -root)]
        return torch.tensor(ring, dtype=torch.float64) * 4 / 1.414, 0.5 / 1.414
    if name == "moons":
        t = math.pi * midpoints(4000)
        across, up = torch.cat((t.cos(), 1 - t.cos())), torch.cat((t.sin(), 1 - t.sin() - 0.5))
        return torch.stack((across, up), -1) * 2 + torch.tensor([-1, -0.2], dtype=torch.float64), 0.1 * 2
    if name == "two_spirals":
        u, side = torch.cartesian_prod(midpoints(1000), midpoints(16)).unbind(-1)
        n = u.sqrt() * 540 * 2 * math.pi / 360
        x = torch.stack((-n.cos() * n + 0.5 * side, n.sin() * n), -1)
        x = torch.cat([x + torch.tensor([0, 0.5], dtype=torch.float64) * v for v in midpoints(16)])
        return torch.cat((x, -x)) / 3, 0.1
    if name == "rings":
        t = 2 * math.pi * midpoints(1000)
        return torch.cat([3 * r * torch.stack((t.cos(), t.sin()), -1) for r in (1, 0.75, 0.5, 0.25)]), 0.08
    t = 1.5 * math.pi * (1 + 2 * midpoints(8000))
    return torch.stack((t * t.cos(), t * t.sin()), -1) / 5, 1 / 5


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "pinwheel"])
def test_density_is_the_mean_over_the_generator(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    anywhere = 8 * torch.rand(5, 2, generator=generator, dtype=torch.float64) - 4
    x = torch.cat((rows(name)[:10], anywhere))
    centres, scale = noiseless(name)
    kernel = torch.stack([-(centres - point).square().sum(-1) / (2 * scale**2) for point in x])
    expected = kernel.logsumexp(-1) - math.log(len(centres) * 2 * math.pi * scale**2)
    torch.testing.assert_close(known(name).log_prob(x), expected, rtol=1e-3, atol=1e-3)


@settings(deadline=None)
@given(point=st.tuples(*[st.floats(-20, 20)] * 2))
def test_smeared_square_near_and_far(point: tuple[float, float]) -> None:
    half_width, scale = 1 / 12, 0.1
    offsets, weights = gauss_legendre(200, -half_width, half_width)
    x = torch.tensor([point], dtype=torch.float64)
    kernel = -(x.T - offsets).square() / (2 * scale**2) + torch.log(weights / (2 * half_width))
    expected = (kernel.logsumexp(-1) - math.log(scale * math.sqrt(2 * math.pi))).sum()[None]
    centre = torch.zeros(1, 2, dtype=torch.float64)
    actual = log_box_gaussians(x, centre, torch.zeros(1, dtype=torch.float64), half_width, scale)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_rows_of_scikit_learn_agree() -> None:
    moons = make_moons(20_000, noise=0.1, random_state=0)[0] * 2 + [-1, -0.2]
    roll = make_swiss_roll(20_000, noise=1.0, random_state=0)[0][:, [0, 2]] / 5
    for name, x in (("moons", moons), ("swiss_roll", roll)):
        surprise = -known(name).log_prob(torch.from_numpy(x))
        assert (surprise.mean() - known(name).entropy).abs() < 4 * surprise.std() / 20_000**0.5


def pinwheel_density(x: np.ndarray) -> float:
    """All preimages of one point, by the sign changes of 200,000 angles, whatever the folds of the map."""
    radius, theta = np.hypot(*x) / 2, np.arctan2(x[1], x[0])
    spacing = 2 * np.pi / 5

    def place(psi: np.ndarray) -> Any:
        f = radius * np.cos(psi), radius * np.sin(psi)
        angle = 0.25 * np.exp(f[0])
        turned = f[0] * np.cos(angle) + f[1] * np.sin(angle), f[1] * np.cos(angle) - f[0] * np.sin(angle)
        return np.unwrap(np.arctan2(turned[1], turned[0])) / spacing

    psi = np.linspace(-np.pi, np.pi, 200_001)
    passed = place(psi) - theta / spacing
    at = np.flatnonzero(np.floor(passed[1:]) != np.floor(passed[:-1]))
    slope = (passed[at + 1] - passed[at]) / (psi[1] - psi[0]) * spacing
    target = np.floor(np.maximum(passed[at], passed[at + 1]))
    root = psi[at] + (target - passed[at]) * spacing / slope
    f = radius * np.cos(root), radius * np.sin(root)
    weight = np.exp(-(((f[0] - 1) / 0.3) ** 2 + (f[1] / 0.1) ** 2) / 2) / (2 * np.pi * 0.3 * 0.1)
    return float((weight / np.abs(slope)).sum() / 5 / 4)


@pytest.mark.parametrize("radius", [0.1, 2.0, 3.0, 3.6, 4.2, 5.0, 8.0])
def test_pinwheel_sums_over_all_preimages(radius: float) -> None:
    turn = torch.rand(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 * math.pi
    x = radius * torch.stack((turn.cos(), turn.sin()), -1)
    expected = torch.tensor([pinwheel_density(point) for point in x.numpy()], dtype=torch.float64).log()
    torch.testing.assert_close(known("pinwheel").log_prob(x), expected, rtol=1e-4, atol=1e-3)


def test_checkerboard_has_its_eight_squares() -> None:
    corners = torch.cartesian_prod(torch.arange(-3, 3), torch.arange(-3, 3))
    inside = ((corners >= -2) & (corners <= 1)).all(-1) & (corners.sum(-1) % 2 == 0)
    assert inside.sum() == 8
    p = known("checkerboard").log_prob(2.0 * corners + 0.7).exp()
    torch.testing.assert_close(p, inside / 32.0)
    edges = torch.tensor(
        [[4.0, 4.0], [4.0, 0.5], [4.0, 2.5], [-4.0, 0.5], [-4.0, 2.5], [0.0, 1.0], [-4.0, -4.0]]
    )
    torch.testing.assert_close(
        known("checkerboard").log_prob(edges).exp() * 32, torch.tensor([1.0, 0, 1, 1, 0, 1, 1])
    )


@pytest.mark.parametrize("name", DENSITIES)
def test_float32_rows_lie_in_the_support(name: str) -> None:
    target = known(name)
    x = target.sample(1000, generator=torch.Generator().manual_seed(4))
    assert x.dtype == torch.float32
    assert target.log_prob(x).dtype == torch.float32
    assert target.log_prob(x).isfinite().all()


@pytest.mark.parametrize("name", DENSITIES)
def test_a_seed_gives_the_same_rows(name: str) -> None:
    target = known(name)

    def draw(seed: int, dtype: torch.dtype) -> Tensor:
        return target.sample(50, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    assert draw(5, torch.float64).equal(draw(5, torch.float64))
    assert draw(5, torch.float64).float().equal(draw(5, torch.float32))
    assert not draw(5, torch.float64).equal(draw(6, torch.float64))
    assert target.sample(0).shape == (0, 2)


@pytest.mark.parametrize("name", DENSITIES)
def test_batch_shapes(name: str) -> None:
    target, x = known(name), rows(name)[:12]
    each = torch.stack([target.log_prob(point) for point in x])
    assert each.shape == (12,)
    torch.testing.assert_close(target.log_prob(x.view(3, 4, 2)), each.view(3, 4))
    torch.testing.assert_close(target.log_prob(x.view(4, 3, 2).transpose(0, 1)), each.view(4, 3).T)
    assert target.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("name", DENSITIES)
def test_gradient(name: str) -> None:
    target = known(name)
    x = rows(name)[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(target.log_prob, x, eps=1e-6, atol=1e-5)
    x = rows(name)[:500].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(x).sum(), x)
    assert gradient.isfinite().all()


@settings(deadline=None)
@given(
    name=st.sampled_from(DENSITIES),
    point=st.tuples(*[st.floats() | st.floats(-5, 5) | st.just(0.0)] * 2),
)
@example(name="pinwheel", point=(8.9e-159, 0.0))
@example(name="pinwheel", point=(-3e-310, 2e-162))
def test_nan_comes_of_nan_alone(name: str, point: tuple[float, float]) -> None:
    x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    value = known(name).log_prob(x)
    assert bool(value.isnan()) == any(math.isnan(coordinate) for coordinate in point)
    if any(math.isinf(coordinate) for coordinate in point) and not value.isnan():
        assert value == -math.inf
    if x.isfinite().all():
        (gradient,) = torch.autograd.grad(value, x)
        assert not gradient.isnan().any()


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of checkerboard, .*pinwheel, got 'circles'"):
        density("circles")
    with pytest.raises(ValueError, match=r"x: expected .*\(\*batch, 2\), got torch.float32, shape \(3,\)"):
        known("moons").log_prob(torch.zeros(3))
    with pytest.raises(ValueError, match=r"x: expected a floating tensor"):
        known("moons").log_prob(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"n: expected .* got -1"):
        known("moons").sample(-1)
    with pytest.raises(ValueError, match=r"dtype: expected .* got torch.int64"):
        known("moons").sample(1, dtype=torch.int64)
