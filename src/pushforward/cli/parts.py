"""Outputs of long jobs in parts, so that a job that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import ArtifactError, OutputError
from .files import table_sink, to_stdout
from .options import UsageError

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import Tensor

FORMAT = 1
"""Version of the manifest."""

_PART_VALUES = 2**22  # rows times columns
_PART_SECONDS = 30.0
_MANIFEST = "manifest.json"
_LOCK = "pushforward.lock"
_ANEW = "Give the same as before, or start anew and throw it away (--no-resume)."
_REMEDY = "Make room or permissions there."

State = Callable[[], Mapping[str, Any]]


class Sink(ABC):
    """Where a job's rows go, in order.

    Attributes:
        rows: How many rows are there already, from a job that was interrupted.
        state: What that job had said of itself after these; empty where nothing is there.
    """

    rows: int = 0
    state: Mapping[str, Any]

    @abstractmethod
    def write(self, frame: pl.DataFrame, state: State) -> None:
        """Append rows.

        Args:
            frame: The rows.
            state: Gives what the job must know to go on behind them, as JSON has it.
        """


@contextmanager
def restartable(
    output: Path, job: Mapping[str, Any], *, resume: bool | None, on_note: Callable[[str], None]
) -> Iterator[Sink]:
    """Give where a job's rows go; where the block ends well they are the output, whole or not at all.

    A job of a few seconds writes its output alone. A longer one leaves parts of some four million values, or of what
    it does in half a minute, in a folder beside the output, OUTPUT.parts, until the output is there. Each part is
    synchronised to the disk before the manifest names it, and the manifest replaced as a whole, so the parts that it
    names are good whatever happens. The chunks that were written are kept apart, and written to the output one by one:
    it is to the byte that of a job that was never interrupted.

    Args:
        output: The output; ``-``, standard output, has no parts.
        job: What job it is, as JSON has it: model, inputs and options. A job that goes on must have the same.
        resume: Go on from the parts, throw them away, or None: refuse where there are any.
        on_note: Called with what should be known.

    Raises:
        UsageError: Standard output cannot be gone on with.
        OutputError: There are parts and ``resume`` is None; another process writes them; the disk refuses.
        ArtifactError: The parts are of another job, or damaged.
    """
    if to_stdout(output):
        if resume:
            raise UsageError("--resume: what is on standard output is gone; give the path of a file")
        with table_sink(output) as write:
            yield _Straight(write)
        return
    parts = _Parts(output, job)
    try:
        parts.begin(resume, on_note)
        with _going_on_later(parts):
            yield parts
            parts.finish()
    finally:
        parts.release()


@contextmanager
def _going_on_later(parts: _Parts) -> Iterator[None]:
    """Say where the rows are kept, should they not come to be the output."""
    try:
        yield
    except OutputError as error:
        if not parts.any():
            raise
        raise OutputError(f"{error} What was done is kept in {parts.folder}: --resume goes on.") from error
    except KeyboardInterrupt:
        if parts.any():
            typer.echo(f"What was done is kept in {parts.folder}: --resume goes on.", err=True)
        raise


def job_of(command: str, model: Path, inputs: Mapping[str, Path | None], **options: Any) -> dict[str, Any]:
    """Return what a job is: its command, the model's digest, files with their sizes and times, and options.

    Args:
        command: Name of the command.
        model: The model's file.
        inputs: The tables that are read, by the names of their arguments.
        options: What else the rows depend on, as JSON has it.
    """
    from .. import __version__

    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "command": command,
        "pushforward": __version__,
        "model": digest,
        **{name: _described(path) for name, path in inputs.items() if path is not None},
        **options,
    }


def state_of_generator(generator: torch.Generator) -> dict[str, str]:
    """Return the state of a generator, as JSON has it."""
    return {"generator": b64encode(generator.get_state().numpy().tobytes()).decode("ascii")}


def generator_state(state: Mapping[str, Any]) -> Tensor:
    """Return what ``state_of_generator`` returned as a generator takes it.

    Example:
        >>> import torch
        >>> one, other = torch.Generator().manual_seed(1), torch.Generator()
        >>> _ = other.set_state(generator_state(state_of_generator(one)))
        >>> bool(torch.rand(3, generator=one).equal(torch.rand(3, generator=other)))
        True
    """
    import torch

    return torch.frombuffer(bytearray(b64decode(state["generator"])), dtype=torch.uint8)


def refuse_resume(resume: bool | None, model: Path) -> None:
    """Refuse ``--resume`` for flows of images, whose outputs have no parts.

    Raises:
        UsageError: It was given.
    """
    if resume is not None:
        raise UsageError(f"--resume: is for flows of tables, and {model} is one of images")


class _Straight(Sink):
    """Rows that go where they must at once."""

    def __init__(self, write: Callable[[pl.DataFrame], None]) -> None:
        self.state = {}
        self._write = write

    def write(self, frame: pl.DataFrame, state: State) -> None:
        self._write(frame)


class _Parts(Sink):
    """Rows that are held, then in parts, until all of them are written to the output."""

    def __init__(self, output: Path, job: Mapping[str, Any]) -> None:
        self.folder = output.with_name(f"{output.name}.parts")
        self.state = {}
        self._output, self._job = output, json.loads(json.dumps(job))
        self._parts: list[dict[str, Any]] = []
        self._held: list[pl.DataFrame] = []
        self._last = time.monotonic()
        self._lock: int | None = None

    def any(self) -> bool:
        """Return whether there are parts to go on from."""
        return (self.folder / _MANIFEST).is_file()

    def begin(self, resume: bool | None, on_note: Callable[[str], None]) -> None:
        """Find out what is there, or throw it away."""
        if not self.any():
            if resume:
                on_note(f"{self.folder}: no rows to go on from; the job starts from the beginning.")
            return
        if resume is None:
            raise OutputError(
                f"{self.folder}: holds the parts of an unfinished job. Go on with it (--resume), or start anew and "
                "throw it away (--no-resume)."
            )
        self._take()
        if resume:
            self._restore()
        else:
            self._discard()

    def write(self, frame: pl.DataFrame, state: State) -> None:
        """Hold rows, and write what is held as a part where it is time to."""
        self._held.append(frame)
        due = time.monotonic() - self._last >= _PART_SECONDS
        if due or sum(held.height * held.width for held in self._held) >= _PART_VALUES:
            self._flush(state())

    def finish(self) -> None:
        """Write the output, then remove the parts."""
        with table_sink(self._output) as write:
            for part in self._parts:
                rows, first = self._read(part), 0
                for height in part["heights"]:
                    write(rows[first : first + height])
                    first += height
            for frame in self._held:
                write(frame)
        self._discard()

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._lock is None:
            return
        with suppress(OSError):
            (self.folder / _LOCK).unlink()
        os.close(self._lock)
        self._lock = None
        with suppress(OSError):
            self.folder.rmdir()  # which fails, as it should, where anything is in it

    def _flush(self, state: Mapping[str, Any]) -> None:
        import polars as pl

        from ..data import as_output_error, atomic_path

        self._take()
        path = self.folder / f"part-{len(self._parts) + 1:06d}.parquet"
        with atomic_path(path) as temporary, as_output_error(path, _REMEDY):
            pl.concat(self._held).write_parquet(temporary, compression="lz4", statistics=False)
            digest = _digest(temporary)
        heights = [frame.height for frame in self._held]
        self._parts.append({"name": path.name, "heights": heights, "sha256": digest})
        manifest = {"format": FORMAT, "job": self._job, "parts": self._parts, "state": dict(state)}
        with atomic_path(self.folder / _MANIFEST) as temporary, as_output_error(self.folder, _REMEDY):
            temporary.write_text(json.dumps(manifest), encoding="utf-8")
        self._held, self._last = [], time.monotonic()

    def _restore(self) -> None:
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_text(encoding="utf-8"))
            known, job = manifest["format"] == FORMAT, manifest["job"]
            self._parts, self.state = manifest["parts"], manifest["state"]
            self.rows = sum(sum(part["heights"]) for part in self._parts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self.folder}: its manifest is damaged ({error}). {_ANEW}") from error
        changes = ["the format"] if not known else _changes(job, self._job)
        if changes:
            raise ArtifactError(f"{self.folder}: belongs to another job: {'; '.join(changes)}. {_ANEW}")
        self._remove([path for path in self._files() if path.name not in {p["name"] for p in self._parts}])

    def _read(self, part: Mapping[str, Any]) -> pl.DataFrame:
        import polars as pl

        path = self.folder / part["name"]
        try:
            whole = _digest(path) == part["sha256"]
        except OSError:
            whole = False
        if not whole:
            raise ArtifactError(f"{path}: is missing, or was cut short or changed. Start anew (--no-resume).")
        return pl.read_parquet(path)

    def _take(self) -> None:
        """Make the folder, and keep other processes from it."""
        from ..data import as_output_error
        from ..data.locks import exclusive

        if self._lock is not None:
            return
        with as_output_error(self.folder, _REMEDY):
            self.folder.mkdir(exist_ok=True)
            self._lock = exclusive(self.folder / _LOCK)
        if self._lock is None:
            raise OutputError(f"{self.folder}: another process writes these parts. Wait for its end.")

    def _discard(self) -> None:
        self._remove([self.folder / _MANIFEST, *self._files()])

    def _files(self) -> list[Path]:
        """Return the parts, and what processes that were killed have left half written."""
        if not self.folder.is_dir():
            return []
        return [*self.folder.glob("part-*.parquet"), *self.folder.glob(".pushforward-*")]

    @staticmethod
    def _remove(paths: Sequence[Path]) -> None:
        for path in paths:
            with suppress(OSError):  # it is there in vain, and does no harm
                path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(path: Path) -> list[list[Any]]:
    """Return the files of a table with their sizes and times."""
    from ..data.parquet import parquet_files

    found = []
    for file in parquet_files(path) or (path,):
        with suppress(OSError):  # what is wrong with it is said by who reads it
            stat = file.stat()
            found.append([str(file.resolve()), stat.st_size, stat.st_mtime_ns])
    return found


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say what differs between two jobs."""
    found = []
    for name in sorted({*there, *here}):
        before, now = there.get(name), here.get(name)
        if before == now:
            continue
        if name == "model" or isinstance(before, list) or isinstance(now, list):
            found.append(f"the {name} has changed")
        else:
            found.append(f"{name} was {before} there and is {now} here")
    return found
