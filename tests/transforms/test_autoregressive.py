"""The incremental inverse is the loop that computes the whole network for every element; so are its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fused import autoregressive
from pushforward.networks import ACTIVATIONS
from pushforward.networks.sweep import stages
from pushforward.transforms import (
    Additive,
    Affine,
    Autoregressive,
    ElementwiseMap,
    RationalQuadraticSpline,
    Scale,
)

few = settings(max_examples=40, deadline=None)
CONTEXT = 2
POINTS = 5


def mixed(features: int) -> RationalQuadraticSpline:
    """Every element with a bound of its own and another kind of tail than the one before it."""
    kinds = ("circular", "linear", "bounded")
    bounds = [math.pi if i % 3 == 0 else 2.0 + i for i in range(features)]
    return RationalQuadraticSpline(4, bounds, [kinds[i % 3] for i in range(features)])


MAPS = {
    "additive": lambda n: Additive(),
    "scale": lambda n: Scale(),
    "affine": lambda n: Affine(),
    "spline": lambda n: RationalQuadraticSpline(4, 3.0),
    "mixed": mixed,
}


def loop(transform: Autoregressive, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """One pass of the whole network for each element."""
    x, log_derivative = torch.zeros_like(y), torch.zeros_like(y)
    for position in range(y.shape[-1]):
        now = transform.order == position
        x_all, log_all = transform.map.inverse(y, transform.network(x, context))
        x, log_derivative = torch.where(now, x_all, x), torch.where(now, log_all, log_derivative)
    return x, log_derivative.sum(-1)


def build(
    map_: ElementwiseMap,
    order: list[int],
    hidden: list[int],
    *,
    context: int = 0,
    angles: list[int] | None = None,
    activation: str = "tanh",
    seed: int = 0,
) -> Autoregressive:
    transform = autoregressive(
        map_, order, hidden, context=context, angles=angles or [], activation=activation
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in transform.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[-1]))
    return transform.double()


@st.composite
def transforms(draw: st.DrawFn) -> Autoregressive:
    features = draw(st.integers(1, 6))
    name = draw(st.sampled_from(list(MAPS)))
    # Narrow layers let elements share a stage, wide ones take more than one block.
    widths = st.sampled_from([1, 2, 3, 9, 40, 150])
    return build(
        MAPS[name](features),
        list(draw(st.permutations(range(features)))),
        draw(st.lists(widths, min_size=1, max_size=3)),
        context=draw(st.sampled_from([0, CONTEXT])),
        angles=list(range(0, features, 3))
        if name == "mixed"
        else draw(st.sampled_from([[], [features - 1]])),
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
        seed=draw(st.integers(0, 2**31)),
    )


def inputs(
    transform: Autoregressive, batch: tuple[int, ...] = (POINTS,), context_batch: tuple[int, ...] = (POINTS,)
) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    y = 1.5 * torch.randn(*batch, *transform.event_shape, generator=generator, dtype=torch.float64)
    if transform.context_shape is None:
        return y, None
    return y, torch.randn(*context_batch, CONTEXT, generator=generator, dtype=torch.float64)


def assert_all_close(got: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@given(
    transform=transforms(),
    batches=st.sampled_from(
        [((5,), (5,)), ((), ()), ((5,), ()), ((2, 3), (3,)), ((2, 3), (2, 1)), ((0,), (0,))]
    ),
)
@few
def test_values_are_those_of_the_loop(
    transform: Autoregressive, batches: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    y, context = inputs(transform, *batches)
    with torch.no_grad():
        assert_all_close(transform.inverse(y, context), loop(transform, y, context), 1e-9)
        single = transform.float()
        context = None if context is None else context.float()
        assert_all_close(single.inverse(y.float(), context), loop(single, y.float(), context), 2e-3)


@given(transform=transforms(), shared=st.booleans())
@few
def test_gradients_are_those_of_the_loop(transform: Autoregressive, shared: bool) -> None:
    y, context = inputs(transform, context_batch=() if shared else (POINTS,))
    leaves = [t.requires_grad_() for t in (y, context) if t is not None]
    leaves += list(transform.parameters())
    generator = torch.Generator().manual_seed(4)
    toward = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (y.shape, y.shape[:1])
    ]
    got, expected = transform.inverse(y, context), loop(transform, y, context)
    assert_all_close(got, expected, 1e-9)
    found = [
        torch.autograd.grad(
            sum((t * v).sum() for t, v in zip(toward, values, strict=True)),
            leaves,
            materialize_grads=True,
            allow_unused=True,
        )
        for values in (got, expected)
    ]
    scale = max(1.0, *(float(g.abs().max()) for g in found[1] if g.numel()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * scale)


@pytest.mark.parametrize("name", ["affine", "mixed"])
def test_other_ways_to_differentiate_give_the_same(name: str) -> None:
    transform = build(MAPS[name](3), [2, 0, 1], [9, 9], context=CONTEXT, angles=[0])
    y, context = inputs(transform)
    assert context is not None
    y.requires_grad_()
    second, batched = [], []
    toward = torch.eye(3, dtype=torch.float64)[:, None].expand(3, POINTS, 3)
    for inverse in (transform.inverse, lambda y, c: loop(transform, y, c)):
        x, log_abs_det = inverse(y, context)
        batched.append(torch.autograd.grad(x, y, toward, is_grads_batched=True, retain_graph=True)[0])
        (gradient,) = torch.autograd.grad(x.square().sum() + log_abs_det.sum(), y, create_graph=True)
        leaves = [y, *transform.network.parameters()]
        second.append(
            torch.autograd.grad(gradient.square().sum(), leaves, allow_unused=True, materialize_grads=True)
        )
    assert_all_close(second[0], second[1], 1e-7)
    assert_all_close((batched[0],), (batched[1],), 1e-9)

    def point(y: Tensor, context: Tensor) -> Tensor:
        return transform.inverse(y, context)[0]

    rows = torch.vmap(torch.func.jacrev(point))(y.detach(), context)
    torch.testing.assert_close(rows, batched[1].movedim(0, 1), rtol=1e-9, atol=1e-9)
    columns = torch.vmap(torch.func.jacfwd(point))(y.detach(), context)
    torch.testing.assert_close(columns, rows, rtol=1e-9, atol=1e-9)


def test_weights_that_are_put_in_for_one_call_get_the_gradient() -> None:
    transform = build(Affine(), [1, 0, 2], [8])
    y, _ = inputs(transform)
    other = {k: (0.5 * p).detach().requires_grad_() for k, p in transform.named_parameters()}

    class Back(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform = transform

        def forward(self, y: Tensor) -> Tensor:
            return transform.inverse(y)[0]

    x = torch.func.functional_call(Back(), {f"transform.{k}": p for k, p in other.items()}, (y,))
    got = torch.autograd.grad(x.square().sum(), list(other.values()))
    with torch.no_grad():
        for k, p in transform.named_parameters():
            p.copy_(other[k])
    expected = torch.autograd.grad(loop(transform, y, None)[0].square().sum(), list(transform.parameters()))
    assert_all_close(got, expected, 1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_of_many_blocks(activation: str) -> None:
    transform = build(Affine(), [(7 * i) % 20 for i in range(20)], [97, 61, 130], activation=activation)
    y, _ = inputs(transform)
    y.requires_grad_()
    found = []
    for x, log_abs_det in (transform.inverse(y), loop(transform, y, None)):
        total = x.cos().sum() + log_abs_det.sum()
        found.append((x, log_abs_det, *torch.autograd.grad(total, [y, *transform.parameters()])))
    assert_all_close(found[0], found[1], 1e-8)


def test_a_root_is_found_in_full_precision_under_autocast() -> None:
    transform = build(Affine(), [1, 0, 2], [8], context=CONTEXT).float()
    y, context = (None if t is None else t.float() for t in inputs(transform))
    assert y is not None
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            without = transform.inverse(y, context)[0]
        x = transform.inverse(y.requires_grad_(), context)[0]
    assert torch.equal(x, without) and x.dtype == torch.float32
    torch.testing.assert_close(x, loop(transform, y, context)[0], rtol=0.03, atol=0.03)
    assert torch.isfinite(torch.autograd.grad(x.sum(), y)[0]).all()


def test_a_loaded_order_counts() -> None:
    transform, other = (
        build(Affine(), order, [12, 12], seed=s) for s, order in ((0, [0, 1, 2]), (1, [2, 0, 1]))
    )
    transform.load_state_dict(other.state_dict())
    y, _ = inputs(transform)
    for a, b in zip(transform.inverse(y), loop(other, y, None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@given(features=st.integers(1, 9), widths=st.lists(st.integers(1, 30), min_size=1, max_size=3))
@few
def test_stages_part_the_elements_and_know_only_what_is_before_them(features: int, widths: list[int]) -> None:
    degrees = [sorted(i * features // w for i in range(w)) for w in widths]
    plan = stages(features, [list(range(features)), *degrees])
    assert [s.first for s in plan] == [0, *[s.end for s in plan[:-1]]] and plan[-1].end == features
    for stage in plan:
        for known, layer in zip(stage.known[1:], degrees, strict=True):
            assert all(d < stage.first for d in layer[:known])
            assert known == len(layer) or layer[known] >= stage.first
