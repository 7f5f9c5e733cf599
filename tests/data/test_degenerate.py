"""Degenerate tables are named, and others are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pushforward.configs import ColumnSchema
from pushforward.data import degeneracies

Matrix = NDArray[np.float64]


def table(seed: int, rows: int, width: int) -> Matrix:
    """Correlated columns of sizes that differ by many orders of magnitude."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width))
    return 10.0 ** rng.uniform(-9, 9, width) * (mixed + rng.normal(scale=100.0, size=width))


def columns(width: int, discrete: tuple[int, ...] = ()) -> list[ColumnSchema]:
    return [ColumnSchema(name=f"x{j}", step=1.0 if j in discrete else None) for j in range(width)]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), rows=st.integers(60, 300), width=st.integers(1, 12))
def test_nothing_is_said_of_ordinary_tables(seed: int, rows: int, width: int) -> None:
    assert degeneracies(table(seed, rows, width), columns(width)) == []


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), width=st.integers(2, 8), place=st.integers(0, 7), given_too=st.booleans())
def test_a_linear_function_of_the_others_is_named(seed: int, width: int, place: int, given_too: bool) -> None:
    rng = np.random.default_rng(seed)
    x = table(seed, 100, width)
    scale = np.abs(x).max(axis=0)
    function = (x / scale) @ rng.uniform(0.5, 1.0, width) * 1e5 + 7.0
    context, modelled = (x[:, 1:], x[:, :1]) if given_too else (None, x)
    modelled = np.column_stack([modelled, function])
    (said,) = degeneracies(modelled, columns(modelled.shape[1]), context)
    assert said.startswith(f"Column 'x{modelled.shape[1] - 1}' is a linear function of the others")
    assert degeneracies(modelled, columns(modelled.shape[1], (modelled.shape[1] - 1,)), context) == []


@pytest.mark.parametrize("share", [0.02, 0.08, 0.5])
def test_one_value_in_many_rows_is_named_with_its_share(share: float) -> None:
    x = table(0, 1000, 3)
    x[: int(1000 * share), 1] = 0.25
    said = degeneracies(x, columns(3))
    assert said == [] if share < 0.05 else f"column 'x1' ({share:.0%} are 0.25)" in said[0]
    assert degeneracies(x, columns(3, (1,))) == []


@pytest.mark.parametrize(("largest", "distinct", "said"), [(2**44, 60, 1), (2**43, 60, 0), (2**44, 600, 0)])
def test_large_whole_numbers_that_repeat_are_named(largest: int, distinct: int, said: int) -> None:
    x = table(0, 1000, 3)
    x[:600, 1], x[600:, 1] = largest - np.arange(600) % distinct, largest - 1000 - np.arange(400)
    found = degeneracies(x, columns(3))
    assert [text.startswith("Whole numbers from 2**44 on, as in column 'x1',") for text in found] == [
        True
    ] * said


@pytest.mark.parametrize(("copies", "expected"), [(0, []), (30, []), (100, ["9%"]), (900, ["47%"])])
def test_copies_of_rows_are_counted(copies: int, expected: list[str]) -> None:
    x = table(0, 1000, 3)
    x = np.vstack([x, x[:copies]])
    said = degeneracies(np.random.default_rng(0).permutation(x), columns(3))
    assert [text.split(" ", 1)[0] for text in said] == expected
    contexts = np.arange(float(len(x)))[:, None]
    assert degeneracies(x, columns(3), contexts) == [], "under other contexts they are no copies"


def test_fewer_rows_than_columns_are_said() -> None:
    assert "no more training rows (30) than columns (40)" in degeneracies(table(0, 30, 40), columns(40))[-1]
