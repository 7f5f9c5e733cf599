"""The factors of a mixed density: what a network's outputs say of one column after the other."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch
from torch import Tensor, nn

from ..configs import ColumnSchema
from .columns import CODE, HIGHEST, LOWEST, MISSING, VALUE, WIDTH
from .layers import spline_map

_LOG_CIRCLE = log(2 * pi)
_LOG_NORMAL = 0.5 * log(2 * pi)


class ColumnInputs(nn.Module):
    """What a network sees of the columns: numbers in standard units, angles as cosine and sine, choices as flags.

    Args:
        columns: The schemas of the columns.

    Attributes:
        elements: Which column each input belongs to.

    Example:
        >>> inputs = ColumnInputs([ColumnSchema(name="a"), ColumnSchema(name="c", kind="boolean")])
        >>> inputs.elements
        [0, 1, 1]
    """

    flag_columns: Tensor
    flag_codes: Tensor
    lines: Tensor
    circles: Tensor

    def __init__(self, columns: Sequence[ColumnSchema]) -> None:
        super().__init__()
        self._columns = tuple(columns)
        lines = [j for j, c in enumerate(columns) if not c.labelled and not c.periodic]
        circles = [j for j, c in enumerate(columns) if c.periodic]
        flags = [(j, code) for j, c in enumerate(columns) for code in _codes(c)]
        for name, places in (("lines", lines), ("circles", circles)):
            self.register_buffer(name, torch.tensor(places, dtype=torch.long), persistent=False)
        self.register_buffer(
            "flag_columns", torch.tensor([j for j, _ in flags], dtype=torch.long), persistent=False
        )
        self.register_buffer("flag_codes", torch.tensor([code for _, code in flags]), persistent=False)
        self.elements = [*lines, *circles, *circles, *(j for j, _ in flags)]

    def forward(self, z: Tensor) -> Tensor:
        """Return the inputs ``(*batch, len(elements))`` of channels ``(*batch, D, 3)``."""
        middle = z[..., VALUE] + 0.5 * z[..., WIDTH]
        angles = middle[..., self.circles]
        codes = z[..., self.flag_columns, CODE]
        # A code that is no number stays so: nothing has a density given what cannot be.
        flags = (codes == self.flag_codes).to(z).masked_fill(codes.isnan(), torch.nan)
        return torch.cat([middle[..., self.lines], angles.cos(), angles.sin(), flags], -1)

    def alone(self, j: int) -> ColumnInputs:
        """Return the inputs of one column, in the order in which they stand among all."""
        return ColumnInputs([self._columns[j]])


class ColumnFactors(nn.Module):
    r"""The conditional law of each column, from the outputs of a network that sees the columns before it.

    A column first chooses, by a softmax: one of its labels, or a number of its own or one of its atoms; or a gap. A
    number :math:`v` that is no atom then has, with a monotone spline :math:`s` and standard normal :math:`\Phi`,

    - on the line the density :math:`\varphi(s(v))\, s'(v)`;
    - on the circle the density :math:`s'(v) / 2\pi`;
    - on a grid, where it stands for the cell :math:`[v, v + w)`, the probability :math:`\Phi(s(v + w)) - \Phi(s(v))`,
      in which the cells at the ends of a support reach to infinity.

    Args:
        columns: The schemas of the columns.
        bins: Bins of the splines.
        bound: Half the width of the interval that they bend.

    Attributes:
        elements: Which column each output belongs to.

    References:
        Durkan et al., Neural Spline Flows, 2019, eq. 4-8. https://arxiv.org/abs/1906.04032
        Salimans et al., PixelCNN++, 2017, section 2.1 (cells). https://arxiv.org/abs/1701.05517

    Example:
        >>> factors = ColumnFactors([ColumnSchema(name="c", kind="boolean")], bins=4, bound=5.0)
        >>> z = torch.tensor([[[0.0, 0.0, 1.0]]])
        >>> round(factors.log_prob(z, torch.zeros(1, 2)).exp().item(), 3)
        0.5
    """

    def __init__(self, columns: Sequence[ColumnSchema], *, bins: int, bound: float) -> None:
        super().__init__()
        self._columns, self._bins, self._bound = tuple(columns), bins, bound
        self.maps = nn.ModuleDict()
        self._places: dict[str, list[int]] = {}
        self.elements: list[int] = []
        self._sizes: list[int] = []
        for law in ("line", "circle", "cell"):
            places = [j for j, column in enumerate(columns) if _law(column) == law]
            if places:
                periodic = range(len(places)) if law == "circle" else ()
                spline = spline_map(range(len(places)), bins=bins, bound=bound, periodic=periodic)
                self.maps[law], self._places[law] = spline, places
                self.elements += [j for j in places for _ in range(spline.parameters_each)]
                self._sizes.append(len(places) * spline.parameters_each)
        # Of the columns that choose: their place, and their number of choices.
        self._choices = [(j, len(_choices(c))) for j, c in enumerate(columns) if len(_choices(c)) > 1]
        self.elements += [j for j, count in self._choices for _ in range(count)]
        self._sizes.append(sum(count for _, count in self._choices))

    def log_prob(self, z: Tensor, outputs: Tensor) -> Tensor:
        """Return the log-probability of rows given as channels ``(*batch, D, 3)``, of the batch shape."""
        *numbers, choices = outputs.split(self._sizes, -1)
        total = z.new_zeros(z.shape[:-2])
        for (law, places), parameters in zip(self._places.items(), numbers, strict=True):
            channels = z[..., places, :]
            logs = self._logs(law, channels, parameters.unflatten(-1, (len(places), -1)))
            code = channels[..., CODE]
            counted = code != MISSING if law == "cell" else code == 0
            total = total + logs.where(counted, 0.0).sum(-1)
        for (j, count), logits in zip(
            self._choices, choices.split([count for _, count in self._choices], -1), strict=True
        ):
            chosen = self._chosen(z[..., j, CODE], count, self._columns[j])
            total = total + torch.log_softmax(logits, -1).gather(-1, chosen[..., None])[..., 0]
        return total

    def _logs(self, law: str, z: Tensor, parameters: Tensor) -> Tensor:
        """Return the log-densities, or log-probabilities, of the numbers of the columns under one law."""
        spline = self.maps[law]
        if law == "cell":
            # In double precision, since the ends of a cell may be close together.
            lower = z[..., VALUE].double()
            ends = torch.stack([lower, lower + z[..., WIDTH].double()])
            below, above = spline(ends, parameters.double())[0]
            below = below.masked_fill(z[..., CODE] == LOWEST, -torch.inf)
            return log_normal_between(below, above.masked_fill(z[..., CODE] == HIGHEST, torch.inf)).to(z)
        at, log_slope = spline(z[..., VALUE], parameters)
        density = -_LOG_CIRCLE if law == "circle" else -0.5 * at.square() - _LOG_NORMAL
        logs: Tensor = density + log_slope
        return logs

    def _chosen(self, code: Tensor, count: int, column: ColumnSchema) -> Tensor:
        """Return which of its choices a column has made; the last is a gap, where there are any."""
        place = code.nan_to_num()
        if column.step is not None:
            place = torch.zeros_like(code)  # one choice for all cells
        return torch.where(code == MISSING, float(count - 1), place).long().clamp(0, count - 1)

    def alone(self, j: int) -> ColumnFactors:
        """Return the factor of one column, which takes its outputs alone."""
        return ColumnFactors([self._columns[j]], bins=self._bins, bound=self._bound)

    def draw(self, outputs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw the values of an only column from its outputs ``(n, ...)``.

        Returns:
            Numbers in standard units, those of a grid anywhere in their cell, and codes, ``(n,)`` each; a code of a
            grid only says whether there is a gap.
        """
        (column,), rows = self._columns, len(outputs)
        *numbers, logits = outputs.split(self._sizes, -1)
        value, code = outputs.new_zeros(rows), outputs.new_zeros(rows)
        if self._choices:
            chances = torch.softmax(logits.double(), -1)
            chosen = torch.multinomial(chances, 1, generator=generator)[:, 0]
            gap = column.missing & (chosen == logits.shape[-1] - 1)
            code = chosen.to(outputs).masked_fill(gap, MISSING)
        for law, parameters in zip(self._places, numbers, strict=True):
            if law == "circle":
                latent = (2.0 * outputs.new_empty(rows).uniform_(generator=generator) - 1.0) * pi
            else:
                latent = outputs.new_empty(rows).normal_(generator=generator)
            value = self.maps[law].inverse(latent[:, None], parameters[:, None])[0][:, 0]  # type: ignore[operator]
        return value, code


def log_normal_between(lower: Tensor, upper: Tensor) -> Tensor:
    r"""Return :math:`\log(\Phi(b) - \Phi(a))` for :math:`a < b`, without cancellation in either tail.

    Example:
        >>> log_normal_between(torch.tensor([3.0, -torch.inf]), torch.tensor([torch.inf, 0.0]))
        tensor([-6.6077, -0.6931])
    """
    # Of an interval in the upper half the mirror image, whose probabilities do not round to 1.
    flip = lower + upper > 0
    a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    open_below, open_above = a == -torch.inf, b == torch.inf
    log_b = torch.special.log_ndtr(b.masked_fill(open_above, 0.0)).masked_fill(open_above, 0.0)
    log_a = torch.special.log_ndtr(a.masked_fill(open_below, -1.0))
    # Ends that rounding has made equal leave a density of nothing, and not NaN; so do those whose logs overflow.
    share = torch.expm1((log_a - log_b).clamp(max=-torch.finfo(a.dtype).eps)).neg().log()
    between: Tensor = log_b + share.masked_fill(open_below | (log_b == -torch.inf), 0.0)
    return between


def _law(column: ColumnSchema) -> str | None:
    """Return what law the numbers of a column follow; None for labels."""
    if column.labelled:
        return None
    return "cell" if column.step is not None else "circle" if column.periodic else "line"


def _choices(column: ColumnSchema) -> list[float]:
    """Return the codes that a column chooses from; those of cells count as one."""
    if column.labelled:
        codes = [float(k) for k in range(len(column.labels))]
    else:
        codes = [float(k) for k in range(1 + len(column.atoms))]
    return [*codes, MISSING] if column.missing else codes


def _codes(column: ColumnSchema) -> list[float]:
    """Return the codes that a network gets a flag for."""
    return [code for code in _choices(column) if column.labelled or code != 0]
