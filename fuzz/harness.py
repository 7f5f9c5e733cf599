"""What the fuzzers share: seeds, limits, and a check of one input."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import atheris

_RSS_MB = 3000
_INPUT_SECONDS = 20
_LONGEST = 20_000


def run(name: str, seeds: Mapping[str, bytes], check: Callable[[bytes, Path], None]) -> None:
    """Fuzz a check until the time given on the command line (seconds) is over.

    The memory of the whole process, torch included, is limited to 3000 MB, the time of one input to 20 seconds; an
    input that needs more, or that raises what the check does not expect, is written to ``fuzz/findings``.

    Args:
        name: Name of the corpus.
        seeds: Valid inputs to begin with, by their names.
        check: Takes an input and a folder that it may write to; whatever it raises is a finding.
    """
    here = Path(__file__).parent
    corpus, findings = here / "corpus" / name, here / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    for label, content in seeds.items():
        (corpus / f"seed-{label}").write_bytes(content)
    with tempfile.TemporaryDirectory() as folder:

        def test(data: bytes) -> None:
            check(data, Path(folder))

        limits = [f"-rss_limit_mb={_RSS_MB}", f"-timeout={_INPUT_SECONDS}", f"-max_len={_LONGEST}"]
        budget = [
            f"-max_total_time={sys.argv[1]}",
            f"-artifact_prefix={findings}/{name}-",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *limits, *budget, str(corpus)], test)
        atheris.Fuzz()
