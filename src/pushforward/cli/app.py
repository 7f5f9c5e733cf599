"""The commands, and what becomes of their errors."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ..errors import PushforwardError, TerminatedError
from .animate import animate
from .diagnose import diagnose
from .edit import edit
from .fit import fit
from .info import info, models
from .inpaint import inpaint
from .latent_images import interpolate, reconstruct
from .pictures import demo, plot
from .report import report
from .runs import INTERRUPTED
from .sample import sample
from .schema import schema
from .score import score

_BUG, _USAGE, _FILES = 1, 2, 5
_DEBUG = "--debug"


class _Commands(TyperGroup):
    """Commands that say so when they are interrupted."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("interrupted", "No output was written.")
            raise typer.Exit(INTERRUPTED) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0; 1 for a fault of this program or a lack of memory, 2 for arguments that cannot be
        understood, 3 for data, 4 for saved flows, 5 for outputs, 6 for training, 7 for a flow that
        ``diagnose`` finds broken, 75 for a run that SIGTERM has ended; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _DEBUG in arguments
    arguments = [argument for argument in arguments if argument != _DEBUG]
    try:
        get_command(app).main(arguments, prog_name="pushforward")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = _explained(error)
    return _flushed(code)


def _explained(error: Exception) -> int:
    """Say what went wrong in words of the user's world, and return the exit code."""
    if isinstance(error, PushforwardError):
        _say("terminated" if isinstance(error, TerminatedError) else "error", str(error))
        return error.exit_code
    if (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error)
    ):
        _say("error", "not enough memory. Try a smaller batch or model, or fewer rows.")
        return _BUG
    if isinstance(error, OSError):
        _say("error", f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return _FILES
    if isinstance(error, ValueError):
        _say("error", str(error))
        return _USAGE
    _say("error", f"unexpected {type(error).__name__}: {error}")
    typer.echo(
        "This is a fault of pushforward. Run it again with --debug, and report what it shows.", err=True
    )
    return _BUG


def _say(word: str, text: str) -> None:
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - len(word) - 2
        text = "\n".join(
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
            for line in text.splitlines()
        )
    typer.secho(f"{word}: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(text, err=True)


def _flushed(code: int) -> int:
    """Return the code, once a reader that has gone away can no longer make Python complain on its way out."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or _BUG
    return code


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"pushforward {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _pushforward(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Learn a probability density from a table or images; score with it, and draw new ones."""


for command in (
    *(fit, score, sample, info, schema, diagnose, plot, report, models),
    *(reconstruct, interpolate, edit, inpaint, animate, demo),
):
    app.command()(command)
