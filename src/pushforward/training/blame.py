"""Which transform, and which row, first gave a number that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..flows import Flow
from ..transforms import Transform
from ..transforms.walk import named, walk
from .memory import is_out_of_memory
from .points import Batch, Points


@dataclass(frozen=True, slots=True)
class Blame:
    """Where a computation left the finite numbers.

    Attributes:
        what: What is not finite: ``"value"``, ``"log-determinant"``, ``"log-density"`` or ``"gradient"``.
        part: The part of the flow that gave it, in words.
        row: The row of the batch, counted from 0; None where no single row does it.
    """

    what: str
    part: str
    row: int | None


def find_nonfinite(
    flow: Flow, z: Tensor, context: Tensor | None = None, weights: Tensor | None = None
) -> Blame | None:
    """Find where the loss of a batch, or its gradient, leaves the finite numbers.

    The forward pass is looked at from the first transform on, the gradient from the base back.

    Args:
        flow: The flow.
        z: Preprocessed points, ``(n, *event)``.
        context: Preprocessed contexts, ``(n, *context)``.
        weights: Weights of the rows, ``(n,)``.

    Returns:
        The first place, or None where all is finite.

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Chain, Elementwise, Inverse, Softplus
        >>> flow = Flow(Chain([Elementwise(Softplus(), (1,)), Inverse(Elementwise(Softplus(), (1,)))]), DiagonalNormal((1,)))
        >>> find_nonfinite(flow, torch.tensor([[0.5], [-1e4]]))
        Blame(what='value', part='transform.transforms[1] (Inverse of Elementwise)', row=1)
    """  # noqa: E501
    return _forward_blame(flow, z, context) or _gradient_blame(flow, z, context, weights)


def origin_in_words(flow: Flow, pieces: Iterable[Batch], points: Points) -> str:
    """Say where a loss or gradient of a batch, which is computed in pieces, left the finite numbers.

    Args:
        flow: The flow.
        pieces: The pieces.
        points: The points of which the batch has some.
    """
    try:
        for piece in pieces:
            found = find_nonfinite(flow, piece.z, piece.context, piece.weights)
            if found is not None:
                row = None if found.row is None else points.row(int(piece.places[found.row]))
                where = "" if row is None else f", at row {row}"
                return f"It begins with the {found.what} of {found.part}{where}"
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "Where it begins could not be looked for, for lack of memory"
    return "Every part of it is: only their sum overflows"


def _forward_blame(flow: Flow, z: Tensor, context: Tensor | None) -> Blame | None:
    with torch.no_grad():
        if (row := _first_bad(z)) is not None:
            return Blame("value", "the preprocess", row)
        context = flow.embed(context)
        if context is not None and (row := _first_bad(context)) is not None:
            return Blame("value", "the embedding of the context", row)
        for path, part in walk(flow.transform):
            z, log_abs_det = _mapped(part, z, context)
            for what, value in (("value", z), ("log-determinant", log_abs_det)):
                if (row := _first_bad(value)) is not None:
                    return Blame(what, named(path, part), row)
        row = _first_bad(flow.base.log_prob(z, context))
        return None if row is None else Blame("log-density", f"the base ({type(flow.base).__name__})", row)


def _mapped(part: Transform, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Map points, with one estimate of the log-determinant where that is not exact."""
    if part.exact:
        return part.forward(z, context)
    solution = part.solve(z, context, generator=torch.Generator(z.device).manual_seed(0))
    return solution.y, solution.log_abs_det


def _gradient_blame(flow: Flow, z: Tensor, context: Tensor | None, weights: Tensor | None) -> Blame | None:
    place = _gradient_place(flow, z, context, weights)
    if place is None:
        return None

    def bad(rows: slice) -> bool:
        part = (t if t is None else t[rows] for t in (z, context, weights))
        return _gradient_place(flow, *part) is not None  # type: ignore[arg-type]

    return Blame("gradient", place, _bisect(bad, len(z)))


def _gradient_place(flow: Flow, z: Tensor, context: Tensor | None, weights: Tensor | None) -> str | None:
    """Return the last part, seen from the input, whose gradient is not finite while that of its output is."""
    stages = [z.detach().requires_grad_()]
    embedded = flow.embed(context)
    total = stages[0].new_zeros(len(z))
    parts = walk(flow.transform)
    for _, part in parts:
        y, log_abs_det = _mapped(part, stages[-1], embedded)
        stages.append(y)
        total = total + log_abs_det
    log_prob = flow.base.log_prob(stages[-1], embedded) + total
    share = log_prob.new_full((len(z),), 1 / len(z)) if weights is None else weights / weights.sum()
    modules: list[nn.Module] = [*(part for _, part in parts), flow.base]
    owners = [(i, p) for i, module in enumerate(modules) for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        -(share * log_prob).sum(), [*stages, *(p for _, p in owners)], allow_unused=True
    )
    worst = -1
    for i, gradient in enumerate(gradients[: len(stages)]):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            worst = max(worst, i)
    for (i, _), gradient in zip(owners, gradients[len(stages) :], strict=True):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            worst = max(worst, i)
    if worst < 0:
        return None
    return f"the base ({type(flow.base).__name__})" if worst == len(parts) else named(*parts[worst])


def _bisect(bad: Callable[[slice], bool], rows: int) -> int | None:
    """Return a row that alone is bad, or None where only several together are."""
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        if bad(slice(low, middle)):
            high = middle
        elif bad(slice(middle, high)):
            low = middle
        else:
            return None
    return low


def _first_bad(values: Tensor) -> int | None:
    bad = ~torch.isfinite(values.reshape(len(values), -1)).all(1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None
