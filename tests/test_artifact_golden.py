"""Files that earlier versions wrote are read, and a file means the same wherever it is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from pushforward.artifact import FORMAT, FittedFlow, load
from pushforward.errors import ArtifactError
from pushforward.flows import score
from sealed_files import refusals

GOLDEN = Path(__file__).parent / "golden"
FLOAT64 = {"rtol": 1e-6, "atol": 0.0}


def golden(version: int) -> tuple[FittedFlow, dict[str, Any], torch.Tensor, torch.Tensor]:
    expected = json.loads((GOLDEN / f"format-{version}.json").read_text())
    points = (torch.tensor(expected[name], dtype=torch.float64) for name in ("x", "context"))
    return load(GOLDEN / f"format-{version}.flow"), expected, *points


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_a_file_of_every_version_gives_the_densities_of_its_day(version: int) -> None:
    """Each was written by the first version with that format, by ``golden/make_format_1.py`` and its like."""
    fitted, expected, x, context = golden(version)
    if version != 2:
        assert list(fitted.table.names) == expected["columns"]
        assert list(fitted.table.context_names) == expected["context_columns"]
    else:
        assert json.loads(json.dumps(asdict(fitted.images))) == expected["images"]
    assert fitted.facts.best_epoch == expected["best_epoch"]
    assert fitted.facts.valid_log_prob == expected["valid_log_prob"]
    flow = fitted.flow.double()
    if "latent" in expected:  # not of the mixed table of version 3
        latent = torch.tensor(expected["latent"], dtype=torch.float64)
        with torch.no_grad():
            values = flow.log_prob_preprocessed(latent, context)
        torch.testing.assert_close(
            values, torch.tensor(expected["log_prob_preprocessed"], dtype=torch.float64), **FLOAT64
        )
    if version == 3:
        assert fitted.held_out is not None and fitted.held_out.tolist() == expected["held_out"]
    values = score(flow, x, context).value
    torch.testing.assert_close(values, torch.tensor(expected["log_prob"], dtype=torch.float64), **FLOAT64)


def test_every_byte_and_every_length_of_a_whole_saved_flow_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.flow"
    blob = (GOLDEN / "format-1.flow").read_bytes()
    path.write_bytes(blob)
    assert refusals(path, range(len(blob)), lambda i: 1 << i % 8, lambda: load(path)) == len(blob)
    load(path)
    for length in reversed(range(len(blob))):
        os.truncate(path, length)
        with pytest.raises(ArtifactError, match=r"cut short|checksum"):
            load(path)


def with_threads(threads: int, flow: torch.nn.Module, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return score(flow, x, context).value  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)


def many(x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Enough rows that torch shares them out over threads."""
    return x.repeat(400, 1), context.repeat(400, 1)


@pytest.mark.parametrize("threads", [2, 4])
def test_the_number_of_threads_does_not_matter(threads: int) -> None:
    """In double precision to 1e-6; in single precision within four times its own deviation from that."""
    fitted, _, x, context = golden(1)
    x, context = many(x, context)
    single = [with_threads(n, fitted.flow, x, context).double() for n in (1, threads)]
    fitted.flow.double()
    double = [with_threads(n, fitted.flow, x, context) for n in (1, threads)]
    torch.testing.assert_close(double[1], double[0], **FLOAT64)
    deviation = (single[0] - double[0]).abs().max()
    assert 0 < deviation < 1e-3 * double[0].abs().max()
    assert (single[1] - single[0]).abs().max() <= 4 * deviation


SAMPLED = """
import hashlib, sys, torch
from pushforward.artifact import load
torch.set_num_threads(1)
torch.manual_seed(int(sys.argv[2]))  # the global generator has no part in it
flow = load(sys.argv[1]).flow
context = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
x = flow.sample((50,), context, generator=torch.Generator().manual_seed(7))
print(hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest())
"""


def test_a_new_process_draws_equal_samples() -> None:
    path = GOLDEN / "format-1.flow"
    digests = {
        subprocess.run(
            [sys.executable, "-c", SAMPLED, str(path), str(seed)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in range(2)
    }
    assert len(digests) == 1
