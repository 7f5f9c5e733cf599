"""Small images for tests of the command line, and runs on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cli_runs import Run, done

from pushforward.data import Images, write_pictures

TINY_IMAGES = """
[model]
name = "glow"
scales = 1
steps = 1
hidden_channels = 8

[training]
epochs = 1
batch_size = 16
"""
CLASSES = ("cat", "dog")


def squares(n: int, seed: int = 0, *, levels: int = 256, size: tuple[int, int] = (8, 8)) -> Images:
    """Bright upper halves are cats, bright lower ones dogs."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(0, levels // 4, (n, 1, *size))
    for image, label in zip(pixels, labels, strict=True):
        half = slice(0, size[0] // 2) if label == 0 else slice(size[0] // 2, None)
        image[:, half] += levels // 2
    return Images(pixels.astype(np.uint8), labels.astype(np.int64), CLASSES, levels)


def write_classes(images: Images, folder: Path) -> None:
    assert images.labels is not None
    for i, name in enumerate(images.classes):
        write_pictures(images.pixels[images.labels == i], folder / name)


def fit_pictures(place: Path, images: object, output: Path, *options: object) -> Run:
    return done("fit", images, "-o", output, "--config", place / "tiny.toml", *options)
