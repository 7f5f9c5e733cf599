"""The part and the row that first leave the finite numbers are those that were poisoned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow
from pushforward.networks import MLP
from pushforward.training.blame import find_nonfinite
from pushforward.transforms import Affine, Chain, Coupling, Elementwise, Inverse, LULinear, Transform

ROWS = 37


class Poison(Transform):
    """The identity, but for points with a marked last element, where value, log-determinant or gradient is lost."""

    def __init__(self, what: str) -> None:
        super().__init__((3,))
        self.what = what
        self.weight = nn.Parameter(torch.ones(()))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        marked = x[..., -1] > 100.0
        nothing = torch.zeros_like(x[..., 0])
        if self.what == "value":
            return x + torch.where(marked, torch.inf, 0.0)[..., None], nothing
        if self.what == "log-determinant":
            return x, torch.where(marked, torch.nan, nothing)
        # The square root of 0 has value 0 and an infinite derivative.
        return x, (self.weight * torch.where(marked, 0.0, 1.0)).sqrt() - torch.where(marked, 0.0, 1.0)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return y, torch.zeros_like(y[..., 0])


def batch(row: int) -> Tensor:
    z = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(row))
    z[row, -1] = 1e4
    return z


@settings(deadline=None, max_examples=60)
@given(
    what=st.sampled_from(["value", "log-determinant", "gradient"]),
    place=st.integers(0, 3),
    row=st.integers(0, ROWS - 1),
    nested=st.booleans(),
    weighted=st.booleans(),
)
def test_the_poisoned_part_and_row_are_found(
    what: str, place: int, row: int, nested: bool, weighted: bool
) -> None:
    parts: list[Transform] = [Elementwise(Affine(), (3,)) for _ in range(3)]
    parts.insert(place, Poison(what))
    chain = Chain([Chain(parts[:2]), Chain(parts[2:])]) if nested else Chain(parts)
    path = f"[{place // 2}].transforms[{place % 2}]" if nested else f"[{place}]"
    flow = Flow(chain, DiagonalNormal((3,)))
    weights = torch.rand(ROWS) + 0.1 if weighted else None
    found = find_nonfinite(flow, batch(row), None, weights)
    assert found is not None
    assert (found.what, found.row) == (what, row)
    assert found.part == f"transform.transforms{path} (Poison)"


def test_where_all_is_finite_nothing_is_blamed() -> None:
    torch.manual_seed(0)
    flow = Flow(Chain([LULinear(3), Inverse(Elementwise(Affine(), (3,)))]), DiagonalNormal((3,)))
    assert find_nonfinite(flow, torch.randn(5, 3)) is None


@pytest.mark.parametrize("where", ["point", "context", "parameter", "base"])
def test_what_is_around_the_transforms_is_blamed_as_well(where: str) -> None:
    torch.manual_seed(0)
    coupling = Coupling([True, False], Affine(), MLP(1, 2, context_features=1), context_features=1)
    flow = Flow(coupling, DiagonalNormal((2,), context_features=1))
    z, context = torch.randn(6, 2), torch.randn(6, 1)
    expected, row = "transform (Coupling)", 0
    if where == "point":
        z[4, 0], expected, row = torch.nan, "the preprocess", 4
    elif where == "context":
        context[2], expected, row = torch.inf, "the embedding of the context", 2
    else:
        module = coupling if where == "parameter" else flow.base
        next(module.parameters()).data.fill_(torch.nan)
        expected = expected if where == "parameter" else "the base (DiagonalNormal)"
    found = find_nonfinite(flow, z, context)
    assert found is not None and found.part == expected and found.row == row
