"""The progress of a training run: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .image_text import bits
from .text import clock

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from ..configs import ImageSchema
    from ..training import EpochRecord, TrainResult

_SECONDS_BETWEEN_LINES = 5.0


class TrainingProgress:
    """Shows what each epoch brought: NLL is the mean negative log-likelihood in nats, in the units of the data.

    MSE is the mean square of flow matching.

    Args:
        console: Where to show it.
        epochs: Most epochs of the run.
        images: Images, whose loss is shown in bits per dimension; None: rows of a table.
    """

    def __init__(self, console: Console, epochs: int, *, images: ImageSchema | None = None) -> None:
        self._console, self._epochs, self._images = console, epochs, images
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = float("-inf")
        self._unprinted, self._final = "", "no epoch finished"

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            # Narrow enough that the ^C which a terminal echoes does not break the line.
            width = min(24, max(6, self._console.width - 74))
            columns = BarColumn(bar_width=width), TextColumn("{task.description}")
            self._bar = self._stack.enter_context(Progress(*columns, console=self._console, transient=True))
            self._task = self._bar.add_task("epoch 1", total=self._epochs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def epoch(self, record: EpochRecord) -> None:
        """Show an epoch."""
        rate = record.rows_per_second
        rows = f"{rate / 1000:,.0f}k" if rate >= 10_000 else f"{rate:,.0f}"
        what, unit = ("rows", "NLL") if self._images is None else ("images", "bits/dim")
        pace = f"{rows} {what}/s  {clock(record.seconds_left)} left"
        losses = [record.train_loss, record.valid_loss, record.best_loss]
        if not record.in_nats:
            unit = "MSE"
        elif self._images is not None:
            losses = [bits(self._images, -loss) for loss in losses]
        train, valid, best = losses
        nll = f"{unit} train {train:.3f}  valid {valid:.3f}"
        self._final = f"epoch {record.epoch}/{record.epochs}  {nll}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=record.epoch, description=f"{self._final}  {pace}")
            return
        self._unprinted = f"{self._final}  best {best:.3f} (epoch {record.best_epoch})  {pace}"
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print()

    def trained(self, result: TrainResult) -> None:
        """Say that training has ended and what comes now."""
        self._stack.close()
        if self._bar is not None:
            self._unprinted = self._final  # the bar itself vanishes
        if self._unprinted:
            self._print()
        if result.stopped == "interrupt":
            kept = f"that of epoch {result.best_epoch}" if result.best_epoch else "as far as epoch 1 got"
            self._console.print(
                f"Interrupted. The best model so far, {kept}, is kept; Ctrl-C again gives it up."
            )
        if self._console.is_terminal:
            self._stack.enter_context(self._console.status("Computing log-likelihoods"))

    def _print(self) -> None:
        # Flushed at once, for those who follow a log file.
        self._console.print(self._unprinted, soft_wrap=True)
        self._console.file.flush()
        self._last_line, self._unprinted = time.monotonic(), ""
