"""What only a process of its own can show: start-up, signals, pipes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pushforward

COMMAND = [sys.executable, "-m", "pushforward"]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], ["torch", "polars", "pydantic", "matplotlib", "numpy", "rich"]),
        (
            ["fit", "--help"],
            ["torch", "polars", "matplotlib", "numpy", "rich"],
        ),  # typer itself takes pydantic here
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], heavy: list[str]) -> None:
    code = (
        f"import sys; from pushforward.cli import main; code = main({arguments}); "
        f"print(code, [m for m in {heavy} if m in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "0 []"


def test_help_is_quick() -> None:
    """In processor time, which a busy machine does not change much."""
    times = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.4


def test_import_is_lazy_and_complete() -> None:
    code = (
        "import sys, pushforward; print([m for m in ('torch', 'polars') if m in sys.modules]); "
        "print(all(getattr(pushforward, name) is not None for name in pushforward.__all__))"
    )
    assert python(code).split("\n")[:2] == ["[]", "True"]
    assert set(pushforward.__all__) <= set(dir(pushforward))
    assert not hasattr(pushforward, "nothing")


def test_ctrl_c_keeps_the_best_model(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.flow"
    fit = [
        *COMMAND,
        "fit",
        str(folder / "plain.csv"),
        "-o",
        str(model),
        "--config",
        str(folder / "tiny.toml"),
    ]
    process = subprocess.Popen(
        [*fit, "--epochs", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted. The best model so far, that of epoch" in out
    assert f"Saved {model}" in out
    assert "Traceback" not in err
    facts = pushforward.load(model).facts
    assert facts.stopped == "interrupt"
    assert facts.best_epoch >= 1


def test_a_reader_that_goes_away_is_no_fault(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "sample", str(folder / "plain.flow"), "-n", "20000", "-o", "-"]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert result.returncode != 0
    assert result.stderr == ""
