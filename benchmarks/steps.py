"""Milliseconds of a training step, a density and a sample of each model, float32.

With ``--zuko`` the same architecture in that library, where it has it and is installed, is timed in turn with ours in
the same run. Medians over interleaved rounds; the machine should be idle. Prints a Markdown table.

    python benchmarks/steps.py --features 8 --batch 1024 --threads 2
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pushforward.configs import MODELS
from pushforward.flows import build_flow

Call = Callable[[], object]


def trainer(module: nn.Module, log_prob: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Call:
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        loss = -log_prob(x).mean()
        loss.backward()
        optimiser.step()

    return step


def without_gradient(call: Call) -> Call:
    def run() -> None:
        with torch.no_grad():
            call()

    return run


def ours(name: str, features: int, x: torch.Tensor) -> dict[str, Call]:
    torch.manual_seed(0)
    flow = build_flow(MODELS[name](), features)
    return {
        "train": trainer(flow, flow.log_prob, x),
        "log_prob": without_gradient(lambda: flow.log_prob(x)),
        "sample": without_gradient(lambda: flow.sample((len(x),))),
    }


def theirs(name: str, features: int, x: torch.Tensor) -> dict[str, Call]:
    import zuko.flows as zf

    config = MODELS[name]()
    if name == "nsf":
        flow = zf.NSF(features, transforms=config.layers, bins=config.bins, hidden_features=config.hidden)
    elif name == "maf":
        flow = zf.MAF(features, transforms=config.layers, hidden_features=config.hidden)
    elif name == "realnvp":
        flow = zf.RealNVP(features, transforms=config.layers, hidden_features=config.hidden)
    else:
        return {}
    return {
        "train": trainer(flow, lambda rows: flow().log_prob(rows), x),
        "log_prob": without_gradient(lambda: flow().log_prob(x)),
        "sample": without_gradient(lambda: flow().sample((len(x),))),
    }


def medians(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--zuko", action="store_true")
    parser.add_argument("--models", default=",".join(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x = torch.randn(arguments.batch, arguments.features)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, D={arguments.features}\n"
    )
    columns = ["train", "log_prob", "sample"]
    print("| model | " + " | ".join(columns) + (" | ratio to zuko |" if arguments.zuko else " |"))
    print("|---" * (len(columns) + 1 + arguments.zuko) + "|")
    for name in arguments.models.split(","):
        calls = {f"our {k}": c for k, c in ours(name, arguments.features, x).items()}
        if arguments.zuko:
            calls |= {f"zuko {k}": c for k, c in theirs(name, arguments.features, x).items()}
        found = medians(calls, arguments.rounds)
        cells = [f"{found[f'our {k}']:.1f}" for k in columns]
        if arguments.zuko:
            ratios = [
                f"{found[f'our {k}'] / found[f'zuko {k}']:.2f}" for k in columns if f"zuko {k}" in found
            ]
            cells.append(" / ".join(ratios) or "cannot, or not the same")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
