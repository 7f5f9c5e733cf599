"""The checkerboard: a planar flow and a neural spline flow against a density that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .figures import (
    LIGHT,
    Theme,
    cell_centres,
    cells,
    draw_curves,
    draw_density,
    dress,
    new_figure,
    one_axes,
    png,
)
from .html import Files, Gallery, Section, Table, Text, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..artifact import FittedFlow
    from ..data.densities import Density2d
    from .progress import Stages

_TRAIN_SEED, _VALID_SEED, _TEST_SEED = 1, 2, 3
_HIGHEST = 1.5 / 32  # of the colour scale, for a true density of 1/32

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Trial:
    """One model on the checkerboard.

    Attributes:
        title: Its name in words.
        file: Name of the saved flow.
        fitted: The flow.
        nll: Mean negative log-likelihood of fresh rows, in nats.
        error: Its standard error.
        density: The density on a grid, (y, x).
    """

    title: str
    file: str
    fitted: FittedFlow
    nll: float
    error: float
    density: Matrix


def checkerboard(folder: Path, stages: Stages, *, quick: bool) -> Section:
    """Fit both flows, save them and ``checkerboard.png``, and return the section of the page.

    Args:
        folder: Where the files go.
        stages: Shows the progress.
        quick: Whether to train for a moment only.
    """
    import torch

    from ..artifact import save
    from ..configs import ColumnSchema, NSFConfig, PlanarConfig, TableSchema, TrainConfig
    from ..data import atomic_path
    from ..data.densities import density
    from ..flows import score
    from ..training import Points, TableSplit

    truth = density("checkerboard")
    sizes, cells = ((4_000, 2_000, 4_000), 40) if quick else ((200_000, 20_000, 200_000), 200)
    points = [
        Points(truth.sample(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
        for n, seed in zip(sizes, (_TRAIN_SEED, _VALID_SEED, _TEST_SEED), strict=True)
    ]
    split = TableSplit(TableSchema(columns=(ColumnSchema(name="x"), ColumnSchema(name="y"))), *points)
    x0, x1, y0, y1 = truth.bounds
    centres = np.meshgrid(cell_centres(x0, x1, cells), cell_centres(y0, y1, cells))
    grid = torch.from_numpy(np.stack(centres, -1).reshape(-1, 2))
    epochs = 2 if quick else 100
    settings = (
        (
            "Planar flow, 32 layers",
            "checkerboard_planar.flow",
            PlanarConfig(layers=32),
            TrainConfig(
                epochs=epochs, batch_size=1000, learning_rate=1e-1, max_seconds=3.0 if quick else 45.0
            ),
        ),
        (
            "Neural spline flow",
            "checkerboard_nsf.flow",
            NSFConfig(layers=2, bins=16, bound=4.0, hidden=(64, 64, 64)),
            TrainConfig(
                epochs=epochs, batch_size=1000, learning_rate=1e-2, max_seconds=3.0 if quick else 60.0
            ),
        ),
    )
    trials = []
    for title, file, model, training in settings:
        fitted = stages.fit(f"checkerboard: {title.lower()}", split, model, training, "checkerboard")
        save(fitted, folder / file)
        loss = -score(fitted.flow, split.test.x).value.double().numpy()
        values = score(fitted.flow, grid).value.double().exp().numpy().reshape(cells, cells)
        error = float(loss.std(ddof=1) / math.sqrt(len(loss)))
        trials.append(_Trial(title, file, fitted, float(loss.mean()), error, values))
    exact = truth.log_prob(grid).exp().numpy().reshape(cells, cells)
    with stages.work("checkerboard: pictures"):
        with atomic_path(folder / "checkerboard.png") as temporary:
            temporary.write_bytes(png(triptych(truth, exact, trials, LIGHT), dpi=110))
        return _section(truth, exact, trials)


def _section(truth: Density2d, exact: Matrix, trials: list[_Trial]) -> Section:
    planar, spline = trials
    facts = planar.fitted.facts
    lead = (
        f"The checkerboard is uniform on eight squares, so its entropy is known, log 32 = {truth.entropy:.4f} nats: no "
        "model can have a smaller mean loss, and what it has more is its Kullback–Leibler divergence from the truth. "
        f"The planar flow stays {planar.nll - truth.entropy:.3f} nats away, the spline flow "
        f"{spline.nll - truth.entropy:.3f}."
    )
    maps = tuple(
        picture(
            partial(_map, density, truth.bounds),
            f"Heat map of the density over [-4, 4]²: {title}",
            title=title,
            caption=caption,
            width=420,
        )
        for title, density, caption in _panels(truth, exact, trials)
    )
    curves = tuple(
        picture(
            partial(_curves, trial, truth.entropy),
            f"Training and validation loss of each epoch of the {trial.title.lower()}; the best is in epoch "
            f"{trial.fitted.facts.best_epoch}",
            title=f"Training: {trial.title.lower()}",
            width=500,
        )
        for trial in trials
    )
    table = Table(
        (
            "Model",
            "Parameters",
            "Test loss, nats",
            "Exact entropy, nats",
            "Difference = KL divergence, nats",
            "Epochs, best",
            "Training, s",
        ),
        tuple(
            (
                t.title,
                f"{sum(p.numel() for p in t.fitted.flow.parameters()):,}",
                f"{t.nll:.4f} ± {t.error:.4f}",
                f"{truth.entropy:.4f}",
                f"{t.nll - truth.entropy:.4f} ± {t.error:.4f}",
                f"{len(t.fitted.facts.valid_curve)}, {t.fitted.facts.best_epoch}",
                f"{t.fitted.facts.seconds:.0f}",
            )
            for t in trials
        ),
        caption=f"Mean of −log p over {facts.test_rows:,} fresh rows ± standard error",
    )
    return Section(
        "checkerboard",
        "Checkerboard",
        lead,
        (
            Gallery(maps),
            Text(
                "One colour scale for all three, from 0 to 3/64; the true density is 1/32 on the squares, 0 elsewhere."
            ),
            table,
            Gallery(curves),
            Files(
                (
                    *(
                        (t.file, f"the {t.title.lower()}, for pushforward sample, score, plot and info")
                        for t in trials
                    ),
                    ("checkerboard.png", "the three densities in one picture"),
                )
            ),
        ),
        (
            (
                "Rows",
                f"{facts.train_rows:,} training, {facts.valid_rows:,} validation, {facts.test_rows:,} test, all drawn "
                f"from the density, with seeds {_TRAIN_SEED}, {_VALID_SEED} and {_TEST_SEED}",
            ),
            *((t.title, _settings(t)) for t in trials),
        ),
    )


def _settings(trial: _Trial) -> str:
    facts, config = trial.fitted.facts, trial.fitted.facts.config
    return (
        f"{trial.fitted.model}; batches of {config.batch_size}, learning rate {config.learning_rate:g}, seed "
        f"{config.seed}; at most {config.epochs} epochs and {config.max_seconds:g} s, ended by: {facts.stopped}"
    )


def _panels(truth: Density2d, exact: Matrix, trials: list[_Trial]) -> list[tuple[str, Matrix, str]]:
    """Return title, density and caption of each of the three maps."""
    return [
        ("The truth", exact, f"entropy {truth.entropy:.4f} nats"),
        *(
            (t.title, t.density, f"test loss {t.nll:.4f} nats, KL divergence {t.nll - truth.entropy:.4f}")
            for t in trials
        ),
    ]


def triptych(truth: Density2d, exact: Matrix, trials: list[_Trial], theme: Theme) -> Figure:
    """Return the truth and both flows side by side."""
    panels = _panels(truth, exact, trials)
    figure = new_figure(0.4 + 3.8 * len(panels), 4.6, theme)
    grid = cells(figure, (0.4, 0.65, 3.8 * len(panels) - 0.1, 3.5), 1, len(panels), gap=0.35)
    for k, (title, density, caption) in enumerate(panels):
        ax = figure.add_subplot(grid[k])
        _draw(ax, density, truth.bounds, theme)
        ax.set_title(title, color=theme.ink, fontsize=14)
        ax.set_xlabel(caption, color=theme.ink, fontsize=11)
    return figure


def _map(density: Matrix, bounds: tuple[float, float, float, float], theme: Theme) -> Figure:
    figure, ax = one_axes(4.0, 3.85, theme, margins=(0.35, 0.3, 0.05, 0.05))
    _draw(ax, density, bounds, theme)
    return figure


def _draw(ax: Axes, density: Matrix, bounds: tuple[float, float, float, float], theme: Theme) -> None:
    draw_density(ax, density, bounds, theme, highest=_HIGHEST)
    dress(ax, theme)
    ax.set_aspect("equal")


def _curves(trial: _Trial, entropy: float, theme: Theme) -> Figure:
    figure, ax = one_axes(4.5, 3.0, theme, margins=(0.65, 0.5, 0.1, 0.1))
    facts = trial.fitted.facts
    draw_curves(
        ax,
        facts.train_curve,
        facts.valid_curve,
        facts.best_epoch,
        theme,
        floor=entropy,
        floor_label=f"entropy {entropy:.4f}",
    )
    return figure
