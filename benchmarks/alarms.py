"""Whether a promised rate of false alarms is kept, on the tables of the ADBench collection.

Protocol: the normal rows of each table (y = 0), at most 20,000 of them, split by the seed: 40 % train, 10 % choose the
epoch, 25 % calibrate, 25 % are tested. A MAF is trained for a few epochs: the promise is to hold whatever the quality
of the flow. The number of alarms among m test rows is beta-binomial of m, k and n + 1 - k, with k = floor(rate (n + 1))
of n calibration rows (fewer alarms where scores tie). A rate is refused where k = 0. All rates of all tables are held
against the band of that law at 0.05, divided by their number (Bonferroni).

    python benchmarks/alarms.py
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom

from pushforward.configs import ColumnSchema, MAFConfig, TableSchema, TrainConfig
from pushforward.data import split_rows
from pushforward.evaluate import alarm_threshold, anomaly_score
from pushforward.training import Points, TableSplit, fit_split

FOLDER = Path(os.environ.get("PUSHFORWARD_DATA", "../shared/data")) / "adbench"
_MOST_ROWS, _LEVEL = 20_000, 0.05
RATES = (0.01, 0.05, 0.1)


def scores(path: Path, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Anomaly scores of the calibration and the test rows of a table."""
    with np.load(path, allow_pickle=False) as archive:
        x = archive["X"][archive["y"] == 0].astype(np.float64)
    rng = np.random.default_rng(seed)
    x = x[rng.permutation(len(x))[:_MOST_ROWS]]
    x = x[:, (x != x[:1]).any(0)]
    fit_rows, calibration, test = split_rows(len(x), seed=seed, fractions=(0.5, 0.25, 0.25))
    parts = [torch.from_numpy(x[rows]) for rows in (fit_rows[::5], np.delete(fit_rows, np.s_[::5]))]
    schema = TableSchema(columns=tuple(ColumnSchema(name=f"x{j}") for j in range(x.shape[1])))
    split = TableSplit(schema, Points(parts[1]), Points(parts[0]), Points(parts[0]))
    training = TrainConfig(epochs=20, batch_size=min(128, len(parts[1])), seed=seed)
    flow = fit_split(split, model=MAFConfig(layers=2, hidden=(32, 32)), training=training).flow
    found = (anomaly_score(flow, torch.from_numpy(x[rows])) for rows in (calibration, test))
    return tuple(s.nan_to_num(nan=float("inf")) for s in found)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    paths = sorted(FOLDER.glob("*.npz"), key=lambda path: path.stat().st_size)
    level = _LEVEL / (len(paths) * len(RATES))
    print("| table | calibration, test rows | " + " | ".join(f"{rate:.0%}" for rate in RATES) + " |")
    print("|---" * (2 + len(RATES)) + "|")
    kept = tried = 0
    for path in paths:
        calibration, test = scores(path, arguments.seed)
        n, m, cells = len(calibration), len(test), []
        for rate in RATES:
            try:
                threshold = alarm_threshold(calibration, rate)
            except ValueError:
                cells.append("refused")
                continue
            alarms, k = int((test > threshold).sum()), int(rate * (n + 1) + 1e-9)
            most = int(betabinom.ppf(1 - level / 2, m, k, n + 1 - k))
            least = int(betabinom.ppf(level / 2, m, k, n + 1 - k))
            tied = int((calibration == threshold).sum()) > 1
            within = alarms <= most and (alarms >= least or tied)
            kept, tried = kept + within, tried + 1
            cells.append(
                f"{alarms / m:.1%} ({least / m:.1%} to {most / m:.1%}){'' if within else ' OUTSIDE'}"
            )
        print(f"| {path.stem} | {n}, {m} | {' | '.join(cells)} |", flush=True)
    print(f"\n{kept} of {tried} within the band.")


if __name__ == "__main__":
    main()
