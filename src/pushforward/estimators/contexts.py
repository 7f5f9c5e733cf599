"""Columns of any kind as the numbers that a conditional flow takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..configs import ColumnSchema


@dataclass(frozen=True, slots=True)
class ContextCode:
    """Labels one-hot, gaps filled beside a column that tells them, numbers as they are.

    Attributes:
        columns: The columns.
        fills: What stands in the gaps of each: the mean of its numbers; 0 where it has labels.

    Example:
        >>> label = ColumnSchema(name="c", kind="category", categories=("a", "b"))
        >>> x = torch.tensor([[1.0, 4.0], [0.0, torch.nan]])
        >>> code = ContextCode.fitted((label, ColumnSchema(name="n", missing=True)), x)
        >>> [column.name for column in code.coded], code(x).tolist()
        (['c=a', 'c=b', 'n', 'n is missing'], [[0.0, 1.0, 4.0, 0.0], [1.0, 0.0, 4.0, 1.0]])
    """

    columns: tuple[ColumnSchema, ...]
    fills: tuple[float, ...]

    @classmethod
    def fitted(cls, columns: tuple[ColumnSchema, ...], x: Tensor) -> Self:
        """Return the code of rows ``(n, columns)``, with the places of labels and NaN for gaps."""
        means = x.nanmean(0).tolist()
        return cls(
            columns, tuple(0.0 if c.labelled else mean for c, mean in zip(columns, means, strict=True))
        )

    @property
    def coded(self) -> tuple[ColumnSchema, ...]:
        """The schemas of the columns of numbers, with a ``_`` behind a new name that another column has."""
        found: list[ColumnSchema] = []
        taken = {column.name for column in self.columns}

        def add(name: str) -> None:
            while name in taken:
                name = f"{name}_"
            taken.add(name)
            found.append(ColumnSchema(name=name))

        for column in self.columns:
            if column.labelled:
                for label in column.labels:
                    add(f"{column.name}={label}")
            else:
                found.append(replace(column, missing=False))
            if column.missing:
                add(f"{column.name} is missing")
        return tuple(found)

    def __call__(self, x: Tensor) -> Tensor:
        """Return rows ``(n, columns)`` as numbers, ``(n, coded)``."""
        parts: list[Tensor] = []
        for column, fill, values in zip(self.columns, self.fills, x.split(1, dim=1), strict=True):
            if column.labelled:
                parts.append((values == torch.arange(len(column.labels))).to(x))
            else:
                parts.append(values.where(~values.isnan(), fill))
            if column.missing:
                parts.append(values.isnan().to(x))
        return torch.cat(parts, 1)
