"""The parts of a report about the latents of a flow, and about whether it is invertible in its own arithmetic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..evaluate import Diagnosis
from ..evaluate.wording import MEANING, mass_text
from .diagnosis import PANELS, draw_latent, panel_figure
from .figures import Theme, one_axes
from .html import Picture, Points, Section, Table, number, picture
from .table_report_rows import Rows, thinned
from .table_report_text import Chapter, left_out, p_relation, p_text, rows_text, texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from ..artifact import FittedFlow
    from ..evaluate.verdict import Latent

_LATENTS, _SOUND = ("latents", "Latents"), ("soundness", "Is the arithmetic sound")
_FEWEST, _MOST_LATENT_ROWS = 8, 5_000
_MOST_COLUMNS, _ROWS_LOOKED_AT = 40, 300
_MOST_IN_TABLE = 12


def latents(fitted: FittedFlow, rows: Rows, *, seed: int) -> Chapter:
    """Test whether the latents of real rows look like draws from the base."""
    if fitted.table.mixed:
        return left_out(*_LATENTS, "a density of labels, gaps or point masses is no map to latents")
    scores = _scores(fitted, rows, seed)
    if scores is None:
        base = type(fitted.flow.base).__name__
        return left_out(*_LATENTS, f"the base, {base}, has no distribution function of each element")
    if len(scores) < _FEWEST:
        return left_out(*_LATENTS, f"too few rows with finite latents ({len(scores)})")
    from ..evaluate.latent import compare_latent

    found = compare_latent(scores)
    worst = int(np.argmax(found.distances))
    verdict = (
        "Latents of the table look like draws from the base"
        if found.fits
        else "Latents of the table do not look like draws from the base: the fit is not perfect"
    )
    figures = (
        f"of one element at most {found.distances[worst]:.3f} (element {worst}, p "
        f"{p_relation(found.p_values[worst])}), of the radius, which all share, {found.radius:.3f} (p "
        f"{p_relation(found.radius_p_value)})"
    )
    lead = (
        "The flow carries rows to latents, which should be independent and standard normal. Of "
        f"{rows_text(len(scores))}, the Kolmogorov-Smirnov distance from that is {figures}. {verdict}."
    )
    shown = picture(
        partial(_draw_latent, found),
        "Quantiles of the latents of real rows against those of the normal distribution",
        title="Quantiles of the latents against the normal",
        caption="On the dotted line: normal. The three furthest off have names.",
        width=560,
    )
    sentence = f"{verdict} (distance at most {max(*found.distances, found.radius):.3f})."
    return Chapter(
        Section(*_LATENTS, lead, (shown, _moments(found, scores))),
        (sentence,) if found.fits else (),
        () if found.fits else (sentence,),
    )


def _scores(fitted: FittedFlow, rows: Rows, seed: int) -> Tensor | None:
    """Return normal scores of the latents of rows to judge, those that are finite, (rows, latents)."""
    import torch

    from ..evaluate.latent import normal_scores
    from ..evaluate.points import enter_context, exactly

    x, context = rows.tensors(thinned(rows.judged, _MOST_LATENT_ROWS))
    exact = exactly(fitted.flow)
    with torch.no_grad():
        latent = exact.to_latent(x, context, generator=torch.Generator().manual_seed(seed)).flatten(1)
        given = None if context is None else enter_context(exact, context)
        scores = normal_scores(exact.base, latent, given)
    return None if scores is None else scores[scores.isfinite().all(1)]


def _draw_latent(found: Latent, theme: Theme) -> Figure:
    figure, ax = one_axes(4.4, 3.4, theme, margins=(0.6, 0.5, 0.1, 0.2))
    draw_latent(ax, found, theme)
    return figure


def _moments(found: Latent, scores: Tensor) -> Table:
    from scipy.stats import kurtosis, skew

    values = scores.numpy()
    order = np.argsort(found.distances)[::-1][:_MOST_IN_TABLE]
    rows = [
        (
            str(j),
            number(found.means[j], "z.3f"),
            f"{found.deviations[j]:.3f}",
            number(float(skew(values[:, j])), "z.2f"),
            number(float(kurtosis(values[:, j])), "z.2f"),
            f"{found.distances[j]:.3f}",
            p_text(found.p_values[j]),
        )
        for j in order
    ]
    n, more = len(values), len(found.distances) - len(rows)
    return Table(
        ("Element", "Mean", "Deviation", "Skewness", "Excess kurtosis", "Distance", "p"),
        tuple(rows),
        caption=f"Should be 0, 1, 0 and 0; by chance off by {n**-0.5:.3f}, {(2 * n) ** -0.5:.3f}, "
        f"{(6 / n) ** 0.5:.2f} and {(24 / n) ** 0.5:.2f}. p-values are those of {len(found.distances) + 1} tests"
        + (f". {more} elements nearer to normal are not listed" if more > 0 else ""),
    )


def soundness(fitted: FittedFlow, rows: Rows, *, seed: int, command: str) -> Chapter:
    """Diagnose the flow: round trips, log-determinants, total mass, precision."""
    flow, width = fitted.flow, len(fitted.table.columns)
    if fitted.table.mixed:
        return left_out(*_SOUND, "a density of labels, gaps or point masses is no invertible map")
    for holds, why in (
        (flow.augment is not None, "the flow has added elements, whose integral no check takes"),
        (not flow.transform.exact, "the log-determinant of the flow is an estimate"),
        (flow.transform.log_det_costs, f"it takes minutes for a continuous flow; {command} does it"),
        (width > _MOST_COLUMNS, f"it takes minutes for {width} columns; {command} does it"),
    ):
        if holds:
            return left_out(*_SOUND, why)
    from ..evaluate import diagnose

    diagnosis = diagnose(flow, *rows.tensors(rows.judged), rows=_ROWS_LOOKED_AT, seed=seed)
    verdict = f"{diagnosis.verdict}: {MEANING[diagnosis.verdict]}"
    lead = (
        f"The verdict is {verdict}. Looked at: {rows_text(diagnosis.used)} of the table, drawn ones, and points far "
        "from both; there and back, log-determinants against automatic differentiation, the total mass, float32 "
        "against float64."
    )
    findings = tuple(f"{f.level}: {f.layer + ': ' if f.layer else ''}{f.text}." for f in diagnosis.findings)
    missing = tuple(f"not measured: {text}." for text in diagnosis.not_measured)
    masses = tuple(f"total mass {mass_text(mass)}." for mass in diagnosis.masses if mass.value is not None)
    said = (Points((*findings, *masses, *missing)),) if findings or masses or missing else ()
    blocks = (*said, *_panels(diagnosis), *texts(_precision(diagnosis)))
    sentence = f"The arithmetic of the flow is {verdict}."
    sound = diagnosis.verdict == "sound"
    return Chapter(Section(*_SOUND, lead, blocks), (sentence,) if sound else (), () if sound else (sentence,))


def _panels(diagnosis: Diagnosis) -> tuple[Picture, ...]:
    return tuple(
        picture(partial(panel_figure, diagnosis, name), f"Diagnosis: {name}", width=600)
        for name in PANELS
        if name != "latents"
    )


def _precision(diagnosis: Diagnosis) -> str:
    error = diagnosis.deviation.error
    return (
        f"Log-densities in {diagnosis.dtype} are off by {error.median:.1g} nats in the median and "
        f"{error.maximum:.1g} at most, against float64 ({diagnosis.deviation.where})."
    )
