"""Splits are disjoint, whole, seeded, of the sizes asked for, and do not tear groups."""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pushforward.data import split_rows
from pushforward.errors import DataError

SEEDS = st.integers(0, 2**32)
FRACTIONS = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


def check_partition(parts: tuple[np.ndarray, ...], n: int, fractions: tuple[float, ...]) -> None:
    assert np.sort(np.concatenate(parts)).tolist() == list(range(n))
    for part, fraction in zip(parts, fractions, strict=True):
        assert (np.diff(part) > 0).all()
        assert bool(len(part)) == (fraction > 0)


@given(n=st.integers(3, 400), seed=SEEDS, fractions=FRACTIONS)
def test_rows_are_split_in_the_shares_asked_for(
    n: int, seed: int, fractions: tuple[float, float, float]
) -> None:
    parts = split_rows(n, seed=seed, fractions=fractions)
    check_partition(parts, n, fractions)
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * n) <= 2
    again = split_rows(n, seed=seed, fractions=fractions)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=60)
    | st.lists(st.sampled_from([1, 1, 100]), min_size=3, max_size=8),
    seed=SEEDS,
    fractions=FRACTIONS,
    named=st.booleans(),
)
def test_groups_stay_whole_and_shares_hold_to_twice_the_largest(
    sizes: list[int], seed: int, fractions: tuple[float, float, float], named: bool
) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    labels = np.array([f"g{i}" for i in groups], dtype=object) if named else groups
    parts = split_rows(len(groups), seed=seed, fractions=fractions, groups=labels)
    check_partition(parts, len(groups), fractions)
    members = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, members)) == len(sizes)
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * len(groups)) <= 2 * max(sizes)


def test_large_groups_go_where_they_fit() -> None:
    groups = np.repeat([0, 1, 2], [20, 60, 20])
    for seed in range(10):
        parts = split_rows(100, seed=seed, groups=groups, fractions=(0.6, 0.2, 0.2))
        assert [len(part) for part in parts] == [60, 20, 20]


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.1), (0.5, 0.25, 0.25), (0.6, 0.3, 0.1), (0.9, 0.05, 0.05)])
def test_few_groups_of_very_unequal_sizes_open_every_part(shares: tuple[float, float, float]) -> None:
    for count in range(3, 7):
        for sizes in combinations_with_replacement([1, 3, 30, 170], count):
            groups = np.repeat(np.arange(count), sizes)
            for fractions in sorted(set(permutations(shares))):
                parts = split_rows(len(groups), seed=count, groups=groups, fractions=fractions)
                check_partition(parts, len(groups), fractions)
                off = [abs(len(part) - f * len(groups)) for part, f in zip(parts, fractions, strict=True)]
                assert max(off) <= 2 * max(sizes), (sizes, fractions)


def test_one_vast_group_is_trained_on_and_the_small_ones_shared_by_the_others() -> None:
    groups = np.array([0] * 1000 + list(range(1, 101)))
    for seed in range(10):
        train, valid, test = split_rows(1100, seed=seed, groups=groups)
        assert train.tolist() == list(range(1000))
        assert len(valid) == len(test) == 50


@given(seed=SEEDS)
def test_another_seed_gives_another_split(seed: int) -> None:
    one, other = (split_rows(1000, seed=s)[0] for s in (seed, seed + 1))
    assert not np.array_equal(one, other)


def test_every_row_is_as_likely_to_be_tested_on() -> None:
    counts = np.zeros(20)
    for seed in range(1000):
        counts[split_rows(20, seed=seed)[2]] += 1
    assert counts.sum() == 2000
    assert 60 < counts.min() <= counts.max() < 145  # 100, standard deviation 9.5


@given(n=st.integers(0, 2))
def test_too_few_rows_or_groups_cannot_be_split(n: int) -> None:
    with pytest.raises(DataError, match=f"{n} rows cannot be split into 3 parts. Give more rows"):
        split_rows(n, seed=0)
    assume(n)
    with pytest.raises(DataError, match=f"{n} groups cannot be split into 3 parts. Give more groups"):
        split_rows(30, seed=0, groups=np.arange(30) % n)


def test_fractions_and_groups_are_checked() -> None:
    for fractions in ((0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (np.nan, 0.5, 0.5)):
        with pytest.raises(ValueError, match="fractions: expected three shares with sum 1, got"):
            split_rows(10, seed=0, fractions=fractions)
    with pytest.raises(ValueError, match=r"groups: expected shape \(10,\), got \(9,\)"):
        split_rows(10, seed=0, groups=np.arange(9))
    with pytest.raises(DataError, match="labels of groups are missing, or of several kinds"):
        split_rows(4, seed=0, groups=np.array(["a", "b", "c", None], dtype=object))
    with pytest.raises(DataError, match=r"row 2: label of the group is missing\. Give every row"):
        split_rows(4, seed=0, groups=np.array([1.0, np.nan, 2.0, 3.0]))
