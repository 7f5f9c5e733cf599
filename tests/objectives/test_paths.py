"""Paths go from the base to the data, and their velocity is the derivative by time."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.objectives.paths import PATHS, named_path

NAMES = sorted(PATHS)
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_ends_are_the_points(name: str, dtype: torch.dtype) -> None:
    x0, x1 = normal(5, 2, 3, dtype=dtype), normal(5, 2, 3, seed=1, dtype=dtype)
    tolerance = {"rtol": 0.0, "atol": 8 * torch.finfo(dtype).eps}
    torch.testing.assert_close(PATHS[name].point(torch.zeros(5, dtype=dtype), x0, x1), x0, **tolerance)
    torch.testing.assert_close(PATHS[name].point(torch.ones(5, dtype=dtype), x0, x1), x1, **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_velocity_is_the_derivative_by_time(name: str) -> None:
    x0, x1 = normal(101, 3), normal(101, 3, seed=1)
    _, derivative = torch.func.jvp(
        lambda t: PATHS[name].point(t, x0, x1), (TIMES.clone(),), (torch.ones_like(TIMES),)
    )
    torch.testing.assert_close(PATHS[name].velocity(TIMES, x0, x1), derivative, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_holds_up_to_the_last_moment(name: str) -> None:
    late = torch.cat([TIMES.float(), 1 - torch.logspace(-7, -2, 20)])
    exact = PATHS[name].schedule(late.double())
    for got, expected in zip(PATHS[name].schedule(late), exact, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_mean_and_variance_along_the_way(name: str) -> None:
    n, mean, scale = 200_000, 3.0, 0.5
    x0, x1 = normal(n, 1), mean + scale * normal(n, 1, seed=1)
    for time in (0.0, 0.3, 0.7, 1.0):
        t = torch.full((n,), time, dtype=torch.float64)
        x, weights = PATHS[name].point(t, x0, x1), PATHS[name].schedule(t[:1])
        variance = (weights.alpha * scale) ** 2 + weights.sigma**2
        assert x.mean().item() == pytest.approx((weights.alpha * mean).item(), abs=0.015)
        assert x.var().item() == pytest.approx(variance.item(), rel=0.015)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_only_comes_and_the_noise_only_goes(name: str) -> None:
    weights = PATHS[name].schedule(TIMES)
    assert (weights.alpha.diff() > 0).all()
    assert (weights.sigma.diff() < 0).all()


@pytest.mark.parametrize("name", ["trigonometric", "variance-preserving"])
def test_variance_is_preserved(name: str) -> None:
    weights = PATHS[name].schedule(TIMES)
    torch.testing.assert_close(weights.alpha**2 + weights.sigma**2, torch.ones_like(TIMES))


def test_linear_velocity_is_the_displacement() -> None:
    x0, x1 = normal(101, 2), normal(101, 2, seed=1)
    torch.testing.assert_close(PATHS["linear"].velocity(TIMES, x0, x1), x1 - x0)


def test_trigonometric_middle() -> None:
    t, x0, x1 = torch.tensor([0.5]), torch.tensor([[1.0]]), torch.tensor([[3.0]])
    assert PATHS["trigonometric"].point(t, x0, x1).item() == pytest.approx(4 / math.sqrt(2))
    assert PATHS["trigonometric"].velocity(t, x0, x1).item() == pytest.approx(math.pi / math.sqrt(2))


def test_variance_preserving_is_near_the_diffusion_of_the_papers() -> None:
    s = 1 - TIMES
    papers = torch.exp(-0.5 * (0.1 * s + 19.9 / 2 * s**2))
    assert (PATHS["variance-preserving"].schedule(TIMES).alpha - papers).abs().max() < 0.02


def test_unknown_name() -> None:
    with pytest.raises(
        ValueError, match="path must be one of linear, variance-preserving, trigonometric, got 'vp'"
    ):
        named_path("vp")


@pytest.mark.parametrize("method", ["point", "velocity"])
def test_shapes_that_do_not_fit(method: str) -> None:
    call = getattr(PATHS["linear"], method)
    with pytest.raises(ValueError, match=r"x0 must have the shape of x1, \(4, 2\), got \(4, 1\)"):
        call(torch.zeros(4), torch.zeros(4, 1), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"t must have shape \(4,\), got \(4, 1\)"):
        call(torch.zeros(4, 1), torch.zeros(4, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"t must have shape \(4,\), got \(1,\)"):
        call(torch.zeros(1), torch.zeros(4, 2), torch.zeros(4, 2))
