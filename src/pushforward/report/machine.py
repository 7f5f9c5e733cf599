"""What a report was computed on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Return the processor, the threads in use and the versions of what computes."""
    import torch

    from ..training.environment import library_versions

    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    used = torch.get_num_threads()
    threads = "1 thread" if used == 1 else f"{used} threads"
    return f"{_processor()}, {os.cpu_count()} cores, computed with {threads}; {versions}"


def _processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
