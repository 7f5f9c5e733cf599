"""The smoothed loss is the cross-entropy of the points with noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow
from pushforward.objectives import smoothed_likelihood_objective
from pushforward.transforms import Permutation


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard(features: int) -> Flow:
    return Flow(Permutation(range(features)), DiagonalNormal((features,)))


def points(seed: int, rows: int, features: int) -> Tensor:
    generator = seeded(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return torch.randn(rows, features, generator=generator, dtype=torch.float64) @ mixing


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
def test_loss_under_a_normal_is_that_of_the_closed_form(noise: float) -> None:
    z = points(0, 4_000, 3)
    losses = torch.stack(
        [
            smoothed_likelihood_objective(noise).loss(standard(3).double(), z, None, None, seeded(i))
            for i in range(20)
        ]
    )
    expected = 1.5 * math.log(2 * math.pi) + 0.5 * (z.square().sum(1).mean() + 3 * noise**2)
    assert abs(losses.mean() - expected) < 5 * losses.std() / len(losses) ** 0.5


def test_weights_choose_the_points_and_the_generator_the_noise() -> None:
    z, objective, flow = points(2, 64, 2), smoothed_likelihood_objective(0.5), standard(2).double()
    weights = (torch.arange(64) < 32).double()
    loss = objective.loss(flow, z, None, weights, seeded(0))
    z[32:] = 1e6
    assert objective.loss(flow, z, None, weights, seeded(0)) == loss
    assert objective.validation(flow, z, None, weights, seeded(0)) == loss
    assert objective.loss(flow, z, None, weights, seeded(1)) != loss
    assert objective.noisy and objective.in_nats


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_noise_that_is_none_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="noise must be positive and finite, got"):
        smoothed_likelihood_objective(noise)
