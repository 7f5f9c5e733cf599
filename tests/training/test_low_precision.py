"""Training with networks in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pushforward.configs import NSFCouplingConfig, TrainConfig
from pushforward.flows import Flow, build_flow
from pushforward.networks import MLP
from pushforward.training import Points, TrainResult, train

CONFIG = TrainConfig(epochs=3, batch_size=32, learning_rate=5e-3, seed=3)


def points(rows: int, seed: int) -> Points:
    return Points(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)).cumsum(1))


def fitted(config: TrainConfig) -> tuple[TrainResult, Flow, set[tuple[bool, torch.dtype]]]:
    """Train, and tell what the networks gave, with and without gradients."""
    torch.manual_seed(0)
    flow = build_flow(NSFCouplingConfig(layers=2, hidden=(8,), bins=4), 4)
    seen: set[tuple[bool, torch.dtype]] = set()

    def look(_: nn.Module, __: object, output: Tensor) -> None:
        seen.add((torch.is_grad_enabled(), output.dtype))

    for module in flow.modules():
        if isinstance(module, MLP):
            module.register_forward_hook(look)
    return train(flow, points(200, 0), points(50, 1), config), flow, seen


def test_networks_train_in_bfloat16_and_validate_in_float32() -> None:
    ordinary, _, plain = fitted(CONFIG)
    low, flow, seen = fitted(replace(CONFIG, precision="bf16-mixed"))
    assert plain == {(True, torch.float32), (False, torch.float32)}
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert {p.dtype for p in flow.parameters()} == {torch.float32}
    assert low.valid_curve != ordinary.valid_curve
    assert low.valid_curve == pytest.approx(ordinary.valid_curve, abs=0.05)
    assert low.notes == []


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bf16-mixed', got 'fp16'"):
        replace(CONFIG, precision="fp16")
    with pytest.raises(ValueError, match="memory='constant' needs precision='float32'"):
        replace(CONFIG, precision="bf16-mixed", memory="constant")
