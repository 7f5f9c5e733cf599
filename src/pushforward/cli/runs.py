"""What every fit does around its training: checkpoints, saving, and what is said in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import OutputError, TrainingError
from .options import UsageError, duration
from .signals import ended_by_sigterm
from .text import clock, console, size

if TYPE_CHECKING:
    from rich.console import Console

    from ..artifact import FittedFlow
    from ..training import Checkpoints

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Places:
    """Where a fit leaves what it makes.

    Attributes:
        output: The model file.
        checkpoint: Folder for checkpoints, or None for the one beside the output.
        every: Time between two checkpoints, as the user wrote it, or None.
        resume: Go on from a checkpoint, throw it away, or None: refuse where there is one.
    """

    output: Path
    checkpoint: Path | None
    every: str | None
    resume: bool | None

    def checkpoints(self, out: Console) -> Checkpoints:
        """Return the checkpoints.

        Raises:
            UsageError: The folder is the output, or the time is none.
        """
        from ..training import Checkpoints

        folder = self.checkpoint
        if folder is None:
            folder = self.output.with_name(f"{self.output.name}.checkpoints")
        if folder.resolve() == self.output.resolve():
            raise UsageError(f"--checkpoint: {folder} is the output; give another folder")
        seconds = {} if self.every is None else {"every": duration(self.every, "--checkpoint-every")}
        return Checkpoints(
            folder,
            resume=bool(self.resume),
            replace=self.resume is False,
            on_note=lambda text: note(out, text),
            **seconds,
        )


def fit_and_save(
    places: Places,
    fit: Callable[[Checkpoints, Console], FittedFlow],
    report: Callable[[FittedFlow, Console], None],
) -> None:
    """Fit a flow, save it, and report on it.

    Args:
        places: Where to.
        fit: What trains the flow.
        report: What says how good it is.

    Raises:
        OutputError: The model cannot be saved; the text says where the training is kept.
        TrainingError: Training stopped early; the model is saved.
    """
    output, out = places.output, console()
    with ended_by_sigterm():
        checkpoints = places.checkpoints(out)
        with _going_on_later(checkpoints):
            fitted = fit(checkpoints, out)

            from ..artifact import save

            save(fitted, output)
        if fitted.facts.stopped != "interrupt":
            checkpoints.discard()
    report(fitted, out)
    if fitted.facts.stopped == "interrupt":
        if checkpoints.any():
            out.print(f"Its checkpoints stay in {checkpoints.folder}: --resume goes on.", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if fitted.facts.stopped in ("diverged", "drift"):
        raise TrainingError(
            f"training stopped early, as said above; {output} has the weights of epoch {fitted.facts.best_epoch}, "
            "the best before that."
        )


def report_end(fitted: FittedFlow, output: Path, out: Console, *, following: str) -> None:
    """Say how training ended, what was saved, and what may come next."""
    facts = fitted.facts
    best = f"Best epoch {facts.best_epoch} of {len(facts.valid_curve)}; " if facts.best_epoch else ""
    out.print(f"{best}stopped after {clock(facts.seconds)}: {facts.ending}.")
    out.print(f"Saved {output} ({size(output.stat().st_size)}).", style="bold", soft_wrap=True)
    out.print(f"Next: {following}", soft_wrap=True)


def check_model_path(output: Path) -> None:
    """Check that a model is not given the name of a table or a picture.

    Raises:
        OutputError: It is.
    """
    from ..data.labels import PICTURE_SUFFIXES
    from ..data.readers import SUFFIXES, suffix_of

    for what, suffixes in (("table", SUFFIXES), ("picture", PICTURE_SUFFIXES)):
        suffix = suffix_of(output, suffixes)
        if suffix is not None:
            raise OutputError(
                f"{output}: {suffix} is the suffix of a {what}. End the name of a model in .flow."
            )


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given.

    Example:
        >>> chosen({"epochs": 3, "seed": None})
        {'epochs': 3}
    """
    return {name: value for name, value in options.items() if value is not None}


def note(out: Console, text: str) -> None:
    """Print what should be known."""
    out.print(f"Note: {text}", soft_wrap=True)


@contextmanager
def _going_on_later(checkpoints: Checkpoints) -> Iterator[None]:
    """Say where the training is kept, should the model not come to be saved."""
    try:
        yield
    except OutputError as error:
        if not checkpoints.any():
            raise
        raise OutputError(
            f"{error} The training is kept: the same command with --resume --checkpoint {checkpoints.folder} goes on."
        ) from error
    except KeyboardInterrupt:
        if checkpoints.any():
            typer.echo(f"The training is kept in {checkpoints.folder}: --resume goes on.", err=True)
        raise
