"""Distances of samples are those of their laws, and a classifier tells apart only what differs."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from pushforward.evaluate.two_samples import classifier_two_sample, sliced_wasserstein


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(x: Tensor, y: Tensor, seed: int = 0, projections: int = 240) -> float:
    return sliced_wasserstein(x, y, projections=projections, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_shift_has_its_length_over_the_root_of_the_number_of_elements(d: int) -> None:
    x, shift = normal(50, d), normal(d, seed=1)
    assert distance(x, x + shift) == pytest.approx(float(shift.norm()) / d**0.5)
    assert distance(x, x) == 0
    assert distance(x, x[torch.randperm(50, generator=torch.Generator().manual_seed(2))]) == 0


def test_the_distance_of_normal_laws_is_that_of_their_means_and_spreads() -> None:
    x, y = normal(8000, 2), 2 * normal(6000, 2, seed=1) + torch.tensor([3.0, 0.0])
    # Of one-dimensional normals W² = (difference of means)² + (difference of standard deviations)².
    assert distance(x, y, projections=60) == pytest.approx((9 / 2 + 1) ** 0.5, rel=0.02)


def test_it_is_symmetric_moves_along_and_obeys_the_triangle() -> None:
    x, y, z = normal(60, 3), normal(47, 3, seed=1).exp(), normal(31, 3, seed=2) * 3
    assert distance(x, y) == pytest.approx(distance(y, x))
    assert distance(x + 5, y + 5) == pytest.approx(distance(x, y))
    assert distance(2 * x, 2 * y) == pytest.approx(2 * distance(x, y))
    assert distance(x, z) <= distance(x, y) + distance(y, z)


def test_samples_of_unequal_sizes_weigh_the_same() -> None:
    x, y = normal(12, 1), normal(18, 1, seed=1)
    many_x, many_y = x.repeat_interleave(3, 0), y.repeat_interleave(2, 0)
    assert distance(x, y) == pytest.approx(distance(many_x, many_y))
    assert distance(x, many_x) == pytest.approx(0, abs=1e-12)
    # Where all of y is at one place, order 2 is the root mean square distance from there, order 1 the mean.
    assert distance(x, torch.zeros(7, 1)) == pytest.approx(float(x.square().mean().sqrt()))
    assert wasserstein_distance(x[:, 0], y[:, 0]) <= distance(x, y)


def test_directions_have_a_uniform_law_and_few_of_them_do() -> None:
    x, y = normal(30, 4), normal(30, 4, seed=1) * torch.tensor([1.0, 5.0, 1.0, 1.0])
    few = [distance(x, y, seed, projections=3) ** 2 for seed in range(400)]
    assert sum(few) / len(few) == pytest.approx(distance(x, y, projections=4000) ** 2, rel=0.05)


def test_chunks_of_directions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(20, 2), normal(30, 2, seed=1)
    whole = distance(x, y)
    monkeypatch.setattr("pushforward.evaluate.two_samples._AT_ONCE", 250)
    assert distance(x, y) == pytest.approx(whole)


def test_two_samples_of_one_law_cannot_be_told_apart_and_the_error_is_honest() -> None:
    found = [
        classifier_two_sample(normal(300, 2, seed=2 * k), normal(300, 2, seed=2 * k + 1), seed=k)
        for k in range(30)
    ]
    scores = torch.tensor([(accuracy - 0.5) / error for accuracy, error in found])
    assert abs(float(scores.mean())) < 0.5
    assert 0.7 < float(scores.std()) < 1.4
    assert all(error == pytest.approx(600**-0.5 / 2, rel=0.02) for _, error in found)


def test_samples_far_apart_are_told_apart_and_near_ones_as_far_as_can_be() -> None:
    x, y = normal(2000, 2), normal(2000, 2, seed=1)
    assert classifier_two_sample(x, y + 20, seed=0) == (1.0, 0.0)
    # The best classifier of normals with means 2 apart is right with probability Φ(1).
    accuracy, error = classifier_two_sample(x, y + torch.tensor([2.0, 0.0]), seed=0)
    assert accuracy == pytest.approx(0.8413, abs=0.02)
    assert error == pytest.approx((0.8413 * 0.1587 / 4000) ** 0.5, rel=0.05)


def test_scales_of_elements_and_sizes_of_samples_do_not_matter() -> None:
    x, y = normal(500, 2), normal(500, 2, seed=1) + 1
    plain = classifier_two_sample(x, y, seed=3)
    assert (
        classifier_two_sample(x * torch.tensor([1e6, 1e-6]), y * torch.tensor([1e6, 1e-6]), seed=3) == plain
    )
    assert classifier_two_sample(x, y, seed=3) == plain
    assert classifier_two_sample(x.reshape(500, 1, 2), y.reshape(500, 1, 2), seed=3) == plain
    accuracy, error = classifier_two_sample(normal(5000, 2), normal(201, 2, seed=1), seed=0)
    assert abs(accuracy - 0.5) < 4 * error  # guessing the larger one would be right 96 % of the time
    constant = torch.cat([x, torch.ones(500, 1)], 1), torch.cat([y, torch.ones(500, 1)], 1)
    assert classifier_two_sample(*constant, seed=3) == plain


def test_samples_that_do_not_fit_are_refused() -> None:
    x, bad = normal(10, 2), normal(10, 2)
    bad[3, 1] = torch.nan
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"must have shapes .* got \(10, 2\) and \(10, 3\)"):
        sliced_wasserstein(x, normal(10, 3), generator=generator)
    with pytest.raises(ValueError, match=r"got \(10,\)"):
        classifier_two_sample(x[:, 0], x, seed=0)
    with pytest.raises(ValueError, match="y must be finite, got 1 of 10 rows that are not"):
        sliced_wasserstein(x, bad, generator=generator)
    with pytest.raises(ValueError, match="x must have 1 rows or more, got 0"):
        sliced_wasserstein(x[:0], x, generator=generator)
    with pytest.raises(ValueError, match="y must have 8 rows or more, got 7"):
        classifier_two_sample(x, x[:7], seed=0)
    with pytest.raises(ValueError, match="projections must be at least 1, got 0"):
        sliced_wasserstein(x, x, projections=0, generator=generator)
