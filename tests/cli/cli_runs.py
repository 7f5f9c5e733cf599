"""Runs of the command line within the process, and the small tables and settings that they use."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pushforward.cli import main

TINY = """
[model]
name = "nsf"
layers = 1
bins = 4
hidden = [8]

[training]
epochs = 2
batch_size = 32
"""


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str


def run(*arguments: object) -> Run:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Run(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Run:
    """A run that must end well."""
    result = run(*arguments)
    assert result.code == 0, result.err
    return result


def refused(*arguments: object, code: int, says: Sequence[str], untouched: Path | None = None) -> Run:
    """A run that must fail with this code and these words, leaving the folder as it was."""
    before = None if untouched is None else contents(untouched)
    result = run(*arguments)
    assert result.code == code, (result.code, result.out, result.err)
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err + result.out
    for words in says:
        assert words in result.err, result.err
    if untouched is not None:
        assert contents(untouched) == before
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def continuous(rows: int = 200, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    return pl.DataFrame({"a": 5 + 2 * a, "b": a + rng.normal(size=rows), "c": rng.gamma(2.0, size=rows)})


def mixed(rows: int = 200, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return continuous(rows, seed).with_columns(
        n=pl.Series(rng.poisson(3.0, rows)), tenths=pl.Series(np.round(rng.normal(size=rows), 1))
    )
