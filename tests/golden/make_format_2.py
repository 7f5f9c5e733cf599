"""How the golden file of format 2 was made: ``python tests/golden/make_format_2.py``, once, when the format was new.

It is kept to show what stands in the file. Do not run it again: a golden file is one that an earlier version wrote.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pushforward.artifact import load, save
from pushforward.configs import ImageGlowConfig, TrainConfig
from pushforward.data import Images, ImageSet
from pushforward.flows import score
from pushforward.training import fit_images

FOLDER = Path(__file__).parent


def pictures(count: int = 120) -> ImageSet:
    """Bars that lie or stand, in five shades."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, count)
    pixels = rng.integers(0, 2, (count, 1, 6, 4))
    for i, label in enumerate(labels):
        place = rng.integers(0, 4)
        pixels[i, 0][(slice(None), place) if label else (place, slice(None))] += 3
    return ImageSet(Images(pixels.astype(np.uint8), labels, ("lying", "standing"), levels=5), None, "bars")


def main() -> None:
    """Write the file, and the log-densities that it gives in double precision."""
    images = pictures()
    fitted = fit_images(
        images,
        model=ImageGlowConfig(scales=2, steps=1, hidden_channels=4, coupling="spline", bins=4, radius=1),
        training=TrainConfig(epochs=8, batch_size=16, learning_rate=1e-2),
        given="class",
    )
    save(fitted, FOLDER / "format-2.flow")
    fitted = load(FOLDER / "format-2.flow")
    x = torch.from_numpy(images.train.pixels[:8]).double()
    context = torch.eye(2)[torch.from_numpy(images.train.labels[:8])]
    latent = (
        torch.linspace(-2.0, 2.0, 8 * 24, dtype=torch.float64)
        .reshape(24, 8)
        .T.reshape(8, 1, 6, 4)
        .contiguous()
    )
    flow = fitted.flow.double()
    golden = {
        "format": 2,
        "images": asdict(fitted.images),
        "x": x.tolist(),
        "context": context.tolist(),
        "log_prob": score(flow, x, context.double()).value.tolist(),
        "latent": latent.tolist(),
        "log_prob_preprocessed": flow.log_prob_preprocessed(latent, context.double()).tolist(),
        "best_epoch": fitted.facts.best_epoch,
        "valid_log_prob": fitted.facts.valid_log_prob,
    }
    (FOLDER / "format-2.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
