"""NumPy files as tables: one numeric array, its columns named x0, x1, ..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import DataError

_REFUSED = {
    "O": ("Python objects", "Save it as an array of numbers; pickled objects are never loaded."),
    "c": ("complex numbers", "Give real and imaginary parts as two columns."),
    "M": ("dates", "Convert them to seconds."),
    "m": ("durations", "Convert them to seconds."),
    "U": ("text", "Leave text columns out, or encode them as numbers."),
    "S": ("text", "Leave text columns out, or encode them as numbers."),
    "V": ("records", "Save the fields as the columns of a plain array."),
}


def load_array(path: Path) -> NDArray[np.generic]:
    """The numeric array of a ``.npy`` (mapped from the disk, not read) or ``.npz`` file, with two axes.

    In an archive it is ``X``, or else the only array with two axes.

    Returns:
        The array, (rows, columns), with at least one of each; one axis becomes one column.

    Raises:
        DataError: An array that is no table of numbers; no array, or no single one, to take from an archive.
    """
    try:
        if path.suffix.lower() == ".npz":
            label, array = _from_archive(path)
        else:
            label, array = "the array", _mapped(path)
    except ValueError as error:
        if isinstance(error, DataError) or "Object arrays" not in str(error):
            raise
        what, remedy = _REFUSED["O"]
        raise DataError(f"the array holds {what}", source=path, remedy=remedy) from error
    if array.dtype.kind in _REFUSED:
        what, remedy = _REFUSED[array.dtype.kind]
        raise DataError(f"{label} holds {what} ({array.dtype})", source=path, remedy=remedy)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise DataError(
            f"{label} has shape {array.shape}, expected (rows, columns)",
            source=path,
            remedy="Reshape it to two axes.",
        )
    if 0 in array.shape:
        raise DataError(
            f"{label} is empty, with shape {array.shape}", source=path, remedy="Give a table with rows."
        )
    return array


def array_names(array: NDArray[np.generic]) -> list[str]:
    """Names of the columns: x0, x1, ..."""
    return [f"x{i}" for i in range(array.shape[1])]


def array_frame(array: NDArray[np.generic], columns: Sequence[str]) -> pl.DataFrame:
    """A copy of the named columns of an array as a frame of the nearest types that polars has."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f":
        dtype = np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
    part = array[:, [int(name[1:]) for name in columns]]
    # One copy with contiguous columns: nothing of a mapped file stays in the frame.
    return pl.from_numpy(part.astype(dtype, order="F"), schema=list(columns), orient="row")


def _mapped(path: Path) -> NDArray[np.generic]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except ValueError:  # an array of no bytes cannot be mapped; one cut short fails again, and says so
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


def _from_archive(path: Path) -> tuple[str, NDArray[np.generic]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if "X" in archive.files:
            return "array 'X'", archive["X"]
        arrays = {key: archive[key] for key in archive.files}
    tables = [key for key, array in arrays.items() if array.ndim == 2]
    if len(tables) == 1:
        return f"array {tables[0]!r}", arrays[tables[0]]
    held = ", ".join(f"{key!r} {array.shape}" for key, array in arrays.items()) or "nothing"
    raise DataError(
        f"which array is the table? It holds {held}",
        source=path,
        remedy="Save the table under the key 'X', with shape (rows, columns).",
    )
