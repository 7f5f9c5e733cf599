"""What a fitted flow knows of its table: names, supports and steps of the columns."""

from __future__ import annotations

import math
from collections import Counter
from ctypes import c_float
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

KINDS = ("number", "category", "boolean", "date", "datetime", "time", "duration")
"""What the values of a column may be. Dates are days, times and durations seconds, datetimes seconds since 1970."""

TEMPORAL = KINDS[3:]
TRUTHS = ("false", "true")
_EPSILON_SINGLE = 2.0**-23


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSchema:
    """One column.

    Attributes:
        name: The column's name in the table.
        low: Lower end of the support, in the column's units; None: unbounded below.
        high: Upper end of the support; None: unbounded above.
        periodic: The support is a circle, ``[low, high)`` with its ends joined; needs both ends.
        step: Spacing of the values of a discrete column (1 for integers): a value ``x`` stands for the cell
            ``[x, x + step)``. None: the column is continuous.
        kind: One of ``KINDS``. A category or boolean is seen by a flow as the place of its label in ``categories``,
            counted from 0; all else is a number.
        categories: The labels that a category may have, in order.
        missing: Whether gaps are values, with a probability. A flow sees a gap as NaN.
        atoms: Values of a continuous column that have a probability of their own, such as 0 where many rows are 0.
        tails: Whether heavy tails are drawn in; None: as is found in the data.
        timezone: That of the datetimes; None: they have none.

    Raises:
        ValueError: Bounds not finite or not in order, a circle without both ends, a step that is not positive, an
            unknown kind, or fields that do not go together.

    Example:
        >>> ColumnSchema(name="angle", low=0.0, high=360.0, periodic=True).bounded
        True
        >>> ColumnSchema(name="colour", kind="category", categories=("blue", "red")).labelled
        True
    """

    name: str
    low: float | None = None
    high: float | None = None
    periodic: bool = False
    step: float | None = None
    kind: str = "number"
    categories: tuple[str, ...] = ()
    missing: bool = False
    atoms: tuple[float, ...] = ()
    tails: bool | None = None
    timezone: str | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for label, value in (("low", self.low), ("high", self.high)):
            if value is not None and not math.isfinite(value):
                self._refuse(f"{label} must be finite, got {value}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            self._refuse(f"low must be below high, got {self.low} and {self.high}")
        if self.periodic and (self.low is None or self.high is None):
            self._refuse("a periodic column needs low and high")
        if self.step is not None and not (self.step > 0 and math.isfinite(self.step)):
            self._refuse(f"step must be positive and finite, got {self.step}")
        if self.step is not None and self.periodic:
            self._refuse("a periodic column cannot be discrete")
        if self.kind not in KINDS:
            self._refuse(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.timezone is not None and self.kind != "datetime":
            self._refuse(f"only datetimes have a timezone, and kind is {self.kind!r}")
        self._check_labels()
        self._check_atoms()

    def _check_labels(self) -> None:
        if not self.labelled:
            if self.categories:
                self._refuse(f"only a category has categories, and kind is {self.kind!r}")
            return
        numeric = [name for name in ("low", "high", "step", "tails") if getattr(self, name) is not None]
        numeric += ["periodic"] * self.periodic + ["atoms"] * bool(self.atoms)
        if numeric:
            self._refuse(f"a {self.kind} has no {numeric[0]}")
        if self.kind == "boolean" and self.categories not in ((), TRUTHS):
            self._refuse(f"a boolean has the categories {TRUTHS}, got {self.categories}")
        if self.kind == "category" and not self.categories:
            self._refuse("a category needs categories, the labels that it may have")
        doubles = [label for label, times in Counter(self.categories).items() if times > 1]
        if doubles:
            self._refuse(f"categories: each label may stand once, got {doubles[0]!r} twice")

    def _check_atoms(self) -> None:
        if self.atoms and (self.step is not None or self.periodic):
            self._refuse("atoms are for a continuous column that is no circle")
        if not all(map(math.isfinite, self.atoms)) or len(set(self.atoms)) < len(self.atoms):
            self._refuse(f"atoms must be finite and differ, got {self.atoms}")

    def _refuse(self, problem: str) -> NoReturn:
        raise ValueError(f"column {self.name!r}: {problem}")

    @property
    def bounded(self) -> bool:
        """Whether the support ends somewhere."""
        return self.low is not None or self.high is not None

    @property
    def integer(self) -> bool:
        """Whether the values are whole numbers."""
        return self.step is not None and self.step == round(self.step)

    @property
    def labelled(self) -> bool:
        """Whether the values are labels: categories or truth values."""
        return self.kind in ("category", "boolean")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a category or boolean, in the order of their codes; none for a number."""
        return TRUTHS if self.kind == "boolean" else self.categories

    @property
    def single_atoms(self) -> tuple[float, ...]:
        """The 32-bit float nearest to each atom, which is that atom; the atom, where that is another or none is near.

        Example:
            >>> ColumnSchema(name="a", atoms=(0.5, 0.1, 1e300)).single_atoms
            (0.5, 0.10000000149011612, 1e+300)
        """
        nearest = [(atom, c_float(atom).value) for atom in self.atoms]
        return tuple(
            single if abs(single - atom) <= _EPSILON_SINGLE * abs(atom) and single not in self.atoms else atom
            for atom, single in nearest
        )

    @property
    def mixed(self) -> bool:
        """Whether the column is neither purely continuous nor a grid: it has labels, gaps or atoms."""
        return self.labelled or self.missing or bool(self.atoms)


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
    def mixed(self) -> bool:
        """Whether some column has labels, gaps or atoms, so that the density is no bijection's."""
        return any(c.mixed for c in (*self.columns, *self.context))

    @property
    def dequantised(self) -> tuple[str, ...]:
        """Names of the modelled columns whose values lie on a grid."""
        return tuple(c.name for c in self.columns if c.step is not None)
