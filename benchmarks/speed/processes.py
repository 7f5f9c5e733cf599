"""The processes that the libraries run in, one each, seen from the one that measures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .libraries import LIBRARIES
from .tasks import Task

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Setting:
    """Interpreters of the environments, and how many threads each process gets."""

    pythons: dict[str, str]
    threads: int

    def python(self, library: str) -> str:
        return self.pythons[LIBRARIES[library].environment]

    @property
    def variables(self) -> dict[str, str]:
        threads = str(self.threads)
        return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "JAX_PLATFORMS": "cpu"}

    def command(self, library: str, module: str, *arguments: str) -> list[str]:
        """Return the command that runs a module of this package in a library's environment."""
        return [self.python(library), "-m", f"{__package__}.{module}", str(self.threads), library, *arguments]


class FailedError(Exception):
    """A process ended, or answered, with an error; the text is its own."""


class Worker:
    """A library in a process that waits for requests: one JSON object a line, each answered by one."""

    def __init__(self, library: str, setting: Setting) -> None:
        self.library = library
        self._process = subprocess.Popen(
            setting.command(library, "worker"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=setting.variables,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise FailedError(f"{self.library}: the process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FailedError(f"{self.library}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run(command: list[str], setting: Setting, *, limit: float) -> str:
    """Run a process of its own and return its last line; ``FailedError`` where it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=setting.variables,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FailedError(f"more than {limit:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().split("\n")
        last = [
            line for line in lines if re.match(r"[\w.]+: ", line)
        ] or lines  # the exception, without what follows
        raise FailedError(last[-1].rpartition("Cannot: ")[2])
    return done.stdout.strip().split("\n")[-1]


def as_text(task: Task) -> str:
    """Return a task as an argument of a command."""
    return json.dumps(asdict(task))


def from_text(text: str) -> Task:
    """Return the task that ``as_text`` wrote."""
    return as_task(json.loads(text))


def as_task(fields: dict[str, Any]) -> Task:
    """Return a task from its fields as JSON has them."""
    return Task(**{**fields, "hidden": tuple(fields["hidden"]), "calls": tuple(fields["calls"])})


def settle(threads: int, library: str) -> None:
    """Confine this process to so many cores and threads, before its library is imported.

    XLA's pool has a thread for each core that the process may run on, so the cores bound it; torch is told as well.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if LIBRARIES[library].environment == "torch":
        import torch

        torch.set_num_threads(threads)


def default_pythons() -> dict[str, str]:
    """Return the interpreters that ``make bench`` sets up."""
    return {"torch": sys.executable, "jax": str(ROOT / ".venv-bench-jax" / "bin" / "python")}
