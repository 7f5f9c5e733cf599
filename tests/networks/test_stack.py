"""A perceptron as one operation equals layer after layer, gradients and gradients of gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pushforward.networks import MLP, MaskedMLP, masked, mlp

ORDER = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
NETWORKS = {
    "mlp": lambda: MLP(5, 3, hidden=(16, 8)),
    "mlp, context": lambda: MLP(5, 3, context_features=2, hidden=(16,)),
    "masked": lambda: MaskedMLP(5, 2, hidden=(16, 16)),
    "masked, context, order": lambda: MaskedMLP(
        5, 2, context_features=2, hidden=(9, 16), order=[3, 0, 4, 1, 2]
    ),
    "blocks": lambda: MaskedMLP(40, 7, hidden=(256, 272), order=ORDER),
    "blocks in all layers": lambda: MaskedMLP(
        256, 1, hidden=(256,), order=torch.randperm(256, generator=torch.Generator().manual_seed(1)).tolist()
    ),
}


def randomised(name: str) -> nn.Module:
    network = NETWORKS[name]().double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return network


def inputs(name: str, network: nn.Module, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    width = network.features if isinstance(network, MaskedMLP) else network.in_features
    x = torch.randn(*shape, width, generator=generator, dtype=torch.float64).requires_grad_()
    if "context" not in name:
        return [x]
    return [x, torch.randn(shape[-1], 2, generator=generator, dtype=torch.float64).requires_grad_()]


def everything(network: nn.Module, given: list[Tensor]) -> list[Tensor]:
    output = network(*given)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    with torch.no_grad():
        quiet = network(*given)
    return [output, quiet, *torch.autograd.grad((weights * output).sum(), [*given, *network.parameters()])]


@pytest.mark.parametrize("name", NETWORKS)
def test_one_operation_equals_layer_after_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = randomised(name)
    given = inputs(name, network, (2, 150) if "blocks" in name else (4, 3))
    calls = []
    for module in (mlp, masked):
        real = module.perceptron
        monkeypatch.setattr(module, "perceptron", lambda *a, real=real: (calls.append(1), real(*a))[1])
    found = everything(network, given)
    assert len(calls) == 2
    for module in (mlp, masked):
        monkeypatch.setattr(module, "serves", lambda *_: False)
    wanted = everything(network, given)
    assert len(calls) == 2
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mlp, context", "masked, context, order"])
def test_gradients_of_gradients_and_shared_contexts(name: str) -> None:
    network = randomised(name)
    x, context = inputs(name, network, (4, 3))
    assert torch.autograd.gradgradcheck(network, (x[0], context), atol=1e-6)
    assert torch.autograd.gradcheck(network, (x, context[0]), atol=1e-6)
    assert network(x[:0], context).shape[0] == 0
    assert network(x[0, 0], context[0]).shape[:-1] == network(x, context).shape[2:-1]


def test_only_what_is_asked_for_has_a_gradient() -> None:
    network = randomised("mlp, context")
    x, context = inputs("mlp, context", network, (3,))
    network.requires_grad_(False)
    network.rest[-1].requires_grad_(True)
    network(x.detach(), context.detach()).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is not None] == [
        "rest.0.1.weight",
        "rest.0.1.bias",
    ]


def test_forward_mode_and_function_transforms_take_layer_after_layer() -> None:
    network = randomised("masked")
    (x,) = inputs("masked", network, (4,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(network(dual)).tangent
    jacobian = torch.vmap(torch.func.jacrev(network))(x.detach())
    torch.testing.assert_close(tangent, jacobian.sum(-1))
