"""How a table is read for fitting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Roles and supports of the columns of a table.

    Attributes:
        condition: Columns that the density of the others is conditioned on.
        drop: Columns to leave out.
        weights: Column with the weight of each row.
        group: Column whose equal values stay together in one split.
        bounds: Ends of the support of columns, None for an open end.
        periodic: Ends of the circle of columns that are angles, hours, ...
    """

    condition: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    weights: str | None = None
    group: str | None = None
    bounds: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    periodic: dict[str, tuple[float, float]] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
