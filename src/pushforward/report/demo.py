"""The demonstration: a toy density, images and a table, each fitted, measured and shown on one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import atomic_path, check_writable
from ..errors import OutputError
from .demo_checkerboard import checkerboard
from .demo_digits import digits
from .demo_table import wine
from .html import Page, render_page
from .machine import machine
from .progress import Stages

if TYPE_CHECKING:
    from rich.console import Console


def run_demo(folder: Path, *, quick: bool = False, console: Console, threads: int = 1) -> Path:
    """Fit flows to the checkerboard, to handwritten digits and to a table of wines, and write a page about them.

    All data come with the package or with scikit-learn; nothing is fetched. It takes less than four minutes on two
    cores. Trainings end after a wall time, so figures differ a little from run to run; the page says with which seeds
    and on what hardware they came about.

    Args:
        folder: Where the page, ``index.html``, and the files that it links to go; created if it is absent, and
            files of an earlier run are replaced.
        quick: Whether to train for a moment only: to see that all works, not what it can do.
        console: Where the progress is shown.
        threads: Threads to compute with. More than one makes the steps of such small models hardly faster, and many
            times slower where another program wants a core, since the threads wait for each other at every step.

    Returns:
        The path of the page.

    Raises:
        OutputError: A folder that cannot be written.
        KeyboardInterrupt: A training was interrupted.
    """
    started = time.monotonic()
    folder = Path(folder)
    page = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be created ({error.strerror or error}). Choose another folder."
        ) from error
    check_writable(page)
    stages = Stages(console)
    with _threads(threads):
        sections = tuple(part(folder, stages, quick=quick) for part in (checkerboard, digits, wine))
        computed_on = machine()
    seconds = time.monotonic() - started
    text = render_page(
        Page(
            "What pushforward learned on this machine",
            "Three densities learned from data by maximum likelihood: one whose entropy is known, one of images in 64 "
            "dimensions, and one of a table. Each figure stands beside what it has to be held against.",
            sections,
            (
                ("Machine", computed_on),
                (
                    "Time",
                    f"{seconds:.0f} s in all"
                    + (", in quick mode: far too short to learn much" if quick else ""),
                ),
            ),
            (
                "Log-likelihoods are natural logarithms (nats) of densities in the units of the data; a loss is a mean "
                "of −log p. Test rows are looked at once, at the end.",
                "Seeds are fixed, but trainings end after a wall time, so that a slower machine ends as well: figures "
                "differ a little from machine to machine and from run to run.",
            ),
        )
    )
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch and scikit-learn use that many threads for a while."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)
