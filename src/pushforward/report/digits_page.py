"""What the page says and shows of the digits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .baselines import Baseline
from .figures import Theme, cells, draw_curves, new_figure, one_axes
from .html import Files, Gallery, Section, Table, Text, number, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..artifact import FittedFlow
    from ..training import TableSplit

SIDE, LEVELS = 8, 17
PIXELS = SIDE * SIDE
SPLIT_SEED, NOISE_SEED, DRAW_SEED = 0, 1, 2

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DigitsData:
    """The images as rows of 64 pixels.

    Attributes:
        split: Training, validation and test images, whole numbers from 0 to 16.
        noisy: The same with noise from [0, 1) added to every pixel, the same noise for every model.
        labels: The digit that each test image shows.
        test_rows: Places of the test images in the data set.
    """

    split: TableSplit
    noisy: tuple[Matrix, Matrix, Matrix]
    labels: NDArray[np.int64]
    test_rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DigitsResult:
    """What came of the digits.

    Attributes:
        fitted: The flow.
        data: The images.
        rivals: What each baseline was fitted to, and the baseline.
        values: The flow's log-density of each noisy test image, in nats.
        scores: Its log-density of each test image, averaged over draws of the noise.
        drawn: Images drawn from the flow.
    """

    fitted: FittedFlow
    data: DigitsData
    rivals: list[tuple[str, Baseline]]
    values: Matrix
    scores: Matrix
    drawn: Matrix


def digits_section(result: DigitsResult) -> Section:
    """Return the section of the page."""
    fitted, data, rivals, values, scores, drawn = (
        result.fitted, result.data, result.rivals, result.values, result.scores, result.drawn,
    )  # fmt: skip
    facts, config = fitted.facts, fitted.facts.config
    coordinates, best = max(rivals, key=lambda pair: pair[1].mean)
    ahead, error = _mean_and_error(values - best.values)
    order = np.argsort(scores)
    test = data.split.test.x.numpy()
    own, other = _distance(drawn, data.split.train.x.numpy()), _distance(test, data.split.train.x.numpy())
    lead = (
        "1,797 images of 8×8 pixels with 17 levels of ink, as scikit-learn ships them. A neural spline flow learns "
        f"their density in 64 dimensions. On held-out images it is {'ahead of' if ahead > 0 else 'behind'} the best "
        f"baseline ({best.name}, fitted to {coordinates}) by {abs(ahead):.1f} ± {error:.1f} nats an image."
    )
    blocks = (
        _comparison(values, rivals, best),
        Text(
            "All models score the same held-out images with the same noise from [0, 1) added to every pixel, so that a "
            "level stands for a cell of length 1 and no density can grow without bound on values that repeat. This is "
            "the usual lower bound on the log-probability of the whole numbers; a bit per dimension is a nat over "
            f"64 log 2, and 17 levels equally likely would cost {math.log2(LEVELS):.2f}. Baselines stand in two rows: "
            "fitted to the pixels, and to y = log(x / (17 − x)), the coordinates of the flow, which know where pixels "
            f"end. Averaged over 16 draws of the noise, as the command score does, the flow reaches "
            f"{number(facts.test_log_prob, '.1f')} nats. Settings were chosen on validation images only."
        ),
        Gallery(
            (
                picture(
                    lambda theme: _sheet(test[: len(drawn)], theme),
                    f"{len(drawn)} held-out handwritten digits",
                    title="Real, held out",
                    width=460,
                ),
                picture(
                    lambda theme: _sheet(drawn, theme),
                    f"{len(drawn)} digits drawn from the flow",
                    title="Drawn from the flow, not selected",
                    width=460,
                ),
            )
        ),
        Text(
            f"Is it memory? The nearest training image of a drawn digit is {own:.1f} away on average (Euclidean, in "
            f"levels of ink), that of a held-out real digit {other:.1f}. Much nearer would mean copies; further away "
            "means that drawn digits are rougher than real ones."
        ),
        Gallery(
            tuple(
                picture(
                    partial(_labelled, test[rows], scores[rows], data.labels[rows]),
                    f"Ten held-out digits, the {what} likely of all",
                    title=f"The ten {what} likely held-out digits",
                    caption="Below each its label and log-density in nats (estimate, 16 draws of the noise).",
                    width=460,
                )
                for what, rows in (("most", order[::-1][:10]), ("least", order[:10]))
            )
        ),
        picture(
            partial(_curves, fitted),
            f"Training and validation loss of each epoch; the best validation loss is in epoch {facts.best_epoch}",
            title="Training",
            caption="Only the weights of the best epoch are kept. Weights are averaged over steps, for validation too.",
            width=560,
        ),
        Files(
            (
                ("digits.flow", "the flow, for pushforward sample, score and info"),
                (
                    "digits_scores.csv",
                    "log-density of every held-out image; image is its place in load_digits(), from 0",
                ),
            )
        ),
    )
    return Section(
        "digits",
        "Handwritten digits",
        lead,
        blocks,
        (
            (
                "Split",
                f"{facts.train_rows} training, {facts.valid_rows} validation, {facts.test_rows} test images",
            ),
            ("Model", f"{fitted.model}, {sum(p.numel() for p in fitted.flow.parameters()):,} parameters"),
            ("Seeds", f"split {SPLIT_SEED}, noise {NOISE_SEED}, training {config.seed}, draws {DRAW_SEED}"),
            (
                "Training",
                f"{len(facts.valid_curve)} epochs in {facts.seconds:.0f} s (ended by: {facts.stopped}), best epoch "
                f"{facts.best_epoch}; at most {config.epochs} epochs and {config.max_seconds:.0f} s",
            ),
        ),
    )


def _comparison(values: Matrix, rivals: list[tuple[str, Baseline]], best: Baseline) -> Table:
    mean, error = _mean_and_error(values)
    rows = [("Neural spline flow", "logits", *_numbers(mean, error), "", "best epoch by validation")]
    for coordinates, rival in rivals:
        behind, behind_error = _mean_and_error(values - rival.values)
        rows.append(
            (
                rival.name,
                coordinates,
                *_numbers(*_mean_and_error(rival.values)),
                f"{number(behind, '+.1f')} ± {behind_error:.1f}",
                rival.detail,
            )
        )
    winner = 0 if mean >= best.mean else 1 + next(i for i, (_, rival) in enumerate(rivals) if rival is best)
    return Table(
        ("Model", "Fitted to", "Log-likelihood, nats", "Bits per dimension", "Flow ahead by, nats", "Chosen"),
        tuple(rows),
        caption=f"Mean over {len(values)} held-out images ± standard error",
        text_columns=frozenset({0, 1, 5}),
        strong=frozenset({winner}),
    )


def _numbers(mean: float, error: float) -> tuple[str, str]:
    return f"{number(mean, '.1f')} ± {error:.1f}", f"{-mean / (PIXELS * math.log(2)):.3f}"


def _mean_and_error(values: Matrix) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def _distance(images: Matrix, others: Matrix) -> float:
    """Return the mean distance of images to the nearest of the others."""
    squares = (images**2).sum(1)[:, None] + (others**2).sum(1) - 2 * images @ others.T
    return float(np.sqrt(np.maximum(squares, 0).min(1)).mean())


def _curves(fitted: FittedFlow, theme: Theme) -> Figure:
    figure, ax = one_axes(4.8, 3.0, theme, margins=(0.65, 0.5, 0.1, 0.1))
    facts = fitted.facts
    draw_curves(ax, facts.train_curve, facts.valid_curve, facts.best_epoch, theme)
    return figure


def _sheet(images: Matrix, theme: Theme, *, columns: int = 8) -> Figure:
    """Draw images side by side, with a line of paper between them."""
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * (SIDE + 1) - 1, columns * (SIDE + 1) - 1))
    for i, image in enumerate(images):
        top, left = (i // columns) * (SIDE + 1), (i % columns) * (SIDE + 1)
        sheet[top : top + SIDE, left : left + SIDE] = image.reshape(SIDE, SIDE)
    figure, ax = one_axes(4.6, 4.6 * sheet.shape[0] / sheet.shape[1], theme, margins=(0.0, 0.0, 0.0, 0.0))
    _show(ax, sheet, theme)
    return figure


def _labelled(images: Matrix, scores: Matrix, labels: NDArray[np.int64], theme: Theme) -> Figure:
    figure = new_figure(4.6, 2.5, theme)
    grid = cells(figure, (0.0, 0.25, 4.6, 2.25), 2, 5, gap=0.35)
    for k, (image, score, label) in enumerate(zip(images, scores, labels, strict=True)):
        ax = figure.add_subplot(grid[k])
        _show(ax, image.reshape(SIDE, SIDE), theme)
        text = f"“{label}”  {number(score, '.0f')}"
        ax.text(0.5, -0.06, text, color=theme.ink, fontsize=9, ha="center", va="top", transform=ax.transAxes)
    return figure


def _show(ax: Axes, image: Matrix, theme: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    ax.set_axis_off()
    paper_to_ink = LinearSegmentedColormap.from_list("paper to ink", [theme.background, theme.ink])
    ax.imshow(image, cmap=paper_to_ink, vmin=0, vmax=LEVELS - 1, interpolation="nearest")
