"""The default fit against a Gaussian and the best Gaussian mixture by BIC, on tables of the ADBench collection.

Protocol: the normal rows of each table (y = 0), split 60/20/20 into training, validation and test rows by the seed;
discrete columns are dequantised with one draw of noise for each row, the same for all models; every model is scored
by its log-density at these rows. The validation rows choose the flow's epoch, BIC chooses the mixture, and the test
rows are used once. Prints a Markdown table.

    python benchmarks/adbench.py 32_shuttle.npz 22_magic.gamma.npz 28_pendigits.npz
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pushforward.configs import DataConfig
from pushforward.report.baselines import gaussian, gaussian_mixture
from pushforward.report.comparison import noisy_log_prob
from pushforward.training import fit_split, split_table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, seed {arguments.seed}\n"
    )
    print("| table | rows x columns | model | test log-likelihood | detail | seconds |")
    print("|---|---|---|---|---|---|")
    for path in arguments.tables:
        with np.load(path, allow_pickle=False) as archive:
            x = archive["X"][archive["y"] == 0].astype(np.float64)
        frame = pl.DataFrame({f"x{i}": column for i, column in enumerate(x.T)})
        split = split_table(frame, DataConfig(), seed=arguments.seed, source=path, fractions=(0.6, 0.2, 0.2))
        start = time.perf_counter()
        fitted = fit_split(split, seed=arguments.seed, source=path)
        seconds, flow = time.perf_counter() - start, fitted.flow
        generator = torch.Generator().manual_seed(arguments.seed)
        rows = [split.train.x, split.valid.x, split.test.x]
        if flow.surjection is not None:
            rows = [flow.surjection.encode(part, generator=generator)[0] for part in rows]
        mean = noisy_log_prob(fitted, rows[2].numpy()).mean()
        facts, label = fitted.facts, f"| {path.stem} | {x.shape[0]} x {x.shape[1]} "
        epochs = f"epoch {facts.best_epoch} of {len(facts.valid_curve)}"
        print(f"{label}| {fitted.model} | {mean:.3f} | {epochs} | {seconds:.0f} |", flush=True)
        for baseline in (gaussian, gaussian_mixture):
            start = time.perf_counter()
            result = baseline(*(part.numpy() for part in rows))
            seconds = time.perf_counter() - start
            print(
                f"{label}| {result.name} | {result.mean:.3f} | {result.detail} | {seconds:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
