"""How the golden file of format 1 was made: ``python tests/golden/make_format_1.py``, once, when the format was new.

It is kept to show what stands in the file. Do not run it again: a golden file is one that an earlier version wrote.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pushforward.artifact import load, save
from pushforward.configs import DataConfig, NSFConfig, TrainConfig
from pushforward.data import to_matrix
from pushforward.flows import score
from pushforward.training import fit

FOLDER = Path(__file__).parent


def frame(rows: int = 400) -> pl.DataFrame:
    """A column of each kind: bounded, periodic, whole, decimal, heavy-tailed, far from zero; one conditioned on."""
    rng = np.random.default_rng(1)
    cause = rng.normal(size=rows)
    return pl.DataFrame(
        {
            "share": rng.beta(2.0, 5.0, size=rows),
            "angle": (90.0 + 60.0 * rng.normal(size=rows) + 20.0 * cause) % 360.0,
            "count": rng.poisson(np.exp(0.5 * cause + 1.0)),
            "tenths": np.round(rng.normal(size=rows), 1),
            "heavy": rng.standard_cauchy(size=rows),
            "time": 1.7e9 + 1e5 * rng.normal(size=rows),
            "cause": cause,
        }
    )


def main() -> None:
    """Write the file, and the log-densities that it gives in double precision."""
    table = frame()
    fitted = fit(
        table,
        model=NSFConfig(layers=1, hidden=(4,), bins=4),
        training=TrainConfig(epochs=30, batch_size=64, learning_rate=1e-2),
        data=DataConfig(condition=("cause",), bounds={"share": (0.0, 1.0)}, periodic={"angle": (0.0, 360.0)}),
        source="golden",
    )
    save(fitted, FOLDER / "format-1.flow")
    fitted = load(FOLDER / "format-1.flow")
    rows = table.head(12)
    x = torch.from_numpy(to_matrix(rows, fitted.schema.columns))
    context = torch.from_numpy(to_matrix(rows, fitted.schema.context))
    flow = fitted.flow.double()
    latent = torch.linspace(-2.0, 2.0, 12 * 6, dtype=torch.float64).reshape(6, 12).T.contiguous()
    golden = {
        "format": 1,
        "columns": fitted.schema.names,
        "context_columns": fitted.schema.context_names,
        "x": x.tolist(),
        "context": context.tolist(),
        "log_prob": score(flow, x, context).value.tolist(),
        "latent": latent.tolist(),
        "log_prob_preprocessed": flow.log_prob_preprocessed(latent, context).tolist(),
        "best_epoch": fitted.facts.best_epoch,
        "valid_log_prob": fitted.facts.valid_log_prob,
    }
    (FOLDER / "format-1.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
