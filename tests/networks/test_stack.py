"""A perceptron as one operation equals layer after layer, gradients and gradients of gradients included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fused import doubled, everything, randomise, same
from pushforward.kernels.chain import Layer, Link, Stairs, formula
from pushforward.kernels.table import available
from pushforward.networks import MLP, MaskedMLP, masked, mlp, stack
from pushforward.networks.stack import stairs

needs_kernel = pytest.mark.skipif(not available(), reason="there is no C compiler, or another processor")

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
    network = NETWORKS[name]()
    randomise(network)
    return network


def inputs(name: str, network: nn.Module, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    width = network.features if isinstance(network, MaskedMLP) else network.in_features
    x = torch.randn(*shape, width, generator=generator).requires_grad_()
    if "context" not in name:
        return [x]
    return [x, torch.randn(shape[-1], 2, generator=generator).requires_grad_()]


@needs_kernel
@pytest.mark.parametrize("name", NETWORKS)
def test_one_operation_equals_layer_after_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = randomised(name)
    points = inputs(name, network, (2, 150) if "blocks" in name else (8, 6))
    calls = []
    for module in (mlp, masked):
        real = module.perceptron
        monkeypatch.setattr(module, "perceptron", lambda *a, real=real: (calls.append(1), real(*a))[1])
    found = everything(network, points, list(network.parameters()))
    assert len(calls) == 2
    wanted = everything(network.double(), doubled(points), list(network.parameters()))
    assert len(calls) == 2
    same(found, wanted)


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 70), min_size=2, max_size=5),
    points=st.integers(1, 130),
    context=st.sampled_from(["none", "one", "each"]),
    density=st.sampled_from([None, 0.0, 0.1, 0.7]),
    seed=st.integers(0, 2**16),
)
def test_any_widths_masks_and_numbers_of_points(
    widths: list[int], points: int, context: str, density: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = draw(points, widths[0])
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    weights = [draw(*s) / s[1] ** 0.5 for s in shapes]
    steps: list[Stairs | None] = [None] * len(weights)
    if density is not None:
        masks = [torch.rand(s, generator=generator) < density for s in shapes]
        steps = [stairs(m) for m in masks]
        inside = [
            torch.arange(s[1]) < step.reach[:, None] for s, step in zip(shapes, steps, strict=True) if step
        ]
        # Only what stands before the stairs has to be masked.
        weights = [w * (m | ~i) for w, m, i in zip(weights, masks, inside, strict=True)]
    biases = [draw(w) for w in widths[1:]]
    seen = [] if context == "none" else [draw(points if context == "each" else 1, widths[1])]
    count = len(weights)

    def layers(tensors: tuple[Tensor, ...]) -> list[Layer]:
        return [Layer(*each) for each in zip(tensors[:count], tensors[count : 2 * count], steps, strict=True)]

    def fused(x: Tensor, *tensors: Tensor) -> Tensor:
        return stack.perceptron(x, layers(tensors), *tensors[2 * count :])

    def steps_in_torch(x: Tensor, *tensors: Tensor) -> Tensor:
        return formula(x, [Link(layers(tensors), tensors[-1] if seen else None, None)])[0]

    tensors = [x, *weights, *biases, *seen]
    found, wanted = everything(fused, tensors, []), everything(steps_in_torch, doubled(tensors), [])
    if density is not None:
        # Beyond the stairs there is no gradient; what is masked before them is, by whoever masked it.
        for i, step in enumerate(steps):
            assert step is not None
            beyond = torch.arange(widths[i]) >= step.reach[:, None]
            assert not found[3 + i][beyond].any()
            found[3 + i], wanted[3 + i] = found[3 + i] * masks[i], wanted[3 + i] * masks[i]
    same(found, wanted)


@needs_kernel
def test_a_large_batch_is_the_sum_of_its_chunks() -> None:
    network = randomised("masked, context, order")
    x, context = inputs("masked, context, order", network, (9000,))
    found = everything(network, [x, context], list(network.parameters()))
    wanted = everything(network.double(), doubled([x, context]), list(network.parameters()))
    same(found, wanted, 1e-4)  # sums of thousands


@needs_kernel
@pytest.mark.parametrize("name", ["mlp", "blocks"])
def test_a_point_does_not_depend_on_the_batch_nor_anything_on_threads(name: str) -> None:
    network = randomised(name)
    points = inputs(name, network, (300,))
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(everything(network, points, list(network.parameters())))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    with torch.no_grad():
        assert torch.equal(network(points[0][7:47]), found[0][1][7:47])


@needs_kernel
def test_a_point_that_is_no_number_spoils_itself_alone() -> None:
    network = randomised("mlp")
    x = torch.randn(50, 5)
    x[3, 2] = torch.nan
    x[9, 1] = torch.inf
    with torch.no_grad():
        output = network(x)
    assert output[3].isnan().all() and not output[9].isfinite().all()
    assert output.isfinite().all(1).sum() == 48


@pytest.mark.parametrize("name", ["mlp, context", "masked, context, order"])
def test_gradients_of_gradients_and_shared_contexts(name: str) -> None:
    network = randomised(name)
    x, context = inputs(name, network, (4, 3))
    single = []
    for points in (x, x.detach().double().requires_grad_()):
        (first,) = torch.autograd.grad(
            network(points, context.to(points)).square().sum(), points, create_graph=True
        )
        single.append(torch.autograd.grad(first.square().sum(), points)[0])
        network = network.double()
    same(single[:1], single[1:])
    network = network.float()
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
    torch.testing.assert_close(tangent, jacobian.sum(-1), atol=1e-5, rtol=0)
