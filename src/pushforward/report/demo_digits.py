"""Handwritten digits: a flow in 64 dimensions against a Gaussian, a Gaussian mixture and a kernel density estimate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .baselines import BANDWIDTHS, Baseline, gaussian, gaussian_mixture, kernel_density
from .comparison import noisy_log_prob
from .digits_page import (
    DRAW_SEED,
    LEVELS,
    NOISE_SEED,
    PIXELS,
    SIDE,
    SPLIT_SEED,
    DigitsData,
    DigitsResult,
    digits_section,
)
from .html import Section

if TYPE_CHECKING:
    from .progress import Stages

_SHARES = (0.7, 0.1, 0.2)
_SHOWN = 40

Matrix = NDArray[np.float64]
Parts = tuple[Matrix, Matrix, Matrix]


def digits(folder: Path, stages: Stages, *, quick: bool) -> Section:
    """Fit a flow to the digits, save it and the scores of the held-out ones, and return the section of the page.

    Args:
        folder: Where the files go.
        stages: Shows the progress.
        quick: Whether to train for a moment only.
    """
    import torch

    from ..artifact import save
    from ..configs import NSFConfig, TrainConfig
    from ..flows import score

    data = _load()
    fitted = stages.fit(
        "digits: neural spline flow",
        data.split,
        NSFConfig(layers=2, bins=8, hidden=(16,) if quick else (128,), activation="tanh"),
        TrainConfig(
            epochs=2 if quick else 60,
            batch_size=64,
            learning_rate=3e-3,
            weight_decay=0.5,
            ema=0.99,
            patience=30,
            max_seconds=3.0 if quick else 60.0,
        ),
        "digits",
    )
    save(fitted, folder / "digits.flow")
    with stages.work("digits: Gaussian, mixture and kernel density"):
        rivals = _rivals(data.noisy, quick=quick)
    with stages.work("digits: scores, draws and pictures"):
        values = noisy_log_prob(fitted, data.noisy[2])
        estimate = score(fitted.flow, data.split.test.x)
        scores = estimate.value.double().numpy()
        _write_scores(folder / "digits_scores.csv", data, scores, estimate.standard_error.double().numpy())
        generator = torch.Generator().manual_seed(DRAW_SEED)
        drawn = fitted.flow.sample((_SHOWN,), generator=generator).double().numpy()
        result = DigitsResult(fitted, data, rivals, values, scores, drawn)
        return digits_section(result)


def _load() -> DigitsData:
    import torch
    from sklearn.datasets import load_digits

    from ..configs import ColumnSchema, TableSchema
    from ..data import split_rows
    from ..surjections import Dequantise
    from ..training import Points, TableSplit

    bunch = load_digits()
    x = torch.from_numpy(np.asarray(bunch.data, dtype=np.float64))
    noisy, _ = Dequantise([1.0] * PIXELS).encode(x, generator=torch.Generator().manual_seed(NOISE_SEED))
    train, valid, test = (
        torch.from_numpy(rows) for rows in split_rows(len(x), seed=SPLIT_SEED, fractions=_SHARES)
    )
    names = [f"pixel_{i}_{j}" for i in range(SIDE) for j in range(SIDE)]
    schema = TableSchema(
        columns=tuple(ColumnSchema(name=name, low=0.0, high=LEVELS - 1.0, step=1.0) for name in names)
    )
    return DigitsData(
        TableSplit(schema, Points(x[train]), Points(x[valid]), Points(x[test])),
        (noisy[train].numpy(), noisy[valid].numpy(), noisy[test].numpy()),
        np.asarray(bunch.target)[test.numpy()],
        test.numpy(),
    )


def _rivals(pixels: Parts, *, quick: bool) -> list[tuple[str, Baseline]]:
    r"""Fit the baselines to pixels, and again in the coordinates that the flow has, which know where pixels end.

    With :math:`y = \log(x / (17 - x))` the density of pixels is that of ``y`` times :math:`\prod 17/(x (17 - x))`.
    """
    components = (
        {"full": (1,), "diag": (10,)}
        if quick
        else {"full": (5, 10), "tied": (10, 20, 50, 100), "diag": (20, 50, 75, 100)}
    )
    fits = (
        gaussian,
        partial(
            gaussian_mixture,
            criterion="validation",
            components=components,
            regularisations=(0.03, 0.1),
        ),
        partial(kernel_density, bandwidths=(0.4, 0.6) if quick else BANDWIDTHS),
    )
    logits = tuple(np.log(x) - np.log(LEVELS - x) for x in pixels)
    change = np.log(LEVELS / (pixels[2] * (LEVELS - pixels[2]))).sum(1)
    rivals = []
    for fit in fits:
        rivals.append(("pixels", fit(*pixels)))
        in_logits = fit(*logits)
        values = in_logits.values + change
        rivals.append(("logits", Baseline(in_logits.name, float(values.mean()), in_logits.detail, values)))
    return rivals


def _write_scores(path: Path, data: DigitsData, scores: Matrix, errors: Matrix) -> None:
    import polars as pl

    from ..data import TableWriter

    columns = {"image": data.test_rows, "digit": data.labels, "log_prob": scores, "standard_error": errors}
    with TableWriter(path) as writer:
        writer.write(pl.DataFrame(columns))
