"""What a masked network may see, and what it must see."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pushforward.networks import MLP, CircularFeatures, MaskedMLP, ParameterSource

quick = settings(max_examples=40, deadline=None)
CONTEXT = 2
POINTS = 24


@st.composite
def networks(
    draw: st.DrawFn, narrow: bool = False
) -> tuple[MaskedMLP | CircularFeatures, list[int], int, list[int]]:
    """A network with random weights, its order, the width of its context, and which elements are angles."""
    features = draw(st.integers(1, 6))
    order = draw(st.permutations(range(features)))
    context = draw(st.sampled_from([0, CONTEXT]))
    widths = st.integers(1, 3) if narrow else st.integers(2 * features, 3 * features)
    angles = sorted(draw(st.sets(st.integers(0, features - 1))))
    masked = MaskedMLP(
        features,
        draw(st.integers(1, 3)),
        context_features=context,
        hidden=draw(st.lists(widths, min_size=1, max_size=3)),
        order=order,
        inputs=[*range(features), *angles],
        activation="tanh",
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    with torch.no_grad():
        for p in masked.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[-1]))
    network = CircularFeatures(masked, features, angles).double() if angles else masked.double()
    return network, order, context, angles


def dependence(network: nn.Module, features: int, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Largest size, over points and parameters, of the derivatives of each element's parameters by each element."""
    x = torch.randn(POINTS, features, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    inputs = [x] if context is None else [x, context.requires_grad_()]
    output = network(x, context)
    rows, by_context = [], []
    for i in range(features):
        totals = output[:, i].sum(0)
        sizes = [torch.autograd.grad(t, inputs, retain_graph=True, materialize_grads=True) for t in totals]
        rows.append(torch.stack([s[0].abs().amax(0) for s in sizes]).amax(0))
        by_context += [s[1].abs().amax(0) for s in sizes if context is not None]
    return torch.stack(rows), torch.stack(by_context) if by_context else None


def some_contexts(width: int) -> Tensor | None:
    if not width:
        return None
    return torch.randn(POINTS, width, generator=torch.Generator().manual_seed(1)).double()


@given(case=networks())
@quick
def test_elements_see_all_that_come_before_them_and_nothing_else(
    case: tuple[MaskedMLP | CircularFeatures, list[int], int, list[int]],
) -> None:
    network, order, width, _ = case
    place = torch.tensor(order)
    jacobian, by_context = dependence(network, len(order), some_contexts(width))
    allowed = place[None, :] < place[:, None]
    assert (jacobian[~allowed] == 0).all()
    assert (jacobian[allowed] > 0).all()
    if width:
        assert by_context is not None and (by_context > 0).all()


@given(case=networks(narrow=True))
@quick
def test_a_narrow_network_sees_nothing_that_it_must_not(
    case: tuple[MaskedMLP | CircularFeatures, list[int], int, list[int]],
) -> None:
    network, order, width, _ = case
    place = torch.tensor(order)
    jacobian, _ = dependence(network, len(order), some_contexts(width))
    assert (jacobian[place[None, :] >= place[:, None]] == 0).all()


@given(case=networks(), turns=st.integers(-3, 3))
@quick
def test_an_angle_counts_modulo_its_turn(
    case: tuple[MaskedMLP | CircularFeatures, list[int], int, list[int]], turns: int
) -> None:
    network, order, width, angles = case
    x, context = torch.randn(POINTS, len(order)).double(), some_contexts(width)
    turned = x.clone()
    turned[:, angles] += 2 * math.pi * turns
    torch.testing.assert_close(network(turned, context), network(x, context), rtol=0, atol=1e-11)


@pytest.mark.parametrize("width", [0, CONTEXT])
def test_fresh_networks_give_zero(width: int) -> None:
    x, context = torch.randn(5, 3), torch.randn(5, CONTEXT) if width else None
    for network in (
        MaskedMLP(3, 2, context_features=width),
        MLP(3, 4, context_features=width),
        MLP(3, 4, context_features=width, hidden=()),
    ):
        assert (network(x, context) == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": [0, 1, 1]}, r"order must be a permutation of 0..2, got \[0, 1, 1\]"),
        ({"order": [0, 1]}, r"order must be a permutation of 0..2, got \[0, 1\]"),
        ({"hidden": ()}, "hidden: a masked network needs at least one hidden layer, got none"),
        ({"hidden": (4, 0)}, r"hidden: every width must be at least 1, got \(4, 0\)"),
        ({"activation": "step"}, "activation must be one of elu, gelu, relu, silu, tanh, got 'step'"),
        ({"context_features": -1}, "must be at least 1, got 3, -1 and 2"),
    ],
)
def test_misuse(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedMLP(3, 2, **arguments)  # type: ignore[arg-type]


def test_a_missing_context_is_named() -> None:
    for network in (MaskedMLP(3, 2, context_features=2), MLP(3, 2, context_features=2)):
        with pytest.raises(ValueError, match=f"{type(network).__name__}: context is needed, got None"):
            network(torch.zeros(3))
    with pytest.raises(ValueError, match="ParameterSource: context is needed, got None"):
        ParameterSource(torch.zeros(3), context_features=2)()


def test_no_angle_changes_nothing() -> None:
    network = MLP(2, 3)
    nn.init.normal_(network.rest[-1][1].weight)  # type: ignore[index]
    x = torch.randn(4, 2)
    assert torch.equal(CircularFeatures(network, 2, [])(x), network(x))
