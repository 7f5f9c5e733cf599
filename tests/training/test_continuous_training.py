"""Training of continuous flows: penalties of any field, batches without weight, memory that is refused."""

from __future__ import annotations

import pytest
import torch

from pushforward.configs import FFJORDConfig, FlowMatchingConfig, ModelConfig, RNODEConfig, TrainConfig
from pushforward.flows import build_flow
from pushforward.objectives import objective_of
from pushforward.training import Points, TrainResult, fit_transport, train

X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def trained(model: ModelConfig, weights: torch.Tensor | None = None, memory: str = "ordinary") -> TrainResult:
    torch.manual_seed(0)
    config = TrainConfig(epochs=1, batch_size=16, memory=memory)
    points = Points(X, weights=weights)
    return train(build_flow(model, 2), points, points, config, objective=objective_of(model))


@pytest.mark.parametrize(
    "model",
    [
        RNODEConfig(field="concatsquash", hidden=(8, 8)),
        RNODEConfig(hidden=(8, 8, 8)),
        FFJORDConfig(acceleration=0.01, hidden=(8, 8)),
        FFJORDConfig(divergence="hutch++", kinetic=0.1, hidden=(8, 8)),
    ],
)
def test_penalties_of_fields_that_no_kernel_serves(model: ModelConfig) -> None:
    result = trained(model)
    assert result.stopped == "epochs" and not result.notes


def test_a_batch_without_weight_moves_nothing() -> None:
    weights = torch.zeros(200)
    weights[::50] = weights[-1] = 1.0
    result = trained(FlowMatchingConfig(hidden=(8, 8)), weights)
    assert result.stopped == "epochs" and not result.notes


@pytest.mark.parametrize("model", [FlowMatchingConfig(hidden=(8, 8)), RNODEConfig(hidden=(8, 8))])
def test_constant_memory_is_refused_where_it_has_no_meaning(model: ModelConfig) -> None:
    with pytest.raises(ValueError, match="memory='constant' is for maximum likelihood without penalties"):
        trained(model, memory="constant")


def test_one_sample_is_carried_to_another() -> None:
    target = X * 0.5 + torch.tensor([4.0, -2.0])
    settings = TrainConfig(epochs=60, batch_size=64, learning_rate=1e-2)
    carried = fit_transport(
        X, target, model=FlowMatchingConfig(hidden=(32, 32), pairing="exact"), training=settings
    )
    there = carried.decode(X)
    assert (there.mean(0) - target.mean(0)).abs().max() < 0.3
    torch.testing.assert_close(carried.encode(there), X, rtol=0, atol=1e-2)
