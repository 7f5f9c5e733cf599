"""How far samples of images agree with what was given, and how much they differ among themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..configs.images import ImageSchema
from ..errors import DataError
from .classifier import MOST_TRAINED, check_labels, fit_classifier

MOST_HELD_OUT = 5_000
"""Of more real images that many, by chance, are held out."""

_FEWEST = 5


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a classifier of real images finds the label that images are said to have.

    Attributes:
        real: Share of held-out real images.
        sampled: Share of samples.
        labels: The labels.
        real_by_label: Shares for each label; NaN for one without images.
        sampled_by_label: The same of samples.
        trained: Number of real images that the classifier was trained on.
        held_out: Number of those held out.
        samples: Number of samples.
        not_finite: Number of samples that are not finite, which agree with nothing.
    """

    real: float
    sampled: float
    labels: tuple[int, ...]
    real_by_label: tuple[float, ...]
    sampled_by_label: tuple[float, ...]
    trained: int
    held_out: int
    samples: int
    not_finite: int

    def text(self) -> str:
        """Return a table for the terminal."""
        lines = [
            f"A classifier trained on {self.trained:,} real images gives the label asked for to",
            f"{'':<10}{'real, held out':>16}{'samples':>12}",
            f"{'all':<10}{_percent(self.real):>16}{_percent(self.sampled):>12}",
        ]
        for label, real, sampled in zip(self.labels, self.real_by_label, self.sampled_by_label, strict=True):
            lines.append(f"{f'label {label}':<10}{_percent(real):>16}{_percent(sampled):>12}")
        lines.append(f"{'images':<10}{self.held_out:>16,}{self.samples:>12,}")
        if self.not_finite:
            lines.append(f"{self.not_finite:,} samples are not finite, and agree with nothing.")
        return "\n".join(lines)


def class_agreement(
    real_images: Tensor, real_labels: Tensor, sampled_images: Tensor, sampled_labels: Tensor, *, seed: int = 0
) -> Agreement:
    """Measure how often samples show the class that they were drawn for.

    A classifier is trained on four fifths of the real images (``fit_classifier``). Its share of right labels on the
    rest is what samples as good as real images would come to.

    Args:
        real_images: Real images, ``(n, channels, height, width)``.
        real_labels: Their labels, whole numbers ``(n,)``.
        sampled_images: Samples, ``(m, channels, height, width)``, on the same scale.
        sampled_labels: The labels that they were drawn for, ``(m,)``.
        seed: Seed of the choice of the images that are held out.

    Returns:
        Both shares, in all and for each label.

    Raises:
        ValueError: Shapes that do not fit, or no samples.
        DataError: Fewer than 2 classes, a class with fewer than 5 real images, or a label that no real image has.

    Example:
        >>> images = torch.arange(20.0).reshape(20, 1, 1, 1).expand(20, 1, 4, 4)
        >>> labels = torch.arange(20) // 10
        >>> agreement = class_agreement(images, labels, images, 1 - labels)
        >>> agreement.real, agreement.sampled
        (1.0, 0.0)
    """
    check_labels("real_images", real_images, "real_labels", real_labels)
    check_labels("sampled_images", sampled_images, "sampled_labels", sampled_labels)
    if len(sampled_images) == 0 or sampled_images.shape[1:] != real_images.shape[1:]:
        raise ValueError(
            f"sampled_images must have shape {('m', *real_images.shape[1:])} with m of at least 1, "
            f"got {tuple(sampled_images.shape)}"
        )
    known, counts = real_labels.cpu().unique(return_counts=True)
    if int(counts.min()) < _FEWEST:
        label = int(known[counts.argmin()])
        raise DataError(
            f"label {label} has {int(counts.min())} real images, at least {_FEWEST} are needed",
            source="real_labels",
        )
    strange = sampled_labels.cpu()[~torch.isin(sampled_labels.cpu(), known)]
    if len(strange):
        raise DataError(f"label {int(strange[0])} is that of no real image", source="sampled_labels")
    train, test = _split(real_labels.cpu(), torch.Generator().manual_seed(seed))
    images, labels = real_images.cpu(), real_labels.cpu()
    classifier = fit_classifier(images[train], labels[train], seed=seed)
    right = classifier(images[test]) == labels[test]
    finite = sampled_images.cpu().flatten(1).isfinite().all(1)
    agrees = torch.zeros(len(finite), dtype=torch.bool)
    agrees[finite] = classifier(sampled_images.cpu()[finite]) == sampled_labels.cpu()[finite]
    return Agreement(
        real=_share(right),
        sampled=_share(agrees),
        labels=tuple(known.tolist()),
        real_by_label=tuple(_share(right[labels[test] == label]) for label in known),
        sampled_by_label=tuple(_share(agrees[sampled_labels.cpu() == label]) for label in known),
        trained=min(len(train), MOST_TRAINED),
        held_out=len(test),
        samples=len(agrees),
        not_finite=int((~finite).sum()),
    )


@dataclass(frozen=True, slots=True)
class SmallAgreement:
    """How near samples, made small, are to the small pictures given.

    Attributes:
        error: Mean absolute difference, in levels.
        psnr: Peak signal-to-noise ratio, in decibels; infinite where there is no difference.
        factor: How many times smaller the pictures given are.
        samples: Number of samples.
    """

    error: float
    psnr: float
    factor: int
    samples: int

    def text(self) -> str:
        """Return a sentence for the terminal."""
        return (
            f"{self.samples:,} samples made {self.factor} times smaller differ from the pictures given by "
            f"{self.error:.3g} levels on average, a peak signal-to-noise ratio of {self.psnr:.1f} dB."
        )


def small_agreement(
    samples: Tensor, given_small: Tensor, factor: int, *, levels: int = 256
) -> SmallAgreement:
    r"""Compare samples, averaged over squares of pixels, with the small pictures that they were drawn for.

    With :math:`d` the differences in levels, the ratio is :math:`10 \log_{10}((\text{levels} - 1)^2/\overline{d^2})`.
    A small picture rounded to whole levels allows for a mean difference of a quarter of a level.

    Args:
        samples: Samples, ``(*batch, channels, height, width)``.
        given_small: The pictures given, ``(*batch, channels, height/factor, width/factor)``; batches broadcast.
        factor: How many times smaller these are.
        levels: Number of values of a pixel.

    Returns:
        The differences; NaN where a sample is not finite.

    Raises:
        ValueError: Shapes that do not fit.

    Example:
        >>> agreement = small_agreement(torch.full((2, 1, 4, 4), 7.0), torch.full((1, 1, 2, 2), 5.0), 2)
        >>> agreement.error, round(agreement.psnr, 1)
        (2.0, 42.1)
    """
    if samples.ndim < 3 or factor < 1 or samples.shape[-1] % factor or samples.shape[-2] % factor:
        raise ValueError(
            f"samples must have shape (..., channels, height, width) with sides that factor, {factor}, divides, "
            f"got {tuple(samples.shape)}"
        )
    channels, rows, columns = samples.shape[-3:]
    expected, batch = (channels, rows // factor, columns // factor), tuple(samples.shape[:-3])
    if tuple(given_small.shape[-3:]) != expected or not _fits(tuple(given_small.shape[:-3]), batch):
        raise ValueError(f"given_small must have shape {(*batch, *expected)}, got {tuple(given_small.shape)}")
    squares = samples.double().unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
    difference = squares.mean((-1, -3)) - given_small.to(squares)
    square = float(difference.square().mean())
    psnr = 10.0 * math.log10((levels - 1) ** 2 / square) if square != 0 else math.inf
    return SmallAgreement(float(difference.abs().mean()), psnr, factor, math.prod(batch))


@dataclass(frozen=True, slots=True)
class SeamAgreement:
    """How well halves of images meet: mean absolute steps across the seam, in levels.

    Attributes:
        sampled: Of samples and the halves given.
        real: Of real images; None without them.
        exchanged: Of real halves put together with halves of other real images, which nothing makes agree.
        samples: Number of samples.
    """

    sampled: float
    real: float | None
    exchanged: float | None
    samples: int

    def text(self) -> str:
        """Return a sentence for the terminal."""
        text = f"Across the seam {self.samples:,} samples step by {self.sampled:.3g} levels on average"
        if self.real is None or self.exchanged is None:
            return f"{text}."
        return f"{text}, real images by {self.real:.3g}, and halves of different real images by {self.exchanged:.3g}."


def seam_agreement(
    samples: Tensor, given: Tensor, schema: ImageSchema, *, real: Tensor | None = None
) -> SeamAgreement:
    """Measure the step between the last pixels given and the first that were drawn.

    Args:
        samples: Drawn halves, ``(*batch, *schema.event_shape)``.
        given: The halves given, ``(*batch, *schema.context_shape)``; batches broadcast.
        schema: Which half is given.
        real: Whole real images, ``(n, *schema.image_shape)`` with ``n`` of at least 2, to compare with.

    Returns:
        The steps; NaN where a sample is not finite.

    Raises:
        ValueError: A schema in which no half is given, or shapes that do not fit.

    Example:
        >>> schema = ImageSchema(height=4, width=4, given="left")
        >>> seam_agreement(torch.full((3, 1, 4, 2), 9.0), torch.full((3, 1, 4, 2), 5.0), schema).sampled
        4.0
    """
    box, half = schema.given_box, schema.context_shape
    if box is None or half is None:
        raise ValueError(f"schema must give a half of each image, got given={schema.given!r}")
    batch = tuple(samples.shape[:-3])
    if tuple(samples.shape[-3:]) != schema.event_shape:
        raise ValueError(
            f"samples must have shape {('...', *schema.event_shape)}, got {tuple(samples.shape)}"
        )
    if tuple(given.shape[-3:]) != half or not _fits(tuple(given.shape[:-3]), batch):
        raise ValueError(f"given must have shape {(*batch, *half)}, got {tuple(given.shape)}")
    sampled = _step(given, samples, schema.given)
    if real is None:
        return SeamAgreement(sampled, None, None, math.prod(batch))
    if real.ndim != 4 or tuple(real.shape[1:]) != schema.image_shape or len(real) < 2:
        raise ValueError(
            f"real must have shape {('n', *schema.image_shape)} with n of at least 2, got {tuple(real.shape)}"
        )
    known, rest = real[..., box[0], box[1]], real[..., schema.event_box[0], schema.event_box[1]]
    steps = (_step(known, rest, schema.given), _step(known, rest.roll(1, 0), schema.given))
    return SeamAgreement(sampled, *steps, math.prod(batch))


@dataclass(frozen=True, slots=True)
class Diversity:
    """How far images under one condition lie apart: mean root-mean-square distance of two of them, in levels.

    Attributes:
        sampled: Of samples.
        real: Of real images; None without them.
        groups: Number of conditions.
        samples: Number of samples.
    """

    sampled: float
    real: float | None
    groups: int
    samples: int

    @property
    def ratio(self) -> float | None:
        """That of samples over that of real images: below 1 where samples are too much alike."""
        if self.real is None:
            return None
        return self.sampled / self.real if self.real > 0 else math.nan

    def text(self) -> str:
        """Return a sentence for the terminal."""
        text = (
            f"Two of the {self.samples:,} samples under one of {self.groups:,} conditions lie {self.sampled:.3g} "
            "levels apart on average"
        )
        if self.real is None:
            return f"{text}."
        return f"{text}, two real images {self.real:.3g}: a ratio of {self.ratio:.2f}."


def diversity(samples: Tensor | Sequence[Tensor], real: Tensor | Sequence[Tensor] | None = None) -> Diversity:
    r"""Measure how much samples differ that were drawn under one condition.

    The distance of two images with :math:`D` pixels is :math:`\sqrt{\sum_i (x_i - y_i)^2/D}`; it is averaged over all
    pairs under one condition, then over the conditions.

    Args:
        samples: Samples, ``(conditions, m, channels, height, width)`` with ``m`` of at least 2, or a sequence of
            ``(m, channels, height, width)``, where ``m`` may differ.
        real: Real images in the same form, of the same or other conditions.

    Returns:
        The mean distances; NaN where a sample is not finite.

    Raises:
        ValueError: Shapes that do not fit.

    Example:
        >>> diversity(torch.tensor([0.0, 3.0]).reshape(1, 2, 1, 1, 1).expand(1, 2, 1, 4, 4)).sampled
        3.0
    """
    distances = [_apart(group, "samples") for group in samples]
    if not distances:
        raise ValueError("samples must hold at least one condition, got none")
    others = None if real is None else [_apart(group, "real") for group in real]
    if others == []:
        raise ValueError("real must hold at least one condition, got none")
    return Diversity(
        sum(distances) / len(distances),
        None if others is None else sum(others) / len(others),
        len(distances),
        sum(len(group) for group in samples),
    )


def _apart(group: Tensor, name: str) -> float:
    """Return the mean distance of two of some images."""
    if group.ndim != 4 or len(group) < 2:
        raise ValueError(
            f"{name} must have shape (conditions, m, channels, height, width) with m of at least 2, "
            f"got {tuple(group.shape)} under one condition"
        )
    flat = group.double().flatten(1)
    if not bool(flat.isfinite().all()):
        return math.nan
    return float(F.pdist(flat).mean()) / math.sqrt(flat.shape[1])


def _step(given: Tensor, rest: Tensor, where: str) -> float:
    """Return the mean absolute step from the half given to the rest."""
    given, rest = given.double(), rest.double()
    last, first = {
        "top": (given[..., -1, :], rest[..., 0, :]),
        "bottom": (given[..., 0, :], rest[..., -1, :]),
        "left": (given[..., -1], rest[..., 0]),
        "right": (given[..., 0], rest[..., -1]),
    }[where]
    return float((first - last.to(first)).abs().mean())


def _split(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return rows to train on and rows to hold out, a fifth of each class."""
    train, test = [], []
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        test.append(rows[: len(rows) // _FEWEST])
        train.append(rows[len(rows) // _FEWEST :])
    held_out = torch.cat(test)
    chosen = torch.randperm(len(held_out), generator=generator)[:MOST_HELD_OUT]
    return torch.cat(train), held_out[chosen]


def _fits(shape: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to that of a batch."""
    try:
        return tuple(torch.broadcast_shapes(shape, batch)) == batch
    except RuntimeError:
        return False


def _share(right: Tensor) -> float:
    return float(right.double().mean()) if len(right) else math.nan


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"
