"""The rows of a mixed table as numbers that a network can take, column by column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from ..configs import ColumnSchema
from ..surjections import Dequantise
from .preprocess import DataMap, column_preprocess

VALUE, WIDTH, CODE = range(3)
"""Channels of a column: its number in standard units, the width of its cell, and which of its choices it is."""
CHANNELS = 3
MISSING = -1.0
"""Code of a gap."""
REGULAR, LOWEST, HIGHEST = 0.0, 1.0, 2.0
"""Codes of a cell: one like others, or the one that everything below, or above, the support's end counts to."""


class LabelCode(nn.Module):
    """The code of a category or boolean: the place of its label, as it stands."""

    def __init__(self, column: ColumnSchema) -> None:
        super().__init__()
        self.count = len(column.labels)

    def fit(self, x: Tensor) -> None:
        """Do nothing: labels have no units."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the channels ``(n, 3)`` of codes ``(n,)``, and 0 where they are possible, else -inf."""
        z = x.new_zeros((*x.shape, CHANNELS))
        possible = (x >= 0) & (x < self.count) & (x == x.floor())
        z[..., CODE] = x.where(possible | x.isnan(), 0.0)
        return z, x.new_zeros(x.shape).where(possible | x.isnan(), -torch.inf)

    def decode(self, value: Tensor, code: Tensor) -> Tensor:
        """Return the codes."""
        return code


class DensityCode(nn.Module):
    """A continuous column: in standard units, with a code of its own for each atom."""

    def __init__(self, column: ColumnSchema) -> None:
        super().__init__()
        self.atoms = column.atoms
        self._singles = column.single_atoms
        self.map = column_preprocess([column])

    def _code(self, x: Tensor) -> Tensor:
        """Return which atom each value is, counted from 1; 0 where it is none.

        The 32-bit float nearest to an atom is that atom, as in `data.to_matrix`: rows may come in 32 bits, or have
        passed through them.
        """
        code = torch.zeros_like(x)
        for k, (atom, single) in enumerate(zip(self.atoms, self._singles, strict=True), 1):
            code = torch.where((x == atom) | (x == single), float(k), code)
        return code

    def fit(self, x: Tensor) -> None:
        """Fit the standard units to values ``(n,)`` that are no gaps."""
        regular = x[self._code(x) == 0]
        if len(regular):
            self.map.initialize(regular[:, None])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the channels ``(n, 3)`` of values ``(n,)``, and the log-derivative of their units."""
        code = self._code(x)
        value, log_abs_det = self.map(x[..., None], x)
        z = x.new_zeros((*x.shape, CHANNELS))
        z[..., VALUE] = torch.where(code > 0, 0.0, value[..., 0])
        z[..., CODE] = code
        return z, torch.where(code > 0, 0.0, log_abs_det)

    def decode(self, value: Tensor, code: Tensor) -> Tensor:
        """Return the values."""
        x: Tensor = self.map.inverse(value[..., None])[0][..., 0]
        for k, atom in enumerate(self.atoms, 1):
            x = x.masked_fill(code == k, atom)
        return x


class CellCode(nn.Module):
    """A column on a grid: the lower end and the width of the cell ``[x, x + step)`` in standard units."""

    def __init__(self, column: ColumnSchema) -> None:
        super().__init__()
        assert column.step is not None
        self.step = column.step
        # Ends between two values of the grid mean the next one within.
        ratio = Fraction(repr(column.step))
        within = 1e-9
        self.low = None if column.low is None else float(math.ceil(column.low / ratio - within) * ratio)
        self.high = None if column.high is None else float(math.floor(column.high / ratio + within) * ratio)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"column {column.name!r}: no multiple of {column.step:g} lies within its ends")
        self.grid = Dequantise([column.step])
        # Cells end the support by themselves.
        self.map = column_preprocess([replace(column, low=None, high=None)])

    def fit(self, x: Tensor) -> None:
        """Fit the standard units to values ``(n,)`` that are no gaps."""
        self.map.initialize(x[:, None] + 0.5 * self.step)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the channels ``(n, 3)`` of values ``(n,)``, and minus the logarithm of the step, or -inf."""
        ends = torch.stack([x, x + self.step], -1)
        lower, upper = self.map(ends[..., None], x)[0][..., 0].unbind(-1)
        z = torch.stack([lower, upper - lower, torch.full_like(x, REGULAR)], -1)
        outside = torch.zeros_like(x, dtype=torch.bool)
        # Half a step of room, so that a decimal grid's rounding matters to no comparison.
        if self.low is not None:
            z[..., CODE] = torch.where(x < self.low + 0.5 * self.step, LOWEST, z[..., CODE])
            outside |= x < self.low - 0.5 * self.step
        if self.high is not None:
            z[..., CODE] = torch.where(x > self.high - 0.5 * self.step, HIGHEST, z[..., CODE])
            outside |= x > self.high + 0.5 * self.step
        # In the units of the data, so that the density of a fine grid is that of the continuous column.
        return z, torch.full_like(x, -math.log(self.step)).where(~outside, -torch.inf)

    def decode(self, value: Tensor, code: Tensor) -> Tensor:
        """Return the grid's values below points in standard units."""
        x: Tensor = self.grid.decode(self.map.inverse(value[..., None])[0])[..., 0]
        return x.clamp(self.low, self.high) if self.low is not None or self.high is not None else x


ColumnCode = LabelCode | DensityCode | CellCode


class MixedPreprocess(DataMap):
    r"""The fixed map from the rows of a mixed table to what its density is computed from, column by column.

    A row ``x (D,)`` holds numbers, places of labels counted from 0, and NaN for gaps. Each column becomes three
    numbers: a value in standard units, the width of its cell where it lies on a grid, and a code that says which
    label, which atom, or that it is a gap.

    The log-weight is :math:`\sum_j \log |u_j'(x_j)|` over the numbers that have a density, less :math:`\sum_j \log
    \delta_j` over those on a grid of step :math:`\delta_j`; it is :math:`-\infty` for
    rows that cannot be, and NaN where there is a gap in a column that has none.

    Args:
        columns: The schemas of the columns.

    Shapes:
        ``x (*batch, D)`` -> ``z (*batch, D, 3)``, log-weight ``batch``.

    Example:
        >>> columns = [ColumnSchema(name="n", step=1.0), ColumnSchema(name="c", kind="boolean", missing=True)]
        >>> z, log_weight = MixedPreprocess(columns)(torch.tensor([[3.0, torch.nan]]), torch.zeros(()))
        >>> z[0, :, CODE], log_weight
        (tensor([ 0., -1.]), tensor([0.]))
    """

    def __init__(self, columns: Sequence[ColumnSchema]) -> None:
        super().__init__()
        self._gaps = [column.missing for column in columns]
        self.codes = nn.ModuleList(_code(column) for column in columns)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return (len(self.codes),)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the channels of a row."""
        return (len(self.codes), CHANNELS)

    def initialize(self, x: Tensor) -> None:
        """Fit the units of the columns to rows ``(n, D)``."""
        for code, values in zip(self.codes, x.to("cpu", torch.float64).unbind(-1), strict=True):
            there = values[~values.isnan()]
            if len(there):
                code.fit(there)  # type: ignore[operator]

    def forward(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the channels of rows, and the log-weight, with the dtype and device of ``like``."""
        x = x.to("cpu", torch.float64)
        z = torch.empty((*x.shape, CHANNELS), dtype=like.dtype)
        total = x.new_zeros(x.shape[:-1])
        for j in range(len(self.codes)):
            channels, log_weight = self.column(j, x[..., j])
            z[..., j, :] = channels
            total += log_weight
        return z.to(like.device), total.to(like)

    def column(self, j: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the channels ``(n, 3)`` of values ``(n,)`` of one column, float64, and their log-weights."""
        code: ColumnCode = self.codes[j]  # type: ignore[assignment]
        channels, log_weight = code.encode(x)
        if self._gaps[j]:
            gap = x.isnan()
            hole = channels.new_tensor([0.0, 0.0, MISSING])
            channels = torch.where(gap[..., None], hole, channels)
            return channels, log_weight.masked_fill(gap, 0.0)
        return channels, log_weight.masked_fill(x.isnan(), torch.nan)

    def value(self, j: int, value: Tensor, code: Tensor) -> Tensor:
        """Return the values ``(n,)`` of one column, float64, from numbers in standard units and codes."""
        own: ColumnCode = self.codes[j]  # type: ignore[assignment]
        x = own.decode(value.to("cpu", torch.float64), code.to("cpu", torch.float64))
        return x.masked_fill(code.cpu() == MISSING, torch.nan)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows ``(*batch, D)`` of channels, float64 on the CPU, and minus the log-weight of ``forward``."""
        x = self.decode(z)
        return x, -self.forward(x, x)[1]

    def decode(self, z: Tensor) -> Tensor:
        """Return the rows ``(*batch, D)`` of channels, float64 on the CPU; their log-weight would cost an encoding."""
        middle = z[..., VALUE] + 0.5 * z[..., WIDTH]
        columns = [self.value(j, middle[..., j], z[..., j, CODE]) for j in range(len(self.codes))]
        return torch.stack(columns, -1)


def _code(column: ColumnSchema) -> ColumnCode:
    if column.labelled:
        return LabelCode(column)
    return DensityCode(column) if column.step is None else CellCode(column)
