"""Conditional densities against quantile regression by boosted trees: coverage of intervals, and CRPS.

Run: python benchmarks/conditional.py [diabetes | TABLE.npz] [--folds 10] [--repeats 3] [--peers GradientBoosting]

The last column of a table (array X of an .npz file) is predicted from the others. Every row is held out once in each
repeat of the cross-validation; intervals are equal-tailed. The continuous ranked probability score is twice the mean
pinball loss over the levels 0.025, 0.075, ..., 0.975 (Gneiting & Raftery, 2007, section 4.2); the trees have a model
for each level, whose quantiles are sorted. Standard errors are over rows, whose repeats are averaged first.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.model_selection import KFold

from pushforward import FlowConditional

Matrix = NDArray[np.float64]
Predict = Callable[[Matrix, Matrix, Matrix, Matrix], Matrix]

COVERAGES = np.array([0.5, 0.8, 0.9, 0.95])
LEVELS = (np.arange(20) + 0.5) / 20
ASKED = np.concatenate([LEVELS, 0.5 * (1 - COVERAGES), 0.5 * (1 + COVERAGES)])


def flow(X: Matrix, y: Matrix, new: Matrix, levels: Matrix) -> Matrix:
    return FlowConditional(random_state=0).fit(X, y).predict_quantiles(new, levels)


def gradient_boosting(X: Matrix, y: Matrix, new: Matrix, levels: Matrix) -> Matrix:
    models = [GradientBoostingRegressor(loss="quantile", alpha=level, random_state=0) for level in levels]
    return np.stack([model.fit(X, y).predict(new) for model in models], axis=1)


def hist_gradient_boosting(X: Matrix, y: Matrix, new: Matrix, levels: Matrix) -> Matrix:
    models = [
        HistGradientBoostingRegressor(loss="quantile", quantile=level, random_state=0) for level in levels
    ]
    return np.stack([model.fit(X, y).predict(new) for model in models], axis=1)


PEERS: dict[str, Predict] = {
    "GradientBoosting": gradient_boosting,
    "HistGradientBoosting": hist_gradient_boosting,
}


def table(name: str) -> tuple[Matrix, Matrix]:
    if name == "diabetes":
        return load_diabetes(return_X_y=True)
    with np.load(Path(name), allow_pickle=False) as archive:
        rows = archive["X"].astype(np.float64)
    return rows[:, :-1], rows[:, -1]


def measures(y: Matrix, quantiles: Matrix) -> Matrix:
    """Score of each row, and whether each interval holds it, (rows, 5)."""
    inner = np.sort(quantiles[:, : len(LEVELS)], axis=1)
    above = y[:, None] - inner
    score = 2 * np.maximum(LEVELS * above, (LEVELS - 1) * above).mean(1)
    low, high = np.split(quantiles[:, len(LEVELS) :], 2, axis=1)
    inside = (np.minimum(low, high) <= y[:, None]) & (y[:, None] <= np.maximum(low, high))
    return np.column_stack([score, inside])


def cross_validate(X: Matrix, y: Matrix, predict: Predict, folds: int, repeats: int) -> tuple[Matrix, float]:
    """Measures of every row, averaged over the repeats, and seconds for one fit."""
    found, start = np.zeros((len(y), 1 + len(COVERAGES))), time.perf_counter()
    for repeat in range(repeats):
        for train, test in KFold(folds, shuffle=True, random_state=repeat).split(X):
            quantiles = predict(X[train], y[train], X[test], ASKED)
            found[test] += measures(y[test], quantiles) / repeats
    return found, (time.perf_counter() - start) / (folds * repeats)


def shown(values: Matrix, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) / np.sqrt(len(values)):.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", default="diabetes")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", default=",".join(PEERS), help="names of peers, commas between")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    X, y = table(arguments.table)
    print(
        f"{Path(arguments.table).stem}: {X.shape[0]} x {X.shape[1]}, {arguments.folds} folds, "
        f"{arguments.repeats} repeats; "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, {platform.machine()}, "
        f"{arguments.threads} threads\n"
    )
    print(
        "| method | CRPS | flow minus it | "
        + " | ".join(f"{c:.0%}" for c in COVERAGES)
        + " | seconds a fit |"
    )
    print("|---|---|---|" + "---|" * len(COVERAGES) + "---|")
    methods = {"FlowConditional": flow} | {name: PEERS[name] for name in arguments.peers.split(",") if name}
    first: Matrix | None = None
    for name, predict in methods.items():
        found, seconds = cross_validate(X, y, predict, arguments.folds, arguments.repeats)
        first = found if first is None else first
        less = shown(first[:, 0] - found[:, 0], 3) if found is not first else ""
        covered = " | ".join(shown(100 * column, 1) for column in found[:, 1:].T)
        print(f"| {name} | {shown(found[:, 0], 3)} | {less} | {covered} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
