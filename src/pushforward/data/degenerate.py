"""What makes a table's density grow without bound, so that its likelihoods flatter: said before anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..configs import ColumnSchema
from .columns import CELL_LIMIT

_MASS_SHARE = 0.05
_COPIES_SHARE = 0.05
_PLANE = 1e-7
_MOST_ROWS = 20_000
_MOST_NAMES = 12


def degeneracies(
    matrix: NDArray[np.float64], columns: Sequence[ColumnSchema], context: NDArray[np.float64] | None = None
) -> list[str]:
    r"""Return what is degenerate about a table, a few sentences for each kind.

    Looked for among continuous columns, since dequantised ones have a bounded density: one value that fills 5 % of the
    rows; whole numbers too large for a discrete column, if half of the rows share theirs with another; columns that are
    linear functions of others, to :math:`10^{-7}` of their spread; 5 % of the rows being copies of others. All but the
    last are looked for on at most 20,000 rows.

    Args:
        matrix: Training rows, (rows, columns).
        columns: The schemas of its columns.
        context: The columns that they are conditioned on, (rows, columns).

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 2))
        >>> names = [ColumnSchema(name=name) for name in "abc"]
        >>> print(degeneracies(np.column_stack([x, 2 * x[:, 0] + 1]), names)[0][:63])
        Column 'c' is a linear function of the others: the rows lie on
    """
    whole = matrix if context is None else np.hstack([context, matrix])
    given, some = whole.shape[1] - matrix.shape[1], whole[:: -(-len(whole) // _MOST_ROWS)]
    found = []
    continuous = [j for j, column in enumerate(columns) if column.step is None]
    masses, repeats = [], []
    for j in continuous:
        distinct, counts = np.unique(some[:, given + j], return_counts=True)
        share = counts.max() / len(some)
        if share >= _MASS_SHARE:
            masses.append(f"{columns[j].name!r} ({share:.0%} are {distinct[counts.argmax()]:g})")
        elif _vast_and_whole(distinct) and 2 * counts[counts > 1].sum() >= len(some):
            repeats.append(repr(columns[j].name))
    if masses:
        found.append(
            f"One value fills a good part of {_columns(masses)}. A density can grow without bound there, so "
            "likelihoods flatter. Drop such a column, or add noise to it."
        )
    if repeats:
        found.append(
            f"Whole numbers from 2**44 on, as in {_columns(repeats)}, are too large for a discrete column, and these "
            "repeat. A density can grow without bound on them, so likelihoods flatter. Subtract an offset, or take a "
            "larger unit."
        )
    if len(whole) <= whole.shape[1]:
        found.append(
            f"There are no more training rows ({len(whole)}) than columns ({whole.shape[1]}): some direction has no "
            "spread at all, so likelihoods flatter. Give more rows, or fewer columns."
        )
    else:
        names = [repr(columns[j - given].name) for j in _dependent(some) if j - given in continuous]
        if names:
            found.append(
                f"C{_columns(names)[1:]} {'is a linear function' if len(names) == 1 else 'are linear functions'} "
                "of the others: the rows lie on a plane, where a density can grow without bound, so likelihoods "
                f"flatter. Drop {'it' if len(names) == 1 else 'them'}."
            )
    copies = 1 - pl.from_numpy(whole).n_unique() / len(whole)
    if continuous and copies >= _COPIES_SHARE:
        found.append(
            f"{copies:.0%} of the rows are copies of others. A density can grow without bound at them, and copies of "
            "training rows among those to test are no test. Leave copies out, or give their number as a weight."
        )
    return found


def _columns(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"column{'' if len(names) == 1 else 's'} {listed}"


def _vast_and_whole(values: NDArray[np.float64]) -> bool:
    return bool((values == np.floor(values)).all() and np.abs(values).max() >= CELL_LIMIT)


def _dependent(rows: NDArray[np.float64]) -> list[int]:
    r"""Return which columns are linear functions of those before them: the diagonal of their :math:`QR` tells."""
    largest = np.abs(rows).max(axis=0)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    centred = scaled - scaled.mean(axis=0)
    spread = np.sqrt(np.square(centred).mean(axis=0))
    # What rounding leaves of a column far from 0 is no spread to look at.
    seen = np.flatnonzero(spread > 1e-9)
    if not 2 <= len(seen) <= len(rows):
        return []
    r = np.linalg.qr(centred[:, seen] / spread[seen], mode="r")
    distances = np.abs(np.diagonal(r)) / np.sqrt(len(rows))
    return [int(j) for j in seen[distances < _PLANE]]
