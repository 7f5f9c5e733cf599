"""Change 10,000 random bytes of a large file, one at a time; every change must be refused.

``python tests/stress/flip_bytes.py [BYTES] [CHANGES]``; 20 MB, which takes some minutes, by default.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from pushforward import sealed
from sealed_files import refusals


def main(size: int = 20_000_000, changes: int = 10_000) -> int:
    """Return the exit code: 0 when every change was refused."""
    rng, start = random.Random(0), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.flow"
        weights = torch.randn(size // 4, generator=torch.Generator().manual_seed(0))
        sealed.write(path, {"w": weights}, {"format": 1}, kind="pushforward")
        places = rng.sample(range(path.stat().st_size), changes)
        count = refusals(
            path,
            places,
            lambda _: 1 << rng.randrange(8),
            lambda: sealed.read(path, kind="pushforward", latest=1),
        )
        sealed.read(path, kind="pushforward", latest=1)
    print(f"{count} of {changes} changes to {size} bytes refused in {time.monotonic() - start:.0f} s")
    return int(count < changes)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
