"""Whatever stands on the command line, the program says what is wrong and leaves with an exit code it documents."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runs import Run, contents, run
from hypothesis import given, settings
from hypothesis import strategies as st

CODES = {0, 2, 3, 4, 5, 6, 7, 75, 130}
GOLDEN = Path(__file__).parents[1] / "golden" / "format-1.flow"
NUMBERS = [
    "",
    "0",
    "1",
    "2",
    "-1",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 30,
    "0x1",
    "x",
    "None",
    "é",
    "\udcff",
]
WORDS = [
    "",
    "a",
    "a,b",
    "a,a",
    "cause",
    "share,count",
    '"',
    ",",
    "a=0:1",
    "a=1:0",
    "a=:",
    "=0:1",
    "a=nan:1",
    "a=0:inf",
]
WORDS += [
    "cause=1",
    "cause=nan",
    "cause=",
    "cause=1e400",
    "cause=0,share=1",
    "count=9:",
    "angle=0:360",
    "\udcff",
    "^a$",
]
OPTIONS: dict[str, list[str]] = {
    **{
        f"--{n}": NUMBERS
        for n in ("epochs", "batch-size", "learning-rate", "seed", "temperature", "max-time")
    },
    **{f"--{n}": WORDS for n in ("condition", "drop", "group", "weights", "bounds", "periodic", "set")},
    "--model": ["nsf", "nfs", "planar", "", "é", "glow"],
    "--checkpoint-every": NUMBERS,
    "--rows": [n for n in NUMBERS if n != "9" * 30],
    "-n": ["1", "3", "0", "x"],
}
FLAGS = [
    "--json",
    "--debug",
    "--help",
    "--version",
    "--resume",
    "--no-resume",
    "--quick",
    "--nonsense",
    "-x",
    "--",
    "-",
]
COMMANDS = ["fit", "score", "sample", "info", "schema", "diagnose", "plot", "models", "fitt", ""]


def inputs(folder: Path) -> list[str]:
    """Files that fit each other, those that do not, and what is no file."""
    rng = np.random.default_rng(0)
    rows = 5  # too few to fit: no run trains
    frame = pl.DataFrame(
        {"a": rng.normal(size=rows), "b": rng.normal(size=rows), "^a$": rng.normal(size=rows)}
    )
    frame.write_csv(folder / "t.csv")
    frame.write_parquet(folder / "t.parquet")
    golden = {name: rng.uniform(1, 2, rows) for name in ("angle", "heavy", "time", "cause")}
    whole = pl.DataFrame(
        {"share": rng.uniform(size=rows), "count": [1, 2, 3, 4, 5], "tenths": [0.1] * rows, **golden}
    )
    whole.write_csv(folder / "g.csv")
    whole.with_columns(count=pl.lit(None)).write_csv(folder / "gap.csv")
    whole.select("cause").write_csv(folder / "cause.csv")
    shutil.copy(GOLDEN, folder / "m.flow")
    (folder / "cut.flow").write_bytes(GOLDEN.read_bytes()[:-9])
    (folder / "empty.csv").write_bytes(b"")
    (folder / "bad.parquet").write_bytes(b"PAR1" + b"\xff" * 40 + b"PAR1")
    (folder / "c.toml").write_text('[model]\nname = "nsf"\nlayers = 1\n')
    (folder / "bad.toml").write_text("[model\n")
    (folder / "dir.csv").mkdir()
    found = sorted(str(path) for path in folder.iterdir())
    return [
        *found,
        str(folder / "none.csv"),
        str(folder / "none.flow"),
        "",
        "-",
        "/dev/null",
        "a\0b",
        "é" * 300,
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz-cli")


@pytest.fixture(scope="module")
def pool(folder: Path) -> list[str]:
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    return inputs(folder / "in")


def survived(arguments: list[str], folder: Path) -> Run:
    before = contents(folder / "in")
    here = Path.cwd()
    os.chdir(folder / "out")  # where a relative output goes
    try:
        result = run(*arguments)
    finally:
        os.chdir(here)
    told = result.out + result.err
    assert result.code in CODES, (arguments, result)
    assert "--debug" in arguments or "Traceback" not in told, (arguments, result)
    assert "fault of pushforward" not in told, (arguments, result)
    assert result.code in (0, 7) or result.err.strip(), (arguments, result)
    after = contents(folder / "in")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    outputs = {argument for option, argument in pairwise(arguments) if option in ("-o", "--output")}
    assert {str(folder / "in" / name) for name in changed} <= outputs, arguments
    for name in changed:
        (folder / "in" / name).unlink()
        if name in before:
            (folder / "in" / name).write_bytes(before[name])
    return result


@given(st.data())
@settings(max_examples=250, deadline=None, derandomize=True)
def test_any_arguments(folder: Path, pool: list[str], data: st.DataObject) -> None:
    names = st.sampled_from(
        [*pool, str(folder / "out" / "x.csv"), str(folder / "out" / "x.flow"), "x.png", "no/x.csv"]
    )
    option = st.sampled_from(sorted(OPTIONS)).flatmap(
        lambda o: st.tuples(st.just(o), st.sampled_from(OPTIONS[o]))
    )
    file = st.tuples(
        st.sampled_from(["--output", "-o", "--config", "--schema", "--valid", "--context", "--checkpoint"]),
        names,
    )
    part = st.one_of(option, file, st.tuples(names), st.tuples(st.sampled_from(FLAGS)))
    command = data.draw(st.sampled_from(COMMANDS))
    parts = data.draw(st.lists(part, max_size=5))
    survived([command, *(word for words in parts for word in words)], folder)


@given(st.data())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_arguments_that_are_nearly_right(folder: Path, pool: list[str], data: st.DataObject) -> None:
    """A whole command with one or two options or files in it that may be odd."""
    inside, outside = folder / "in", folder / "out"
    model, table = str(inside / "m.flow"), str(inside / "g.csv")
    whole = {
        "fit": ["fit", str(inside / "t.csv"), "-o", str(outside / "x.flow")],
        "score": ["score", model, table, "-o", str(outside / "x.csv")],
        "sample": ["sample", model, "-o", str(outside / "x.csv"), "-n", "3"],
        "info": ["info", model],
    }
    arguments = list(whole[data.draw(st.sampled_from(sorted(whole)))])
    own = {"fit": sorted(OPTIONS), "sample": ["--set", "--seed", "--temperature", "--rows"]}.get(
        arguments[0], []
    )
    for _ in range(data.draw(st.integers(0, 2))):
        if own and data.draw(st.booleans()):
            option = data.draw(st.sampled_from(own))
            arguments += [option, data.draw(st.sampled_from(OPTIONS[option]))]
        else:
            place = data.draw(st.integers(1, len(arguments) - 1))
            arguments[place] = data.draw(st.sampled_from(pool))
    survived(arguments, folder)


def test_the_seeds_of_these_tests_work(folder: Path, pool: list[str]) -> None:
    assert pool
    model = str(folder / "in" / "m.flow")
    score = survived(["score", model, str(folder / "in" / "g.csv"), "-o", "s.csv"], folder)
    assert (score.code, score.err) == (0, score.err), score
    assert survived(["sample", model, "-o", "r.csv", "-n", "3", "--set", "cause=1"], folder).code == 0
    assert survived(["info", model], folder).code == 0
    few = survived(["fit", str(folder / "in" / "t.csv"), "-o", "x.flow"], folder)
    assert few.code == 3
