"""Train the models of images side by side: test bits/dim, curves against wall time, saved flows.

    python -m benchmarks.image_models --folder benchmarks/models            # all, one after the other
    python -m benchmarks.image_models --folder benchmarks/models mnist-glow # one

Protocol: 54,000 of the 60,000 training images are fitted to, at most 5,000 of the others choose the epoch, the 10,000
test images are scored once, at the end, by one draw of uniform noise each (a bound). The time is that of the training
with its validations. Each writes NAME.flow and adds to images.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from pushforward import save
from pushforward.configs import (
    ImageGlowConfig,
    ImageModelConfig,
    ImageRealNVPConfig,
    NICEConfig,
    PixelNSFConfig,
    RealNVPConfig,
    default_image_training,
)
from pushforward.data import read_images
from pushforward.training import EpochRecord, fit_images

RESULTS = Path(__file__).parent / "results" / "images.json"


@dataclass(frozen=True, slots=True)
class Run:
    """What is trained, on what, for how long."""

    images: str
    model: ImageModelConfig
    minutes: float
    given: str = ""
    pixels: str = "equalise"


FLAT = {"hidden": (512, 512)}
GLOW = ImageGlowConfig(scales=2, steps=4, coupling="spline", radius=4)
# The figures of these were taken when splines could stretch ten times as much.
STEEP = {"minimum": 0.001}
RUNS = {
    "mnist-nice": Run("mnist", NICEConfig(layers=6, **FLAT), 7, pixels="scale"),
    "mnist-nice-equalise": Run("mnist", NICEConfig(layers=6, **FLAT), 4),
    "mnist-flat-realnvp": Run("mnist", RealNVPConfig(layers=5, **FLAT), 4),
    "mnist-realnvp": Run("mnist", ImageRealNVPConfig(scales=2), 8),
    "mnist-glow": Run("mnist", ImageGlowConfig(scales=2), 15),
    "mnist-pixel-nsf": Run("mnist", PixelNSFConfig(layers=3, **STEEP), 20),
    "mnist-glow-pixels": Run("mnist", GLOW, 25),
    "mnist-top": Run("mnist", replace(GLOW, **STEEP), 10, given="top"),
    "fashion-class": Run("fashion-mnist", replace(GLOW, **STEEP), 20, given="class"),
    "fashion-glow-pixels": Run("fashion-mnist", GLOW, 12),
}


def train(name: str, folder: Path, threads: int, seed: int) -> dict[str, object]:
    """Train one, save it, and return what there is to tell of it."""
    run = RUNS[name]
    images = read_images(run.images)
    settings = replace(default_image_training(54_000, seed), max_seconds=60 * run.minutes)
    started, curve = time.monotonic(), []

    def bits(loss: float) -> float:
        halves = 2 if run.given == "top" else 1
        return loss / (images.train.pixels[0].size // halves) / math.log(2)

    def on_epoch(record: EpochRecord) -> None:
        curve.append([time.monotonic() - started, bits(record.train_loss), bits(record.valid_loss)])
        print(
            f"{name} epoch {record.epoch}: {curve[-1][2]:.4f} bits/dim after {curve[-1][0]:.0f} s", flush=True
        )

    fitted = fit_images(
        images, model=run.model, training=settings, given=run.given, pixels=run.pixels, on_epoch=on_epoch
    )
    save(fitted, folder / f"{name}.flow")
    return {
        "images": run.images,
        "model": {"class": type(run.model).__name__, **asdict(run.model)},
        "given": run.given,
        "pixels": run.pixels,
        "minutes": run.minutes,
        "threads": threads,
        "seed": seed,
        "parameters": sum(p.numel() for p in fitted.flow.parameters()),
        "train": bits(-fitted.facts.train_log_prob),
        "test": bits(-fitted.facts.test_log_prob),
        "curve": curve,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *RUNS], default=[])
    parser.add_argument("--folder", type=Path, required=True, help="where the flows go")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.names or RUNS:
        found = train(name, given.folder, given.threads, given.seed)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(results | {name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
