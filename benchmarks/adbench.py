"""The default fit against a Gaussian and the best Gaussian mixture by BIC, on tables of the ADBench collection.

Protocol: the normal rows of each table (y = 0), split 60/20/20 into training, validation and test rows by the seed;
discrete columns are dequantised with one draw of noise for each row, the same for all models; every model is scored
by its log-density at these rows. The validation rows choose the flow's epoch, BIC chooses the mixture, and the test
rows are used once. Prints a Markdown table, for flows with the time of 10,000 samples and, of continuous flows, the
mean number of evaluations of the velocity for a log-density.

    python benchmarks/adbench.py 32_shuttle.npz 22_magic.gamma.npz 28_pendigits.npz
    python benchmarks/adbench.py 28_pendigits.npz --models default,ffjord,rnode,flow-matching --max-seconds 120
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pushforward.artifact import FittedFlow
from pushforward.configs import MODELS, DataConfig, default_model, default_training
from pushforward.flows import Flow
from pushforward.report.baselines import gaussian, gaussian_mixture
from pushforward.report.comparison import noisy_log_prob
from pushforward.training import TableSplit, fit_split, split_table


def fit(split: TableSplit, name: str, path: Path, arguments: argparse.Namespace) -> tuple[FittedFlow, float]:
    rows, seed = len(split.train), arguments.seed
    model = default_model(rows, len(split.schema.columns)) if name == "default" else MODELS[name]()
    training = replace(default_training(rows, seed, model), max_seconds=arguments.max_seconds)
    start = time.perf_counter()
    fitted = fit_split(split, model=model, training=training, seed=seed, source=path)
    return fitted, time.perf_counter() - start


def evaluations(flow: Flow, x: torch.Tensor) -> str:
    assert flow.preprocess is not None
    with torch.no_grad():
        counts = flow.transform.solve(flow.preprocess(x, flow.like)[0]).stats.evaluations
    return f"{counts.float().mean():.0f}" if bool(counts.any()) else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="default", help="names of models, commas between")
    parser.add_argument("--max-seconds", type=float, default=None, help="wall time of each training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, seed {arguments.seed}\n"
    )
    print(
        "| table | rows x columns | model | test log-likelihood | detail | seconds | samples, s | evaluations |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path in arguments.tables:
        with np.load(path, allow_pickle=False) as archive:
            x = archive["X"][archive["y"] == 0].astype(np.float64)
        frame = pl.DataFrame({f"x{i}": column for i, column in enumerate(x.T)})
        split = split_table(frame, DataConfig(), seed=arguments.seed, source=path, fractions=(0.6, 0.2, 0.2))
        label = f"| {path.stem} | {x.shape[0]} x {x.shape[1]} "
        rows: list[torch.Tensor] = []
        for name in arguments.models.split(","):
            fitted, seconds = fit(split, name, path, arguments)
            flow, facts = fitted.flow, fitted.facts
            if not rows:
                generator = torch.Generator().manual_seed(arguments.seed)
                rows = [split.train.x, split.valid.x, split.test.x]
                if flow.surjection is not None:
                    rows = [flow.surjection.encode(part, generator=generator)[0] for part in rows]
            start = time.perf_counter()
            flow.sample((10_000,), generator=torch.Generator().manual_seed(0))
            sampling = time.perf_counter() - start
            mean = noisy_log_prob(fitted, rows[2].numpy()).mean()
            print(
                f"{label}| {fitted.model} | {mean:.3f} | epoch {facts.best_epoch} of {len(facts.valid_curve)} "
                f"| {seconds:.0f} | {sampling:.2f} | {evaluations(flow, rows[2])} |",
                flush=True,
            )
        for baseline in (gaussian, gaussian_mixture):
            start = time.perf_counter()
            result = baseline(*(part.numpy() for part in rows))
            seconds = time.perf_counter() - start
            print(
                f"{label}| {result.name} | {result.mean:.3f} | {result.detail} | {seconds:.0f} | | |",
                flush=True,
            )


if __name__ == "__main__":
    main()
