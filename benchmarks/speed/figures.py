"""A measured figure, and how figures compare."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .libraries import PEERS

MILLISECONDS, SECONDS, MEGABYTES, ROWS, NATS = "ms", "s", "MB", "rows/s", "nats"


@dataclass(frozen=True)
class Figure:
    """What one library showed in one cell of a table.

    Attributes:
        task: Heading of the table.
        library: Row.
        call: Column.
        unit: Of the values.
        values: One for each round; none where the library cannot.
        reason: Why it cannot.
        note: How it differs from the others.
    """

    task: str
    library: str
    call: str
    unit: str = MILLISECONDS
    values: Sequence[float] = ()
    reason: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile; the value itself of a single round."""
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def record(self, figures: Iterable[Figure]) -> dict[str, Any]:
        """Return what is kept of it; ``figures`` are those of the same run."""
        result: dict[str, Any] = {"task": self.task, "library": self.library, "call": self.call}
        if not self.values:
            return {**result, "cannot": self.reason}
        low, high = self.quartiles
        return {
            **result,
            "unit": self.unit,
            "median": _short(self.median),
            "quartiles": [_short(low), _short(high)],
            "least": _short(min(self.values)),
            "rounds": len(self.values),
            "to_fastest_peer": _short(ratio(self, figures)),
            **({"note": self.note} if self.note else {}),
        }


def ratio(figure: Figure, figures: Iterable[Figure]) -> float | None:
    """Return how many times the fastest peer's median a figure is; None where no peer has one."""
    same = [
        other.median
        for other in figures
        if other.values and other.library in PEERS and (other.task, other.call) == (figure.task, figure.call)
    ]
    return figure.median / min(same) if same and figure.values else None


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
