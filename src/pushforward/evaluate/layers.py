"""Every layer alone: its inverse, its log-determinants, and by how much it stretches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..transforms import Inverse, Transform
from ..transforms.walk import named
from .jacobians import jacobian, largest_singular_value
from .points import Space, space_of
from .verdict import FORMULA, Layer, Quantiles, Stretch

_MOST_DIFFERENTIATED = 32  # elements up to which both directions are differentiated
_ALONE = 4
AWAY = 1e4


@dataclass(frozen=True, slots=True)
class Linearised:
    """One direction of a layer at points.

    Attributes:
        matrix: Jacobians, ``(n, D, D)``.
        stretch: Their largest singular values, ``(n,)``.
        log_det: Logarithms of their determinants' sizes, ``(n,)``.
    """

    matrix: Tensor
    stretch: Tensor
    log_det: Tensor

    def at(self, chosen: Tensor) -> Linearised:
        """Return the same at some of the points."""
        return Linearised(self.matrix[chosen], self.stretch[chosen], self.log_det[chosen])


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """A layer with what the checks of the whole need of it.

    Attributes:
        layer: The summary.
        y: Points after it, float64.
        forward: Its forward map.
        inverse: Its inverse.
    """

    layer: Layer
    y: Tensor
    forward: Linearised
    inverse: Linearised


Course = tuple[str, bool]
"""The kind of points, and whether the way is back from latent to data."""


@dataclass(frozen=True, slots=True)
class Step:
    """One layer on the way.

    Attributes:
        layer: Its name.
        alone: By how much it stretches, for 99 % of the points.
        so_far: By how much the way up to here stretches one spread of what it starts from.
    """

    layer: str
    alone: float
    so_far: float


@dataclass(frozen=True, slots=True)
class Inside:
    """What the layers come to, one by one and together.

    Attributes:
        layers: Those of the preprocess, then those of the transform.
        stretches: Of the whole transform.
        log_det: Error of the whole's log-determinant, forward.
        log_det_inverse: The same of the inverse.
        courses: How rounding grows on the way from latent to data, and the other way.
        both_ways: Log-determinants of the whole's directions against each other, where Jacobians are too large.
    """

    layers: tuple[Layer, ...]
    stretches: tuple[Stretch, ...]
    log_det: Quantiles
    log_det_inverse: Quantiles
    courses: dict[Course, tuple[Step, ...]]
    both_ways: Quantiles | None = None


def check_layer(
    name: str, layer: Transform, x: Tensor, context: Tensor | None, *, near: Tensor, period: Tensor
) -> LayerCheck:
    r"""Check one layer in float64 at points that the layers before it give.

    The inverse must undo the forward map, and the forward map the inverse, up to ``FORMULA`` times the sizes of the
    points and what the Jacobians make of them; both log-determinants must be :math:`\log|\det J|` of autograd's
    Jacobian. Above 32 elements only the direction that is one pass is differentiated, and its matrix inverted for the
    other.

    Args:
        name: The layer's place.
        layer: The layer, float64.
        x: Points ``(n, *event)``.
        context: Their contexts.
        near: Which points are rows of data or samples, ``(n,)``.
        period: What each element counts modulo, ``(D,)``.
    """
    with torch.no_grad():
        y, log_det = layer(x, context)
        back, log_det_inverse = layer.inverse(y, context)
        again, _ = layer.forward(back, context)
    n = len(x)
    forward, inverse = _jacobians(layer, x, y, context)
    finite = forward.isfinite().flatten(1).all(1) & inverse.isfinite().flatten(1).all(1)
    finite &= y.flatten(1).isfinite().all(1)
    to_data, to_latent = largest_singular_value(inverse), largest_singular_value(forward)
    worst = 0.0
    unit_x, unit_y = spread(x), spread(y)
    out = largest_singular_value(forward * unit_x / unit_y[:, None]).clamp(min=1.0)
    home = largest_singular_value(inverse * unit_y / unit_x[:, None]).clamp(min=1.0)
    size_x, size_y = size(x, unit_x), size(y, unit_y)
    for there, here, unit, allowed in (
        (back, x, unit_x, size_x + home * (size_y + out * size_x)),
        (again, y, unit_y, size_y + out * (size_x + home * size_y)),
    ):
        worst = max(worst, error_in_units(difference(there, here, period) / unit, allowed, finite))
    errors, wrong = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.bool)
    determinants = []
    for matrix, got in ((forward, log_det), (inverse, log_det_inverse)):
        expected = torch.linalg.slogdet(matrix.where(finite[:, None, None], 1.0)).logabsdet
        determinants.append(expected)
        error = (got.expand(n) - expected).abs().nan_to_num(nan=torch.inf)
        # Autograd's own derivatives are rounded: of a saturated sigmoid it has as few digits as the inverse.
        rounding = 100 * torch.finfo(x.dtype).eps * (to_data + to_latent)
        allowed = _log_det_rounding(matrix, expected, finite) + rounding
        # Far out, and at the seam of a circle, a right formula has fewer digits; a wrong one is wrong by more.
        allowed = torch.where(near, allowed, AWAY * allowed)
        errors = torch.maximum(errors, error.where(finite, 0.0))
        wrong |= finite & (error > allowed)
    chosen = near & finite if bool((near & finite).any()) else finite
    return LayerCheck(
        Layer(
            name=named(name, layer),
            inverse=Quantiles.of(to_data[chosen]).high,
            forward=Quantiles.of(to_latent[chosen]).high,
            round_trip=worst,
            log_det=float(errors.max()) if n else 0.0,
            log_det_wrong=bool(wrong.any()),
            batch=sees_the_batch(layer, x, context, y, finite),
            non_finite=0,
            non_finite_away=0,
        ),
        y,
        Linearised(forward, to_latent, determinants[0]),
        Linearised(inverse, to_data, determinants[1]),
    )


def pass_through(
    layers: Sequence[tuple[str, Transform]], x: Tensor, context: Tensor | None, *, back: bool
) -> tuple[Tensor, list[int]]:
    """Return where points end, and for each layer how many go in finite and come out not finite.

    Args:
        layers: The layers, from data to latent.
        x: Points, or with ``back`` latent points.
        context: Their contexts.
        back: Go from latent to data.
    """
    counts = [0] * len(layers)
    order = range(len(layers) - 1, -1, -1) if back else range(len(layers))
    with torch.no_grad():
        for i in order:
            fine = x.flatten(1).isfinite().all(1)
            x, log_det = (layers[i][1].inverse if back else layers[i][1].forward)(x, context)
            good = x.flatten(1).isfinite().all(1) & log_det.isfinite()
            counts[i] = int((fine & ~good).sum())
    return x, counts


def first_to_lose(
    layers: Sequence[tuple[str, Transform]], x: Tensor, context: Tensor | None, space: Space
) -> int:
    """Return the layer up to which and back again the error of the points ``x`` grows by the largest factor."""
    start, done = x, []
    error = float(torch.finfo(x.dtype).eps)
    worst, blamed = 0.0, 0
    with torch.no_grad():
        for i, (_, layer) in enumerate(layers):
            x = layer(x, context)[0]
            done.append(layer)
            back = x
            for part in reversed(done):
                back = part.inverse(back, context)[0]
            apart = space.apart(back.flatten(1), start.flatten(1))
            now = max(error, float(apart.nan_to_num(nan=torch.inf).quantile(0.99, interpolation="lower")))
            if now / error > worst:
                worst, blamed = now / error, i
            error = now
            if error == torch.inf:
                break
    return blamed


def _jacobians(layer: Transform, x: Tensor, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the Jacobians of both directions."""
    dims = 1 if context is None else context.ndim - 1
    if y.flatten(1).shape[1] <= _MOST_DIFFERENTIATED:
        forward = jacobian(layer.forward, x, context, context_dims=dims)
        return forward, jacobian(layer.inverse, y, context, context_dims=dims)
    if isinstance(layer, Inverse):
        inverse = jacobian(layer.inverse, y, context, context_dims=dims)
        return _inverted(inverse), inverse
    forward = jacobian(layer.forward, x, context, context_dims=dims)
    return forward, _inverted(forward)


def _inverted(matrix: Tensor) -> Tensor:
    inverse, info = torch.linalg.inv_ex(matrix)
    result: Tensor = inverse.where((info == 0)[:, None, None], torch.nan)
    return result


def error_in_units(errors: Tensor, allowed: Tensor, finite: Tensor) -> float:
    """Return the largest error ``(n, D)`` of finite points, in units of what a right formula may err by."""
    ratio: Tensor = (errors.amax(1) / (FORMULA * allowed)).nan_to_num(nan=torch.inf)
    return float(max([0.0, *ratio[finite].tolist()]))


def difference(a: Tensor, b: Tensor, period: Tensor) -> Tensor:
    """Return the differences of the elements, ``(n, D)``, the short way round on circles."""
    flat = (a - b).flatten(1)
    turns = torch.round(flat / period.where(period > 0, 1.0))
    return torch.where(period > 0, flat - period * turns, flat).abs()


def spread(x: Tensor) -> Tensor:
    """Return the spread of each element, ``(D,)``, by which columns in units of their own can be compared."""
    flat = x.flatten(1)
    return space_of(flat[flat.isfinite().all(1)], flat.shape[1], []).scale


def size(x: Tensor, unit: Tensor) -> Tensor:
    """Return the largest element of each point in the units, at least 1."""
    return (x.flatten(1).abs() / unit).amax(1).clamp(min=1.0)


def _log_det_rounding(matrix: Tensor, expected: Tensor, finite: Tensor) -> Tensor:
    """Return by how much a right log-determinant may differ from that of the matrix, whose condition counts."""
    safe = matrix.where(finite[:, None, None], torch.eye(matrix.shape[-1], dtype=matrix.dtype))
    # Units of the elements cost no digits, so they are taken out: first those of the columns, then of the rows.
    tiny = torch.finfo(matrix.dtype).tiny
    safe = safe / safe.norm(dim=-2, keepdim=True).clamp(min=tiny)
    values = torch.linalg.svdvals(safe / safe.norm(dim=-1, keepdim=True).clamp(min=tiny))
    condition = values[:, 0] / values[:, -1].clamp(min=tiny)
    eps = torch.finfo(matrix.dtype).eps
    rounding: Tensor = 100 * FORMULA * (1 + expected.abs()) + 100 * matrix.shape[-1] * eps * condition
    return rounding


def sees_the_batch(layer: Transform, x: Tensor, context: Tensor | None, y: Tensor, finite: Tensor) -> bool:
    """Return whether a point alone is mapped elsewhere than beside the others."""
    for i in finite.nonzero().flatten()[:_ALONE].tolist():
        with torch.no_grad():
            one = layer(x[i : i + 1], None if context is None else context[i : i + 1])[0][0]
        if bool(((one - y[i]).abs() > FORMULA * (1 + y[i].abs().max())).any()):
            return True
    return False
