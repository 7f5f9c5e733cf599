"""IDX files, the format of MNIST: a header of big-endian numbers, and bytes."""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DataError
from .damage import readable
from .images import Images, ImageSet, Pixels, image_set
from .labels import numbered, read_labels

_GZIP = b"\x1f\x8b"
_PACKING = 1032  # how many times over gzip can pack at most
_BYTES = 8
_TYPES = {
    8: "unsigned bytes",
    9: "signed bytes",
    11: "16-bit integers",
    12: "32-bit integers",
    13: "32-bit floats",
    14: "64-bit floats",
}
_AGAIN = "Copy or download it again."
_NAME = re.compile(r"(?P<start>.*)images(?P<point>[-.])idx3-ubyte(?:\.gz)?")
_ANY_NAME = re.compile(r".*idx[13]-ubyte(?:\.gz)?")


def is_idx(path: Path) -> bool:
    """Whether a file begins as an IDX file does, gzipped or not.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(4)
        if head.startswith(_GZIP):
            file.seek(0)
            with gzip.open(file) as unpacked:
                head = unpacked.read(4)
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] in _TYPES and 1 <= head[3] <= 4


def has_idx_name(path: Path) -> bool:
    """Whether a file's name ends as those of MNIST do.

    Example:
        >>> has_idx_name(Path("train-images-idx3-ubyte.gz")), has_idx_name(Path("train.gz"))
        (True, False)
    """
    return _ANY_NAME.fullmatch(path.name) is not None


def idx_header(shape: Sequence[int]) -> bytes:
    """The header of an IDX file of unsigned bytes.

    Example:
        >>> idx_header((5, 2)).hex(" ", 4)
        '00000802 00000005 00000002'
    """
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, _BYTES, len(shape), *shape)


def idx_digest(array: Pixels) -> str:
    """SHA-256 of the unpacked IDX file that holds an array, in hexadecimal digits."""
    digest = hashlib.sha256(idx_header(array.shape))
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_idx(path: Path, axes: int) -> Pixels:
    """The array of an IDX file of unsigned bytes, gzipped or not, which its first bytes tell.

    No more is unpacked, nor any memory taken, than the header promises and a file of that size can hold.

    Args:
        path: The file.
        axes: How many axes the array has to have: 3 for images, 1 for labels.

    Raises:
        DataError: The file cannot be read, is none of these, or holds fewer or more bytes than its header says.
    """
    with readable(path), path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        room = path.stat().st_size * (_PACKING if packed else 1)
        if not packed:
            return _read(path, file, axes, room)
        with gzip.open(file) as unpacked:
            return _read(path, unpacked, axes, room)


def _read(path: Path, file: IO[bytes] | gzip.GzipFile, axes: int, room: int) -> Pixels:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(
            f"is no IDX file: it begins with {magic.hex(' ') or 'nothing'}, expected 00 00 08 {axes:02x}",
            source=path,
            remedy=_AGAIN,
        )
    if magic[2] != _BYTES:
        raise DataError(
            f"holds {_TYPES.get(magic[2], f'an unknown type ({magic[2]})')}, expected {_TYPES[_BYTES]}",
            source=path,
            remedy="Save its values as unsigned bytes, or as a NumPy array (.npy).",
        )
    if magic[3] != axes:
        raise DataError(
            f"holds an array with {magic[3]} axes, expected {axes} for {'labels' if axes == 1 else 'images'}",
            source=path,
            remedy="Labels and images are not to be exchanged." if magic[3] in (1, 3) else None,
        )
    numbers = file.read(4 * axes)
    if len(numbers) < 4 * axes:
        raise DataError("cut short within its header", source=path, remedy=_AGAIN)
    shape = struct.unpack(f">{axes}I", numbers)
    size = math.prod(shape)
    said = f"the header says {' x '.join(map(str, shape))} bytes"
    if size == 0:
        raise DataError(f"is empty: {said}", source=path, remedy="Give a file with images.")
    if size > room:
        raise DataError(f"{said}, more than the file can hold", source=path, remedy=_AGAIN)
    array = np.empty(size, np.uint8)
    read = 0
    while read < size:
        some = file.read(min(1 << 20, size - read))
        if not some:
            raise DataError(f"{said}, but there are only {read}", source=path, remedy=_AGAIN)
        array[read : read + len(some)] = np.frombuffer(some, np.uint8)
        read += len(some)
    if file.read(1):  # of a packed file, this also compares the check sum
        raise DataError(f"{said}, but there are more", source=path, remedy=_AGAIN)
    return array.reshape(shape)


def read_idx_set(path: Path, labels: Path | None) -> ImageSet:
    """Images of an IDX file, with the labels beside it, and the test images beside it if it holds train images.

    Args:
        path: The file.
        labels: A file of labels for these images; the test images beside them are then not taken.

    Raises:
        DataError: A file cannot be used (`read_idx`), or labels do not fit.
    """
    parts = _NAME.fullmatch(path.name)
    train = _read_part(path, labels)
    test = None
    if labels is None and parts is not None:
        start = parts["start"]
        for other in ("t10k", "test"):
            partner = start.replace("train", other)
            found = _beside(path, f"{partner}images{parts['point']}idx3-ubyte") if partner != start else None
            if found is not None:
                test = _read_part(found, None)
                break
    return image_set(path.name, path, train, test)


def idx_in_folder(folder: Path) -> Path | None:
    """The IDX file of images in a folder, or the one of train images; None: there is none.

    Raises:
        DataError: It cannot be told which one.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if _NAME.fullmatch(path.name) and path.is_file():
            found.setdefault(path.name.lower().removesuffix(".gz"), path)
    train = [path for name, path in found.items() if "train" in name]
    choice = train if train else list(found.values())
    if len(choice) > 1:
        raise DataError(
            f"which file holds the images? There are {' and '.join(path.name for path in choice)}",
            source=folder,
            remedy="Give the path of one file.",
        )
    return choice[0] if choice else None


def _read_part(path: Path, labels: Path | None) -> Images:
    pixels = read_idx(path, 3)[:, None]
    if labels is not None:
        return Images(pixels, *read_labels(labels, len(pixels)))
    parts = _NAME.fullmatch(path.name)
    found = _beside(path, f"{parts['start']}labels{parts['point']}idx1-ubyte") if parts else None
    if found is None:
        return Images(pixels)
    return Images(pixels, *numbered(read_idx(found, 1), len(pixels), found))


def _beside(path: Path, name: str) -> Path | None:
    """The file of this name, or with ``.gz``, in the folder of another one."""
    places = (path.with_name(name), path.with_name(f"{name}.gz"))
    return next((place for place in places if place.is_file()), None)
