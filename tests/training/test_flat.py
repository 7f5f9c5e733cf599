"""Weights in one vector train as they do one by one, and a fused chain gives its gradient to the vector at once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cases import small_config
from pushforward.configs import RealNVPConfig
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow, build_flow
from pushforward.kernels.table import available
from pushforward.training.flat import FlatParameters, with_flat_weights
from pushforward.transforms import Chain, Inverse, LULinear


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


def steps_of(flow: Flow, trained: Flow, vectors: list[nn.Parameter], sizes: list[int]) -> None:
    optimiser = torch.optim.AdamW(vectors, lr=1e-2)
    for seed, size in enumerate(sizes):
        optimiser.zero_grad(set_to_none=False)
        x = torch.randn(size, *flow.event_shape, generator=torch.Generator().manual_seed(seed))
        (-trained.log_prob_preprocessed(2 * x).mean()).backward()
        optimiser.step()


@pytest.mark.skipif(not available(), reason="there is no compiler")
@pytest.mark.parametrize("name", ["realnvp", "maf", "nsf", "nsf-coupling"])
@pytest.mark.parametrize("features", [3, 8])
def test_a_fused_chain_trains_to_the_last_bit_as_it_does_one_by_one(name: str, features: int) -> None:
    torch.manual_seed(0)
    flow = build_flow(small_config(name), features)
    if name == "nsf-coupling":  # without the linear maps between
        parts = [part for part in flow.transform if not isinstance(part, LULinear)]  # type: ignore[attr-defined]
        flow = Flow(Chain(parts), DiagonalNormal((features,), trainable=True))
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    frozen = list(flow.parameters())[2]
    frozen.requires_grad_(False)
    twin, before = copy.deepcopy(flow), frozen.clone()
    sizes = [400, 400, 2, 400, 5000, 400]  # few points go through torch's own calls
    flat, other = FlatParameters(flow.parameters()), FlatParameters(twin.parameters())
    trained = with_flat_weights(flow, flat)
    assert trained is not None
    steps_of(flow, trained, flat.vectors, sizes)
    steps_of(twin, twin, other.vectors, sizes)
    flat.release()
    assert torch.equal(frozen, before)
    assert all(torch.equal(p, q) for p, q in zip(flow.parameters(), twin.parameters(), strict=True))


@pytest.mark.skipif(not available(), reason="there is no compiler")
def test_points_get_their_gradient_in_both_directions() -> None:
    torch.manual_seed(0)
    chain = build_flow(RealNVPConfig(layers=3, hidden=(8,)), 3).transform
    for transform in (chain, Inverse(chain)):
        flow = Flow(transform, DiagonalNormal((3,)))
        with torch.no_grad():
            for p in flow.parameters():
                p.add_(0.3 * torch.randn_like(p))
        trained = with_flat_weights(flow, FlatParameters(flow.parameters()))
        assert trained is not None
        found = []
        for each in (trained, flow):
            x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
            found.append(torch.autograd.grad(each.log_prob_preprocessed(x).sin().sum(), x)[0])
        assert torch.equal(*found)


def test_what_is_no_fused_chain_or_has_a_context_stays_as_it_is() -> None:
    for flow in (
        build_flow(small_config("glow"), 4),
        build_flow(small_config("iaf"), 4),
        build_flow(small_config("maf"), 4, context_features=2),
        build_flow(small_config("maf"), 4).double(),
    ):
        flat = FlatParameters(flow.parameters())
        trained = with_flat_weights(flow, flat)
        if flow.base.dtype == torch.float32:
            assert trained is None
        else:
            x = torch.randn(200, 4, dtype=torch.float64)
            assert torch.equal((trained or flow).log_prob_preprocessed(x), flow.log_prob_preprocessed(x))


@pytest.mark.skipif(not available(), reason="there is no compiler")
def test_weights_that_are_changed_before_the_way_back_are_noticed() -> None:
    flow = build_flow(small_config("realnvp"), 4)
    flat = FlatParameters(flow.parameters())
    trained = with_flat_weights(flow, flat)
    assert trained is not None

    def loss() -> Tensor:
        return trained.log_prob_preprocessed(torch.randn(100, 4)).sum()

    value = loss()
    with torch.no_grad():
        flat.vectors[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()
    (gradient,) = torch.autograd.grad(loss(), flat.vectors, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.skipif(not available(), reason="there is no compiler")
@pytest.mark.parametrize("name", ["realnvp", "maf"])
def test_a_loss_may_go_through_the_flow_more_than_once(name: str) -> None:
    torch.manual_seed(0)
    flow = build_flow(small_config(name), 4)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    flat = FlatParameters(flow.parameters())
    trained = with_flat_weights(flow, flat)
    assert trained is not None
    x, z = torch.randn(2, 100, 4).unbind()
    found = []
    for each in (trained, flow):
        flat.vectors[0].grad.zero_()  # type: ignore[union-attr]
        (each.log_prob_preprocessed(x).sum() - 3 * each.log_prob_preprocessed(z).sin().sum()).backward()
        found.append(flat.vectors[0].grad.clone())  # type: ignore[union-attr]
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
