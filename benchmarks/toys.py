"""How near the flows come to the entropy of the 2-D densities, and in what time.

Protocol: training rows, validation rows and test rows are drawn from the density with three seeds; the weights of the
best validation epoch are kept; the test log-likelihood is taken once, at the end. Prints a Markdown table.

    python benchmarks/toys.py --seconds 60 --threads 2
"""

from __future__ import annotations

import argparse
import platform
import time

import torch

from pushforward.configs import MODELS, TrainConfig
from pushforward.data.densities import DENSITIES, density
from pushforward.flows import Flow, Preprocess, build_flow, score
from pushforward.objectives import objective_of
from pushforward.training import Points, train
from pushforward.transforms import Standardise


def rows(name: str, count: int, seed: int) -> torch.Tensor:
    return density(name).sample(count, generator=torch.Generator().manual_seed(seed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="wall time of each training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="nsf", choices=MODELS)
    parser.add_argument("--batch", type=int, default=1024, help="rows of a step")
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--ema", type=float, default=0.0, help="decay of the average of the weights")
    parser.add_argument("--standardise", action="store_true", help="as a fit of a table does")
    parser.add_argument("--sets", default=",".join(DENSITIES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, seed {arguments.seed}\n"
    )
    print("| density | entropy | test NLL | standard error | NLL - entropy | epochs | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.sets.split(","):
        target = density(name)
        x, valid, test = rows(name, 500_000, 1), rows(name, 20_000, 2), rows(name, 100_000, 3)
        torch.manual_seed(arguments.seed)
        model = MODELS[arguments.model]()
        flow = build_flow(model, 2)
        if arguments.standardise:
            flow = Flow(
                flow.transform, flow.base, preprocess=Preprocess(Standardise(2)), augment=flow.augment
            )
        settings = TrainConfig(
            epochs=1000,
            patience=1000,
            batch_size=arguments.batch,
            learning_rate=arguments.rate,
            max_seconds=arguments.seconds,
            seed=arguments.seed,
            ema=arguments.ema,
        )
        start = time.perf_counter()
        result = train(flow, Points(x), Points(valid), settings, objective=objective_of(model))
        seconds = time.perf_counter() - start
        loss = -score(flow, test).value.double()
        error = float(loss.std() / len(loss) ** 0.5)
        nll = float(loss.mean())
        print(
            f"| {name} | {target.entropy:.4f} | {nll:.4f} | {error:.4f} | {nll - target.entropy:.4f} "
            f"| {len(result.valid_curve)} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
