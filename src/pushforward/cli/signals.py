"""SIGTERM, by which a cluster or an operating system asks a program to end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import TerminatedError


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End the program, with the code of `TerminatedError`, where SIGTERM comes outside of training.

    Temporary files are removed on the way out. In threads other than the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        sys.stderr.write(
            "terminated: stopped by SIGTERM outside of training. The same command with --resume goes on from the "
            "last checkpoint, if there is one.\n"
        )
        raise SystemExit(TerminatedError.exit_code)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
