"""A coupling or autoregressive transform in one pass equals its steps in float64, gradients of gradients included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fused import doubled, everything, randomise, same
from pushforward.kernels.table import available
from pushforward.networks import MLP, MaskedMLP
from pushforward.transforms import Affine, Autoregressive, Coupling, RationalQuadraticSpline, Transform
from pushforward.transforms import autoregressive as autoregressive_module
from pushforward.transforms import coupling as coupling_module

pytestmark = pytest.mark.skipif(not available(), reason="there is no C compiler, or another processor")

MASK = [True, False, False, True, False, True, False]


def coupling(map: Affine | RationalQuadraticSpline, context: int = 0) -> Coupling:
    network = MLP(3, 4 * map.parameters_each, context_features=context, hidden=(20, 17))
    return Coupling(MASK, map, network, context_features=context)


def autoregressive(map: Affine | RationalQuadraticSpline, context: int = 0) -> Autoregressive:
    order = [3, 0, 4, 1, 2, 6, 5]
    return Autoregressive(
        map, MaskedMLP(7, map.parameters_each, context_features=context, hidden=(20, 33), order=order)
    )


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "affine coupling": lambda: coupling(Affine()),
    "affine coupling, context": lambda: coupling(Affine(), 2),
    "spline coupling": lambda: coupling(RationalQuadraticSpline(4, bound=2.0)),
    "bounded spline coupling, context": lambda: coupling(
        RationalQuadraticSpline(4, bound=3.0, tails="bounded"), 2
    ),
    "spline coupling with a kind of tails each": lambda: coupling(
        RationalQuadraticSpline(4, tails=["linear", "bounded", "linear", "bounded"])
    ),
    "affine autoregressive": lambda: autoregressive(Affine()),
    "affine autoregressive, context": lambda: autoregressive(Affine(), 2),
    "spline autoregressive": lambda: autoregressive(RationalQuadraticSpline(4, bound=2.0)),
}


def prepared(name: str) -> tuple[Transform, list[Tensor]]:
    transform = TRANSFORMS[name]()
    randomise(transform)
    generator = torch.Generator().manual_seed(0)
    inputs = [2 * torch.randn(6, 50, 7, generator=generator)]
    if transform.context_shape is not None:
        inputs.append(torch.randn(50, 2, generator=generator))
    return transform, inputs


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each call that was one pass."""
    done: list[int] = []
    for module in (coupling_module, autoregressive_module):
        real = module.along
        monkeypatch.setattr(module, "along", lambda *a, real=real: (done.append(1), real(*a))[1])
    return done


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_one_pass_equals_its_steps(name: str, inverse: bool, passes: list[int]) -> None:
    transform, inputs = prepared(name)
    direction = transform.inverse if inverse else transform.forward
    found = everything(direction, inputs, list(transform.parameters()))
    # Element after element, the inverse of an autoregressive transform has one pass for its log-determinant.
    assert len(passes) == (1 if inverse and "autoregressive" in name else 2)
    passes.clear()
    wanted = everything(direction, doubled(inputs), list(transform.double().parameters()))
    assert not passes
    same(found, wanted, 2e-4)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", ["affine coupling, context", "spline autoregressive"])
def test_gradients_have_gradients(name: str, inverse: bool) -> None:
    transform, inputs = prepared(name)
    found = []
    for points in ([t[..., :5, :] for t in inputs], [t[..., :5, :].double() for t in inputs]):
        transform = transform.to(points[0])
        points[0].requires_grad_()
        direction = transform.inverse if inverse else transform.forward
        y, log_abs_det = direction(*points)
        (first,) = torch.autograd.grad(
            y.sin().sum() + log_abs_det.square().sum(), points[0], create_graph=True
        )
        found.append(torch.autograd.grad(first.square().sum(), [points[0], *transform.parameters()]))
    same(list(found[0]), list(found[1]), 2e-3)


def test_frozen_networks_points_without_gradients_and_strange_strides(passes: list[int]) -> None:
    transform, (x, context) = prepared("affine coupling, context")
    transform.requires_grad_(False)
    strange = x.transpose(0, 1).contiguous().transpose(0, 1)
    one = context[0]
    found = everything_of_points(transform, strange, one)
    assert passes == [1]
    wanted = everything_of_points(transform.double(), x.double(), one.double())
    assert passes == [1]
    same(found, wanted, 2e-4)


def everything_of_points(transform: Transform, x: Tensor, context: Tensor) -> list[Tensor]:
    x, context = x.detach().requires_grad_(), context.detach().requires_grad_()
    y, log_abs_det = transform(x, context.expand(50, 2))
    return [y, *torch.autograd.grad((y.square().sum(-1) + log_abs_det).sum(), [x, context])]


def test_what_the_kernel_does_not_serve_goes_the_longer_way(passes: list[int]) -> None:
    x = torch.randn(200, 7)
    circle = coupling(RationalQuadraticSpline(4, tails="circular", bound=3.0))
    bounds = coupling(RationalQuadraticSpline(4, bound=[1.0, 2.0, 3.0, 4.0]))
    watched = coupling(Affine())
    seen = []
    watched.network.register_forward_hook(lambda *_: seen.append(1))
    smooth = Coupling(MASK, Affine(), MLP(3, 8, activation="tanh"))
    for transform in (circle, bounds, watched, smooth):
        transform(x)
        torch.vmap(transform)(x)
    assert seen
    affine = coupling(Affine())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        affine(x)
    affine(x[:0])
    assert not passes


def test_a_point_that_is_no_number_spoils_itself_alone() -> None:
    for name in ("affine coupling", "spline autoregressive"):
        transform, (x,) = prepared(name)
        x = x.reshape(300, 7)
        with torch.no_grad():
            clean = transform(x)[0]
            x[5, 3] = torch.nan
            spoilt = transform(x)[0]
        assert spoilt[5].isnan().any()
        assert torch.equal(spoilt[torch.arange(300) != 5], clean[torch.arange(300) != 5])
