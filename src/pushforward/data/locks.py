"""Files that keep other processes out."""

from __future__ import annotations

import os
from pathlib import Path


def exclusive(path: Path) -> int | None:
    """An open file that holds a lock, made where it is not there; None where another process has the lock.

    The system gives the lock back when a process ends, however it does.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = exclusive(Path(folder) / "lock")
        ...     exclusive(Path(folder) / "lock") is None
        True
    """
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        # The process that had it may have removed the file between the two calls.
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)
