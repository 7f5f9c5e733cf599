"""Kill fits with SIGKILL at random moments, resume them, and compare with one that was never killed.

Run by `make stress` with 200 kills, and by the tests with 20.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import lightning_fabric  # noqa: F401 (imported once here, and not by every process)
import numpy as np
import torch

from pushforward.artifact import FittedFlow, load
from pushforward.cli import main
from pushforward.training import Checkpoints  # noqa: F401

SETTINGS = """
[model]
name = "nsf"
layers = 2
bins = 4
hidden = [16]

[training]
epochs = 25
batch_size = 32
ema = 0.99
patience = 40
"""


def prepare(folder: Path) -> None:
    """Write a table with a column of whole numbers, which brings noise into every epoch, and settings."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    rows = zip(a, a + rng.normal(size=400), rng.poisson(3.0, 400), strict=True)
    text = "a,b,n\n" + "".join(f"{x},{y},{n}\n" for x, y, n in rows)
    (folder / "table.csv").write_text(text, encoding="utf-8")
    (folder / "fit.toml").write_text(SETTINGS, encoding="utf-8")


def fit(folder: Path, output: str, *options: str) -> int:
    """Start the command in a process of its own, a fork of this one, and return its number."""
    process = os.fork()
    if process:
        return process
    log = os.open(folder / f"{output}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        code = main(
            [
                "fit",
                str(folder / "table.csv"),
                "-o",
                str(folder / output),
                "--config",
                str(folder / "fit.toml"),
                *options,
            ]
        )
    finally:
        sys.stdout.flush()
        os._exit(code)


def finished(process: int, seconds: float) -> bool:
    """Wait for a process, and kill it if it takes longer; return whether it came to its end, which must be good."""
    until, ended, status = time.monotonic() + seconds, 0, 0
    while not ended and time.monotonic() < until:
        time.sleep(0.0005)
        ended, status = os.waitpid(process, os.WNOHANG)
    if not ended:
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, f"a resumed fit left with {os.WEXITSTATUS(status)}"
    return True


def assert_same(one: FittedFlow, other: FittedFlow) -> None:
    """Compare losses and weights bit by bit, and all facts but the time."""
    assert one.facts.train_curve == other.facts.train_curve, "the training losses differ"
    assert one.facts.valid_curve == other.facts.valid_curve, "the validation losses differ"
    assert one.facts.test_log_prob == other.facts.test_log_prob
    assert one.facts.notes == other.facts.notes
    states = one.flow.state_dict(), other.flow.state_dict()
    assert all(torch.equal(t, states[1][name]) for name, t in states[0].items()), "the weights differ"


def stress(folder: Path, kills: int, seed: int) -> str:
    """Kill so many fits in a folder and compare all that come to an end; return what was done, in words."""
    prepare(folder)
    assert finished(fit(folder, "whole.flow"), 600), "the fit that nobody kills takes more than 10 minutes"
    whole = load(folder / "whole.flow")
    # Most of a process's time is training; the rest is reading before it and scoring after it.
    longest = 1.5 * whole.facts.seconds + 0.5
    rng, killed, runs, writing = random.Random(seed), 0, 0, 0
    while killed < kills:
        runs += 1
        output = f"killed-{runs}.flow"
        checkpoints = folder / f"{output}.checkpoints"
        while True:
            seconds = rng.uniform(0, longest) if killed < kills else 600
            if finished(fit(folder, output, "--resume", "--checkpoint-every", "0.01s"), seconds):
                break
            killed += 1
            writing += any(checkpoints.glob(".pushforward-*"))
        assert_same(whole, load(folder / output))
        left = [p.name for p in checkpoints.iterdir()] if checkpoints.exists() else []
        assert not checkpoints.exists(), f"a run that ended well has left {left}"
    return (
        f"{killed} kills, {writing} of them in the middle of a checkpoint, in {runs} runs (seed {seed}): "
        "all losses and weights are those of the run that was never killed, bit for bit"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        print(stress(Path(place), chosen.kills, chosen.seed))
