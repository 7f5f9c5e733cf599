"""Real processes, killed at random moments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "stress" / "killed_fits.py"


def test_a_fit_killed_at_random_moments_and_resumed_is_the_one_that_nobody_killed() -> None:
    """Twenty times; the script takes any number."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "20", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "20 kills" in done.stdout or "21 kills" in done.stdout
    assert "bit for bit" in done.stdout
