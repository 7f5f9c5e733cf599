"""Where somebody changes, follows or misuses a network, a pass in one piece gives way to torch's own calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import prune

from pushforward.networks import MLP, MaskedMLP
from pushforward.networks.stack import stairs
from pushforward.transforms import Affine, Autoregressive, Coupling, Transform


def drawn(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
    return module


def mlp(**kwargs: int) -> MLP:
    network = drawn(MLP(5, 3, hidden=(16, 16), **kwargs))
    assert isinstance(network, MLP)
    return network


def coupling(network: nn.Module | None = None) -> Transform:
    made = drawn(Coupling([True, True, False], Affine(), network or MLP(2, 2, hidden=(16, 16))))
    assert isinstance(made, Transform)
    return made


POINTS = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
TRIPLES = POINTS[:, :3].contiguous()


def same_as_few(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Check a call against batches that are too small for a kernel."""
    few = torch.cat([call(part) for part in x.split(8)])
    torch.testing.assert_close(call(x), few, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "x"),
    [
        (mlp(), POINTS[:, :4]),
        (mlp(), torch.randn(100, 7)),
        (coupling(MLP(1, 2)), TRIPLES),
        (coupling(MLP(2, 1)), TRIPLES),
        (coupling(MLP(3, 4)), TRIPLES),
        (Autoregressive(Affine(), MaskedMLP(3, 2, inputs=[0, 1, 2, 1])), TRIPLES),
    ],
)
def test_shapes_that_do_not_fit_are_errors(network: nn.Module, x: Tensor) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        network(x)


def test_layers_of_another_dtype_are_errors() -> None:
    network = mlp()
    network.rest[1][1].half()  # type: ignore[index]
    with pytest.raises(RuntimeError):
        network(POINTS)


def test_what_is_overridden_counts() -> None:
    class Nothing(MLP):
        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return 0 * super().forward(x, context)

    class Still(Affine):
        def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.zeros_like(x)

    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    still = drawn(Coupling([True, True, False], Still(), MLP(2, 2)))
    network = mlp()
    network.rest[0][1] = drawn(Twice(16, 16))  # type: ignore[index]
    for transform in (coupling(Nothing(2, 2)), still):
        assert torch.equal(transform(TRIPLES)[0], TRIPLES)
    same_as_few(network, POINTS)


@pytest.mark.parametrize("place", ["network", "layer", "activation"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_are_called(place: str, kind: str) -> None:
    transform = coupling()
    network: MLP = transform.network  # type: ignore[assignment]
    watched = {"network": network, "layer": network.rest[0][1], "activation": network.rest[0][0]}[place]  # type: ignore[index]
    seen = []
    getattr(watched, f"register_{kind}_hook")(lambda *_: seen.append(1))
    transform(TRIPLES.clone().requires_grad_())[0].sum().backward()
    assert seen == [1]


def test_pruned_layers_train() -> None:
    network = mlp()
    prune.random_unstructured(network.rest[0][1], "weight", 0.5)  # type: ignore[index, no-untyped-call]
    for _ in range(2):
        network(POINTS).sum().backward()
    same_as_few(network, POINTS)


def test_other_modules_in_their_place_are_called() -> None:
    for change in (nn.Linear(16, 16, bias=False), nn.Sequential(nn.Linear(16, 16), nn.Tanh())):
        network = mlp()
        network.rest[0][1] = change  # type: ignore[index]
        same_as_few(network, POINTS)
    network = mlp()
    network.rest[0] = nn.Sequential(nn.ReLU(), nn.Identity(), nn.Linear(16, 16))
    same_as_few(network, POINTS)


def gradient(y: Tensor, x: Tensor, *, again: bool) -> Tensor:
    return torch.autograd.grad(y.square().sum(), x, create_graph=again)[0].detach()


def test_a_gradient_is_the_same_whether_it_is_followed_or_not() -> None:
    tied = mlp()
    tied.rest[0][1] = tied.rest[1][1] = nn.Linear(16, 16)  # type: ignore[index]
    weight = tied.rest[1][1].weight  # type: ignore[index, union-attr]
    plain, followed = (gradient(tied(POINTS), weight, again=again) for again in (False, True))
    torch.testing.assert_close(followed, plain, atol=1e-3, rtol=1e-4)

    x = TRIPLES.clone().requires_grad_()
    made = drawn(Coupling([True, True, False], Affine(), MLP(2, 2, context_features=2), context_features=2))
    plain, followed = (gradient(made(x, x[:, :2])[0], x, again=again) for again in (False, True))
    torch.testing.assert_close(followed, plain, atol=1e-4, rtol=1e-4)


def test_many_gradients_at_once() -> None:
    directions = torch.randn(4, 100, 3)
    for call, points in ((mlp(), POINTS), (lambda x: coupling()(x)[0], TRIPLES)):
        x = points.clone().requires_grad_()
        y = call(x)
        (found,) = torch.autograd.grad(y, x, directions, is_grads_batched=True, retain_graph=True)
        each = torch.stack([torch.autograd.grad(y, x, d, retain_graph=True)[0] for d in directions])
        torch.testing.assert_close(found, each, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace`:DeprecationWarning")
def test_tracers_see_every_operation() -> None:
    network, transform = mlp().requires_grad_(False), coupling().requires_grad_(False)
    other = torch.randn(100, 5)
    torch.testing.assert_close(make_fx(network)(POINTS)(other), network(other), atol=1e-5, rtol=1e-5)
    recorded = torch.jit.trace(lambda x: transform(x)[0], TRIPLES)
    torch.testing.assert_close(recorded(other[:, :3]), transform(other[:, :3])[0], atol=1e-5, rtol=1e-5)
    with FakeTensorMode():
        fake = MLP(5, 3)
        assert fake(torch.randn(100, 5)).shape == (100, 3)
        Affine()(torch.randn(100, 3), torch.randn(100, 3, 2))
    with pytest.raises(AssertionError):  # of another mode, not of a wrong address
        network(FakeTensorMode().from_tensor(POINTS))


def test_views_of_negatives() -> None:
    torch.testing.assert_close(
        mlp()(torch._neg_view(POINTS)),
        mlp()(-POINTS),
        atol=1e-5,
        rtol=1e-5,  # type: ignore[attr-defined]
    )


def test_a_context_may_have_more_dimensions_than_the_points() -> None:
    network = mlp(context_features=2)
    x, context = POINTS[:50], torch.randn(4, 50, 2)
    rows = torch.stack([network(x, c) for c in context])
    torch.testing.assert_close(network(x, context), rows, atol=1e-5, rtol=1e-5)


def test_masks_are_read_on_their_own_device() -> None:
    with torch.device("meta"):
        found = stairs(torch.ones(3, 3, dtype=torch.bool, device="cpu").tril())
    assert found.reach.tolist() == [1, 2, 3]


def test_what_comes_out_may_be_changed() -> None:
    y, log_abs_det = coupling()(TRIPLES)
    y.add_(1)
    (y.sum() + log_abs_det.sum()).backward()
