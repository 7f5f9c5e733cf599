"""Kill `score` and `sample` with SIGKILL at random moments, resume them, and compare with jobs that were never killed.

Run by the tests with a few kills; the folder holds the flows and tables of the jobs.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path

import polars  # noqa: F401 (imported once here, and not by every process; its threads begin with its first work)
import pyarrow.parquet  # noqa: F401
import torch
from killed_fits import finished

from pushforward.artifact import load  # noqa: F401
from pushforward.cli import given, main, parts, score
from pushforward.data import TableWriter  # noqa: F401


def begin(words: list[str]) -> int:
    """Start a command in a process of its own, a fork of this one, with parts of a few chunks; return its number."""
    process = os.fork()
    if process:
        return process
    parts._PART_VALUES, score._CHUNK_ROWS, given._CHUNK_ROWS = 400, 64, 64
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        code = main(words)
    finally:
        os._exit(code)


def stress(words: list[str], whole: Path, output: Path, kills: int, seed: int) -> str:
    """Kill jobs so many times, and compare their output with that of one that nobody kills; say what was done."""
    assert finished(begin([*words, "-o", str(whole)]), 60)
    start = time.monotonic()
    assert finished(begin([*words, "-o", str(whole), "--resume"]), 60)
    longest, rng, killed, kept = time.monotonic() - start, random.Random(seed), 0, 0
    folder = output.with_name(f"{output.name}.parts")
    while killed < kills:
        output.unlink(missing_ok=True)
        while not finished(
            begin([*words, "-o", str(output), "--resume"]),
            rng.uniform(0.3, 1) * longest if killed < kills else 60,
        ):
            killed += 1
            kept += (folder / "manifest.json").exists()
        assert output.read_bytes() == whole.read_bytes(), f"{output} differs after {killed} kills"
        assert not folder.exists()
    return f"{killed} kills, {kept} of them with parts to go on from: the output is the same to the byte"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    flow, rows, context = (str(chosen.folder / name) for name in ("job.flow", "rows.csv", "given.parquet"))
    conditional = str(chosen.folder / "conditional.flow")
    jobs = {
        "scores.csv": ["score", flow, rows],
        "scores.parquet": ["score", flow, rows],
        "drawn.parquet": ["sample", conditional, "--context", context, "-n", "5"],
    }
    for name, words in jobs.items():
        print(
            f"{name}:",
            stress(words, chosen.folder / f"whole-{name}", chosen.folder / name, chosen.kills, chosen.seed),
        )
