"""What a run was computed with."""

from __future__ import annotations

import platform

import torch


def library_versions() -> dict[str, str]:
    """Return the versions of Python, torch and this library."""
    from .. import __version__

    return {"pushforward": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
