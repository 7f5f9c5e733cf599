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
from pushforward.networks import MLP, MaskedMLP
from pushforward.training.flat import FlatParameters, with_flat_weights
from pushforward.transforms import Affine, Autoregressive, Chain, Coupling, Inverse, LULinear


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


def gradients(flow: Flow) -> tuple[Tensor, Tensor]:
    """Return the gradient of the trainer's way, and of the ordinary one."""
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    flat = FlatParameters(flow.parameters())
    x = torch.randn(300, *flow.event_shape, generator=torch.Generator().manual_seed(0))
    found = []
    for each in (with_flat_weights(flow, flat) or flow, flow):
        flat.vectors[0].grad.zero_()  # type: ignore[union-attr]
        each.log_prob_preprocessed(x).sum().backward()
        found.append(flat.vectors[0].grad.clone())  # type: ignore[union-attr]
    return found[0], found[1]


def test_weights_that_stand_twice_are_trained_by_both() -> None:
    network = MLP(2, 4, hidden=(16, 16))
    couplings = [Coupling([i < 2, i < 2, i > 1, i > 1], Affine(), network) for i in (0, 3)]
    for layers in (couplings, [couplings[0], couplings[1], couplings[0]]):
        torch.testing.assert_close(*gradients(Flow(Chain(layers), DiagonalNormal((4,)))))


def test_hooks_of_parameters_are_called() -> None:
    flow = build_flow(small_config("realnvp"), 4)
    for p in flow.parameters():
        p.register_hook(torch.zeros_like)
    assert not any(g.any() for g in gradients(flow))


def test_a_flow_of_another_kind_is_trained_as_it_says() -> None:
    class Doubled(Flow):
        def log_prob_preprocessed(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            return 2 * super().log_prob_preprocessed(z, context)

    plain = build_flow(small_config("realnvp"), 4)
    found, wanted = gradients(Doubled(plain.transform, plain.base))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("frozen", [False, True])
def test_masks_and_weights_that_are_loaded_before_the_first_pass_count(frozen: bool) -> None:
    def masked(order: list[int]) -> Flow:
        network = MaskedMLP(4, 2, hidden=(16,), order=order)
        for p in network.parameters():
            nn.init.normal_(p)
        return Flow(Chain([Autoregressive(Affine(), network)]), DiagonalNormal((4,)))

    flow, other = masked([0, 1, 2, 3]), masked([3, 1, 0, 2])
    if frozen:
        next(iter(flow.parameters())).requires_grad_(False)
    trained = with_flat_weights(flow, FlatParameters(flow.parameters())) or flow
    flow.load_state_dict(other.state_dict())
    x = torch.randn(300, 4)
    assert torch.equal(trained.log_prob_preprocessed(x), other.log_prob_preprocessed(x))
