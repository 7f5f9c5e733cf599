"""Images taken to latent space and back: by how much the numbers miss, and where the inverse explodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..flows import Flow, chunk_rows
from ..networks.shapes import check_event
from .jacobians import strongest
from .pictures import unlike_data
from .points import cast, enter_context, enter_points, spread_out
from .verdict import KINDS, PIXEL_DOUBTFUL

_EACH = 16  # images of each kind away from data, whose noise of dequantisation differs
_ITERATIONS = 8


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Errors of round trips of images of one kind, as shares of the range of pixels.

    The error of an image is that of its worst pixel, before it is rounded to a level.

    Attributes:
        where: ``"data"``, ``"samples"``, or, away from both, ``"noise"``, ``"black"``, ``"white"`` or ``"board"``.
        images: Number of images.
        median: Median of the finite errors; NaN where none is.
        high: Their 99 % quantile.
        maximum: Their maximum.
        not_finite: Number of images with a pixel that does not come back finite.
        exact: Number of images of which every pixel is the same after rounding; None for a flow without levels.
        worst: Place of the image with the largest error, counted from 0; one that is not finite is the worst.
        latent: Largest error of a latent on its way to data and back, of those that are finite; None where the way
            begins with data.
    """

    where: str
    images: int
    median: float
    high: float
    maximum: float
    not_finite: int
    exact: int | None
    worst: int
    latent: float | None

    @property
    def explodes(self) -> bool:
        """Whether an error is above ``PIXEL_DOUBTFUL``, or not finite."""
        return self.not_finite > 0 or self.maximum > PIXEL_DOUBTFUL


@dataclass(frozen=True, slots=True)
class ImageStretch:
    """By how much the flow's transform stretches small differences, in its own units: estimates from below.

    Attributes:
        where: As of ``RoundTrip``.
        to_latent: The largest of some images on the way to latent space.
        to_data: The same of the inverse, by which rounding grows on the way back.
        points: Number of images.
    """

    where: str
    to_latent: float
    to_data: float
    points: int


@dataclass(frozen=True, slots=True)
class RoundTripReport:
    """How exactly images come back from latent space.

    Attributes:
        dtype: What the flow computes in.
        levels: Number of values of a pixel.
        trips: Errors on images, on samples, and away from both.
        stretches: Estimates of local stretch.
    """

    dtype: str
    levels: int
    trips: tuple[RoundTrip, ...]
    stretches: tuple[ImageStretch, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each kind of images on which the inverse explodes."""
        return tuple(_warning(trip) for trip in self.trips if trip.explodes)

    def trip(self, where: str) -> RoundTrip:
        """Return the errors of one kind of images."""
        return next(trip for trip in self.trips if trip.where == where)

    def text(self) -> str:
        """Return tables for the terminal, and the warnings.

        Example:
            >>> trip = RoundTrip("data", 1000, 2e-8, 1e-7, 3e-7, 0, 1000, 17, None)
            >>> print(RoundTripReport("float32", 256, (trip,), (ImageStretch("data", 31.0, 7.5, 4),)).text())
            Images to latent space and back in float32: error of the worst pixel, in shares of the range
                               median      99 %   largest    images same when rounded  not finite
              data              2e-08     1e-07     3e-07     1,000             1,000           0
            Largest local stretch, estimated from below by power iteration
                            to latent   to data    images
              data                 31       7.5         4
        """
        head = f"{'median':>10}{'99 %':>10}{'largest':>10}{'images':>10}{'same when rounded':>18}{'not finite':>12}"
        lines = [
            f"Images to latent space and back in {self.dtype}: error of the worst pixel, in shares of the range",
            f"  {'':<13}{head}",
        ]
        for trip in self.trips:
            numbers = "".join(f"{_short(v):>10}" for v in (trip.median, trip.high, trip.maximum))
            exact = "-" if trip.exact is None else f"{trip.exact:,}"
            lines.append(
                f"  {KINDS[trip.where]:<13}{numbers}{trip.images:>10,}{exact:>18}{trip.not_finite:>12,}"
            )
        latents = [trip.latent for trip in self.trips if trip.latent is not None]
        lines += [f"Latents of samples come back within {_short(value)}." for value in latents]
        if self.stretches:
            lines += [
                "Largest local stretch, estimated from below by power iteration",
                f"  {'':<13}{'to latent':>10}{'to data':>10}{'images':>10}",
            ]
        lines += [
            f"  {KINDS[s.where]:<13}{_short(s.to_latent):>10}{_short(s.to_data):>10}{s.points:>10}"
            for s in self.stretches
        ]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def round_trip(
    flow: Flow, images: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Take images to latent space and back, without rounding them to levels.

    Args:
        flow: The flow.
        images: Images, ``(n, *event_shape)``.
        context: Their contexts, ``(n, *context_shape)``.
        generator: Source of the noise of dequantisation; None: the same noise at every call.

    Returns:
        The images with the noise of dequantisation, and what comes back for them, float64 on the CPU in the units of
        pixels, ``(n, *event_shape)`` each.

    Raises:
        ValueError: Shapes that do not fit.

    Example:
        >>> from pushforward.configs import ImageGlowConfig, ImageSchema
        >>> from pushforward.flows import image_flow
        >>> flow = image_flow(ImageGlowConfig(scales=1, steps=1, hidden_channels=4), ImageSchema(height=4, width=4))
        >>> before, after = round_trip(flow, torch.full((3, 1, 4, 4), 7))
        >>> bool((before - after).abs().max() < 1e-3), before.floor().unique().tolist()
        (True, [7.0])
    """
    images, context = _checked(flow, images, context)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    parts = []
    for rows in _chunks(flow, len(images)):
        x, z, _ = enter_points(flow, images[rows], generator)
        given = None if context is None else enter_context(flow, context[rows])
        with torch.no_grad():
            latent = flow.transform.forward(z.to(flow.like), given)[0]
            parts.append((x, _leave(flow, flow.transform.inverse(latent, given)[0])))
    before, after = zip(*parts, strict=True)
    return torch.cat(before), torch.cat(after)


def image_round_trips(
    flow: Flow,
    images: Tensor,
    context: Tensor | None = None,
    *,
    levels: int = 256,
    points: int = 3,
    seed: int = 0,
) -> RoundTripReport:
    r"""Measure how exactly images come back from latent space, in the precision of the flow.

    Four kinds of them: the images themselves, as many samples (on the way latent, data, latent, data), and away from
    both noise, black, white, and a checkerboard of the two. Errors are those of :math:`f^{-1}(f(x + u))` against
    :math:`x + u`, with the noise :math:`u` of dequantisation, before anything is rounded to levels. Contexts of samples
    and of images away from the data are those of the images.

    Args:
        flow: The flow.
        images: Images, ``(n, *event_shape)``, with pixels from 0 to ``levels - 1``.
        context: Their contexts, ``(n, *context_shape)``.
        levels: Number of values of a pixel.
        points: At how many images of a kind the local stretch is estimated.
        seed: Seed of all noise.

    Returns:
        The report; ``text()`` is a table of it.

    Raises:
        ValueError: Shapes that do not fit.

    References:
        Behrmann et al., Understanding and Mitigating Exploding Inverses in Invertible Neural Networks, 2021.
        https://arxiv.org/abs/2006.09347

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import Affine, Elementwise
        >>> flow = Flow(Elementwise(Affine(), (1, 2, 2)), DiagonalNormal((1, 2, 2)))
        >>> report = image_round_trips(flow, torch.full((2, 1, 2, 2), 100.0))
        >>> [trip.where for trip in report.trips], report.trip("data").maximum
        (['data', 'samples', 'noise', 'black', 'white', 'board'], 0.0)
    """
    images, context = _checked(flow, images, context)
    generator = torch.Generator().manual_seed(seed)
    kinds = {"data": images, **unlike_data(flow.event_shape, levels, _EACH, generator)}
    trips = []
    for where, x in kinds.items():
        given = None if context is None else context[torch.arange(len(x)) % len(context)]
        trips.append(_errors(flow, where, round_trip(flow, x, given, generator=generator), levels))
    trips.insert(1, _of_samples(flow, len(images), context, levels, generator))
    return RoundTripReport(
        str(flow.base.dtype).removeprefix("torch."),
        levels,
        tuple(trips),
        _stretches(flow, kinds, context, points, generator),
    )


def _of_samples(
    flow: Flow, count: int, context: Tensor | None, levels: int, generator: torch.Generator
) -> RoundTrip:
    before, after, latent = [], [], 0.0
    for rows in _chunks(flow, count):
        size = len(range(count)[rows])
        given = None if context is None else enter_context(flow, context[rows])
        with torch.no_grad():
            if flow.base.context_shape is None:
                first = flow.base.sample((size,), generator=generator)
            else:
                first = flow.base.sample((), given, generator=generator)
            x = _leave(flow, flow.transform.inverse(first, given)[0])
            z = x.to(flow.like) if flow.preprocess is None else flow.preprocess(x, flow.like)[0]
            second = flow.transform.forward(z, given)[0]
            before.append(x)
            after.append(_leave(flow, flow.transform.inverse(second, given)[0]))
        apart = (second - first).abs().flatten(1).amax(1).double()
        latent = max(latent, float(apart.where(apart.isfinite(), 0.0).max()))
    return _errors(flow, "samples", (torch.cat(before), torch.cat(after)), levels, latent)


def _errors(
    flow: Flow, where: str, trip: tuple[Tensor, Tensor], levels: int, latent: float | None = None
) -> RoundTrip:
    before, after = trip
    apart = ((after - before).abs() / levels).flatten(1).amax(1)
    finite = apart.isfinite()
    known = apart[finite]
    level = torch.tensor([0.5, 0.99], dtype=apart.dtype)
    median, high = known.quantile(level).tolist() if len(known) else (math.nan, math.nan)
    exact = None
    if flow.surjection is not None:
        same = flow.surjection.decode(after) == flow.surjection.decode(before)
        exact = int((same.flatten(1).all(1) & finite).sum())
    return RoundTrip(
        where,
        len(apart),
        median,
        high,
        float(known.max()) if len(known) else math.nan,
        int((~finite).sum()),
        exact,
        int(apart.where(finite, torch.inf).argmax()),
        latent,
    )


def _stretches(
    flow: Flow, kinds: dict[str, Tensor], context: Tensor | None, points: int, generator: torch.Generator
) -> tuple[ImageStretch, ...]:
    """Return the largest stretches in double precision, for their own rounding must not be what is measured."""
    if points < 1:
        return ()
    double = cast(flow, torch.float64)
    # All kinds at once: a few images alone take nearly as long.
    chosen = {where: spread_out(len(images), points) for where, images in kinds.items()}
    x = torch.cat([kinds[where][places].double() for where, places in chosen.items()])
    _, z, _ = enter_points(double, x, generator)
    given = None
    if context is not None:
        given = enter_context(double, context[torch.cat(list(chosen.values())) % len(context)])
    with torch.no_grad():
        latent = double.transform.forward(z, given)[0]
    sizes = [len(places) for places in chosen.values()]
    to_latent, to_data = (
        strongest(direction, start, given, iterations=_ITERATIONS, generator=generator)[0].split(sizes)
        for direction, start in ((double.transform.forward, z), (double.transform.inverse, latent))
    )
    # The largest of numbers with a NaN among them is NaN.
    return tuple(
        ImageStretch(where, float(to_latent[i].max()), float(to_data[i].max()), sizes[i])
        for i, where in enumerate(chosen)
    )


def _checked(flow: Flow, images: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return images and contexts as far as the flow takes them."""
    check_event(flow, "images", images, flow.event_shape)
    if len(flow.event_shape) != 3 or images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"images must have shape (n, channels, rows, columns) with n of at least 1, got {tuple(images.shape)}"
        )
    if flow.context_shape is None:
        return images, None
    if context is None or tuple(context.shape) != (len(images), *flow.context_shape):
        raise ValueError(
            f"context must have shape {(len(images), *flow.context_shape)}, one for each image, "
            f"got {None if context is None else tuple(context.shape)}"
        )
    return images, context


def _chunks(flow: Flow, count: int) -> Iterator[slice]:
    most = chunk_rows(flow)
    for start in range(0, count, most):
        yield slice(start, start + most)


def _leave(flow: Flow, z: Tensor) -> Tensor:
    """Return points in the units of pixels, not rounded to levels."""
    x = z if flow.preprocess is None else flow.preprocess.inverse(z)[0]
    return x.to("cpu", torch.float64)


def _warning(trip: RoundTrip) -> str:
    text = f"on images of the kind '{KINDS[trip.where]}' the inverse explodes"
    if trip.not_finite:
        return f"{text}: {trip.not_finite:,} of {trip.images:,} do not come back finite."
    return f"{text}: they come back with errors up to {trip.maximum:.2g} of the range."


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"
