"""A product in blocks is the product with the whole masked matrix, and so are its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pushforward.networks import MaskedLinear, MaskedMLP
from pushforward.networks.blocks import pays, permutation, restore, sort, staircase

few = settings(max_examples=12, deadline=None)
POINTS = 260


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def layers(draw: st.DrawFn) -> MaskedLinear:
    """A layer wide enough for blocks: a staircase whose rows and columns are shuffled, or not, or no staircase."""
    rows, columns = draw(st.integers(256, 330)), draw(st.integers(256, 330))
    generator = seeded(draw(st.integers(0, 2**31)))
    highest = draw(st.integers(1, 300))
    seen = torch.randint(highest, (rows,), generator=generator).sort().values
    degrees = torch.randint(highest, (columns,), generator=generator).sort().values
    mask = seen[:, None] >= degrees if draw(st.booleans()) else seen[:, None] > degrees
    if draw(st.booleans()):
        mask = mask[torch.randperm(rows, generator=generator)]
    if draw(st.booleans()):
        mask = mask[:, torch.randperm(columns, generator=generator)]
    if draw(st.integers(0, 5)) == 0:
        mask = torch.rand(rows, columns, generator=generator) < 0.3
    return filled(MaskedLinear(mask), generator)


def filled(layer: MaskedLinear, generator: torch.Generator) -> MaskedLinear:
    """Random weights, also where the mask forbids them, float64."""
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return layer.double()


def triangular(shuffled: bool = False) -> MaskedLinear:
    mask = torch.ones(256, 256, dtype=torch.bool).tril(-1)
    if shuffled:
        mask = mask[torch.randperm(256, generator=seeded(1))][:, torch.randperm(256, generator=seeded(2))]
    return filled(MaskedLinear(mask), seeded())


def dense(layer: MaskedLinear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight * layer.mask, layer.bias)


def drawn(layer: MaskedLinear, *batch: int) -> Tensor:
    return torch.randn(*batch, layer.in_features, generator=seeded(), dtype=torch.float64)


@given(layer=layers(), batch=st.sampled_from([(POINTS,), (2, POINTS // 2), (3,)]))
@few
def test_values_and_gradients_are_those_of_the_dense_product(
    layer: MaskedLinear, batch: tuple[int, ...]
) -> None:
    x = drawn(layer, *batch).requires_grad_()
    got, expected = layer(x), dense(layer, x)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    toward = torch.randn(expected.shape, generator=seeded(1), dtype=torch.float64)
    inputs = [x, *layer.parameters()]
    for a, b in zip(
        torch.autograd.grad(got, inputs, toward), torch.autograd.grad(expected, inputs, toward), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shuffled", [False, True])
def test_gradients_of_gradients_and_function_transforms(shuffled: bool) -> None:
    layer = triangular(shuffled)
    x = drawn(layer, POINTS).requires_grad_()
    second = []
    for function in (layer, lambda x: dense(layer, x)):
        (gradient,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        second.append(torch.autograd.grad(gradient.square().sum(), [x, layer.weight]))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    stacked = torch.stack([x.detach(), 2 * x.detach()])
    weights = torch.stack([layer.weight.detach(), -layer.weight.detach()])

    def call(weight: Tensor, x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    for axes in ((None, 0), (0, None), (0, 0)):
        given_ = [s if a == 0 else s[0] for s, a in zip((weights, stacked), axes, strict=True)]
        got = torch.vmap(call, axes)(*given_)
        for i in range(2):
            one = [s[i] if a == 0 else s for s, a in zip(given_, axes, strict=True)]
            expected = F.linear(one[1], one[0] * layer.mask, layer.bias)
            torch.testing.assert_close(got[i], expected, rtol=1e-10, atol=1e-10)


def test_most_zeros_are_left_out_and_nothing_else() -> None:
    for layer in (triangular(), triangular(shuffled=True)):
        rows, columns, blocks = staircase(layer.mask)
        assert blocks is not None and pays(POINTS, layer.mask) and not pays(100, layer.mask)
        inside = torch.zeros(256, 256, dtype=torch.bool)
        for first, end, seen in blocks.rows:
            inside[first:end, :seen] = True
        from_columns = torch.zeros(256, 256, dtype=torch.bool)
        for first, end, row in blocks.columns:
            from_columns[row:, first:end] = True
        assert torch.equal(inside, from_columns)
        assert not layer.mask[rows][:, columns][~inside].any()
        assert inside.sum() <= 0.65 * inside.numel()
    for whole in (torch.ones(300, 300, dtype=torch.bool), torch.zeros(300, 300, dtype=torch.bool)):
        assert staircase(whole)[2] is None


@pytest.mark.parametrize("forbid", [False, True])
def test_a_product_in_blocks_reads_no_weight_outside_of_the_mask(forbid: bool) -> None:
    layer = triangular()
    x = drawn(layer, POINTS)
    before = layer(x)
    with torch.no_grad():
        layer.weight[~layer.mask if forbid else layer.mask] += 1.0
    assert torch.equal(layer(x), before) == forbid


def test_a_loaded_mask_counts() -> None:
    layer, other = triangular(), triangular(shuffled=True)
    layer.load_state_dict(other.state_dict())
    x = drawn(layer, POINTS)
    assert torch.equal(layer(x), other(x))
    torch.testing.assert_close(copy.deepcopy(layer)(x), dense(other, x))


def test_a_mask_is_part_of_the_state_and_nothing_else_is() -> None:
    assert set(triangular().state_dict()) == {"weight", "bias", "mask"}
    names = set(MaskedMLP(3, 2, hidden=(8, 8), context_features=1).state_dict())
    layers_ = {
        f"{name}.{part}" for name in ("first", "hidden.1", "last") for part in ("weight", "bias", "mask")
    }
    assert names == layers_ | {"order", "context.weight"}


def test_an_order_is_undone() -> None:
    x = torch.randn(4, 5)
    for entries in ([0, 1, 2, 3, 4], [3, 0, 4, 1, 2]):
        order = permutation(torch.tensor(entries))
        assert torch.equal(sort(x, order), x[:, entries])
        assert torch.equal(restore(sort(x, order), order), x)
        assert torch.equal(sort(x.t(), order, 0), x.t()[entries])
