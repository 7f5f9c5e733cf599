"""Headers of NumPy files: what they hold, before it is read."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ..errors import DataError
from .arrays import _REFUSED
from .damage import readable


class ArrayHeader(NamedTuple):
    """What an array file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def array_headers(path: Path) -> dict[str, ArrayHeader]:
    """Headers of the arrays of a ``.npz`` by key, or of the one of a ``.npy`` under ``""``.

    Raises:
        DataError: The file is damaged, or holds fewer bytes than a header in it promises.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.npz"
        ...     np.savez(path, X=np.zeros((5, 8, 8), np.uint8))
        ...     array_headers(path)["X"].shape
        (5, 8, 8)
    """
    with readable(path):
        if path.suffix.lower() != ".npz":
            with path.open("rb") as file:
                return {"": _header(file, path, path.stat().st_size)}
        found = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        header = _header(file, path, member.file_size)
                    found[member.filename.removesuffix(".npy")] = header
        return found


def check_numeric(dtype: np.dtype[np.generic], label: str, source: str | Path) -> None:
    """Checks that an array holds real numbers, or truth values.

    Raises:
        DataError: It holds something else: Python objects, text, dates.

    Example:
        >>> check_numeric(np.dtype("U3"), "the array", "a.npy")
        Traceback (most recent call last):
        pushforward.errors.DataError: a.npy: the array holds text (<U3), expected whole numbers. Save ...
    """
    if dtype.kind not in "buif":
        what = _REFUSED[dtype.kind][0] if dtype.kind in _REFUSED else "something else"
        raise DataError(
            f"{label} holds {what} ({dtype}), expected whole numbers",
            source=source,
            remedy="Save it as an array of unsigned bytes; pickled objects are never loaded.",
        )


def _header(file: IO[bytes], path: Path, room: int) -> ArrayHeader:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    # Objects are pickled, and take any number of bytes.
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > room:
        raise DataError(
            f"cut short: an array of shape {shape} takes {math.prod(shape) * dtype.itemsize} bytes, there are {room}",
            source=path,
            remedy="Copy or download it again.",
        )
    return ArrayHeader(shape, dtype)
