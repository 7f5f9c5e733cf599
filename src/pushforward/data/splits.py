"""Training, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Rows = NDArray[np.int64]

_BLOCK = 65_536  # rows whose numbers are drawn together
_LABEL = "Give every row a label, all numbers or all text."


def split_rows(
    n: int,
    *,
    seed: int,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    groups: NDArray[np.generic] | None = None,
) -> tuple[Rows, Rows, Rows]:
    """Splits rows by chance into training, validation and test rows.

    The parts are disjoint and hold all rows; a part whose fraction is positive has at least one group. Groups
    too large to be left to chance (over a quarter of the smallest part) go first, the largest first, each to
    the part that lacks most rows; the others, shuffled, fill the parts in turn. A part so misses its share by
    less than twice the largest group, where there are groups enough.

    Args:
        n: Number of rows.
        seed: Seed of the shuffle; equal seeds give equal splits.
        fractions: Shares of training, validation and test rows: not negative, sum 1; 0 gives no rows.
        groups: Labels, (n,): rows with one label stay in one part. None: each row is its own group.

    Returns:
        Indices of the training, validation and test rows, each ascending.

    Raises:
        DataError: Fewer groups (or rows) than parts, or labels that are missing or of several kinds.
        ValueError: ``fractions`` are not three shares, or ``groups`` has another length than ``n``.

    Example:
        >>> train, valid, test = split_rows(10, seed=0, groups=np.array(list("aaaaabbbcc")))
        >>> train, valid, test
        (array([0, 1, 2, 3, 4]), array([5, 6, 7]), array([8, 9]))
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or not (shares >= 0).all() or abs(float(shares.sum()) - 1) > 1e-9:
        raise ValueError(f"fractions: expected three shares with sum 1, got {tuple(fractions)}")
    labels, sizes = _numbered(n, groups)
    wanted = shares > 0
    if len(sizes) < wanted.sum():
        what = "rows" if groups is None else "groups"
        raise DataError(
            f"{len(sizes)} {what} cannot be split into {wanted.sum()} parts",
            remedy=f"Give more {what}, or set a fraction to 0.",
        )
    part_of_group = _assign(sizes, shares, np.random.default_rng(seed))
    part = part_of_group[labels]
    train, valid, test = (np.flatnonzero(part == k) for k in range(3))
    return train, valid, test


@dataclass(frozen=True, slots=True)
class RowSplit:
    r"""The part of each row of a table on disk, known from the row's place alone.

    A row has a number :math:`u` in [0, 1), the Philox generator's under the key ``seed`` and a counter made of file
    and row; test rows have :math:`u < t`, validation rows :math:`t \le u < t + v`, all others are for training.

    Attributes:
        seed: Seed of the numbers.
        valid: Share of the validation rows, :math:`v`.
        test: Share of the test rows, :math:`t`.

    References:
        Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011, section 3.
        https://doi.org/10.1145/2063384.2063405

    Example:
        >>> split = RowSplit(seed=0, valid=0.1, test=0.1)
        >>> whole = split.numbers(0, 0, 100_000)
        >>> bool((split.numbers(0, 70_000, 500) == whole[70_000:70_500]).all())
        True
    """

    seed: int
    valid: float
    test: float

    def numbers(self, file: int, first: int, rows: int) -> NDArray[np.float64]:
        """The numbers :math:`u` of consecutive rows of a file.

        Args:
            file: Which of the table's files, from 0.
            first: The first row, counted from 0 in its file.
            rows: How many.

        Returns:
            The numbers, (rows,).
        """
        start, end = first // _BLOCK, -(-(first + rows) // _BLOCK)
        drawn = [
            np.random.Philox(key=[self.seed, 0], counter=[0, 0, block, file]).random_raw(_BLOCK)
            for block in range(start, end)
        ]
        raw = np.concatenate([*drawn, np.empty(0, np.uint64)])[first - start * _BLOCK :][:rows]
        return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64)

    def training(self, file: int, first: int, rows: int) -> NDArray[np.bool_]:
        """Which of consecutive rows of a file are for training, (rows,)."""
        return self.numbers(file, first, rows) >= self.test + self.valid


def _numbered(n: int, groups: NDArray[np.generic] | None) -> tuple[Rows, Rows]:
    """Number of each row's group, and the groups' sizes."""
    if groups is None:
        return np.arange(n), np.ones(n, dtype=np.int64)
    if groups.shape != (n,):
        raise ValueError(f"groups: expected shape ({n},), got {groups.shape}")
    if groups.dtype.kind == "f" and np.isnan(groups).any():
        raise DataError(
            "label of the group is missing", row=int(np.isnan(groups).argmax()) + 1, remedy=_LABEL
        )
    try:
        _, labels, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise DataError(
            "labels of groups are missing, or of several kinds that cannot be compared",
            remedy=_LABEL,
        ) from error
    return labels, sizes


def _assign(sizes: Rows, shares: NDArray[np.float64], rng: np.random.Generator) -> Rows:
    """The part of each group."""
    part = np.empty(len(sizes), dtype=np.int64)
    order = rng.permutation(len(sizes))
    large = sizes[order] > shares[shares > 0].min() * sizes.sum() / 4
    big, small = order[large], order[~large]
    big = big[np.argsort(-sizes[big], kind="stable")]
    lacking = shares * sizes.sum()
    empty = shares > 0
    # At most 4 / (smallest share) groups are that large, however many rows there are.
    for i, group in enumerate(big):
        must_open = len(big) - i + len(small) <= empty.sum()
        k = int(np.argmax(np.where(empty, lacking, -np.inf) if must_open else lacking))
        part[group] = k
        lacking[k] -= sizes[group]
        empty[k] = False
    part[small] = _fill(sizes[small], np.maximum(lacking, 0), empty)
    return part


def _fill(sizes: Rows, lacking: NDArray[np.float64], empty: NDArray[np.bool_]) -> Rows:
    """Cuts a row of small groups where the parts' needs end, and gives each empty part one group at least."""
    m = len(sizes)
    if m == 0:
        return np.empty(0, dtype=np.int64)
    ends = np.cumsum(lacking) / lacking.sum() * sizes.sum()
    cuts = np.searchsorted(np.cumsum(sizes) - sizes / 2, ends[:2])
    first = int(np.clip(cuts[0], int(empty[0]), m - int(empty[1:].sum())))
    second = int(np.clip(cuts[1], first + int(empty[1]), m - int(empty[2])))
    return np.repeat(np.arange(3), [first, second - first, m - second])
