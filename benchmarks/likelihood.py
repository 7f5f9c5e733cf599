"""Held-out log-likelihood on the 13 tables of the ADBench collection, by default settings, against other densities.

Protocol: the normal rows of each table (y = 0), at most 60,000 of them drawn by the seed, split 60/20/20 into training,
validation and test rows. Values on a grid are dequantised with one draw of uniform noise for each row. Columns off a
grid in which one value fills 2 % of the rows have no density: Gaussian noise of 0.05 standard deviations is added to
all of their values, and then all models see the same rows. The validation rows choose the flows' epochs and the
kernel's bandwidth, BIC chooses the mixture, and the test rows are used once. zuko and nflows train their neural spline
flow (autoregressive; 8 bins; 5 and 3 layers of 128 and 128 units, standardised by the training rows; Adam, rate 1e-3,
batch 256, epoch by validation) for the time that pushforward took, at least 10 seconds.

    python benchmarks/likelihood.py 45_wine 42_WBC --seed 0
    python benchmarks/likelihood.py            # all tables
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from pushforward.configs import ColumnSchema, TableSchema
from pushforward.data import infer_schema, split_rows, to_matrix
from pushforward.flows import score
from pushforward.report.baselines import gaussian, gaussian_mixture, kernel_density
from pushforward.surjections import Dequantise
from pushforward.training import Points, TableSplit, fit_split

Matrix = NDArray[np.float64]
FOLDER = Path(os.environ.get("PUSHFORWARD_DATA", "../shared/data")) / "adbench"
RESULTS = Path(__file__).parent / "results" / "likelihood.json"
_MOST_ROWS, _NOISE, _SHARE = 60_000, 0.05, 0.02
_MIXTURE_ROWS, _KERNEL_ROWS = 20_000, 10_000


def rows_of(path: Path, seed: int) -> tuple[Matrix, Matrix, Matrix]:
    """The training, validation and test rows of a table, made continuous."""
    with np.load(path, allow_pickle=False) as archive:
        x = archive["X"][archive["y"] == 0].astype(np.float64)
    rng = np.random.default_rng(seed)
    if len(x) > _MOST_ROWS:
        x = x[rng.choice(len(x), _MOST_ROWS, replace=False)]
    frame = pl.DataFrame({f"x{i}": column for i, column in enumerate(x.T)})
    columns = infer_schema(frame, mixed=False).columns
    x = to_matrix(frame, columns)
    noise = Dequantise([c.step or 0.0 for c in columns])
    x = noise.encode(torch.from_numpy(x), generator=torch.Generator().manual_seed(seed))[0].numpy()
    for j, column in enumerate(columns):
        if column.step is None and np.unique(x[:, j], return_counts=True)[1].max() >= _SHARE * len(x):
            x[:, j] += _NOISE * x[:, j].std() * rng.normal(size=len(x))
    parts = split_rows(len(x), seed=seed, fractions=(0.6, 0.2, 0.2))
    return tuple(x[rows] for rows in parts)  # type: ignore[return-value]


def ours(train: Matrix, valid: Matrix, test: Matrix, seed: int) -> tuple[Matrix, float, str]:
    """Log-density of the test rows by the default fit, its seconds, and the model."""
    schema = TableSchema(columns=tuple(ColumnSchema(name=f"x{i}") for i in range(train.shape[1])))
    train_points, valid_points = (Points(torch.from_numpy(part)) for part in (train, valid))
    start = time.perf_counter()
    # The test rows stay here: what the record calls its test are the validation rows once more.
    fitted = fit_split(TableSplit(schema, train_points, valid_points, valid_points), seed=seed)
    seconds = time.perf_counter() - start
    values = score(fitted.flow, torch.from_numpy(test)).value.double().numpy()
    return values, seconds, f"epoch {fitted.facts.best_epoch} of {len(fitted.facts.valid_curve)}"


def peer(
    build: Callable[[int], torch.nn.Module],
    log_prob: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
    parts: tuple[Matrix, Matrix, Matrix],
    seed: int,
    seconds: float,
) -> tuple[Matrix, float, str]:
    """Train a peer's flow on standardised rows for some seconds; the epoch by validation."""
    torch.manual_seed(seed)
    centre, scale = parts[0].mean(0), parts[0].std(0)
    train, valid, test = (torch.from_numpy((part - centre) / scale).float() for part in parts)
    model = build(train.shape[1])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    best, best_loss, best_epoch, epoch = deepcopy(model.state_dict()), math.inf, 0, 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        epoch += 1
        for rows in torch.randperm(len(train)).split(min(256, len(train))):
            optimiser.zero_grad()
            loss = -log_prob(model, train[rows]).mean()
            if torch.isfinite(loss):
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
            if time.perf_counter() - start > seconds:
                break
        with torch.no_grad():
            valid_loss = -torch.cat([log_prob(model, v) for v in valid.split(4096)]).mean().item()
        if valid_loss < best_loss:
            best, best_loss, best_epoch = deepcopy(model.state_dict()), valid_loss, epoch
    model.load_state_dict(best)
    with torch.no_grad():
        values = torch.cat([log_prob(model, t) for t in test.split(4096)]).double().numpy()
    return values - np.log(scale).sum(), time.perf_counter() - start, f"epoch {best_epoch} of {epoch}"


def zuko_nsf(features: int) -> torch.nn.Module:
    import zuko

    flow: torch.nn.Module = zuko.flows.NSF(features, transforms=5, hidden_features=(128, 128), bins=8)
    return flow


def nflows_nsf(features: int) -> torch.nn.Module:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation

    layers: list[torch.nn.Module] = []
    for _ in range(3):
        layers.append(ReversePermutation(features))
        layers.append(
            MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                features, 128, num_bins=8, tails="linear", tail_bound=5.0, num_blocks=2
            )
        )
    flow: torch.nn.Module = Flow(CompositeTransform(layers), StandardNormal([features]))
    return flow


def measured(path: Path, seed: int) -> dict[str, dict[str, object]]:
    """Mean test log-likelihood, standard error, seconds and detail of every model on one table."""
    parts = rows_of(path, seed)
    train, valid, test = parts
    found: dict[str, tuple[Matrix, float, str]] = {"pushforward": ours(*parts, seed)}
    for name, baseline, most in (
        ("Gaussian", gaussian, None),
        ("Gaussian mixture", gaussian_mixture, _MIXTURE_ROWS),
        ("kernel density", kernel_density, _KERNEL_ROWS),
    ):
        start = time.perf_counter()
        result = baseline(train[:most], valid, test)
        found[name] = (result.values, time.perf_counter() - start, result.detail)
    budget = max(10.0, found["pushforward"][1])
    found["zuko NSF"] = peer(zuko_nsf, lambda m, x: m().log_prob(x), parts, seed, budget)
    found["nflows NSF"] = peer(nflows_nsf, lambda m, x: m.log_prob(x), parts, seed, budget)
    own = found["pushforward"][0]
    return {
        name: {
            "mean": float(values.mean()),
            "error": float(values.std() / math.sqrt(len(values))),
            "behind": float((values - own).mean()),
            "behind_error": float((values - own).std() / math.sqrt(len(values))),
            "seconds": round(seconds, 1),
            "detail": detail,
        }
        for name, (values, seconds, detail) in found.items()
    }


def table(results: dict[str, dict[str, dict[str, object]]]) -> str:
    names = list(next(iter(results.values())))
    lines = [f"| table | {' | '.join(names)} | seconds |", "|---" * (len(names) + 2) + "|"]
    for key, row in results.items():
        best = max(row, key=lambda name: row[name]["mean"])  # type: ignore[arg-type,return-value]
        cells = [
            f"{'**' if name == best else ''}{row[name]['mean']:.2f}{'**' if name == best else ''}"
            for name in names
        ]
        lines.append(f"| {key} | {' | '.join(cells)} | {row['pushforward']['seconds']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="names without .npz; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    paths = sorted(FOLDER.glob("*.npz"), key=lambda path: path.stat().st_size)
    for path in paths:
        if arguments.tables and path.stem not in arguments.tables:
            continue
        results[path.stem] = measured(path, arguments.seed)
        arguments.results.write_text(json.dumps(results, indent=1) + "\n")
    print(
        f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, seed {arguments.seed}\n"
    )
    print(table(results))


if __name__ == "__main__":
    main()
