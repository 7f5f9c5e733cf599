"""Files that are sealed as they should be and say what they should not, or are changed after they were sealed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pushforward.errors import ArtifactError

ZEROS = "0" * 64


def with_header(header: str | bytes, data: bytes) -> bytes:
    """A file with this header, padded, whose first 64 zeros become the digest of the whole."""
    text = header.encode() if isinstance(header, str) else header
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + data
    return whole.replace(ZEROS.encode(), hashlib.sha256(whole).hexdigest().encode(), 1)


def described(
    tensors: Any, metadata: Any, data: bytes, *, kind: str = "pushforward", sha256: str = ZEROS
) -> bytes:
    """A file with a header that describes tensors, and with metadata, as text or as what JSON can hold."""
    text = metadata if isinstance(metadata, str) else json.dumps({**metadata, "sha256": sha256})
    return with_header(json.dumps({"__metadata__": {kind: text}, **tensors}), data)


def refusals(
    path: Path, places: Iterable[int], flip: Callable[[int], int], check: Callable[[], object]
) -> int:
    """Change one byte after the other of a file, each restored; count those at which the check refuses the file."""
    count = 0
    with path.open("r+b", buffering=0) as file:
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ flip(place)]))
            try:
                check()
            except ArtifactError:
                count += 1
            file.seek(place)
            file.write(bytes([byte]))
    return count
