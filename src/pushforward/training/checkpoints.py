"""Checkpoints of a training run: a folder with the last two, each whole or not there."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import sealed
from ..data import as_output_error, check_writable
from ..data.locks import exclusive
from ..errors import ArtifactError, DataError, OutputError
from .notes import tell

FORMAT = 1
EVERY = 60.0
"""Seconds between two checkpoints by default."""

_NAME = re.compile(r"pushforward-(\d{1,12})\.checkpoint")
_REMAINS = ".pushforward-*.checkpoint"
_LOCK = "pushforward.lock"
_KEPT = 2
_REMEDY = "Choose another folder with --checkpoint."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a run.

    Attributes:
        tensors: Its tensors by name.
        progress: Everything else of it, as JSON has it.
        environment: What it was computed with: versions and device.
    """

    tensors: Mapping[str, Tensor]
    progress: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run in a folder of their own.

    Each is one safetensors file with a checksum over all of it, written beside and renamed, so a run that is killed
    while it writes leaves the ones before it untouched. The last two are kept: where the newest turns out to be
    damaged, the older one is used, and the damaged file stays as it is.

    Args:
        folder: The folder; made with the first checkpoint. The folder that it is in must exist.
        resume: Go on from a checkpoint in it. Otherwise a folder with an unfinished run is refused.
        replace: Without ``resume``: throw an unfinished run away.
        every: Seconds between two checkpoints.
        on_note: Called with what the user should know; a warning by default.

    Raises:
        OutputError: A folder that cannot be written, or that holds an unfinished run.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as place:
        ...     first = Checkpoints(Path(place) / "run")
        ...     first.write(Snapshot({"weight": torch.ones(2)}, {"epoch": 3}), {}, finished=False)
        ...     found = Checkpoints(Path(place) / "run", resume=True).newest({})
        >>> found.progress, found.tensors["weight"].tolist()
        ({'epoch': 3}, [1.0, 1.0])
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        resume: bool = False,
        replace: bool = False,
        every: float = EVERY,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.resume, self.every = Path(folder), resume, every
        self._place = Path(folder).absolute()  # where it is, should the process go elsewhere
        self._on_note = on_note
        self._good: list[Path] = []
        self._last = time.monotonic()
        self._failed = False
        self._check_folder()
        if not resume and not replace and self.any():
            what = (
                "a run that has ended, but was not saved. Save it"
                if finished_run(self._place)
                else "an unfinished run. Go on with it"
            )
            raise OutputError(
                f"{self.folder}: holds the checkpoints of {what} (--resume; in Python resume=True), or start anew and "
                "throw it away (--no-resume; in Python remove the folder)."
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep other processes from it as long as the block lasts.

        Raises:
            OutputError: Another process has it, or it cannot be made.
        """
        with as_output_error(self.folder, _REMEDY):
            self._place.mkdir(exist_ok=True)
            lock = exclusive(self._place / _LOCK)
        if lock is None:
            raise OutputError(
                f"{self.folder}: another process trains with these checkpoints. Wait for its end, or choose another "
                "folder (--checkpoint; in Python checkpoint=)."
            )
        try:
            yield
        finally:
            with suppress(OSError):
                (self._place / _LOCK).unlink()
            os.close(lock)
            with suppress(OSError):
                self._place.rmdir()  # which fails, as it should, where anything is in it

    def any(self) -> bool:
        """Return whether there are checkpoints."""
        return bool(_checkpoints_in(self._place))

    def due(self) -> bool:
        """Return whether it is time for the next checkpoint."""
        return time.monotonic() - self._last >= self.every

    def write(self, snapshot: Snapshot, identity: Mapping[str, Any], *, finished: bool) -> None:
        """Write a checkpoint, then remove those before the one before it.

        Args:
            snapshot: The state of the run.
            identity: What run it is, as JSON has it: data, model and settings. A resumed run must have the same.
            finished: Whether training has ended.

        Raises:
            OutputError: The disk refuses; the checkpoints before stay.
        """
        metadata = {
            "format": FORMAT,
            "run": dict(identity),
            "environment": dict(snapshot.environment),
            "finished": finished,
            "progress": dict(snapshot.progress),
        }
        try:
            with as_output_error(self.folder, _REMEDY):
                self._place.mkdir(exist_ok=True)
                number = max(map(_number, _checkpoints_in(self._place)), default=0) + 1
            path = self._place / f"pushforward-{number:06d}.checkpoint"
            sealed.write(path, snapshot.tensors, metadata, kind=sealed.CHECKPOINT)
        finally:
            self._last = time.monotonic()
        self._good.append(path)
        for old in self._good[:-_KEPT]:
            with suppress(OSError):  # it is there in vain, and does no harm
                old.unlink()
        del self._good[:-_KEPT]

    def write_if_possible(
        self, snapshot: Snapshot, identity: Mapping[str, Any], *, finished: bool = False
    ) -> None:
        """Write a checkpoint; where the disk refuses, say so once and let the training go on."""
        try:
            self.write(snapshot, identity, finished=finished)
        except OutputError as error:
            if not self._failed:
                tell(f"No checkpoint could be written: {error} Training goes on without.", self._on_note)
            self._failed = True
        else:
            self._failed = False

    def newest(self, identity: Mapping[str, Any]) -> Snapshot | None:
        """Return the newest checkpoint that is whole, or None where there is none to go on from.

        Without ``resume`` what is in the folder is removed, since a new run begins.

        Args:
            identity: As in ``write``.

        Raises:
            ArtifactError: All that are there are damaged, or they belong to another run.
        """
        if not self.resume:
            self.discard()
            return None
        refused: list[str] = []
        self._remove_remains()
        paths = sorted(_checkpoints_in(self._place), key=_number)
        for place, path in reversed(list(enumerate(paths))):
            try:
                found = sealed.read(path, kind=sealed.CHECKPOINT, latest=FORMAT)
                tensors = found.load()
                progress, run, environment = (
                    dict(found.metadata[key]) for key in ("progress", "run", "environment")
                )
            except (ArtifactError, DataError, KeyError, TypeError, ValueError) as error:
                refused.append(str(error))
                continue
            self._check_same(path, run, identity)
            for reason in refused:
                tell(f"{reason}. The checkpoint before it is used.", self._on_note)
            self._good = paths[: place + 1]
            return Snapshot(tensors, progress, environment)
        if refused:
            raise ArtifactError(
                f"{self.folder}: none of the checkpoints can be used: {'; '.join(refused)}. "
                "Start anew (--no-resume; in Python remove the folder)."
            )
        tell(
            f"{self.folder}: no checkpoint to go on from; training starts from the beginning.", self._on_note
        )
        return None

    def discard(self) -> None:
        """Remove the checkpoints, and the folder where nothing else is in it."""
        with suppress(OSError):
            for path in _checkpoints_in(self._place):
                path.unlink(missing_ok=True)
            self._remove_remains()
            self._place.rmdir()

    def _remove_remains(self) -> None:
        """Remove what a run that was killed while it wrote has left half written."""
        with suppress(OSError):
            for path in self._place.glob(_REMAINS):
                path.unlink(missing_ok=True)

    def _check_folder(self) -> None:
        with as_output_error(self.folder, _REMEDY):
            if os.path.lexists(self._place) and not self._place.is_dir():
                raise OutputError(f"{self.folder}: is no folder. Give a folder for the checkpoints.")
            if not self._place.parent.is_dir():
                raise OutputError(
                    f"{self.folder}: there is no folder {self.folder.parent} to make it in. Create it first."
                )
        place = self._place if self._place.is_dir() else self._place.parent
        try:
            check_writable(place / "pushforward-000000.checkpoint")
        except OutputError as error:
            raise OutputError(f"{self.folder}: no checkpoint could be written there: {error}") from error

    def _check_same(self, path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        changes = list(_differences(there, here))
        if changes:
            raise ArtifactError(
                f"{self.folder / path.name}: belongs to another run: {'; '.join(changes)}. "
                "Give the same as before, or start anew (--no-resume; in Python remove the folder)."
            )


def checkpoints_in(
    folder: str | Path | None, *, resume: bool, on_note: Callable[[str], None] | None
) -> Checkpoints | None:
    """Return the checkpoints of a fit that is called from Python, in a folder or, without one, None.

    A run that has ended has given its flow to who called; only one that has not is kept unasked.

    Raises:
        ValueError: Nothing to go on from.
    """
    if folder is None:
        if resume:
            raise ValueError("resume: needs checkpoint, the folder to go on from, got None")
        return None
    return Checkpoints(folder, resume=resume, replace=finished_run(folder), on_note=on_note)


def finished_run(folder: str | Path) -> bool:
    """Return whether the newest checkpoint in a folder, if there is one, is that of a run that has ended."""
    paths = _checkpoints_in(Path(folder))
    if not paths:
        return False
    try:
        return bool(
            sealed.read(max(paths, key=_number), kind=sealed.CHECKPOINT, latest=FORMAT).metadata["finished"]
        )
    except (ArtifactError, DataError, KeyError):
        return False


def _checkpoints_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Say what differs between two descriptions, field by field."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
    elif _plain(there) != _plain(here):
        if name.startswith("data."):
            yield f"the {name.removeprefix('data.')} rows have changed"
        else:
            yield f"{name} was {_plain(there)} there and is {_plain(here)} here"


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
