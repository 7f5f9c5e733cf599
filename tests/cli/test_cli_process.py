"""What only a process of its own can show: start-up, signals, pipes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_runs import done, refused

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


def stopped(folder: Path, model: Path, number: signal.Signals, *options: str) -> tuple[int, str, str]:
    """Start a fit, send a signal when it trains, and return its exit code and what it printed."""
    fit = ["fit", str(folder / "plain.csv"), "-o", str(model), "--config", str(folder / "tiny.toml")]
    process = subprocess.Popen(
        [*COMMAND, *fit, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out, err


def test_ctrl_c_keeps_the_best_model(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.flow"
    code, out, err = stopped(folder, model, signal.SIGINT, "--epochs", "1000000")
    assert code == 130, err
    assert "Interrupted. The best model so far, that of epoch" in out
    assert f"Saved {model}" in out
    facts = pushforward.load(model).facts
    assert facts.stopped == "interrupt"
    assert facts.best_epoch >= 1


def test_sigterm_leaves_a_checkpoint_and_its_own_exit_code(folder: Path, tmp_path: Path) -> None:
    model, options = tmp_path / "m.flow", ("--epochs", "1000000", "--checkpoint", str(tmp_path / "place"))
    code, _, err = stopped(folder, model, signal.SIGTERM, *options)
    assert code == 75, err
    assert err.startswith("terminated: stopped by SIGTERM in epoch ") and "goes on from there" in err
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    again = ("fit", folder / "plain.csv", "-o", model, "--config", folder / "tiny.toml", *options)
    refused(*again, code=5, says=["unfinished run", "--resume", "--no-resume"], untouched=tmp_path)
    other = (*again[:-3], "7", *again[-2:])
    says = ["another run: training.epochs was 1000000 there and is 7 here", "Give the same as before"]
    refused(*other, "--resume", code=4, says=says, untouched=tmp_path)
    code, out, err = stopped(folder, model, signal.SIGINT, *options, "--resume")
    assert code == 130, err
    assert "Saved" in out and f"Its checkpoints stay in {tmp_path / 'place'}: --resume goes on." in out
    done(*other, "--no-resume")
    assert [path.name for path in tmp_path.iterdir()] == ["m.flow"]


def test_a_full_disk_costs_the_checkpoints_and_not_the_training(folder: Path, tmp_path: Path) -> None:
    """The system lets no file grow beyond a size between that of the model and that of its checkpoints."""
    most = 2 * (folder / "plain.flow").stat().st_size
    fit = [
        "fit",
        str(folder / "plain.csv"),
        "-o",
        str(tmp_path / "m.flow"),
        "--config",
        str(folder / "tiny.toml"),
    ]
    result = subprocess.run(
        [*COMMAND, *fit, "--checkpoint-every", "0.001s"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Note: No checkpoint could be written") == 1
    assert "File too large" in result.stdout and "Training goes on without" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["m.flow"]


def test_sigterm_outside_of_training_ends_at_once(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "table.csv"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [*COMMAND, "fit", str(pipe), "-o", str(tmp_path / "m.flow")], stderr=subprocess.PIPE, text=True
    )
    with pipe.open("w"):  # opens when the process does, and keeps it waiting
        time.sleep(0.2)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "SIGTERM outside of training" in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_reader_that_goes_away_is_no_fault(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "sample", str(folder / "plain.flow"), "-n", "20000", "-o", "-"]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert result.returncode != 0
    assert result.stderr == ""
