"""Element after element in one call of a kernel is what it is in torch's calls, for every point by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fused import autoregressive, doubled, everything, randomise, same
from pushforward.kernels import build
from pushforward.kernels import sweep as kernel
from pushforward.kernels.sweep import available
from pushforward.networks import CircularFeatures, MaskedMLP
from pushforward.transforms import Affine, Autoregressive, ElementwiseMap, RationalQuadraticSpline
from pushforward.transforms import autoregressive as module

pytestmark = pytest.mark.skipif(not available(), reason="there is no C compiler, or another processor")

CONTEXT = 2
MAPS = {
    "affine": Affine,
    "narrow affine": lambda: Affine(bound=0.5),
    "spline": lambda: RationalQuadraticSpline(4, 3.0),
    "bounded spline": lambda: RationalQuadraticSpline(3, 2.0, "bounded"),
}


def made(
    map_: ElementwiseMap,
    order: list[int],
    hidden: list[int],
    *,
    context: int = 0,
    activation: str = "relu",
    scale: float = 1.0,
) -> Autoregressive:
    transform = autoregressive(map_, order, hidden, context=context, activation=activation)
    randomise(transform, scale)
    return transform


def shuffled(features: int) -> list[int]:
    return torch.randperm(features, generator=torch.Generator().manual_seed(features)).tolist()


def drawn(transform: Autoregressive, points: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(points)
    inputs = [torch.randn(points, *transform.event_shape, generator=generator)]
    if transform.context_shape is not None:
        inputs.append(torch.randn(points, CONTEXT, generator=generator))
    return inputs


@contextmanager
def watched() -> Iterator[list[int]]:
    """The numbers of points of all calls of the kernel."""
    calls: list[int] = []
    real = module.sweep
    with patch.object(module, "sweep", lambda y, *rest: (calls.append(len(y)), real(y, *rest))[1]):
        yield calls


def by_torch(transform: Autoregressive, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    with patch.object(module, "available", lambda: False):
        return transform.inverse(*inputs)


@st.composite
def transforms(draw: st.DrawFn) -> Autoregressive:
    features = draw(st.integers(1, 20))
    # Narrow layers let elements share a turn, wide ones take several groups of turns.
    widths = st.sampled_from([1, 2, 3, 9, 30, 70, 150])
    orders = st.sampled_from([list(range(features)), list(range(features))[::-1], shuffled(features)])
    return made(
        MAPS[draw(st.sampled_from(list(MAPS)))](),
        draw(orders),
        draw(st.lists(widths, min_size=1, max_size=4)),
        context=draw(st.sampled_from([0, CONTEXT])),
    )


@given(transform=transforms(), points=st.sampled_from([0, 1, 7, 100]), one_context=st.booleans())
@settings(max_examples=100, deadline=None)
def test_values_are_those_of_torch_and_of_float64(
    transform: Autoregressive, points: int, *, one_context: bool
) -> None:
    inputs = drawn(transform, points)
    if one_context:
        inputs[1:] = [torch.ones(CONTEXT) for _ in inputs[1:]]
    with torch.no_grad():
        with watched() as calls:
            found = transform.inverse(*inputs)
        assert calls == ([points] if points else [])
        if points:
            same(found, by_torch(transform, inputs), 1e-3)
            same(found, transform.double().inverse(*doubled(inputs)), 1e-3)


@pytest.mark.parametrize("hidden", [[512, 300], [40], [200, 3, 200]])
@pytest.mark.parametrize("name", ["affine", "spline"])
def test_many_elements_agree_closely(name: str, hidden: list[int]) -> None:
    transform = made(MAPS[name](), shuffled(150), hidden, context=CONTEXT, scale=0.9)
    inputs = drawn(transform, 100)
    with torch.no_grad(), watched() as calls:
        found = transform.inverse(*inputs)
        assert calls == [100]
        wanted = transform.double().inverse(*doubled(inputs))
        assert wanted[1].abs().max() > 1
        same(found, wanted, 1e-4)


@pytest.mark.parametrize("order", [[0, 2, 1, 3], [0, 3, 1, 2]])
def test_elements_that_are_found_together_have_an_order_as_well(order: list[int]) -> None:
    transform = made(Affine(), order, [1])
    assert transform.network.turns is not None
    assert len(transform.network.turns.rows) == 3  # type: ignore[union-attr, arg-type]
    (y,) = drawn(transform, 20)
    with torch.no_grad():
        same(transform.inverse(y), by_torch(transform, [y]))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("hidden", [[90, 130], [5, 40]])
def test_a_point_depends_on_no_other_and_on_no_threads(name: str, hidden: list[int]) -> None:
    transform = made(MAPS[name](), shuffled(12), hidden)
    (y,) = drawn(transform, 701)
    before = torch.get_num_threads()
    with torch.no_grad():
        x, log_abs_det = transform.inverse(y)
        parts = [slice(700, None), slice(3, 4), slice(5, 25), slice(17, 90), slice(None, None, 3)]
        for part in parts:
            alone, log_alone = transform.inverse(y[part])
            assert torch.equal(alone, x[part]) and torch.equal(log_alone, log_abs_det[part])
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            again, log_again = transform.inverse(y)
            assert torch.equal(again, x) and torch.equal(log_again, log_abs_det)
    torch.set_num_threads(before)


def test_what_is_no_number_spoils_later_elements_of_its_point_alone() -> None:
    order = shuffled(12)
    for map_ in (Affine(), RationalQuadraticSpline(4, 3.0)):
        transform = made(map_, order, [90, 130])
        (y,) = drawn(transform, 40)
        with torch.no_grad():
            clean, log_clean = transform.inverse(y)
            y[5, 3] = math.nan
            spoilt, log_spoilt = transform.inverse(y)
        others = torch.arange(40) != 5
        assert torch.equal(spoilt[others], clean[others]) and torch.equal(
            log_spoilt[others], log_clean[others]
        )
        before = torch.tensor(order) < order[3]
        assert torch.equal(spoilt[5, before], clean[5, before])
        # Outside of its interval a spline is the identity whatever its parameters.
        inside = torch.ones(12, dtype=torch.bool) if isinstance(map_, Affine) else y[5].abs() < 3
        assert spoilt[5, ~before & inside].isnan().all()


@pytest.mark.parametrize("name", MAPS)
def test_gradients_begin_where_the_kernel_ends(name: str) -> None:
    transform = made(MAPS[name](), shuffled(9), [30, 40], context=CONTEXT)
    inputs = drawn(transform, 30)
    parameters = list(transform.parameters())
    with watched() as calls:
        found = everything(transform.inverse, inputs, parameters)
    assert calls == [30, 30]
    wanted = everything(transform.inverse, doubled(inputs), list(transform.double().parameters()))
    same(found, wanted, 1e-3)


def test_batches_contexts_and_strides() -> None:
    transform = made(Affine(), shuffled(6), [20, 20], context=CONTEXT)
    y, context = torch.randn(6, 4, 3).permute(1, 2, 0), torch.randn(CONTEXT, 3).t()
    with torch.no_grad(), watched() as calls:
        found = transform.inverse(y, context)
        assert calls == [12] and found[0].shape == (4, 3, 6) and found[1].shape == (4, 3)
        same(found, by_torch(transform, [y, context]))
        single = transform.inverse(y[0, 1], context[1])
        assert calls == [12, 1] and single[1].shape == ()
        same(single, [found[0][0, 1], found[1][0, 1]])


def test_a_loaded_order_counts() -> None:
    transform, other = made(Affine(), [0, 1, 2], [12, 12]), made(Affine(), [2, 0, 1], [12, 12])
    transform.load_state_dict(other.state_dict())
    (y,) = drawn(transform, 20)
    with torch.no_grad():
        assert all(map(torch.equal, transform.inverse(y), other.inverse(y)))


def test_what_the_kernel_does_not_serve_goes_the_longer_way() -> None:
    order, hidden = shuffled(5), [20, 20]
    kinds = ["linear", "bounded", "linear", "bounded", "linear"]
    several = made(RationalQuadraticSpline(4, tails=kinds), order, hidden)
    bounds = made(RationalQuadraticSpline(4, bound=[1.0, 2.0, 3.0, 4.0, 5.0]), order, hidden)
    smooth = made(Affine(), order, hidden, activation="tanh")
    angles = MaskedMLP(5, 2, hidden=(20,), order=order, inputs=[*range(5), 1])
    circle = Autoregressive(Affine(), CircularFeatures(angles, 5, [1]))
    randomise(circle)
    hooked, replaced, layer = (made(Affine(), order, hidden) for _ in range(3))
    hooked.network.register_forward_hook(lambda *_: None)
    replaced.network.hidden[0] = nn.Softplus()  # type: ignore[union-attr, operator]
    layer.network.last.register_forward_hook(lambda *_: None)  # type: ignore[union-attr, operator]
    double = made(Affine(), order, hidden).double()
    with torch.no_grad(), watched() as calls:
        for transform in (several, bounds, smooth, circle, hooked, replaced, layer, double):
            y = 0.9 * torch.rand(30, 5, dtype=torch.float64 if transform is double else torch.float32)
            x, log_abs_det = transform.inverse(y)
            again, log_again = transform(x)
            same([again, log_again], [y, -log_abs_det], 1e-4)
        served = made(Affine(), order, hidden)
        torch.vmap(served.inverse)(torch.randn(3, 4, 5))
        served.inverse(torch.randn(0, 5))
    assert not calls


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = made(Affine(), shuffled(5), [20])
    inputs = drawn(transform, 30)
    with torch.no_grad():
        wanted = transform.inverse(*inputs)
        monkeypatch.setenv("PUSHFORWARD_KERNELS", "0")
        monkeypatch.setattr(kernel, "library", build.library.__wrapped__)
        monkeypatch.setattr(kernel, "_kernel", kernel._kernel.__wrapped__)
        with watched() as calls:
            same(transform.inverse(*inputs), wanted)
        assert not calls
