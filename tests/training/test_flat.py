"""Weights in one vector train as they do one by one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pushforward.configs import RealNVPConfig
from pushforward.flows import Flow, build_flow
from pushforward.training.flat import FlatParameters


def steps(flow: Flow, parameters: list[nn.Parameter]) -> None:
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    for seed in range(5):
        optimiser.zero_grad(set_to_none=False)
        x = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
        (-flow.log_prob(2 * x).mean()).backward()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimiser.step()


def test_they_train_as_one_by_one() -> None:
    flow = build_flow(RealNVPConfig(layers=2, hidden=(8,)), 3)
    next(iter(flow.parameters())).requires_grad_(False)
    twin = copy.deepcopy(flow)
    steps(twin, [p for p in twin.parameters() if p.requires_grad])
    flat = FlatParameters(flow.parameters())
    steps(flow, flat.vectors)
    assert len(flat.vectors) == 1
    flat.release()
    for p, q in zip(flow.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)
        assert p.grad is None and p.untyped_storage().nbytes() == p.nbytes


def test_each_dtype_has_a_vector() -> None:
    mixed = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 1).double(), nn.Linear(1, 1)])
    flat = FlatParameters(mixed.parameters())
    assert [(v.dtype, v.numel()) for v in flat.vectors] == [(torch.float32, 11), (torch.float64, 4)]
    with torch.no_grad():
        for v in flat.vectors:
            v.zero_()
    assert not any(p.any() for p in mixed.parameters())
