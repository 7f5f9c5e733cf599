"""A table: wine analyses as a CSV file, fitted, scored and explained through the public interface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .baselines import Baseline, gaussian, gaussian_mixture, kernel_density
from .comparison import Comparison, compare, dequantised, noisy_log_prob
from .html import Files, Section, Table, Text, number, picture
from .plots import fit_figure
from .table_report_fit import likelihood_table

if TYPE_CHECKING:
    import polars as pl

    from ..artifact import FittedFlow
    from .progress import Stages

_CLASS = "cultivar"
_SEED, _NOISE_SEED = 0, 1
_LISTED, _REASONS, _CANDIDATES = 8, 3, 41

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why a row is unusual: a value that does not fit the others of its row.

    Attributes:
        column: The column.
        value: Its value.
        usual: The value that makes the row most likely, all others as they are.
        gain: How much more likely, in nats.
    """

    column: str
    value: float
    usual: float
    gain: float


def wine(folder: Path, stages: Stages, *, quick: bool) -> Section:
    """Fit the wine table, write its scores and as many drawn rows, and return the section of the page.

    Args:
        folder: Where the files go.
        stages: Shows the progress.
        quick: Whether to train for a moment only.
    """
    from ..artifact import load, save
    from ..configs import DataConfig, TrainConfig, default_table_model
    from ..data import read_table
    from ..training import split_table

    path = folder / "wine.csv"
    _write(path, _wine())
    frame = read_table(path)
    split = split_table(frame, DataConfig(drop=(_CLASS,)), seed=_SEED, source=path)
    training = TrainConfig(
        epochs=2 if quick else 150,
        batch_size=32,
        patience=30,
        max_seconds=3.0 if quick else 15.0,
        seed=_SEED,
    )
    model = default_table_model(len(split.train), split.schema)
    save(stages.fit("wine: the default model", split, model, training, path.name), folder / "wine.flow")
    with stages.work("wine: scores, reasons and pictures"):
        fitted = load(folder / "wine.flow")
        scores = _scored(fitted, frame)
        _write(folder / "scores.csv", scores)
        comparison = compare(fitted, frame, seed=_SEED)
        _write(folder / "drawn.csv", _drawn(fitted, comparison))
        values, rivals = _rivals(fitted, [part.x.numpy() for part in (split.train, split.valid, split.test)])
        return _section(
            fitted, frame, scores, comparison, likelihood_table("Neural spline flow", values, rivals)
        )


def _wine() -> pl.DataFrame:
    import polars as pl
    from sklearn.datasets import load_wine

    bunch = load_wine()
    columns = {name: bunch.data[:, j] for j, name in enumerate(bunch.feature_names)}
    columns["proline"] = columns["proline"].astype(np.int64)
    return pl.DataFrame({**columns, _CLASS: [str(bunch.target_names[k]) for k in bunch.target]})


def _write(path: Path, frame: pl.DataFrame) -> None:
    from ..data import TableWriter

    with TableWriter(path) as writer:
        writer.write(frame)


def _scored(fitted: FittedFlow, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the log-density of every row of the table, with the part of the split that it was in."""
    import polars as pl
    import torch

    from ..data import split_rows, to_matrix
    from ..flows import score

    estimate = score(fitted.flow, torch.from_numpy(to_matrix(frame, fitted.table.columns)))
    part = np.empty(frame.height, dtype="<U10")
    for name, rows in zip(
        ("training", "validation", "test"), split_rows(frame.height, seed=_SEED), strict=True
    ):
        part[rows] = name
    return pl.DataFrame(
        {
            "row": np.arange(1, frame.height + 1),
            "log_prob": estimate.value.double().numpy(),
            "standard_error": estimate.standard_error.double().numpy(),
            "kind": [estimate.kind] * frame.height,
            "part": part.tolist(),
        }
    )


def _drawn(fitted: FittedFlow, comparison: Comparison) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame({name: comparison.drawn[:, j] for j, name in enumerate(fitted.table.names)})


def _rivals(fitted: FittedFlow, parts: list[Matrix]) -> tuple[Matrix, list[Baseline]]:
    """Return log-densities of the test rows, by the flow and by the baselines, all with the same noise."""
    train, valid, test = dequantised(fitted, parts, seed=_NOISE_SEED)
    mixture = gaussian_mixture(
        train,
        valid,
        test,
        criterion="validation",
        components={"full": (2, 3, 5), "diag": (2, 3, 5, 8)},
        regularisations=(0.01, 0.1, 0.3),
    )
    return noisy_log_prob(fitted, test), [
        gaussian(train, valid, test),
        mixture,
        kernel_density(train, valid, test),
    ]


def explain(fitted: FittedFlow, x: Matrix, row: int) -> list[_Reason]:
    r"""Return the values of a row that fit its others least, the worst first.

    A value is replaced by others that the column has, all else the same; what the log-density gains with the best of
    them, :math:`\max_v \log p(x_{-j}, v) - \log p(x)`, is how much the value lies off the mode of its conditional
    density :math:`p(x_j \mid x_{-j})`, since the two densities differ by a factor without :math:`x_j`.

    Args:
        fitted: The flow, without condition.
        x: All rows of the table.
        row: The place of the row.
    """
    import torch

    from ..flows import score

    names = fitted.table.names
    trials = np.tile(x[row], (len(names), _CANDIDATES + 1, 1))
    for j in range(len(names)):
        places = np.linspace(0, len(x) - 1, _CANDIDATES).round().astype(int)
        trials[j, 1:, j] = np.sort(x[:, j])[places]
    points = torch.from_numpy(trials.reshape(-1, len(names)))
    logs = score(fitted.flow, points).value.double().numpy().reshape(len(names), -1)
    best = logs.argmax(1)
    found = [
        _Reason(name, float(x[row, j]), float(trials[j, best[j], j]), float(logs[j, best[j]] - logs[j, 0]))
        for j, name in enumerate(names)
    ]
    return sorted(found, key=lambda reason: -reason.gain)


def _section(
    fitted: FittedFlow,
    frame: pl.DataFrame,
    scores: pl.DataFrame,
    comparison: Comparison,
    against: Table,
) -> Section:
    facts, config, schema = fitted.facts, fitted.facts.config, fitted.table
    lead = (
        f"{frame.height} wines with {len(schema.names)} measurements each, written to a CSV file and read back: the "
        "path that a table of your own takes with pushforward fit, score, sample and plot. Every row gets a "
        "log-density; the least likely rows are listed with the values that fit the rest of their row least."
    )
    return Section(
        "wine",
        "A table of wines",
        lead,
        (
            _anomalies(fitted, frame, scores),
            Text(
                "A reason is found by replacing one value of the row by others that the column has: “usual” is the one "
                "that makes the row most likely, and the nats are how much more likely. Rows of the training part have "
                "been seen by the flow, which makes them look more usual than they are."
            ),
            picture(
                partial(fit_figure, fitted, comparison),
                "Training curves, histograms of the log-density, and a corner plot of real and drawn rows",
                title="Real rows against rows drawn from the flow",
                dpi=110,
            ),
            against,
            Text(
                f"With {facts.test_rows} test rows the standard errors are wide, and {facts.train_rows} training rows "
                "are few to learn from. "
                f"{len(schema.dequantised)} columns hold whole or rounded numbers ({', '.join(schema.dequantised)}): "
                "they are dequantised, so that no density can grow without bound on values that repeat. Their "
                "log-densities are estimates: averaged over 16 draws in the list above, one draw, the same for every "
                "model, in this table."
            ),
            Files(
                (
                    ("wine.csv", "the table"),
                    ("wine.flow", "the flow"),
                    ("scores.csv", "log-density of every row, in the order of the table"),
                    ("drawn.csv", f"{len(comparison.drawn)} rows drawn from the flow"),
                )
            ),
        ),
        (
            (
                "Split",
                f"{facts.train_rows} training, {facts.valid_rows} validation, {facts.test_rows} test rows, "
                f"seed {_SEED}",
            ),
            ("Columns", f"{_CLASS} is left out of the fit"),
            ("Model", f"{fitted.model}, {sum(p.numel() for p in fitted.flow.parameters()):,} parameters"),
            (
                "Training",
                f"{len(facts.valid_curve)} epochs in {facts.seconds:.0f} s (ended by: {facts.stopped}), best epoch "
                f"{facts.best_epoch}, seed {config.seed}; at most {config.epochs} epochs and {config.max_seconds:g} s",
            ),
            (
                "Log-likelihood",
                f"training {number(facts.train_log_prob, '.2f')}, validation {number(facts.valid_log_prob, '.2f')}, "
                f"test {number(facts.test_log_prob, '.2f')} nats a row ({facts.kind}, 16 draws of the noise)",
            ),
        ),
    )


def _anomalies(fitted: FittedFlow, frame: pl.DataFrame, scores: pl.DataFrame) -> Table:
    from ..data import to_matrix

    x, rows = to_matrix(frame, fitted.table.columns), []
    for row, log_prob, part in scores.sort("log_prob").head(_LISTED).select("row", "log_prob", "part").rows():
        reasons = [
            f"{r.column} {r.value:g} (usual {r.usual:.4g}: {number(r.gain, '+.1f')})"
            for r in explain(fitted, x, row - 1)[:_REASONS]
        ]
        rows.append((str(row), number(log_prob, ".1f"), part, frame[_CLASS][row - 1], "; ".join(reasons)))
    median = number(float(np.median(scores["log_prob"].to_numpy())), ".1f")
    return Table(
        (
            "Row",
            "log p, nats",
            "Part",
            _CLASS.capitalize(),
            "Values that fit the others least (nats gained if usual)",
        ),
        tuple(rows),
        caption=f"The {len(rows)} most anomalous of {frame.height} rows; the median row has {median} nats",
        text_columns=frozenset({2, 3, 4}),
    )
