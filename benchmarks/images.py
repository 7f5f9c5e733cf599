"""Time Glow beside that of normflows: a training step and samples, at equal architecture, in one run.

    .venv-bench/bin/python benchmarks/images.py

Both have scales of steps of actnorm, 1x1 convolution (LU) and affine coupling, whose network is a 3x3, a 1x1 and a 3x3
convolution with rectifiers, and split channels between scales. Ours has a learned prior at each split besides. The two
take turns, and the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pushforward.configs import ImageGlowConfig, ImageSchema
from pushforward.flows import Flow, image_flow

Step = Callable[[], object]


def ours(
    scales: int, steps: int, width: int, shape: tuple[int, int, int]
) -> tuple[nn.Module, Callable[[Tensor], Tensor], Callable[[int], Tensor]]:
    channels, height, columns = shape
    config = ImageGlowConfig(scales=scales, steps=steps, hidden_channels=width)
    flow: Flow = image_flow(config, ImageSchema(height=height, width=columns, channels=channels))
    flow.initialize(torch.randn(64, *shape))

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            return flow._to_model(flow.base.sample((n,)), None)[0]

    return flow, lambda x: -flow.log_prob_preprocessed(x).mean(), sample


def normflows(
    scales: int, steps: int, width: int, shape: tuple[int, int, int]
) -> tuple[nn.Module, Callable[[Tensor], Tensor], Callable[[int], Tensor]]:
    import normflows as nf

    channels, height, columns = shape
    bases, merges, flows = [], [], []
    for i in range(scales):
        # Counted from the latent: the last scale has the most channels.
        inner = channels * 2 ** (scales + 1 - i)
        layers = [nf.flows.GlowBlock(inner, width, split_mode="channel", scale=True) for _ in range(steps)]
        flows.append([*layers, nf.flows.Squeeze()])
        if i > 0:
            merges.append(nf.flows.Merge())
            latent = (inner // 2, height // 2 ** (scales - i), columns // 2 ** (scales - i))
        else:
            latent = (inner, height // 2**scales, columns // 2**scales)
        bases.append(nf.distributions.DiagGaussian(latent, trainable=False))
    model = nf.MultiscaleFlow(bases, flows, merges)
    model.forward_kld(torch.randn(64, *shape))  # its actnorm takes the first batch

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            return model.sample(n)[0]

    return model, model.forward_kld, sample


def tasks(
    model: nn.Module, loss: Callable[[Tensor], Tensor], sample: Callable[[int], Tensor], x: Tensor
) -> dict[str, Step]:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.003 * torch.randn_like(p))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5)

    def train() -> None:
        optimiser.zero_grad()
        loss(x).backward()
        optimiser.step()

    return {"train": train, "sample": lambda: sample(len(x))}


def clock(step: Step, seconds: float) -> float:
    """Return the seconds of one call, the median over some."""
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--shape", type=int, nargs=3, default=(1, 28, 28))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    shape = tuple(given.shape)
    x = torch.randn(given.batch, *shape)
    sizes = (given.scales, given.steps, given.width, shape)
    libraries = {"ours": tasks(*ours(*sizes), x), "normflows": tasks(*normflows(*sizes), x)}
    result: dict[str, dict[str, float]] = {}
    for name in ("train", "sample"):
        rounds = [
            {lib: clock(steps[name], given.seconds) for lib, steps in libraries.items()}
            for _ in range(given.rounds)
        ]
        result[name] = {
            **{lib: statistics.median(r[lib] for r in rounds) for lib in libraries},
            "ratio": statistics.median(r["ours"] / r["normflows"] for r in rounds),
        }
        ours_ms, theirs_ms = 1e3 * result[name]["ours"], 1e3 * result[name]["normflows"]
        print(
            f"{name:7} ours {ours_ms:8.1f} ms  normflows {theirs_ms:8.1f} ms  ratio {result[name]['ratio']:.2f}",
            flush=True,
        )
    if given.output is not None:
        given.output.write_text(json.dumps(vars(given) | {"output": None, "result": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
