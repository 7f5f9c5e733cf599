"""What is given to the rows that are drawn, and the draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArtifactError
from .files import check_table
from .options import UsageError, Value, closest
from .text import listing

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from ..artifact import FittedFlow

CANDIDATES = 64
"""From which a draw is chosen, where given columns do not come first."""

_CHUNK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Given:
    """Conditions, one for each row to draw: as the flow takes them, and as they stand in the output."""

    matrix: NDArray[np.float64]
    frame: pl.DataFrame


def check_conditions(
    fitted: FittedFlow, model: Path, context: Path | None, fixed: Mapping[str, Value]
) -> None:
    """Check that what is given is what the flow is conditioned on, or a part of what a mixed density models.

    Raises:
        UsageError: It is not.
    """
    from ..flows import MixedFlow

    wanted = fitted.table.context_names
    if isinstance(fitted.flow, MixedFlow):
        known = (*fitted.table.names, *wanted)
        for name in fixed:
            if name not in known:
                raise UsageError(
                    f"--set: {model} has no column {name!r}; it has {listing(known, 30)}.{closest(name, known)}"
                )
        fixed = {name: value for name, value in fixed.items() if name not in fitted.table.names}
        if not wanted and not fixed and context is None:
            return
    if not wanted:
        if context is not None or fixed:
            raise UsageError(f"{model}: is not conditional, so there is nothing for --context or --set to do")
        return
    if context is None and not fixed:
        options = " ".join(f"--set {name}=..." for name in wanted)
        raise UsageError(
            f"{model}: is the density of {listing(fitted.table.names)} given {listing(wanted)}. "
            f"Give {options}, or --context TABLE"
        )
    if context is not None:
        check_table(context)
        return
    for name in fixed:
        if name not in wanted:
            raise UsageError(
                f"--set: {model} is not conditioned on {name!r}, but on {', '.join(map(repr, wanted))}."
                f"{closest(name, wanted)}"
            )
    missing = [name for name in wanted if name not in fixed]
    if missing:
        raise UsageError(f"--set: a value for {', '.join(map(repr, missing))} is missing")


def chunks_of(
    fitted: FittedFlow, each: int, context: Path | None, fixed: Mapping[str, Value]
) -> Iterator[tuple[int, Given | None]]:
    """Yield numbers of rows to draw, with their conditions where the model has any."""
    columns = fitted.table.context
    if not columns:
        for start in range(0, each, _CHUNK_ROWS):
            yield min(_CHUNK_ROWS, each - start), None
        return
    import numpy as np

    from ..data import iter_table, to_matrix

    names, first = [c.name for c in columns], 1
    frames = (
        iter([_frame_of({name: fixed[name] for name in names})])
        if context is None
        else iter_table(context, names, _CHUNK_ROWS)
    )
    for frame in frames:
        matrix = to_matrix(frame, columns, source=context, first_row=first)
        first += frame.height
        for start in range(0, frame.height * each, _CHUNK_ROWS):
            index = np.arange(start, min(start + _CHUNK_ROWS, frame.height * each)) // each
            yield len(index), Given(matrix[index], frame[index])


def check_drawn(fitted: FittedFlow, model: Path, x: Tensor, before: int) -> None:
    """Check that a draw is one: the inverse of a badly trained model can overflow.

    Raises:
        ArtifactError: It is not.
    """
    import torch

    gaps = torch.tensor([column.missing for column in fitted.table.columns])
    bad = (~x.isfinite() & ~(x.isnan() & gaps)).any(-1)
    if bool(bad.any()):
        raise ArtifactError(
            f"{model}: row {before + int(bad.nonzero()[0]) + 1} drawn from it is not finite, so its inverse overflows. "
            f"pushforward diagnose {model} shows where; fit again, perhaps with a smaller learning rate."
        )


def draw(
    fitted: FittedFlow,
    size: int,
    given: Given | None,
    fixed: Mapping[str, Value],
    *,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Tensor, float]:
    """Draw rows under their conditions, and given values of columns of a mixed density.

    Returns:
        The rows, and how many candidates counted for the one with the fewest; infinite where the draws are exact.
    """
    import torch

    from ..data import to_matrix
    from ..flows import MixedFlow
    from ..flows.mixed import refuse_temperature

    context = None if given is None else torch.from_numpy(given.matrix)
    known = [column.name in fixed for column in fitted.table.columns]
    if not isinstance(fitted.flow, MixedFlow) or not any(known):
        shape = (size,) if given is None else ()
        return fitted.flow.sample(shape, context, temperature=temperature, generator=generator), math.inf
    refuse_temperature(temperature)
    row = torch.zeros(len(known), dtype=torch.float64)
    for j, column in enumerate(fitted.table.columns):
        if known[j]:
            frame = _frame_of({column.name: fixed[column.name]})
            row[j] = float(to_matrix(frame, [column], source="--set")[0, 0])
    filled = fitted.flow.fill(
        row.expand(size, -1), torch.tensor(known), context, candidates=CANDIDATES, generator=generator
    )
    return filled.x, math.inf if filled.exact else float(filled.effective.min())


def _frame_of(values: Mapping[str, Value]) -> pl.DataFrame:
    """Return one row as a table; nothing is a gap."""
    import polars as pl

    return pl.DataFrame({name: [None if value == "" else value] for name, value in values.items()})
