"""Compiled densities and samples: the same numbers, and nothing of it in copies."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

from pushforward.configs import IAFConfig, MAFConfig, NSFConfig, RealNVPConfig
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow, build_flow, compiles_well
from pushforward.kernels.table import available
from pushforward.networks import MaskedMLP
from pushforward.transforms import Affine, Autoregressive, Chain, LULinear


def randomised(flow: Flow) -> Flow:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return flow


def test_which_directions_compile_well() -> None:
    sizes: dict[str, Any] = {"layers": 2, "hidden": (8,), "activation": "tanh"}
    expected = {
        RealNVPConfig(**sizes): (True, True),
        MAFConfig(**sizes): (True, False),
        IAFConfig(**sizes): (False, False),
        NSFConfig(**sizes): (False, False),
    }
    for config, directions in expected.items():
        transform = build_flow(config, 3).transform
        assert (compiles_well(transform), compiles_well(transform, inverse=True)) == directions, config
    # What is one call of a kernel already does not.
    coupling = build_flow(RealNVPConfig(layers=2, hidden=(8,)), 3).transform
    assert compiles_well(coupling) != available()
    assert compiles_well(Chain([coupling, LULinear(3)]))


def test_compiled_densities_samples_and_gradients_are_the_same() -> None:
    flow = randomised(build_flow(RealNVPConfig(layers=2, hidden=(8,), activation="tanh"), 3))
    plain = copy.deepcopy(flow)
    flow.compile()
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(flow.log_prob(x), plain.log_prob(x), atol=1e-4, rtol=1e-4)
    one, other = (f.sample((20,), generator=torch.Generator().manual_seed(2)) for f in (flow, plain))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    flow.log_prob(x).mean().backward()
    plain.log_prob(x).mean().backward()
    for p, q in zip(flow.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-4, rtol=1e-3)

    # A larger compiled graph takes it up.
    whole = torch.compile(lambda x: flow.log_prob(x).mean(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x), plain.log_prob(x).mean(), atol=1e-4, rtol=1e-4)

    # A copy computes with its own weights.
    other_flow = copy.deepcopy(flow)
    with torch.no_grad():
        for p in other_flow.parameters():
            p.zero_()
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    torch.testing.assert_close(other_flow.log_prob(x), standard)
    assert not torch.allclose(flow.log_prob(x), standard)


def test_without_a_compiler_there_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(function: object) -> object:
        def call(*_: object) -> None:
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nin sight")

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    flow = randomised(build_flow(RealNVPConfig(layers=2, hidden=(8,), activation="tanh"), 3))
    plain = copy.deepcopy(flow)
    flow.compile()
    x = torch.randn(5, 3)
    with pytest.warns(RuntimeWarning, match="not compiled, and so slower: no compiler in sight"):
        found = flow.log_prob(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(flow.log_prob(x), found)
    assert torch.equal(found, plain.log_prob(x))


@pytest.mark.skipif(not available(), reason="there is no compiler")
@pytest.mark.parametrize("config", [RealNVPConfig, MAFConfig, NSFConfig, IAFConfig])
def test_what_is_laid_out_once_follows_the_weights(config: type[Any]) -> None:
    flow = randomised(build_flow(config(layers=2, hidden=(8,)), 3))
    flow.compile()
    plain = copy.deepcopy(flow)
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))

    def same() -> None:
        for each in (flow, plain):
            assert ("log_prob_preprocessed" in each.__dict__) is (each is flow and config is not IAFConfig)
        with torch.no_grad():
            assert torch.equal(flow.log_prob(x), plain.log_prob(x))
            one, other = (f.sample((90,), generator=torch.Generator().manual_seed(2)) for f in (flow, plain))
            assert torch.equal(one, other)
        found = [torch.autograd.grad(f.log_prob(x).sum(), list(f.parameters())) for f in (flow, plain)]
        assert all(torch.equal(p, q) for p, q in zip(*found, strict=True))

    same()
    with torch.no_grad():
        for f in (flow, plain):
            for p in f.parameters():
                p.mul_(0.5)
    same()
    for f in (flow, plain):
        last = [m for m in f.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.bias = torch.nn.Parameter(torch.ones_like(last.bias))
        for p in f.parameters():
            p.data = p.detach() * 2.0
    same()
    flow.load_state_dict(plain.state_dict())
    same()
    flow.double(), plain.double()
    x = x.double()
    same()


@pytest.mark.skipif(not available(), reason="there is no compiler")
def test_what_is_laid_out_once_follows_masks_modes_and_strides() -> None:
    def masked(order: list[int]) -> Flow:
        return randomised(Flow(Autoregressive(Affine(), MaskedMLP(4, 2, order=order)), DiagonalNormal((4,))))

    flow, other = masked([0, 1, 2, 3]), masked([3, 1, 0, 2])
    x = torch.randn(100, 4)
    flow.compile()
    with torch.inference_mode():
        flow.log_prob(x)
    with torch.no_grad():
        flow.log_prob(x)
        flow.load_state_dict(other.state_dict())
        assert torch.equal(flow.log_prob(x), other.log_prob(x))

    flow = randomised(build_flow(RealNVPConfig(layers=2, hidden=(8,)), 4))
    last = [m for m in flow.modules() if isinstance(m, torch.nn.Linear)][-1]
    last.weight = torch.nn.Parameter(last.weight.detach().t().contiguous().t())
    flow.compile()
    plain = copy.deepcopy(flow)
    with torch.no_grad():
        for f in (flow, plain):
            f.log_prob(x)
            [m for m in f.modules() if isinstance(m, torch.nn.Linear)][-1].weight.mul_(2.0)
        assert torch.equal(flow.log_prob(x), plain.log_prob(x))
