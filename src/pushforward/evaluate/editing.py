"""Attributes of images edited in latent space: directions, edits, and what an edit changes besides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError
from ..flows import Flow
from ..networks.shapes import check_event
from .attributes import ATTRIBUTES, Attribute, measure
from .edit_report import EditReport
from .holding import check_known, residual_of, values_of

_ROWS = 256
_SEED = 0

Classifier = Callable[[Tensor], Tensor]
"""A function of images ``(n, channels, height, width)`` that gives their labels ``(n,)``."""


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction of latent space along which one attribute changes.

    Attributes:
        name: The attribute.
        vector: By how much the latent changes with one unit of the attribute, float64 of the latent shape.
        scale: What a strength of 1 means, in units of the attribute: one standard deviation of it, and 1 for what has
            the values 0 and 1 only.
        levels: Number of values of a pixel.
        held: What was held fixed.
        rows: Number of images that it comes from.
    """

    name: str
    vector: Tensor
    scale: float
    levels: int
    held: tuple[str, ...]
    rows: int


def fit_direction(
    flow: Flow,
    images: Tensor,
    target: str | Tensor,
    *,
    name: str = "",
    held: Sequence[str] | Mapping[str, Tensor] | None = None,
    attributes: Mapping[str, Attribute] = ATTRIBUTES,
    levels: int = 256,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Direction:
    r"""Return how the latent changes with an attribute while others are held fixed.

    It is the coefficient of the attribute :math:`a` in the linear regression of the latent :math:`z` on it and on all
    that is held. With :math:`r` the residuals of :math:`a` after its own regression on what is held (Frisch and Waugh)
    that is

    .. math:: v = \frac{\sum_i r_i z_i}{\sum_i r_i^2}.

    With nothing held, :math:`v = \operatorname{Cov}(z, a)/\operatorname{Var}(a)`; for an attribute that is 0 or 1, such
    as a class, this is the difference :math:`\bar z_1 - \bar z_0` of the class means, the direction of Glow. Attributes
    that go together in the data, as thickness and width do, then change together in the edit: it is what holding
    them fixed prevents.

    Args:
        flow: The flow.
        images: Images, ``(n, *event_shape)``, with pixels from 0 to ``levels - 1``.
        target: Name of an attribute of the pixels, or numbers ``(n,)``, one for each image (0 and 1 for a yes or no).
        name: Name of the attribute where ``target`` holds numbers.
        held: What to hold fixed: names of attributes of the pixels, or numbers by name, ``(n,)`` each. By default
            ``HELD`` but for the target itself where the target is a name, and nothing where it is numbers.
        attributes: Attributes of the pixels by name.
        levels: Number of values of a pixel.
        context: Contexts, ``(n, *context_shape)``, or one for all.
        generator: Source of the noise of dequantisation; None: the same noise at every call.

    Returns:
        The direction. Images without the target or what is held (NaN) do not count.

    Raises:
        ValueError: Shapes that do not fit.
        DataError: An unknown attribute, one that is constant or already fixed by what is held, fewer than 2 images (or
            than what is held needs), or latents that are not finite.

    References:
        Kingma, Dhariwal, Glow, 2018, section 6.3. https://arxiv.org/abs/1807.03039
        Frisch, Waugh, Partial time regressions as compared with individual trends, 1933.
        https://doi.org/10.2307/1907330

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Affine, Elementwise
        >>> flow = Flow(Elementwise(Affine(), (1, 2, 2)), DiagonalNormal((1, 2, 2)))
        >>> images = torch.tensor([0.0, 51.0, 204.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
        >>> direction = fit_direction(flow, images, "brightness", held=())
        >>> direction.vector.flatten().round().tolist()
        [255.0, 255.0, 255.0, 255.0]
    """
    x = _enter(flow, images)
    label, values, controls = values_of(images, target, name, held=held, attributes=attributes, levels=levels)
    columns = torch.stack([values, *controls.values()], 1)
    usable = columns.isfinite().all(1)
    residual = residual_of(label, columns[usable], tuple(controls))
    weights = torch.zeros(len(images), dtype=torch.float64)
    weights[usable] = residual / residual.square().sum()
    context = _context(flow, context, len(x))
    vector = torch.zeros(flow.transform.latent_shape, dtype=torch.float64)
    lost = 0
    for rows, latent, _ in _latents(flow, x, context, generator):
        keep = usable[rows]
        z = latent.to("cpu", torch.float64)[keep]
        lost += int((~z.flatten(1).isfinite().all(1)).sum())
        vector += torch.tensordot(weights[rows][keep], z, 1)
    if lost:
        raise DataError(
            f"the latents of {lost:,} of {len(x):,} images are not finite",
            source="images",
            remedy="diagnose says which layer is to blame.",
        )
    known = columns[usable, 0]
    binary = bool(((known == 0) | (known == 1)).all())
    scale = 1.0 if binary else float(known.std(correction=0))
    return Direction(label, vector, scale, levels, tuple(controls), len(known))


def edit(
    flow: Flow,
    images: Tensor,
    direction: Direction,
    strength: float,
    context: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return images with an attribute changed, :math:`x' = f^{-1}(f(x) + \alpha\,\sigma\,v)`.

    A strength of 0 gives back the images as they are: where :math:`f^{-1}(f(x))` misses a pixel by rounding, by no more
    than one level, the same difference is taken from the edited one.

    Args:
        flow: The flow.
        images: Images, ``(n, *event_shape)``, with pixels from 0 to ``levels - 1``.
        direction: What to change, from ``fit_direction``.
        strength: How far, :math:`\alpha`, in standard deviations :math:`\sigma` of the attribute, and for a yes or no
            in steps from the one to the other.
        context: Contexts, ``(n, *context_shape)``, or one for all; the latents are decoded under the same.
        generator: Source of the noise of dequantisation; None: the same noise at every call.

    Returns:
        Edited images, ``(n, *event_shape)``, floating, within 0 to ``levels - 1``; NaN where a pixel is not finite.

    Raises:
        ValueError: Shapes that do not fit, or a strength that is not finite.

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Affine, Elementwise
        >>> flow = Flow(Elementwise(Affine(), (1, 2, 2)), DiagonalNormal((1, 2, 2)))
        >>> direction = Direction("brightness", torch.ones(1, 2, 2), 10.0, 256, (), 2)
        >>> edit(flow, torch.full((1, 1, 2, 2), 100.0), direction, 0.5).flatten().tolist()
        [105.0, 105.0, 105.0, 105.0]
    """
    moves = _moves(flow, images, direction, (strength,), context=context, generator=generator)
    parts = [_within(raw, direction.levels) for _, _, raws in moves for raw in raws[1:]]
    return torch.cat(parts)


def measure_edit(
    flow: Flow,
    images: Tensor,
    direction: Direction,
    attributes: Mapping[str, Attribute] = ATTRIBUTES,
    strengths: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0),
    *,
    context: Tensor | None = None,
    classifier: Classifier | None = None,
    generator: torch.Generator | None = None,
) -> EditReport:
    """Measure what edits change: the attribute itself, and others, which should stay.

    Give images other than those that the direction was fitted on.

    Args:
        flow: The flow.
        images: Images, ``(n, *event_shape)``.
        direction: The direction; its attribute must be among ``attributes``.
        attributes: What to measure by name, before and after.
        strengths: As in ``edit``.
        context: As in ``edit``.
        classifier: Gives labels of images, so as to see whether edited images keep theirs.
        generator: As in ``edit``.

    Returns:
        The report; ``text()`` is a table of it.

    Raises:
        ValueError: Shapes that do not fit, no strengths or one that is not finite.
        DataError: Fewer than 2 images, or a direction whose attribute is not among those to measure.

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Affine, Elementwise
        >>> flow = Flow(Elementwise(Affine(), (1, 2, 2)), DiagonalNormal((1, 2, 2)))
        >>> images = torch.tensor([51.0, 102.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
        >>> direction = fit_direction(flow, images, "brightness", held=())
        >>> report = measure_edit(flow, images, direction, strengths=(1.0,))
        >>> report.asked, [round(change, 6) for change in report.changes["brightness"]]
        ((0.1,), [0.1])
    """
    check_known(direction.name, attributes)
    if len(images) < 2:
        raise DataError(f"an edit is measured on at least 2 images, got {len(images)}", source="images")
    levels, count = direction.levels, len(strengths)
    before = measure(images, levels, attributes)
    after = [{name: torch.full_like(value, torch.nan) for name, value in before.items()} for _ in strengths]
    clipped, finite, kept = ([0] * count for _ in range(3))
    pixels, returned = images[0].numel(), 0
    for rows, x, (base, *raws) in _moves(
        flow, images, direction, strengths, context=context, generator=generator
    ):
        returned += int(((base - x).abs() < 0.5).sum())
        labels = None if classifier is None else classifier(x)
        for k, raw in enumerate(raws):
            good = raw.flatten(1).isfinite().all(1)
            finite[k] += int(good.sum())
            if not bool(good.any()):
                continue
            # Half a level outside is what rounding to levels would bring back.
            clipped[k] += int(((raw[good] < -0.5) | (raw[good] > levels - 0.5)).sum())
            edited = _within(raw[good], levels)
            places = torch.arange(len(images))[rows][good.cpu()]
            for name, value in measure(edited, levels, attributes).items():
                after[k][name][places] = value.to(after[k][name])
            if classifier is not None and labels is not None:
                kept[k] += int((classifier(edited) == labels[good.to(labels.device)]).sum())
    return EditReport(
        target=direction.name,
        held=direction.held,
        rows=len(images),
        strengths=tuple(map(float, strengths)),
        asked=tuple(float(strength) * direction.scale for strength in strengths),
        deviations={name: _mean(value, spread=True) for name, value in before.items()},
        changes={name: tuple(_mean(a[name] - b) for a in after) for name, b in before.items()},
        clipped=tuple(c / (f * pixels) if f else math.nan for c, f in zip(clipped, finite, strict=True)),
        not_finite=tuple(1.0 - f / len(images) for f in finite),
        kept=None
        if classifier is None
        else tuple(k / f if f else math.nan for k, f in zip(kept, finite, strict=True)),
        returned=returned / (len(images) * pixels),
    )


def _enter(flow: Flow, images: Tensor) -> Tensor:
    """Return images of the dtype and on the device that the flow takes."""
    check_event(flow, "images", images, flow.event_shape)
    if images.ndim != len(flow.event_shape) + 1 or len(images) == 0:
        raise ValueError(
            f"images must have shape (n, {', '.join(map(str, flow.event_shape))}) with n of at least 1, "
            f"got {tuple(images.shape)}"
        )
    return images.to(flow.like) if flow.preprocess is None else images.to("cpu", torch.float64)


def _context(flow: Flow, context: Tensor | None, count: int) -> Tensor | None:
    """Return one context for each image."""
    if flow.context_shape is None or context is None:
        return None
    check_event(flow, "context", context, flow.context_shape)
    batch = tuple(context.shape[: context.ndim - len(flow.context_shape)])
    if batch not in ((), (1,), (count,)):
        raise ValueError(
            f"context must have shape {(count, *flow.context_shape)}, one for each image, got {tuple(context.shape)}"
        )
    return context.expand(count, *flow.context_shape)


def _latents(
    flow: Flow, x: Tensor, context: Tensor | None, generator: torch.Generator | None
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Yield the latents of some images at a time, with their rows and contexts."""
    generator = torch.Generator().manual_seed(_SEED) if generator is None else generator
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        given = None if context is None else context[rows]
        with torch.no_grad():
            z = flow.to_latent(x[rows], given, generator=generator)
        yield rows, z, given


def _moves(
    flow: Flow,
    images: Tensor,
    direction: Direction,
    strengths: Sequence[float],
    *,
    context: Tensor | None,
    generator: torch.Generator | None,
) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
    """Yield rows, images, and images decoded from latents: unmoved, then moved by each strength and not clipped."""
    if not strengths or not all(map(math.isfinite, strengths)):
        raise ValueError(f"strengths must be finite, and at least one, got {list(strengths)}")
    if tuple(direction.vector.shape) != flow.transform.latent_shape:
        raise ValueError(
            f"direction must be one of this flow's latents, {flow.transform.latent_shape}, "
            f"got {tuple(direction.vector.shape)}"
        )
    x = _enter(flow, images)
    for rows, z, given in _latents(flow, x, _context(flow, context, len(x)), generator):
        with torch.no_grad():
            base = flow.from_latent(z, given)
            missed = (x[rows] - base).where((x[rows] - base).abs() <= 1.0, 0.0)
            vector = direction.scale * direction.vector.to(z.device)
            moved = [flow.from_latent(z + (s * vector).to(z), given) + missed for s in strengths]
        yield rows, x[rows], [base, *moved]


def _within(raw: Tensor, levels: int) -> Tensor:
    """Return pixels within their range; what is not finite is no pixel."""
    return raw.clamp(0, levels - 1).where(raw.isfinite(), torch.nan)


def _mean(values: Tensor, *, spread: bool = False) -> float:
    """Return the mean, or the standard deviation, of what is finite."""
    known = values[values.isfinite()]
    if len(known) == 0:
        return math.nan
    return float(known.std(correction=0) if spread else known.mean())
