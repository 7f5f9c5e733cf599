"""What a fitted flow knows of its table: names, supports and steps of the columns."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSchema:
    """One numeric column.

    Attributes:
        name: The column's name in the table.
        low: Lower end of the support, in the column's units; None: unbounded below.
        high: Upper end of the support; None: unbounded above.
        periodic: The support is a circle, ``[low, high)`` with its ends joined; needs both ends.
        step: Spacing of the values of a discrete column (1 for integers), which is dequantised: a value ``x``
            stands for the cell ``[x, x + step)``. None: the column is continuous.

    Raises:
        ValueError: Bounds not finite or not in order, a circle without both ends, a step that is not positive.

    Example:
        >>> ColumnSchema(name="angle", low=0.0, high=360.0, periodic=True).bounded
        True
    """

    name: str
    low: float | None = None
    high: float | None = None
    periodic: bool = False
    step: float | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for label, value in (("low", self.low), ("high", self.high)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"column {self.name!r}: {label} must be finite, got {value}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"column {self.name!r}: low must be below high, got {self.low} and {self.high}")
        if self.periodic and (self.low is None or self.high is None):
            raise ValueError(f"column {self.name!r}: a periodic column needs low and high")
        if self.step is not None and not (self.step > 0 and math.isfinite(self.step)):
            raise ValueError(f"column {self.name!r}: step must be positive and finite, got {self.step}")
        if self.step is not None and self.periodic:
            raise ValueError(f"column {self.name!r}: a periodic column cannot be discrete")

    @property
    def bounded(self) -> bool:
        """Whether the support ends somewhere."""
        return self.low is not None or self.high is not None

    @property
    def integer(self) -> bool:
        """Whether the values are whole numbers."""
        return self.step is not None and self.step == round(self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """The columns whose density is modelled, and those it is conditioned on, in the order the flow has them.

    Raises:
        ValueError: No column, or one name twice.
    """

    columns: tuple[ColumnSchema, ...]
    context: tuple[ColumnSchema, ...] = ()

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("columns: at least one column is needed, got none")
        names = [c.name for c in (*self.columns, *self.context)]
        doubles = sorted(name for name, times in Counter(names).items() if times > 1)
        if doubles:
            raise ValueError(f"columns: each name may stand once, got twice: {', '.join(doubles)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modelled columns."""
        return tuple(c.name for c in self.columns)

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the columns conditioned on."""
        return tuple(c.name for c in self.context)

    @property
    def dequantised(self) -> tuple[str, ...]:
        """Names of the modelled columns that are discrete."""
        return tuple(c.name for c in self.columns if c.step is not None)
