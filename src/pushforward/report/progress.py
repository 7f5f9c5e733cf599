"""What the demonstration is doing: a live line on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ..artifact import FittedFlow
    from ..configs import ModelConfig, TrainConfig
    from ..training import EpochRecord, TableSplit, TrainResult

_SECONDS_BETWEEN_LINES = 5.0


class Stages:
    """Shows stages of work one after the other.

    Args:
        console: Where to show them.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def work(self, title: str) -> Iterator[None]:
        """Show a stage of unknown length."""
        started = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(f"{title} ..."):
                yield
        else:
            yield
        self._done(title, started)

    def fit(
        self, title: str, split: TableSplit, model: ModelConfig, training: TrainConfig, source: str
    ) -> FittedFlow:
        """Fit a density and show how it goes; the arguments after the title are those of ``fit_split``.

        Raises:
            KeyboardInterrupt: The training was interrupted: who stops one stage wants to stop them all.
        """
        from ..training import fit_split

        with self.training(title) as on_epoch:
            return fit_split(
                split, model=model, training=training, source=source, on_epoch=on_epoch, on_trained=_go_on
            )

    @contextmanager
    def training(self, title: str) -> Iterator[Callable[[EpochRecord], None]]:
        """Show a training run; the callable that it gives is to be called after every epoch."""
        from rich.progress import BarColumn, Progress, TextColumn

        started = time.monotonic()
        if not self._console.is_terminal:
            self._print(f"{title} ...")
            yield self._lines(title)
        else:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[status]}", markup=False),
            )
            with Progress(*columns, console=self._console, transient=True) as bar:
                task = bar.add_task(title, total=1.0, status="first epoch")

                def show(record: EpochRecord) -> None:
                    done = record.seconds / max(record.seconds + record.seconds_left, 1e-9)
                    bar.update(
                        task, completed=done, status=f"{_numbers(record)}  {record.seconds_left:.0f}s left"
                    )

                yield show
        self._done(title, started)

    def _lines(self, title: str) -> Callable[[EpochRecord], None]:
        last = time.monotonic()

        def show(record: EpochRecord) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                self._print(f"  {title}: {_numbers(record)}  {record.seconds_left:.0f}s left")

        return show

    def _done(self, title: str, started: float) -> None:
        self._print(f"{title}: done in {time.monotonic() - started:.1f}s")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()


def _go_on(result: TrainResult) -> None:
    if result.stopped == "interrupt":
        raise KeyboardInterrupt


def _numbers(record: EpochRecord) -> str:
    unit = "NLL" if record.in_nats else "MSE"
    return f"epoch {record.epoch}  {unit} train {record.train_loss:.3f}  valid {record.valid_loss:.3f}"
