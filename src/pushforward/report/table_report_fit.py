"""The parts of a report about how a flow was trained, and how likely it finds rows beside simple models."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..evaluate.verdict import KS_DISTANCE, KS_LEVEL
from .baselines import Baseline, gaussian, gaussian_given, gaussian_mixture
from .comparison import Comparison, dequantised, noisy_log_prob
from .figures import Theme, draw_curves, one_axes
from .html import Points, Section, Table, Text, number, picture
from .plots import draw_log_probs, loss_name
from .table_report_rows import PARTS, Rows, thinned
from .table_report_text import Chapter, mean_and_error, p_relation, rows_text, texts, with_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..artifact import FittedFlow

Matrix = NDArray[np.float64]

SIZE = (4.8, 2.9)
MARGINS, TITLED = (0.75, 0.5, 0.1, 0.1), (0.75, 0.5, 0.1, 0.3)
"""Of figures that a telephone shows at its own width, in inches; with room for a title above."""
_FEWEST_TRAINING, _FEWEST_TEST, _FEW_JUDGED = 20, 8, 200
_MOST_TRAINING = 5_000
_FULL, _DIAGONAL = (1, 2, 4, 8, 16, 30), (8, 30)  # components of the mixtures that are tried
_PATIENCE = 2  # more components that are no better, before no more are tried
_ROWS_EACH = 20  # rows for each component, without which it is not tried
_MIXTURE_WORK = 2e7  # rows times components times squared columns, of the largest of them
_ERRORS = 2.0
_BY_HEART_ERRORS, _BY_HEART = 3.0, 0.1
_LAST = 0.02  # share of the epochs that are the last ones


def training(fitted: FittedFlow) -> Chapter:
    """Say how training went."""
    facts = fitted.facts
    epochs = len(facts.valid_curve)
    lead = f"{rows_text(epochs, 'epoch')} in {facts.seconds:,.0f} s; training ended with {facts.ending}. "
    if facts.best_epoch:
        lead += f"The weights are those of epoch {facts.best_epoch}, which had the lowest validation loss."
    draw = partial(_draw_curves, fitted)
    good, doubts = _end_of_training(fitted)
    shown = (picture(draw, "Training and validation loss of each epoch", width=620),) if epochs else ()
    notes = (Points(facts.notes, "Notes of the training"),) if facts.notes else ()
    if facts.notes:
        doubts.append(f"Training left {rows_text(len(facts.notes), 'note')}, which stand below its curve.")
    return Chapter(
        Section("training", "Training", lead, (*shown, *notes), _record(fitted)), tuple(good), tuple(doubts)
    )


def _end_of_training(fitted: FittedFlow) -> tuple[list[str], list[str]]:
    facts = fitted.facts
    epochs = len(facts.valid_curve)
    if facts.stopped in ("diverged", "drift", "interrupt"):
        return [], [
            f"Training did not come to its end ({facts.ending}); the weights are the best ones before."
        ]
    if epochs and facts.stopped in ("time", "epochs") and facts.best_epoch > (1 - _LAST) * epochs:
        return [], [
            "The validation loss was still falling when training ended: more epochs may give a better fit."
        ]
    return ["The validation loss had stopped falling when training ended."], []


def _record(fitted: FittedFlow) -> tuple[tuple[str, str], ...]:
    facts = fitted.facts
    recorded = zip(PARTS, (facts.train_log_prob, facts.valid_log_prob, facts.test_log_prob), strict=True)
    return (
        (
            "Rows",
            f"{facts.train_rows:,} training, {facts.valid_rows:,} validation, {facts.test_rows:,} test, of "
            f"{facts.source or 'a table in memory'}",
        ),
        (
            "Log-likelihood on record",
            ", ".join(f"{part} {number(value, '.4f')}" for part, value in recorded)
            + f"; mean nats of a row, {facts.kind}",
        ),
    )


def _draw_curves(fitted: FittedFlow, theme: Theme) -> Figure:
    figure, ax = one_axes(*SIZE, theme, margins=MARGINS)
    facts = fitted.facts
    what = loss_name(fitted)
    draw_curves(ax, facts.train_curve, facts.valid_curve, facts.best_epoch, theme, what=what)
    return figure


def likelihood(fitted: FittedFlow, rows: Rows, comparison: Comparison, *, seed: int) -> Chapter:
    """Say how likely the flow finds rows, and hold that against simple models."""
    judged = rows.log_prob[rows.judged]
    finite = judged[np.isfinite(judged)]
    doubts = []
    if lost := len(judged) - len(finite):
        doubts.append(
            f"{rows_text(lost)} of {len(judged):,} have no finite log-density: outside the support, or where the "
            "model overflows. Means leave them out."
        )
    if len(finite) < _FEW_JUDGED:
        doubts.append(f"{rows_text(len(finite))} to judge by: few, so that tests miss all but large errors.")
    if not len(finite):
        return Chapter(
            Section("likelihood", "How likely", "No row has a finite log-density.", ()), (), tuple(doubts)
        )
    what = "test row" if rows.origin == "split" else "row"
    lead = (
        f"Mean log-likelihood {with_error(finite)} nats (± standard error) over {rows_text(len(finite), what)}: the "
        "natural logarithm of the density in the units of the table. Its size depends on the units, so only "
        "differences between models on the same rows mean something; a difference of 1 nat is a factor of 2.7."
    )
    good, more, found = _against(fitted, rows, seed)
    by_heart, alike = _by_heart(rows), _as_likely(finite, comparison)
    draw = partial(_draw_log_probs, comparison)
    shown = picture(
        draw,
        "Histograms of the log-densities of real rows and of drawn rows",
        caption="Where the flow is right, both have the same shape: rows that it draws are as likely as real ones.",
        width=620,
    )
    return Chapter(
        Section(
            "likelihood",
            "How likely",
            lead,
            (*found, *texts(*by_heart[0], *by_heart[1], *alike[0], *alike[1]), shown),
        ),
        (*good, *by_heart[0], *alike[0]),
        (*doubts, *more, *by_heart[1], *alike[1]),
    )


def _draw_log_probs(comparison: Comparison, theme: Theme) -> Figure:
    figure, ax = one_axes(*SIZE, theme, margins=TITLED)
    draw_log_probs(ax, comparison, theme)
    return figure


def _by_heart(rows: Rows) -> tuple[list[str], list[str]]:
    """Say whether training rows are more likely than test rows by more than chance."""
    if rows.origin != "split":
        return [], []
    train, test = (rows.log_prob[rows.places(part)] for part in ("training", "test"))
    train, test = train[np.isfinite(train)], test[np.isfinite(test)]
    if min(len(train), len(test)) < _FEWEST_TEST:
        return [], []
    (a, of_a), (b, of_b) = mean_and_error(train), mean_and_error(test)
    gap, error = a - b, math.hypot(of_a, of_b)
    text = f"Training rows are {number(gap, 'z.2f')} ± {error:.2f} nats more likely than test rows"
    if gap > max(_BY_HEART, _BY_HEART_ERRORS * error):
        return [], [f"{text}: the flow has learned some of them by heart. More rows or a smaller model help."]
    return [f"{text}: no sign of learning by heart."], []


def _as_likely(real: Matrix, comparison: Comparison) -> tuple[list[str], list[str]]:
    """Say whether rows that the flow draws are as likely as real ones, by a Kolmogorov-Smirnov test."""
    from scipy.stats import ks_2samp

    drawn = comparison.drawn_log_prob[np.isfinite(comparison.drawn_log_prob)]
    if min(len(real), len(drawn)) < _FEWEST_TEST:
        return [], []
    found = ks_2samp(real, drawn)
    distance, p_value = float(found.statistic), float(found.pvalue)
    figures = f"(Kolmogorov-Smirnov distance {distance:.3f}, p {p_relation(p_value)})"
    if distance <= KS_DISTANCE or p_value >= KS_LEVEL:
        return [f"Log-densities of drawn rows are distributed as those of real ones {figures}."], []
    if np.median(drawn) < np.median(real):
        return [], [
            f"Drawn rows are less likely than real ones {figures}: the flow spreads where there are no rows."
        ]
    return [], [f"Real rows are less likely than drawn ones {figures}: they lie where the flow expects few."]


def _against(
    fitted: FittedFlow, rows: Rows, seed: int
) -> tuple[list[str], list[str], tuple[Table | Text, ...]]:
    """Return sentences for the flow, sentences against it, and the table of simple models."""
    if fitted.table.mixed:
        why = "Simple models are left out: they take numbers only, and this table has labels, gaps or point masses."
        return [], [], texts(why)
    places = [rows.places(part) for part in PARTS]
    if len(places[0]) < _FEWEST_TRAINING or min(map(len, places[1:])) < _FEWEST_TEST:
        return [], [], texts(f"Simple models are left out: too few rows ({len(rows)}).")
    values, rivals = _rivals(fitted, rows, places, seed)
    if not len(values):
        return (
            [],
            [],
            texts("Simple models are left out: the flow gives no row of the test a finite density."),
        )
    best = max(rivals, key=lambda rival: rival.mean)
    ahead, error = mean_and_error(values - best.values)
    share = 100 * float((values > best.values).mean())
    gain = (
        f"{number(ahead, '+.2f')} ± {error:.2f} nats a row against the {best.name}, the best of them, and ahead on "
        f"{share:.0f} % of the rows"
    )
    better = ahead > _ERRORS * error
    table = likelihood_table("The flow", values, rivals)
    notes = _of_the_comparison(fitted, rows)
    if better:
        return [f"The flow is ahead of the simple models: {gain}."], [], (table, *notes)
    return [], [f"The flow is not clearly ahead of simple models: {gain}."], (table, *notes)


def _of_the_comparison(fitted: FittedFlow, rows: Rows) -> tuple[Text, ...]:
    """Say how the comparison was made."""
    learned = min(len(rows.places("training")), _MOST_TRAINING)
    own = (
        ""
        if rows.origin == "split"
        else " of this table, a part that is theirs alone: the flow learned from its own"
    )
    sentence = f"The simple models learned from {rows_text(learned, 'row')}{own}."
    if fitted.table.dequantised:
        sentence += (
            " Values of discrete columns are spread over their cells, with the same noise for all models, so the "
            "flow's figure is a little lower here than above."
        )
    if rows.context is not None:
        sentence += " Given conditions, a linear regression with Gaussian errors is the only one of them."
    return texts(sentence)


def _rivals(
    fitted: FittedFlow, rows: Rows, places: list[NDArray[np.int64]], seed: int
) -> tuple[Matrix, list[Baseline]]:
    """Return log-densities of the test rows by the flow, where they are finite, and by simple models."""
    places = [thinned(places[0], _MOST_TRAINING), *places[1:]]
    noisy = dequantised(fitted, [rows.x[part] for part in places], seed=seed)
    given = None if rows.context is None else [rows.context[part] for part in places]
    values = noisy_log_prob(fitted, noisy[2], None if given is None else given[2])
    there = np.isfinite(values)
    train, valid, test = noisy[0], noisy[1], noisy[2][there]
    if not len(test):
        return values[there], []
    if given is not None:
        contexts = (given[0], given[1], given[2][there])
        return values[there], [gaussian_given((train, valid, test), contexts)]
    count, width = train.shape
    full = [k for k in _FULL if k == 1 or (k * _ROWS_EACH <= count and k * count * width**2 <= _MIXTURE_WORK)]
    diagonal = [k for k in _DIAGONAL if k * _ROWS_EACH <= count]
    rivals = [gaussian(train, valid, test)]
    with suppress(ValueError):  # none of the mixtures could be fitted to rows like these
        rivals.append(
            gaussian_mixture(
                train,
                valid,
                test,
                components={"full": full, "diag": diagonal},
                patience=_PATIENCE,
                seed=seed,
            )
        )
    return values[there], rivals


def likelihood_table(name: str, values: Matrix, rivals: list[Baseline]) -> Table:
    """Return a table of the mean log-likelihoods of a model and of others, with the paired differences.

    Args:
        name: What to call the model.
        values: Its log-likelihood of each test row, in nats.
        rivals: The others, of the same rows.
    """
    rows = [(name, with_error(values), "", "", "best epoch by validation")]
    rows += [
        (
            r.name,
            with_error(r.values),
            with_error(values - r.values, "+.2f"),
            f"{100 * float((values > r.values).mean()):.0f} %",
            r.detail,
        )
        for r in rivals
    ]
    return Table(
        ("Model", "Log-likelihood, nats", "Flow ahead by, nats", "Flow ahead on", "Chosen"),
        tuple(rows),
        caption=f"Mean over {len(values):,} test rows ± standard error, and share of the rows that the flow finds "
        "likelier",
        text_columns=frozenset({0, 4}),
    )
