"""Every method has the order that it claims, by its tableau and by what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import pytest

from ode_systems import PROBLEMS, Equations, plan, starts
from pushforward.ode import METHODS, Fixed, solve, tableau
from pushforward.ode.loop import march

Tree = tuple["Tree", ...]
METHOD = pytest.mark.parametrize("name", METHODS)
# Enough for the leading term of the error, too few for rounding.
COUNTS = {1: [64, 128, 256], 2: [32, 64, 128], 3: [16, 32, 64], 4: [16, 32, 64], 5: [8, 16, 32]}
PAIRS = [n for n, m in METHODS.items() if m.e is not None]


def nodes(tree: Tree) -> int:
    return 1 + sum(map(nodes, tree))


def density(tree: Tree) -> int:
    return nodes(tree) * prod(map(density, tree))


def forests(size: int, largest: int) -> Iterator[Tree]:
    """All multisets of rooted trees, the largest first, with so many nodes."""
    if size == 0:
        yield ()
    for first in range(min(size, largest), 0, -1):
        for tree in trees(first):
            for rest in forests(size - first, first):
                yield (tree, *rest)


def trees(size: int) -> Iterator[Tree]:
    return iter({tuple(sorted(f)) for f in forests(size - 1, size - 1)})


def worst(name: str, weights: np.ndarray, order: int) -> float:
    """Largest violation of the conditions of an order (Hairer, Norsett & Wanner, theorem II.2.13)."""
    method = METHODS[name]
    s = len(method.b)
    a = np.array([[*row, *[0.0] * (s - len(row))] for row in method.a])

    def weight(tree: Tree) -> np.ndarray:
        result = np.ones(s)
        for part in tree:
            result = result * (a @ weight(part))
        return result

    return max(abs(weights @ weight(t) - 1 / density(t)) for t in trees(order))


def test_there_are_as_many_trees_as_there_are() -> None:
    assert [len(list(trees(n))) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]


@METHOD
def test_the_conditions_of_order_hold_and_those_of_the_next_do_not(name: str) -> None:
    method = METHODS[name]
    for row, c, i in zip(method.a, method.c, range(99), strict=False):
        assert len(row) == i and sum(row) == pytest.approx(c, abs=1e-14)
    b = np.array(method.b)
    assert all(worst(name, b, n) < 1e-14 for n in range(1, method.order + 1))
    assert worst(name, b, method.order + 1) > 1e-4


@pytest.mark.parametrize("name", PAIRS)
def test_the_embedded_method_is_of_one_order_less(name: str) -> None:
    method = METHODS[name]
    embedded = np.array(method.b) - np.array(method.e)
    assert all(worst(name, embedded, n) < 1e-13 for n in range(1, method.order))
    assert worst(name, embedded, method.order) > 1e-4


def test_which_last_stages_are_the_first_of_the_next_step() -> None:
    assert [n for n, m in METHODS.items() if m.fsal] == ["bosh3", "dopri5"]


@pytest.mark.parametrize("problem", ["logistic", "bent"])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)], ids=["ahead", "back"])
@METHOD
def test_errors_of_equal_steps_fall_with_the_order(
    name: str, ends: tuple[float, float], problem: str
) -> None:
    p = PROBLEMS[problem]
    begin, end = (p.solution(t, starts() / 2) for t in ends)
    counts = COUNTS[METHODS[name].order]
    errors = [
        (march(Equations(p.rates), begin, plan(name, Fixed(n), ends=ends)).u - end).norm().item()
        for n in counts
    ]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - METHODS[name].order) < 0.3, errors


@METHOD
def test_equal_steps_are_counted_as_they_were_asked_for(name: str) -> None:
    equations = Equations(PROBLEMS["logistic"].rates)
    solved = solve(equations, starts(), plan(name, Fixed(7)))
    assert solved.evaluations.tolist() == [equations.seen[i] for i in range(3)]
    assert solved.accepted.tolist() == [7] * 3 and solved.rejected.tolist() == [0] * 3


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method must be one of euler, .*dopri5, got 'rk5'"):
        tableau("rk5")
