"""Whatever bytes a file holds, a reader of images gives images or says what is wrong with the file."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pushforward.data import holds_images, read_images
from pushforward.data.idx import idx_header
from pushforward.data.labels import read_labels
from pushforward.errors import DataError

QUICK = settings(max_examples=150, deadline=2000, derandomize=True)
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}
SUFFIXES = [*FORMATS, ".npy", ".npz", ".idx3-ubyte", ".gz"]
STARTS = {".npy": b"\x93NUMPY\1\0", ".npz": b"PK\3\4", ".idx3-ubyte": b"\0\0\x08\3", ".gz": b"\x1f\x8b\x08"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def survive(path: Path) -> None:
    """Read a file; only errors that name it are allowed."""
    holds_images(path)
    try:
        found = read_images(path)
    except DataError as error:
        assert path.name in str(error), error
        return
    assert len(found.train) > 0
    assert found.train.pixels.dtype == np.uint8


def mutated(blob: bytes, rng: random.Random) -> bytes:
    """A file with some bytes changed, cut out, doubled, or cut off."""
    work = bytearray(blob)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        place = rng.randrange(len(work)) if work else 0
        kind = rng.randrange(4)
        if kind == 0 and work:
            work[place] = rng.randrange(256)
        elif kind == 1:
            del work[place : place + rng.randrange(1, 9)]
        elif kind == 2:
            work[place:place] = work[place : place + rng.randrange(1, 30)]
        else:
            work = work[: rng.randrange(len(work) + 1)]
    return bytes(work)


def valid(suffix: str) -> bytes:
    array, memory = np.random.default_rng(0).integers(0, 256, (3, 8, 9)).astype(np.uint8), io.BytesIO()
    if suffix in FORMATS:
        Image.fromarray(array[0]).save(memory, FORMATS[suffix])
    elif suffix == ".npy":
        np.save(memory, array)
    elif suffix == ".npz":
        np.savez_compressed(memory, X=array, y=np.arange(3))
    else:
        blob = idx_header(array.shape) + array.tobytes()
        memory.write(gzip.compress(blob, mtime=0) if suffix == ".gz" else blob)
    return memory.getvalue()


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(st.binary(max_size=400))
@QUICK
def test_random_bytes(folder: Path, suffix: str, content: bytes) -> None:
    path = folder / f"t{suffix}"
    path.write_bytes(content)
    survive(path)
    path.write_bytes(STARTS.get(suffix, valid(suffix)[:12]) + content)
    survive(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files(folder: Path, suffix: str) -> None:
    rng, blob, path = random.Random(0), valid(suffix), folder / f"t{suffix}"
    path.write_bytes(blob)
    survive(path)
    for _ in range(250):
        path.write_bytes(mutated(blob, rng))
        survive(path)


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([*"01.,;\n\r\"' -aé", "a.png,", "b.png,"])).map(lambda p: "".join(p).encode())
)
@QUICK
def test_random_labels(folder: Path, content: bytes) -> None:
    path = folder / "labels.csv"
    path.write_bytes(content)
    try:
        labels, classes = read_labels(path, 2, ["a.png", "b.png"])
    except DataError as error:
        assert "labels.csv" in str(error)
        return
    assert labels.shape == (2,)
    assert 0 <= labels.min() <= labels.max() < len(classes)
