r"""What a diagnosis measured, and what it comes to.

The thresholds are in digits, so that they hold for every precision. With :math:`\epsilon` the rounding of the flow's
dtype, an inverse that stretches :math:`L`-fold turns the rounding of a latent into an error of :math:`\epsilon L`
scales of the data:

- at ``NO_DIGIT``, 0.1, not one digit of the result is right: broken, if it holds for 1 % of the rows of data or of the
  samples, doubtful, if for one;
- at :math:`\sqrt\epsilon`, half of the digits are lost: doubtful, if it holds for 1 % of them;
- at ``PIXEL_DOUBTFUL``, 1e-4 of the range of the pixels, an image is doubtful that comes back with such an error, be
  it data, drawn, noise, black, white or a checkerboard, at 1 % of its kind;
- a formula (inverse, log-determinant) is tested in float64, where a right one errs by rounding times :math:`L` only:
  an error of ``FORMULA``, 1e-10 (1e-8 for a log-determinant), times :math:`L` is no rounding: broken.

Normality of the latents, and how the map behaves far from the data, are notes: they say how well the flow fits and
where not to use it, not whether its density is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Level = Literal["sound", "doubtful", "broken"]

NO_DIGIT = 0.1
FORMULA = 1e-10
MASS_BROKEN, MASS_DOUBTFUL = 0.03, 0.01
MASS_ERRORS = 6.0
LOG_PROB_BROKEN, LOG_PROB_DOUBTFUL, LOG_PROB_RELATIVE = 1.0, 0.1, 1e-4
PIXEL_DOUBTFUL = 1e-4
KINDS = {
    "data": "data",
    "samples": "samples",
    "away": "away from data",
    "noise": "uniform noise",
    "black": "all black",
    "white": "all white",
    "board": "checkerboard",
}
"""What kinds of points are called."""
KS_DISTANCE, KS_LEVEL = 0.05, 0.001
SHARES = torch.linspace(0, 1, 41, dtype=torch.float64)
"""Probabilities of the quantiles that a curve is made of."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A summary of one number for each row, without those that are not finite, which are counted.

    Attributes:
        median: Half of the rows stay below.
        high: 99 % of the rows stay below.
        maximum: All do.
        rows: Number of rows, finite or not.
        non_finite: How many are not finite.
        curve: The quantiles at 41 equal steps from 0 to 1.
    """

    median: float
    high: float
    maximum: float
    rows: int
    non_finite: int
    curve: tuple[float, ...]

    @classmethod
    def of(cls, values: Tensor) -> Quantiles:
        """Summarise values ``(n,)``.

        Example:
            >>> q = Quantiles.of(torch.tensor([1.0, 2.0, 3.0, torch.nan]))
            >>> q.median, q.maximum, q.rows, q.non_finite
            (2.0, 3.0, 4, 1)
        """
        finite = values[values.isfinite()].double()
        if len(finite) == 0:
            return cls(math.nan, math.nan, math.nan, len(values), len(values), ())
        curve = finite.quantile(SHARES).tolist()
        median, high = finite.quantile(torch.tensor([0.5, 0.99], dtype=torch.float64)).tolist()
        return cls(median, high, float(finite.max()), len(values), len(values) - len(finite), tuple(curve))


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """There and back, in the flow's own precision, as largest error of an element relative to its local scale.

    Attributes:
        where: ``"data"``, ``"samples"`` or ``"away"``.
        data: Error of ``inverse(forward(x))``.
        latent: Error of ``forward(inverse(z))``.
        outside: Points outside the support, of density 0, which are left out.
    """

    where: str
    data: Quantiles
    latent: Quantiles
    outside: int


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """There and back of images, in the flow's own precision, as largest error of a pixel.

    Attributes:
        where: As in ``RoundTrip``, or ``"noise"`` (uniform), ``"black"``, ``"white"`` or ``"board"`` (squares of both).
        error: Errors relative to the range of the pixels, from black to white; not finite where nothing came back.
    """

    where: str
    error: Quantiles


@dataclass(frozen=True, slots=True)
class Stretch:
    r"""Local Lipschitz constants of the whole transform, in the model's units.

    In many dimensions they are estimated from below.

    Attributes:
        where: As in ``RoundTrip``.
        inverse: Largest singular values of the Jacobian of the inverse.
        forward: The same of the forward map.
        lost_in_data: What the rounding of a latent, :math:`\epsilon` times its spread, becomes in spreads of the
            data, at most.
        lost_in_latent: What the rounding of a point becomes in spreads of the latent.
    """

    where: str
    inverse: Quantiles
    forward: Quantiles
    lost_in_data: Quantiles
    lost_in_latent: Quantiles


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far log-densities in float32 are from those in float64, in nats.

    Attributes:
        where: ``"data"``, or ``"samples"`` where no data were given.
        error: Absolute differences.
        relative: Differences over the size of the log-density.
        row: The row of the largest, counted from 0 among the rows given (or the samples); -1 if there is none.
    """

    where: str
    error: Quantiles
    relative: Quantiles
    row: int


@dataclass(frozen=True, slots=True)
class Mass:
    """Total mass of the density, which should be 1, under one context.

    Attributes:
        value: The mass; None where it is not known.
        error: Its standard error, or for a quadrature the change that the finer half of the grid made.
        effective: Effective sample size; None for a quadrature.
        points: How many points the density was evaluated at.
        method: ``"importance sampling"`` or ``"quadrature"``.
        reason: Why it is not known; empty where it is.
    """

    value: float | None
    error: float | None
    effective: float | None
    points: int
    method: str
    reason: str

    @classmethod
    def unknown(cls, method: str, reason: str, *, points: int = 0, effective: float | None = None) -> Mass:
        """Return a mass that is not known."""
        return cls(None, None, effective, points, method, reason)


@dataclass(frozen=True, slots=True)
class Latent:
    """How the latent points of the data meet the base: Kolmogorov-Smirnov distances of normal scores.

    Attributes:
        distances: For each element, between its scores and the standard normal.
        p_values: Their p-values, each multiplied by the number of tests (Bonferroni), at most 1.
        means: Mean of the scores of each element.
        deviations: Their standard deviations.
        radius: Distance between the squared radii and the chi-square distribution.
        radius_p_value: Its p-value, multiplied likewise.
        curves: For each element, its scores at 41 equal steps of probability.
    """

    distances: tuple[float, ...]
    p_values: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    radius: float
    radius_p_value: float
    curves: tuple[tuple[float, ...], ...]

    @property
    def fits(self) -> bool:
        """Whether no distance is both larger than 0.05 and beyond chance."""
        tests = [*zip(self.distances, self.p_values, strict=True), (self.radius, self.radius_p_value)]
        return not any(d > KS_DISTANCE and p < KS_LEVEL for d, p in tests)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, checked alone on what the layers before it give.

    Attributes:
        name: Its place in the flow, as one would write it in Python, with its class.
        inverse: 99 % of the rows of data and samples are stretched less by its inverse.
        forward: The same for its forward map.
        round_trip: Largest error there and back in float64, in units of what rounding and its stretch can explain;
            above 1 the inverse is not the inverse.
        log_det: Largest error of a log-determinant against autograd in float64, in nats.
        log_det_wrong: Whether that is more than rounding.
        batch: Whether a point is mapped differently beside others than alone.
        non_finite: Rows of data and samples that go in finite and come out not finite, in the flow's precision, in
            either direction.
        non_finite_away: The same for points away.
    """

    name: str
    inverse: float
    forward: float
    round_trip: float
    log_det: float
    log_det_wrong: bool
    batch: bool
    non_finite: int
    non_finite_away: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        level: ``"broken"``, ``"doubtful"``, or ``"note"``, which does not count towards the verdict.
        text: What, in words.
        layer: The layer to blame; empty where none can be named.
    """

    level: Literal["broken", "doubtful", "note"]
    text: str
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What ``diagnose`` found.

    Attributes:
        dtype: Precision that the flow computes in.
        eps: Its rounding, relative.
        features: Number of elements.
        given: Rows of data that were given; 0: none.
        used: How many of them were looked at.
        seed: Seed of the samples.
        round_trips: One for data (if given), samples and points away.
        stretches: The same for the local Lipschitz constants.
        log_det: Error of the log-determinant of the whole transform against autograd, forward, in nats.
        log_det_inverse: The same for the inverse.
        deviation: float32 against float64.
        masses: Total mass; for a conditional flow one for each of several contexts.
        latent: Latents of the data against the base; None where they were not measured.
        layers: Every layer alone, those of the preprocess first.
        findings: What is wrong, the worst first.
        not_measured: What could not be measured, and why.
        both_ways: Sum of the log-determinants of the two directions, which should be 0, in nats; measured where there
            are too many elements for Jacobians at more than a few points. Stretches are then estimates from below.
        pixels: Errors of images there and back; none for a flow of something else.
    """

    dtype: str
    eps: float
    features: int
    given: int
    used: int
    seed: int
    round_trips: tuple[RoundTrip, ...]
    stretches: tuple[Stretch, ...]
    log_det: Quantiles
    log_det_inverse: Quantiles
    deviation: Deviation
    masses: tuple[Mass, ...]
    latent: Latent | None
    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]
    not_measured: tuple[str, ...]
    both_ways: Quantiles | None = None
    pixels: tuple[Reconstruction, ...] = ()

    @property
    def verdict(self) -> Level:
        """``"broken"`` or ``"doubtful"`` where there is such a finding, else ``"sound"``."""
        return verdict_of(self.findings)

    @property
    def blamed(self) -> tuple[str, ...]:
        """The layers to blame, each once."""
        return tuple(dict.fromkeys(f.layer for f in self.findings if f.layer and f.level != "note"))

    def text(self) -> str:
        """Return all of it in words and tables."""
        from .wording import describe

        return describe(self)


def verdict_of(findings: Sequence[Finding]) -> Level:
    """Return the worst level of findings.

    Example:
        >>> verdict_of([Finding("note", "the fit is poor"), Finding("doubtful", "half of the digits are lost")])
        'doubtful'
    """
    levels = {f.level for f in findings}
    return "broken" if "broken" in levels else "doubtful" if "doubtful" in levels else "sound"
