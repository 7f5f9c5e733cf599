"""Checks of column names, with a suggestion when one is nearly right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ..errors import DataError

_SHOWN = 20


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first twenty of them.

    Example:
        >>> listed(["a", "b"])
        "'a', 'b'"
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def suggestion(name: str, known: Sequence[str]) -> str | None:
    """A question that names the closest known spelling, or None when nothing is close.

    Example:
        >>> suggestion("heigth", ["height", "age"])
        "Is 'height' meant?"
    """
    lower = {other.lower(): other for other in known}
    close = get_close_matches(name.lower(), list(lower), n=1)
    return f"Is {lower[close[0]]!r} meant?" if close else None


def check_names(
    known: Sequence[str], wanted: Sequence[str] | None = None, *, source: str | Path | None = None
) -> tuple[str, ...]:
    """The columns to take from a table: those wanted, or all.

    Args:
        known: The table's column names, in its order.
        wanted: Names asked for; None: all. Surplus columns of the table are no error.
        source: Where the table comes from, for messages.

    Returns:
        ``wanted``, or ``known`` when that is None.

    Raises:
        DataError: A wanted column is absent, none is taken, or a name stands twice among those taken.

    Example:
        >>> check_names(["a", "b", "c"], ["c", "a"])
        ('c', 'a')
    """
    counts = Counter(known)
    if wanted is not None:
        absent = [name for name in wanted if name not in counts]
        if absent:
            what = "column" if len(absent) == 1 else f"{len(absent)} columns"
            raise DataError(
                f"{what} {listed(absent)} missing; the table has {listed(known)}",
                source=source,
                remedy=suggestion(absent[0], known),
            )
    taken = tuple(known if wanted is None else wanted)
    if not taken:
        raise DataError(
            "no column to read", source=source, remedy=f"The table has {listed(known) or 'none'}."
        )
    for name, times in Counter(taken).items():
        if times > 1 and wanted is not None:
            raise DataError("the column is asked for twice", source=source, column=name)
        if counts[name] > 1:
            places = " and ".join(str(i) for i, other in enumerate(known, 1) if other == name)
            raise DataError(
                f"columns number {places} have the same name",
                source=source,
                column=name,
                remedy="Rename all but one of them.",
            )
    return taken
