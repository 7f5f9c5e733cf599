"""Draw the pictures of the documentation from saved flows: samples, conditions, curves; and print what they measure.

python -m benchmarks.image_figures --folder benchmarks/models --output docs/images
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pushforward import load
from pushforward.artifact import FittedFlow
from pushforward.data import read_images, write_grid
from pushforward.evaluate.agreement import class_agreement, diversity, seam_agreement
from pushforward.report.figures import LIGHT, dress, new_figure, write_figure
from pushforward.report.picture_sheets import write_sheet
from pushforward.training import points_of

RESULTS = Path(__file__).parent / "results" / "images.json"
LABELS = {
    "mnist-nice": "NICE, pixels as they are",
    "mnist-flat-realnvp": "RealNVP, flat",
    "mnist-realnvp": "RealNVP, several scales",
    "mnist-glow": "Glow, affine",
    "mnist-pixel-nsf": "pixel-nsf",
    "mnist-glow-pixels": "Glow, spline, pixels first",
}
SEED, TEMPERATURE = 0, 1.0


def drawn(fitted: FittedFlow, count: int, context: Tensor | None = None) -> np.ndarray:
    generator = torch.Generator().manual_seed(SEED)
    samples = fitted.flow.sample((count,), context, generator=generator, temperature=TEMPERATURE)
    return samples.numpy().astype(np.uint8)


def grid(folder: Path, name: str, output: Path) -> None:
    """Write 8 x 8 samples."""
    write_grid(drawn(load(folder / f"{name}.flow"), 64), 8, 8, output / f"{name}.png", scale=2)


def classes(folder: Path, name: str, output: Path) -> None:
    """Write samples of each class, and print how far they agree with it."""
    fitted = load(folder / f"{name}.flow")
    count = len(fitted.images.classes)
    samples = drawn(fitted, 10, torch.eye(count))  # (10, classes, 1, H, W)
    rows = samples.swapaxes(0, 1)
    write_sheet(output / f"{name}.png", rows, rows=list(fitted.images.classes), scale=2)
    real = read_images("fashion-mnist").train
    assert real.labels is not None
    many = torch.from_numpy(drawn(fitted, 100, torch.eye(count)))
    labels = torch.arange(count).expand(100, count).flatten()
    images = torch.from_numpy(real.pixels[:10_000])
    print(
        name,
        class_agreement(images, torch.from_numpy(real.labels[:10_000]), many.flatten(0, 1), labels).text(),
    )
    apart = [images[torch.from_numpy(real.labels[:10_000]) == k][:100] for k in range(count)]
    print(name, diversity(many.swapaxes(0, 1), apart).text(), flush=True)


def halves(folder: Path, name: str, output: Path) -> None:
    """Write the lower halves that are drawn for the upper ones of test images, and print the steps at the seam."""
    fitted = load(folder / f"{name}.flow")
    schema = fitted.images
    test = read_images("mnist").test
    assert test is not None
    images = test.take(np.arange(8))
    points = points_of(images, schema)
    assert points.context is not None
    samples = drawn(fitted, 7, points.context)  # (7, 8, 1, h, w)
    given = points.context.numpy().astype(np.uint8)
    whole = np.zeros((8, 9, 1, schema.height, schema.width), np.uint8)
    rows, columns = schema.event_box
    top, left = schema.given_box or (slice(0), slice(0))
    whole[:, 0] = 96
    whole[:, :8, :, top, left] = given[:, None]
    whole[:, 1:8, :, rows, columns] = samples.swapaxes(0, 1)
    whole[:, 8] = images.pixels
    titles = ["given", *["drawn"] * 7, "true"]
    write_sheet(output / f"{name}.png", whole, columns=titles, scale=2)
    found = seam_agreement(
        torch.from_numpy(samples).float(), points.context, schema, real=torch.from_numpy(test.pixels[:1000])
    )
    print(name, found.text(), flush=True)


def curves(output: Path) -> None:
    """Draw validation bits against wall time, of all models of MNIST."""
    results = json.loads(RESULTS.read_text())

    def draw() -> object:
        figure = new_figure(7.2, 4.2)
        ax = figure.add_axes((0.1, 0.14, 0.86, 0.78))
        colours = ["#0b6fb8", "#d9730d", "#3a8f3a", "#b3261e", "#7a4fb5", "#1c2126"]
        for (name, label), colour in zip(LABELS.items(), colours, strict=True):
            if name not in results:
                continue
            curve = np.array(results[name]["curve"])
            shown = f"{label}: test {results[name]['test']:.3f}"
            if curve[-1, 2] > 2.0:
                ax.plot([], [], color=colour, label=f"{shown} (beyond the top)")
                continue
            ax.plot(curve[:, 0] / 60, curve[:, 2], color=colour, marker="o", markersize=3, label=shown)
        ax.set_ylim(1.0, 1.8)
        dress(ax, LIGHT, title="MNIST: validation bits per dimension", x="minutes of training", y="bits/dim")
        ax.legend(frameon=False, fontsize=8.5)
        return figure

    write_figure(output / "image-curves.png", draw)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where image_models left the flows")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    for name in (*LABELS, "fashion-glow-pixels"):
        if (given.folder / f"{name}.flow").exists():
            grid(given.folder, name, given.output)
    for name, draw in (("fashion-class", classes), ("mnist-top", halves)):
        if (given.folder / f"{name}.flow").exists():
            draw(given.folder, name, given.output)
    curves(given.output)


if __name__ == "__main__":
    main()
