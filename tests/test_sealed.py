"""A file of tensors is what was written, or it is refused, whatever its header says, and without being believed."""

from __future__ import annotations

import json
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from pushforward import sealed
from pushforward.errors import ArtifactError, DataError, OutputError
from sealed_files import ZEROS, described, refusals, with_header

KIND = "pushforward"
DTYPES = [torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.uint8, torch.float16]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits, NaN of any payload included, in any shape."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = draw(st.binary(min_size=count, max_size=count))
    if dtype is torch.bool:
        raw = bytes(b & 1 for b in raw)
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype).reshape(shape)


def bits(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def read(path: Path) -> sealed.Sealed:
    return sealed.read(path, kind=KIND, latest=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sealed")


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), tensors(), max_size=5),
    st.dictionaries(st.text(max_size=9), JSON, max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_every_bit_and_every_word_comes_back(
    folder: Path, given_tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    given_tensors.pop("__metadata__", None)
    metadata = {**metadata, "format": 1}
    path = folder / "a.flow"
    sealed.write(path, given_tensors, metadata, kind=KIND)
    file = read(path)
    assert {k: v for k, v in file.metadata.items() if k != "sha256"} == {
        k: v for k, v in metadata.items() if k != "sha256"
    }
    loaded = file.load()
    assert {k: bits(t) for k, t in loaded.items()} == {k: bits(t) for k, t in given_tensors.items()}
    assert file.shapes == {k: tuple(t.shape) for k, t in loaded.items()}
    assert file.dtypes == {k: t.dtype for k, t in loaded.items()}
    others = load_file(path)
    assert {k: bits(t) for k, t in others.items()} == {k: bits(t) for k, t in loaded.items()}


def test_tensors_that_share_memory_come_back_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    sealed.write(
        tmp_path / "a", {"a": whole, "b": whole[2:], "c": whole.view(2, 3).T}, {"format": 1}, kind=KIND
    )
    loaded = read(tmp_path / "a").load()
    assert loaded["b"].tolist() == [2, 3, 4, 5]
    assert loaded["c"].tolist() == [[0, 3], [1, 4], [2, 5]]
    loaded["a"].zero_()
    assert read(tmp_path / "a").load()["a"].tolist() == whole.tolist()


@pytest.mark.parametrize(
    "trap", [ZEROS, f'"sha256": "{ZEROS}"', f'\\"sha256\\": \\"{ZEROS}"', json.dumps({"sha256": ZEROS})]
)
def test_names_that_look_like_a_digest_are_no_digest(trap: str, tmp_path: Path) -> None:
    metadata = {"format": 1, trap: trap, "columns": [{"name": trap, "sha256": ZEROS}]}
    sealed.write(tmp_path / "a", {"w": torch.ones(2)}, metadata, kind=KIND)
    file = read(tmp_path / "a")
    digest = file.metadata.pop("sha256")
    assert file.metadata == metadata
    sealed.write(tmp_path / "b", {"w": torch.ones(2)}, {**metadata, "sha256": digest}, kind=KIND)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_the_two_kinds_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for kind, other in (("pushforward", "pushforward-checkpoint"), ("pushforward-checkpoint", "pushforward")):
        sealed.write(tmp_path / "a", {}, {"format": 1}, kind=kind)
        sealed.read(tmp_path / "a", kind=kind, latest=1)
        words = f"is a {sealed.KINDS[kind]}, not a {sealed.KINDS[other]}"
        with pytest.raises(ArtifactError, match=words):
            sealed.read(tmp_path / "a", kind=other, latest=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "a.flow"
    sealed.write(
        path, {"w": torch.arange(9.0), "m": torch.tensor([True])}, {"format": 1, "n": "é"}, kind=KIND
    )
    return path


def test_every_bit_of_a_file_counts(small: Path) -> None:
    size = small.stat().st_size
    for bit in range(8):
        assert refusals(small, range(size), lambda _, bit=bit: 1 << bit, lambda: read(small)) == size  # type: ignore[misc]
    read(small)


def test_every_byte_of_a_larger_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.flow"
    sealed.write(path, {"w": torch.randn(125_000)}, {"format": 1}, kind=KIND)
    rng = random.Random(0)
    places = rng.sample(range(path.stat().st_size), 10_000)
    assert refusals(path, places, lambda _: 1 << rng.randrange(8), lambda: read(path)) == 10_000
    read(path)


def test_every_length_counts(small: Path, tmp_path: Path) -> None:
    blob = small.read_bytes()
    path = tmp_path / "a.flow"
    for length in range(len(blob)):
        path.write_bytes(blob[:length])
        with pytest.raises(ArtifactError, match=r"a\.flow.*(cut short|checksum)"):
            read(path)
    for more in (b"\0", b" " * 8, blob):
        path.write_bytes(blob + more)
        with pytest.raises(ArtifactError, match="checksum"):
            read(path)


def tensor(shape: Any, start: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES: dict[str, bytes] = {
    "100 GB of header": struct.pack("<Q", 10**11) + b"{}" * 50,
    "all bits of header": b"\xff" * 8 + b"{}" * 50,
    "100 GB of tensor": described({"a": tensor([25 * 10**9], 0, 10**11)}, {"format": 1}, b"1234"),
    "100 GB in 4 bytes": described({"a": tensor([25 * 10**9], 0, 4)}, {"format": 1}, b"1234"),
    "nothing times 100 GB": described({"a": tensor([0, 10**11], 0, 0)}, {"format": 1}, b""),
    "numbers without end": described({"a": tensor([int("9" * 4000)] * 60, 0, 4)}, {"format": 1}, b"1234"),
    "axes without end": described({"a": tensor([1] * 10**5, 0, 4)}, {"format": 1}, b"1234"),
    "twice the same bytes": described({f"a{i}": tensor([1], 0, 4) for i in range(2)}, {"format": 1}, b"1234"),
    "a gap": described({"a": tensor([1], 4, 8)}, {"format": 1}, b"12345678"),
    "bytes left": described({"a": tensor([1], 0, 4)}, {"format": 1}, b"12345678"),
    "negative": described({"a": tensor([-1, -1], 0, 4)}, {"format": 1}, b"1234"),
    "backwards": described({"a": tensor([1], 4, 0)}, {"format": 1}, b"1234"),
    "a truth that is none": described({"a": tensor([True], 0, 4)}, {"format": 1}, b"1234"),
    "a byte that is no truth": described({"a": tensor([1], 0, 1, "BOOL")}, {"format": 1}, b"\2"),
    "text for a size": described({"a": tensor(["1"], 0, 4)}, {"format": 1}, b"1234"),
    "a number for a shape": described({"a": tensor(1, 0, 4)}, {"format": 1}, b"1234"),
    "three offsets": described(
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, {"format": 1}, b"1234"
    ),
    "an unknown dtype": described({"a": tensor([1], 0, 4, "PYTHON")}, {"format": 1}, b"1234"),
    "a list for a dtype": described({"a": tensor([1], 0, 4, [])}, {"format": 1}, b"1234"),
    "no description": described({"a": None}, {"format": 1}, b""),
    "a nest": described({}, "[" * 10**5 + "]" * 10**5 + ZEROS, b""),
    "a nest of tables": described({}, '{"a":' * 10**5 + "1" + "}" * 10**5 + ZEROS, b""),
    "a nested header": with_header('{"a":' * 10**5 + ZEROS, b""),
    "a key twice": described({}, f'{{"format": 1, "format": 1, "sha256": "{ZEROS}"}}', b""),
    "a tensor twice": with_header(
        json.dumps({"__metadata__": {KIND: json.dumps({"format": 1, "sha256": ZEROS})}})[:-1]
        + ', "a": {}, "a": {}}',
        b"",
    ),
    "a huge number": described({}, f'{{"format": {"9" * 10**5}, "sha256": "{ZEROS}"}}', b""),
    "format 0": described({}, {"format": 0}, b""),
    "format true": described({}, {"format": True}, b""),
    "format 1.0": described({}, {"format": 1.0}, b""),
    "a later format": described({}, {"format": 2}, b""),
    "no format": described({}, {}, b""),
    "no digest": with_header(json.dumps({"__metadata__": {KIND: '{"format": 1}'}, "x": ZEROS}), b""),
    "a number for a digest": described({}, f'{{"format": 1, "sha256": 1, "x": "{ZEROS}"}}', b""),
    "metadata that is a list": described({}, f'["{ZEROS}"]', b""),
    "metadata that is no text": with_header(
        json.dumps({"__metadata__": {KIND: {"format": 1, "sha256": ZEROS}}}), b""
    ),
    "no metadata": with_header(json.dumps({"a": tensor([1], 0, 4), "x": ZEROS}), b"1234"),
    "a list": with_header(f'["{ZEROS}"]', b""),
    "no UTF-8": with_header(b'{"__metadata__": "\xff\xfe", "x": "' + ZEROS.encode() + b'"}', b""),
    "zeros": b"\0" * 1000,
    "pickle": pickle.dumps({"a": 1}) * 20,
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.flow").write_bytes(LIES[name])
    with pytest.raises(ArtifactError, match=r"a\.flow"):
        read(tmp_path / "a.flow").load()


def test_lies_cost_neither_memory_nor_time(tmp_path: Path) -> None:
    """All lies, and a header of the greatest length, within 600 MB more than the program itself and 20 seconds."""
    for i, blob in enumerate(LIES.values()):
        (tmp_path / f"{i}.flow").write_bytes(blob)
    empty = "[" + "{}," * 5_000_000 + "0]"
    (tmp_path / "long.flow").write_bytes(
        described({}, f'{{"format": 1, "sha256": "{ZEROS}", "x": {empty}}}', b"")
    )
    with (tmp_path / "sparse.flow").open("wb") as file:
        file.write(struct.pack("<Q", 10**11 - 8) + b"{")
        file.truncate(10**11)
    code = """
import resource, sys
from pathlib import Path
from pushforward import sealed
from pushforward.errors import ArtifactError
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 600_000_000
files = sorted(Path(sys.argv[1]).glob("*.flow"))
for path in files:
    room = path.stat().st_size if path.stat().st_size > 10**9 else 0  # a mapped file takes addresses, not memory
    resource.setrlimit(resource.RLIMIT_AS, (limit + room, resource.RLIM_INFINITY))
    try:
        sealed.read(path, kind="pushforward", latest=1).load()
    except ArtifactError:
        continue
    if path.name != "long.flow":
        sys.exit(f"{path} was read")
print(len(files))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (result.stdout.strip(), result.stderr) == (str(len(LIES) + 2), "")


def test_files_with_code_in_them_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "new.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.py", "print(1)")
    (tmp_path / "a.py").write_text("print('code')\n" * 50)
    for path in tmp_path.iterdir():
        with pytest.raises(ArtifactError, match="not a saved flow"):
            read(path)


def test_what_is_no_file_is_a_matter_of_data(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.flow", Path("/dev/null")):
        with pytest.raises(DataError, match="no such file"):
            read(path)


@pytest.mark.parametrize("limit", [0, 100, 10_000])
def test_a_disk_that_is_full_leaves_the_old_file(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "a.flow"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match=r"a\.flow: cannot be written"):
            sealed.write(path, {"a": torch.zeros(10_000)}, {"format": 1}, kind=KIND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.flow"]
