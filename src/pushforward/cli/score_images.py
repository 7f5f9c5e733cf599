"""``pushforward score`` where the flow is one of images."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .files import table_sink
from .image_files import images_for
from .image_text import bits, modelled
from .text import clock, counted

if TYPE_CHECKING:
    import polars as pl
    from rich.status import Status
    from torch import Tensor

    from ..artifact import FittedFlow
    from ..configs import ImageSchema
    from ..data import Images
    from ..flows import Estimate
    from ..training import Points

_CHUNK_IMAGES = 1024


def score_images(
    fitted: FittedFlow,
    model: Path,
    path: Path,
    output: Path,
    status: Status,
    *,
    labels: Path | None,
    num_samples: int,
) -> list[str]:
    """Write bits per dimension and log-density of each image.

    Args:
        fitted: The flow.
        model: Its file.
        path: The images.
        output: Where the scores go.
        status: Where to show how far it is.
        labels: A file of labels, or None.
        num_samples: Draws of the noise of dequantisation.

    Returns:
        What was done, for the terminal.
    """
    from ..flows import score_each
    from .picked_images import points_for

    images = images_for(fitted, path, labels=labels)
    points = points_for(fitted, images, path)
    totals, started = _Totals(fitted.images), time.monotonic()
    status.update("Scoring")
    estimates = score_each(fitted.flow, _parts(points), num_samples=num_samples)
    with table_sink(output) as write, closing(estimates):
        for estimate in estimates:
            write(_rows(estimate, images, totals.images, fitted.images))
            totals.add(estimate)
            status.update(f"{counted(totals.images, 'image')} scored")
    seconds = time.monotonic() - started
    lines = [
        f"{counted(totals.images, 'image')} scored in {clock(seconds)} ({totals.images / seconds:,.1f} images/s).",
        f"Mean {totals.mean()} of {modelled(fitted.images)}: {_meaning(num_samples)}.",
    ]
    if totals.lost:
        lines.append(
            f"{counted(totals.lost, 'image')} without a finite log-density, left out of the mean: the model overflows "
            f"there. pushforward diagnose {model} {path} shows where."
        )
    return lines


@dataclass(slots=True)
class _Totals:
    """What is known of all images so far."""

    schema: ImageSchema
    images: int = 0
    lost: int = 0
    values: list[float] = field(default_factory=list)

    def add(self, estimate: Estimate) -> None:
        self.images += len(estimate.value)
        finite = estimate.value[estimate.value.isfinite()]
        self.lost += len(estimate.value) - len(finite)
        self.values += finite.tolist()

    def mean(self) -> str:
        """Return the mean with its standard error over images."""
        count = len(self.values)
        if not count:
            return "not a number"
        centre = math.fsum(self.values) / count
        text = f"{bits(self.schema, centre):.4f}"
        if count > 1:
            square = math.fsum((value - centre) ** 2 for value in self.values)
            error = math.sqrt(square / (count * (count - 1)))
            text += f" \u00b1 {abs(bits(self.schema, error)):.4f}"
        return f"{text} bits/dim ({centre:.2f} nats)"


def _meaning(num_samples: int) -> str:
    if num_samples == 1:
        return (
            "a bound, by one draw of dequantisation noise; --num-samples 64 estimates the likelihood itself"
        )
    return f"an importance-weighted estimate of the likelihood of the discrete image, by {num_samples} draws of noise"


def _parts(points: Points) -> Iterator[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(points), _CHUNK_IMAGES):
        part = points.take(slice(start, start + _CHUNK_IMAGES))
        yield part.x, part.context


def _rows(estimate: Estimate, images: Images, before: int, schema: ImageSchema) -> pl.DataFrame:
    """Return the scores of some images, the first of which has so many before it."""
    import polars as pl

    from ..flows import bits_per_dim

    value, after = estimate.value.double(), before + len(estimate.value)
    number = range(before + 1, after + 1)
    return pl.DataFrame(
        [
            pl.Series("file", images.names[before:after]) if images.names else pl.Series("image", number),
            pl.Series("bits_per_dim", bits_per_dim(value, math.prod(schema.event_shape)).numpy()),
            pl.Series("log_prob", value.numpy()),
            # Of one draw it is not known, which is a gap and no number.
            pl.Series("standard_error", estimate.standard_error.double().numpy()).fill_nan(None),
        ]
    )
