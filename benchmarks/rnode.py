"""How many evaluations RNODE saves at equal likelihood: FFJORD with and without its penalties, on 2-D densities.

Protocol: as in toys.py; both have the same field, steps, batches and seed, and the tolerance of the solver is 1e-5. The
evaluations are the mean over the test rows for a log-density.

    python benchmarks/rnode.py --sets eight_gaussians,two_spirals --steps 3000
"""

from __future__ import annotations

import argparse
import time

import torch

from pushforward.configs import FFJORDConfig, TrainConfig
from pushforward.data.densities import density
from pushforward.flows import build_flow, score
from pushforward.objectives import objective_of
from pushforward.training import Points, train


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default="eight_gaussians,two_spirals")
    parser.add_argument("--weights", default="0,0.01", help="of the kinetic and the Jacobian penalty")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| density | weight | NLL - entropy | standard error | evaluations | s of training |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    for name in arguments.sets.split(","):
        target = density(name)
        x, valid, test = (
            target.sample(n, generator=torch.Generator().manual_seed(seed))
            for n, seed in ((512 * 500, 1), (5_000, 2), (20_000, 3))
        )
        for weight in map(float, arguments.weights.split(",")):
            model = FFJORDConfig(kinetic=weight, jacobian=weight)
            torch.manual_seed(arguments.seed)
            flow = build_flow(model, 2)
            settings = TrainConfig(
                epochs=arguments.steps // 500,
                batch_size=512,
                learning_rate=arguments.rate,
                seed=arguments.seed,
            )
            start = time.perf_counter()
            train(flow, Points(x), Points(valid), settings, objective=objective_of(model))
            seconds = time.perf_counter() - start
            loss = -score(flow, test).value.double()
            with torch.no_grad():
                counts = flow.transform.solve(test.to(flow.like)).stats.evaluations.float()
            print(
                f"| {name} | {weight:g} | {float(loss.mean()) - target.entropy:.4f} "
                f"| {float(loss.std() / len(loss) ** 0.5):.4f} | {float(counts.mean()):.0f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
