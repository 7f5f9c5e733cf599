"""Anomaly detection beside the detectors of PyOD, on tables of the ADBench collection.

Protocol: training on a random half of the normal rows (y = 0), tests on the other half and all anomalies (y = 1), for
each seed anew. Test sets have at most 20,000 normal rows, the same for all. Each detector has its default settings;
those of PyOD are given rows that are standardised by the training rows, pushforward's is given the rows as they are.
Where a detector's cost grows with the square of its training rows, or it trains by small batches, it has at most
``CAPS`` of them. Figures are those of the ranking of the test rows by their scores.

Each figure is written to the output as it is measured, and what stands there is not measured again. At the end it
prints all that stands there as Markdown tables, with standard errors over the seeds; a method's rank is that of its
mean over the seeds among the methods of the table.

    python -m benchmarks.anomaly FOLDER_OF_TABLES
    python -m benchmarks.anomaly FOLDER_OF_TABLES --tables 45_wine,6_cardio --methods KNN,LOF --seeds 0,1
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from pushforward.configs import DataConfig
from pushforward.evaluate import anomaly_score
from pushforward.training import fit_smoothed, split_table

Matrix = NDArray[np.float64]
Score = Callable[[Matrix], Matrix]

# By the size of their training, small ones first. The defaults of pushforward were chosen on DEVELOPMENT alone.
TABLES = (
    "45_wine", "42_WBC", "18_Ionosphere", "29_Pima", "6_cardio", "38_thyroid", "31_satimage-2", "28_pendigits",
    "2_annthyroid", "23_mammography", "22_magic.gamma", "32_shuttle", "10_cover",
)  # fmt: skip
DEVELOPMENT = ("28_pendigits", "38_thyroid", "22_magic.gamma", "6_cardio", "45_wine")
MODULES = {
    "IForest": "iforest", "LOF": "lof", "KNN": "knn", "OCSVM": "ocsvm", "ECOD": "ecod", "COPOD": "copod",
    "PCA": "pca", "GMM": "gmm", "KDE": "kde", "AutoEncoder": "auto_encoder", "DeepSVDD": "deep_svdd",
}  # fmt: skip
OURS = "pushforward"
SEEDED = ("IForest", "GMM", "PCA", "AutoEncoder", "DeepSVDD")
CAPS = {"OCSVM": 10_000, "KDE": 10_000, "DeepSVDD": 10_000}
TEST_ROWS = 20_000


@dataclass(frozen=True)
class Task:
    """A table's training rows, test rows and which of those are anomalies."""

    train: Matrix
    test: Matrix
    anomalous: NDArray[np.bool_]


def load(path: Path, seed: int) -> Task:
    with np.load(path, allow_pickle=False) as archive:
        x, y = archive["X"].astype(np.float64), archive["y"].astype(bool)
    normal = np.random.default_rng(seed).permutation(x[~y])
    train, held = np.array_split(normal, 2)
    held = held[:TEST_ROWS]
    anomalous = np.arange(len(held) + y.sum()) >= len(held)
    return Task(train, np.concatenate([held, x[y]]), anomalous)


def peer(name: str, train: Matrix, seed: int) -> Score:
    """Fit a detector of PyOD to the rows after standardising them."""
    scaler = StandardScaler().fit(train)
    z = scaler.transform(train[: CAPS.get(name)])
    arguments: dict[str, Any] = {"random_state": seed} if name in SEEDED else {}
    if name in ("AutoEncoder", "DeepSVDD"):
        arguments["verbose"] = 0
    if name == "DeepSVDD":
        arguments["n_features"] = train.shape[1]
    if name == "PCA":  # by itself it divides by the variance of components that have none
        arguments["n_components"] = int(np.linalg.matrix_rank(z))
    detector = getattr(importlib.import_module(f"pyod.models.{MODULES[name]}"), name)(**arguments)
    detector.fit(z)
    return lambda x: np.asarray(detector.decision_function(scaler.transform(x)))


def ours(train: Matrix, seed: int) -> Score:
    """Fit the smoothed density of pushforward to the rows as they are, a tenth of them held out to choose the epoch."""
    varies = np.ptp(train, axis=0) > 0
    frame = pl.DataFrame(train[:, varies], schema=[f"x{i}" for i in np.flatnonzero(varies)])
    split = split_table(frame, DataConfig(), seed=seed, fractions=(0.9, 0.1, 0.0), minimum_rows=1)
    # No rows are left for a test of the likelihood, which nothing here asks for.
    fitted = fit_smoothed(replace(split, test=split.valid), seed=seed)
    return lambda x: anomaly_score(fitted.flow, torch.from_numpy(x[:, varies])).double().numpy()


def measure(name: str, task: Task, seed: int) -> dict[str, float]:
    start = time.perf_counter()
    fitted = ours(task.train, seed) if name == OURS else peer(name, task.train, seed)
    scores = fitted(task.test)
    return {
        "auroc": float(roc_auc_score(task.anomalous, scores)),
        "aupr": float(average_precision_score(task.anomalous, scores)),
        "seconds": time.perf_counter() - start,
    }


def record(path: Path, key: str, figures: dict[str, float] | None = None) -> bool:
    """Write figures to the file, which others may write to as well; return whether the key is there."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if figures is not None:
        known[key] = figures
        part = path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1, sort_keys=True))
        part.replace(path)
    return key in known


def by_table(results: dict[str, dict[str, float]], figure: str) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return for each table and method the figures of all seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for key, figures in results.items():
        table, method, _ = key.split("/")
        found.setdefault(table, {}).setdefault(method, []).append(figures[figure])
    return {t: {m: np.array(v) for m, v in found[t].items()} for t in TABLES if t in found}


def markdown(results: dict[str, dict[str, float]], figure: str) -> str:
    """Return a table of a figure: a row for each table of data, then means and mean ranks; a column for each method."""
    found = by_table(results, figure)
    methods = [m for m in (OURS, *MODULES) if all(m in found[t] for t in found)]
    lines = ["| table | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for table, values in found.items():
        cells = (f"{v.mean():.3f} ± {error(v):.3f}" for v in map(values.__getitem__, methods))
        lines.append(f"| {table}{'*' * (table in DEVELOPMENT)} | " + " | ".join(cells) + " |")
    means = np.array([[found[t][m].mean() for m in methods] for t in found])
    ranks = rankdata(-means, axis=1)
    headline = np.array([t not in DEVELOPMENT for t in found])
    for label, rows in (("without *", headline), ("all", np.ones_like(headline))):
        for name, values in (("mean", means), ("mean rank", ranks)):
            if rows.any():
                digits = 3 if name == "mean" else 2
                cells = (f"**{v:.{digits}f}**" for v in values[rows].mean(0))
                lines.append(f"| {name}, {label} ({rows.sum()}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the tables, NAME.npz with X and y")
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--methods", default=",".join((OURS, *MODULES)))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/anomaly.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for table in arguments.tables.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            task = load(arguments.folder / f"{table}.npz", seed)
            for method in arguments.methods.split(","):
                key = f"{table}/{method}/{seed}"
                if not record(arguments.output, key):
                    figures = measure(method, task, seed)
                    record(arguments.output, key, figures)
                    print(key, *(f"{value:.4f}" for value in figures.values()), flush=True)
    results = json.loads(arguments.output.read_text())
    for figure, title in (("auroc", "AUROC"), ("aupr", "AUPR"), ("seconds", "Seconds to fit and score")):
        print(f"\n{title}\n\n{markdown(results, figure)}")


if __name__ == "__main__":
    main()
