"""How the golden file of format 3 was made: ``python tests/golden/make_format_3.py``, once, when the format was new.

It is kept to show what stands in the file. Do not run it again: a golden file is one that an earlier version wrote.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pushforward.artifact import load, save
from pushforward.configs import DataConfig, MixedConfig, TrainConfig
from pushforward.data import to_matrix
from pushforward.flows import score
from pushforward.training import fit

FOLDER = Path(__file__).parent


def frame(rows: int = 400) -> pl.DataFrame:
    """A column of each kind: labels, truths, atoms, gaps, counts, an angle, days; two conditioned on, one with gaps."""
    rng = np.random.default_rng(3)
    cause = rng.normal(size=rows)
    gaps = rng.random(rows) < 0.2
    return pl.DataFrame(
        {
            "city": rng.choice(["Bern", "Oslo", "Rome"], rows, p=[0.5, 0.3, 0.2]),
            "true": rng.random(rows) < 0.3,
            "rain": np.where(rng.random(rows) < 0.4, 0.0, rng.exponential(size=rows)),
            "height": [
                None if gap else value for gap, value in zip(gaps, cause + rng.normal(size=rows), strict=True)
            ],
            "count": rng.poisson(np.exp(0.5 * cause + 1.0)),
            "angle": (90.0 + 60.0 * rng.normal(size=rows) + 20.0 * cause) % 360.0,
            "day": [date(2024, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 366, rows)],
            "cause": [None if gap else value for gap, value in zip(gaps[::-1], cause, strict=True)],
            "sort": rng.choice(["a", "b"], rows),
        }
    )


def main() -> None:
    """Write the file, and the log-densities that it gives in double precision."""
    table = frame()
    fitted = fit(
        table,
        model=MixedConfig(orders=2, hidden=(6,), bins=4),
        training=TrainConfig(epochs=30, batch_size=64, learning_rate=1e-2),
        data=DataConfig(condition=("cause", "sort"), periodic={"angle": (0.0, 360.0)}),
        source="golden",
    )
    save(fitted, FOLDER / "format-3.flow")
    fitted = load(FOLDER / "format-3.flow")
    rows = table.head(12)
    x = torch.from_numpy(to_matrix(rows, fitted.schema.columns))
    context = torch.from_numpy(to_matrix(rows, fitted.schema.context))
    flow = fitted.flow.double()
    golden = {
        "format": 3,
        "columns": fitted.schema.names,
        "context_columns": fitted.schema.context_names,
        "x": x.tolist(),
        "context": context.tolist(),
        "log_prob": score(flow, x, context).value.tolist(),
        "held_out": fitted.held_out.tolist(),
        "best_epoch": fitted.facts.best_epoch,
        "valid_log_prob": fitted.facts.valid_log_prob,
    }
    (FOLDER / "format-3.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
