"""One file of tensors and their description that is whole and unchanged, or refused.

It is a safetensors file. Its metadata hold one JSON text, under a key that says what kind of file it is; last in that
text stands a SHA-256 over the whole file with the digest's own digits set to zero.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data.writers import as_output_error, atomic_path
from .errors import ArtifactError, DataError

FLOW, CHECKPOINT = "pushforward", "pushforward-checkpoint"
KINDS = {FLOW: "saved flow", CHECKPOINT: "checkpoint"}
"""What the kinds of files are called in messages."""

_NO_DIGEST = "0" * 64
_DIGEST_AT_ZERO = b'\\"sha256\\": \\"' + _NO_DIGEST.encode()
# JSON can take thirty times its length in memory: a header within this limit takes less than half a gigabyte.
_LONGEST_HEADER = 16_000_000
_MOST_AXES = 64
_CHUNK = 1 << 24
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A verified file, whose tensors are still to be read.

    Attributes:
        metadata: What the JSON text says.
        shapes: The tensors' shapes by their names.
        dtypes: The tensors' dtypes by their names.
    """

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    _places: dict[str, tuple[int, int]]
    _content: mmap.mmap
    _path: Path

    def load(self) -> dict[str, Tensor]:
        """Copy the tensors out of the file, onto the CPU.

        Raises:
            ArtifactError: A truth value that is neither true nor false.
        """
        return {name: self._tensor(name) for name in self.shapes}

    def _tensor(self, name: str) -> Tensor:
        (start, end), dtype, shape = self._places[name], self.dtypes[name], self.shapes[name]
        if start == end:
            return torch.empty(shape, dtype=dtype)
        # As bytes first: a copy of them is aligned, wherever in the file they stand.
        raw = np.frombuffer(self._content, np.uint8, end - start, start)
        if dtype is torch.bool and bool((raw > 1).any()):
            raise ArtifactError(f"{self._path}: tensor {name!r} holds bytes that are no truth values")
        return torch.from_numpy(raw.copy()).view(dtype).reshape(shape)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], *, kind: str) -> None:
    """Write tensors and their description as one file, replacing an existing one in one step or not at all.

    Args:
        path: Where to.
        tensors: Tensors by name, on any device; two that share memory are written twice.
        metadata: What JSON can hold, with the version of the format under ``format``; the key ``sha256`` is added.
        kind: One of `KINDS`.

    Raises:
        OutputError: A place that cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.flow"
        ...     write(path, {"a": torch.arange(3)}, {"format": 1}, kind="pushforward")
        ...     read(path, kind="pushforward", latest=1).load()
        {'a': tensor([0, 1, 2])}
    """
    from safetensors.torch import save

    text = json.dumps({**{k: v for k, v in metadata.items() if k != "sha256"}, "sha256": _NO_DIGEST})
    # Not by save_file: that writes to a temporary file of its own, which stays behind when the process is killed and
    # which only its owner may read.
    content = bytearray(save(_apart(tensors), metadata={kind: text}))
    # The last one: what a text before it holds may look like a digest, but no tensor's name does.
    place = content.rfind(_DIGEST_AT_ZERO, 0, _header_end(content)) + len(_DIGEST_AT_ZERO) - 64
    content[place : place + 64] = _digest(content, place).encode()
    with atomic_path(path) as temporary, as_output_error(path):
        temporary.write_bytes(content)


def read(path: Path, *, kind: str, latest: int) -> Sealed:
    """Verify a file written by `write`; what it claims to hold is never allocated before it is known to be there.

    Args:
        path: The file.
        kind: The kind expected, one of `KINDS`.
        latest: The latest version of the format that can be read.

    Returns:
        Its description, and the tensors to be loaded.

    Raises:
        DataError: No such file, or one that may not be read.
        ArtifactError: Not such a file, cut short, changed, or of a later format.
    """
    what = KINDS[kind]
    if not path.is_file():
        raise DataError("there is no such file", source=path, remedy=f"Give the path of a {what}.")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < 8:
                raise ArtifactError(f"{path}: not a {what}, or cut short: it has {size} bytes")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot be read ({reason})", source=path, remedy="Check its permissions.") from error
    end = _header_end(content)
    if end > len(content) or end > _LONGEST_HEADER:
        raise ArtifactError(
            f"{path}: not a {what}, or cut short: its header should have {end - 8} bytes, {len(content) - 8} are there"
            + (f" and at most {_LONGEST_HEADER} may be" if end <= len(content) else "")
        )
    header = _parsed(bytes(content[8:end]), path, what)
    metadata = _metadata(header.pop("__metadata__", None), path, kind)
    version, digest = metadata.get("format"), metadata.get("sha256")
    if type(version) is not int or not 1 <= version <= latest:
        raise ArtifactError(
            f"{path}: has format {version}, this version of pushforward reads up to {latest}; install a later one"
        )
    try:
        entries = {name: _entry(described, end, len(content)) for name, described in header.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"{path}: not a {what}, or changed: the header's list of tensors is wrong"
        ) from error
    if any(entry.end > len(content) for entry in entries.values()):
        raise ArtifactError(
            f"{path}: cut short or changed: its header describes {max(e.end for e in entries.values())} bytes, "
            f"{len(content)} are there"
        )
    place = content.find(digest.encode(), 0, end) if isinstance(digest, str) and len(digest) == 64 else -1
    if place < 0 or _digest(content, place) != digest:
        raise ArtifactError(
            f"{path}: the checksum does not match: the file was cut short or changed; fetch it again"
        )
    spans = sorted((entry.start, entry.end) for entry in entries.values())
    if any(a[1] != b[0] for a, b in pairwise([(end, end), *spans, (len(content), len(content))])):
        raise ArtifactError(f"{path}: not a {what}: its tensors overlap, or do not fill the file")
    return Sealed(
        metadata,
        {name: entry.shape for name, entry in entries.items()},
        {name: entry.dtype for name, entry in entries.items()},
        {name: (entry.start, entry.end) for name, entry in entries.items()},
        content,
        path,
    )


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, with a copy of those that share their memory, which safetensors refuses."""
    apart: dict[str, Tensor] = {}
    seen = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        owner = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if owner in seen else plain
        seen.add(owner)
    return apart


def _header_end(content: mmap.mmap | bytearray) -> int:
    """Where the tensors begin, if the file is a safetensors file at all."""
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def _digest(content: mmap.mmap | bytearray, place: int) -> str:
    """The SHA-256 of a file, its 64 digits at the place taken as zeros."""
    digest = hashlib.sha256()
    with memoryview(content) as view:
        digest.update(view[:place])
        digest.update(_NO_DIGEST.encode())
        for start in range(place + 64, len(content), _CHUNK):  # in parts, between which Ctrl-C is heard
            digest.update(view[start : start + _CHUNK])
    return digest.hexdigest()


def _parsed(text: str | bytes, path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not a {what}: its header cannot be read") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: not a {what}: its header cannot be read")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key stands twice")
    return table


def _metadata(found: object, path: Path, kind: str) -> dict[str, Any]:
    what = KINDS[kind]
    texts = found if isinstance(found, dict) else {}
    other = next((name for key, name in KINDS.items() if key != kind and key in texts), None)
    if other is not None and kind not in texts:
        raise ArtifactError(f"{path}: is a {other}, not a {what}. Give the path of a {what}.")
    text = texts.get(kind)
    if not isinstance(text, str):
        raise ArtifactError(f"{path}: not a {what}: its header does not say so")
    return _parsed(text, path, what)


def _entry(described: dict[str, Any], base: int, size: int) -> _Entry:
    """What the header says of one tensor, with its place in the file, once that makes sense.

    Raises:
        ValueError, TypeError, KeyError: It does not.
    """
    dtype, shape = _DTYPES[described["dtype"]], described["shape"]
    start, end = described["data_offsets"]
    # Bounded before they are multiplied: numbers of thousands of digits would take for ever.
    if len(shape) > _MOST_AXES or any(type(n) is not int or not 0 <= n <= size for n in (*shape, start)):
        raise ValueError("a shape or offset that no tensor of this file can have")
    if type(end) is not int or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError("a shape that does not fit its bytes")
    return _Entry(dtype, tuple(shape), base + start, base + end)
