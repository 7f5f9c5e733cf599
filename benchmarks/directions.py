"""What each direction of each model costs: milliseconds of a density, a sample and a training step, and parameters.

Default configurations, float32. Every round times each direction of each model once, in turn; a cell is the median of
the rounds ± half the distance between the quartiles. The first call of each, which warms up, is not counted.

    python benchmarks/directions.py --features 8 --features 64
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pushforward.configs import MODELS
from pushforward.flows import build_flow

Call = Callable[[], object]


def directions(name: str, x: torch.Tensor) -> tuple[int, dict[str, Call]]:
    torch.manual_seed(0)
    flow = build_flow(MODELS[name](), x.shape[1])
    optimiser = torch.optim.AdamW(flow.parameters(), lr=1e-4, fused=True)

    def density() -> None:
        with torch.no_grad():
            flow.log_prob(x)

    def step() -> None:
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()

    parameters = sum(p.numel() for p in flow.parameters())
    return parameters, {"density": density, "sample": lambda: flow.sample((len(x),)), "training step": step}


def milliseconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def cell(times: list[float]) -> str:
    low, middle, high = statistics.quantiles(times, n=4)
    digits = 1 if middle < 100 else 0
    return f"{middle:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=int, action="append", help="8 and 64 by default")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for features in arguments.features or (8, 64):
        x = torch.randn(arguments.batch, features)
        models = {name: directions(name, x) for name in MODELS}
        columns = list(next(iter(models.values()))[1])
        calls = {(name, column): models[name][1][column] for name in MODELS for column in columns}
        for call in calls.values():
            call()
        times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
        for _ in range(arguments.rounds):
            for key, call in calls.items():
                times[key].append(milliseconds(call))
        print(
            f"D = {features}, {arguments.batch} points, {arguments.threads} thread(s), {arguments.rounds} rounds, "
            f"torch {torch.__version__}, {machine()}\n"
        )
        print(f"| model | {' | '.join(columns)} | parameters |")
        print("|---|" + "--:|" * (len(columns) + 1))
        for name, (parameters, _) in models.items():
            cells = [cell(times[name, column]) for column in columns]
            print(f"| {name} | {' | '.join(cells)} | {parameters:,} |")
        print(flush=True)


if __name__ == "__main__":
    main()
