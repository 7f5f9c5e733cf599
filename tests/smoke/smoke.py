"""What an installed pushforward has to do, without its sources: fit a small table, score it, draw from it, show it.

Runs the installed command in a fresh folder, in the environment of the Python that runs this file.

    python smoke.py
"""

from __future__ import annotations

import csv
import json
import math
import random
import subprocess
import sys
import tempfile
from importlib.metadata import requires, version
from pathlib import Path

ROWS = 300
COMMAND = Path(sys.executable).parent / "pushforward"


def main() -> None:
    import pushforward

    home = Path(pushforward.__file__).resolve()
    check("site-packages" in home.parts, f"pushforward is not installed here, but comes from {home.parent}")
    print(", ".join(f"{name} {version(name)}" for name in ("pushforward", *dependencies())))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_table(place / "table.csv")
        fit(place)
        score(place)
        sample(place)
        show(place)
        use_the_library(place)
    print("all is well")


def dependencies() -> list[str]:
    """Names of what the installed package needs."""
    needs = [line for line in requires("pushforward") or [] if "extra ==" not in line]
    return [line.partition(">=")[0] for line in needs]


def write_table(path: Path) -> None:
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "share", "count", "hour"])
        for _ in range(ROWS):
            size = rng.gauss(10, 2)
            share = 1 / (1 + math.exp(rng.gauss(size - 10, 1)))
            writer.writerow([size, share, rng.randrange(6), rng.uniform(0, 24)])


def fit(place: Path) -> None:
    (place / "settings.toml").write_text(
        '[model]\nname = "nsf"\nhidden = [16]\nlayers = 1\n[training]\nepochs = 3\nbatch_size = 64\n'
    )
    out = run(
        place, "fit", "table.csv", "-o", "table.flow", "--config", "settings.toml",
        "--bounds", "share=0:1", "--periodic", "hour=0:24",
    )  # fmt: skip
    check("Saved table.flow" in out, out)


def score(place: Path) -> None:
    run(place, "score", "table.flow", "table.csv", "-o", "scores.csv")
    scores = read(place / "scores.csv")
    check(list(scores[0]) == ["log_prob", "kind", "standard_error"], f"columns of the scores: {scores[0]}")
    check(len(scores) == ROWS, f"{len(scores)} scores for {ROWS} rows")
    check(all(math.isfinite(float(row["log_prob"])) for row in scores), "a score is not finite")


def sample(place: Path) -> None:
    for name in ("one.csv", "two.csv"):
        run(place, "sample", "table.flow", "-n", "50", "--seed", "1", "-o", name)
    rows = read(place / "one.csv")
    check(rows == read(place / "two.csv"), "equal seeds drew different rows")
    check(len(rows) == 50, f"{len(rows)} rows drawn, not 50")
    for row in rows:
        check(0 < float(row["share"]) < 1 and 0 <= float(row["hour"]) < 24, f"outside the support: {row}")
        check(float(row["count"]).is_integer(), f"not a whole number: {row}")
    run(place, "sample", "table.flow", "-n", "50", "-o", "drawn.parquet")
    run(place, "score", "table.flow", "drawn.parquet", "-o", "drawn_scores.parquet")


def show(place: Path) -> None:
    document = json.loads(run(place, "info", "table.flow", "--json"))
    check(document["facts"]["train_rows"] == 240, f"facts: {document['facts']}")
    diagnosis = json.loads(run(place, "diagnose", "table.flow", "table.csv", "-n", "50", "--json"))
    check(diagnosis["verdict"] in ("sound", "doubtful"), f"diagnosis: {diagnosis}")
    run(place, "models")
    run(place, "plot", "table.flow", "table.csv", "-o", "table.png")
    check((place / "table.png").read_bytes().startswith(b"\x89PNG"), "plot wrote no PNG")


def use_the_library(place: Path) -> None:
    import torch

    import pushforward as pf

    fitted = pf.load(place / "table.flow")
    x = fitted.flow.sample((5,), generator=torch.Generator().manual_seed(0))
    estimate = pf.score(fitted.flow, x)
    check(bool(estimate.value.isfinite().all()), f"log-densities of draws: {estimate.value}")
    flow = pf.build_flow(pf.MAFConfig(layers=2, hidden=(16,)), 3)
    y = flow.sample((10,))
    back = flow.from_latent(flow.to_latent(y))
    check(bool(torch.allclose(back, y, atol=1e-4)), "a round trip does not come back")


def run(place: Path, *arguments: str) -> str:
    result = subprocess.run([COMMAND, *arguments], cwd=place, capture_output=True, text=True, check=False)
    line = f"pushforward {' '.join(arguments)}"
    check(result.returncode == 0, f"{line} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    for word in ("Traceback", "Warning:"):
        check(word not in result.stderr, f"{line} complained:\n{result.stderr}")
    print(f"ok  {line}")
    return result.stdout


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f"smoke test failed: {otherwise}")


if __name__ == "__main__":
    main()
