"""Known sets are looked for in order, checked wherever they come from, and said to be missing with what to do."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pushforward.data import downloads, holds_images, known_sets, read_images
from pushforward.data.idx import idx_digest, idx_header
from pushforward.data.known_sets import KnownFile, KnownSet, read_known_set
from pushforward.errors import DataError, OutputError

URL = "https://example.org/sets/"
CLASSES = ("no", "yes")


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    held = {}
    for part, n in (("train", 6), ("t10k", 4)):
        held[f"{part}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (n, 3, 5)).astype(np.uint8)
        held[f"{part}-labels-idx1-ubyte.gz"] = (np.arange(n) % 2).astype(np.uint8)
    return held


def packed(array: np.ndarray) -> bytes:
    return gzip.compress(idx_header(array.shape) + array.tobytes(), mtime=0)  # equal in every process


def put(folder: Path, *, unpacked: bool = False) -> Path:
    folder.mkdir(parents=True)
    for name, array in arrays().items():
        blob = packed(array)
        path = folder / (name.removesuffix(".gz") if unpacked else name)
        path.write_bytes(gzip.decompress(blob) if unpacked else blob)
    return folder


def archive(changed: bool = False) -> bytes:
    """Batches as CIFAR's, of two images each."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as tar:
        for i, name in enumerate(
            [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin", "readme.html"]
        ):
            rows = np.full((2, 3073), i, np.uint8)
            rows[:, 0] = [0, 1]
            rows[0, 1] = 250 + changed
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = rows.nbytes
            tar.addfile(info, io.BytesIO(rows.tobytes()))
    return memory.getvalue()


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A small table, and folders of its own to look in; the network refuses."""
    files = tuple(KnownFile(name, idx_digest(array), 1000) for name, array in arrays().items())
    blob = archive()
    monkeypatch.setattr(
        known_sets,
        "KNOWN_SETS",
        {
            "mnist": KnownSet(URL, files, CLASSES),
            "cifar10": KnownSet(
                URL, (KnownFile("c.tar.gz", hashlib.sha256(blob).hexdigest(), len(blob)),), CLASSES
            ),
            "digits": None,
        },
    )
    found = {name: tmp_path / name for name in ("own", "system", "cache")}
    monkeypatch.setattr(known_sets, "_SYSTEM", found["system"])
    monkeypatch.setenv("PUSHFORWARD_DATA", str(found["own"]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(found["cache"]))
    found["cache"] = found["cache"] / "pushforward"
    network(monkeypatch, {})
    return found


def network(monkeypatch: pytest.MonkeyPatch, held: dict[str, bytes]) -> list[str]:
    """A network that holds these files; the list is of those asked for."""
    asked: list[str] = []

    def answer(url: str) -> io.BytesIO:
        asked.append(url)
        name = url.removeprefix(URL)
        if name not in held:
            raise urllib.error.URLError("Name or service not known")
        return io.BytesIO(held[name])

    monkeypatch.setattr(downloads, "_open", answer)
    return asked


def check(name: str = "mnist") -> None:
    found = read_images(name)
    assert found.test is not None
    for part, images in (("train", found.train), ("t10k", found.test)):
        np.testing.assert_array_equal(images.pixels[:, 0], arrays()[f"{part}-images-idx3-ubyte.gz"])
        np.testing.assert_array_equal(images.labels, arrays()[f"{part}-labels-idx1-ubyte.gz"])
        assert (images.classes, images.levels) == (CLASSES, 256)
    assert found.name == name


@pytest.mark.parametrize("place", ["own", "system", "cache"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_a_set_is_found_packed_or_not(places: dict[str, Path], place: str, unpacked: bool) -> None:
    put(places[place] / "mnist", unpacked=unpacked)
    assert holds_images("mnist")
    check()


def test_a_set_is_found_behind_a_link(places: dict[str, Path], tmp_path: Path) -> None:
    put(tmp_path / "elsewhere")
    places["own"].mkdir()
    (places["own"] / "mnist").symlink_to(tmp_path / "elsewhere")
    check()


def test_places_are_looked_through_in_order(places: dict[str, Path]) -> None:
    order = [put(places[place] / "mnist") for place in ("own", "system", "cache")]
    for folder in order:
        path = folder / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(packed(np.ones(4, np.uint8)))
        message = rf"{re.escape(str(path))}: is not the file of this name of mnist: its SHA-256 is another one. Remove"
        with pytest.raises(DataError, match=message):
            read_images("mnist")
        path.unlink()  # a folder without all files is passed over


@pytest.mark.parametrize("change", ["cut", "type", "pixel"])
def test_a_changed_file_is_named(places: dict[str, Path], change: str) -> None:
    path = put(places["own"] / "mnist", unpacked=True) / "train-images-idx3-ubyte"
    blob = bytearray(path.read_bytes())
    blob[2 if change == "type" else -1] ^= 1
    path.write_bytes(blob[:-1] if change == "cut" else blob)
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_images("mnist")


def test_a_set_is_downloaded_once(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = network(monkeypatch, {name: packed(array) for name, array in arrays().items()})
    check()
    check()
    assert asked == [URL + name for name in arrays()]
    assert sorted(path.name for path in (places["cache"] / "mnist").iterdir()) == sorted(arrays())


def test_a_download_goes_on_where_it_broke_off(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {name: packed(array) for name, array in arrays().items()}
    last = list(held)[-1]
    network(monkeypatch, {name: blob for name, blob in held.items() if name != last})
    with pytest.raises(DataError, match=last):
        read_images("mnist")
    asked = network(monkeypatch, held)
    check()
    assert asked == [URL + last]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(np.zeros((6, 3, 5), np.uint8)), "it is not what it was"),
        (b"<html>Sign in</html>", "it is not what it was"),
        (packed(arrays()["train-images-idx3-ubyte.gz"])[:-9], "it is not what it was"),
        (bytes(1001), "it is larger than it was"),
    ],
)
def test_a_download_that_is_another_file_leaves_none(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    network(monkeypatch, {"train-images-idx3-ubyte.gz": content})
    with pytest.raises(DataError, match=rf"\({URL}train-images-idx3-ubyte.gz: {reason}\)"):
        read_images("mnist")
    assert not list((places["cache"] / "mnist").iterdir())


def test_without_a_network_it_is_said_where_to_put_what(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
        f"t10k-labels-idx1-ubyte.gz from {URL} into "
    )
    start = r"^mnist is not on this computer, and cannot be downloaded \(.*: Name or service not known\)\. "
    with pytest.raises(DataError, match=start + re.escape(f"{names}{places['own'] / 'mnist'}.")):
        read_images("mnist")
    monkeypatch.delenv("PUSHFORWARD_DATA")
    with pytest.raises(
        DataError, match=re.escape(f"{names}{places['cache'] / 'mnist'}, or set PUSHFORWARD_DATA to a")
    ):
        read_images("mnist")
    with pytest.raises(DataError, match=r"Put c\.tar\.gz from"):
        read_images("cifar10")


def test_a_broken_connection(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise downloads.http.client.IncompleteRead(b"")

    monkeypatch.setattr(downloads, "_open", lambda url: Breaks())
    with pytest.raises(DataError, match=r"the connection broke \(IncompleteRead"):
        read_images("mnist")


def test_only_what_is_encrypted_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1/a is not encrypted"):
        downloads.download("http://127.0.0.1/a", tmp_path / "a", 10)
    handler = downloads._HttpsOnly()
    request = downloads.urllib.request.Request("https://example.org/a")
    again: Callable[[str], object] = lambda url: handler.redirect_request(  # noqa: E731
        request, io.BytesIO(), 302, "Found", downloads.Message(), url
    )
    assert again("https://example.org/b") is not None
    with pytest.raises(OSError, match="not encrypted"):
        again("http://example.org/b")


def test_a_cache_that_cannot_be_made(places: dict[str, Path]) -> None:
    places["cache"].parent.mkdir()
    places["cache"].write_text("a file")
    with pytest.raises(OutputError, match=r"cannot be written .* or set XDG_CACHE_HOME"):
        read_images("mnist")


def test_the_cache_is_at_home_unless_it_is_set_to_a_whole_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert known_sets._cache() == tmp_path / ".cache" / "pushforward"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert known_sets._cache() == tmp_path / ".cache" / "pushforward"


def test_an_archive_of_batches(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    network(monkeypatch, {"c.tar.gz": archive()})
    found = read_images("cifar10")
    assert found.test is not None
    assert (found.train.pixels.shape, found.test.pixels.shape) == ((10, 3, 32, 32), (2, 3, 32, 32))
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [0, 1] * 5
    assert found.train.pixels[1::2, 2, 31, 31].tolist() == [0, 1, 2, 3, 4]
    assert (found.test.pixels[0, 0, 0, 0], found.test.pixels[1, 0, 0, 0]) == (250, 5)
    path = places["cache"] / "cifar10" / "c.tar.gz"
    path.write_bytes(archive(changed=True))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}: is not the file of this name of cifar10"):
        read_images("cifar10")


def test_digits_come_without_files() -> None:
    found = read_images("digits")
    assert (found.train.pixels.shape, found.train.pixels.max(), found.train.levels) == (
        (1797, 1, 8, 8),
        16,
        17,
    )
    assert (found.test, found.train.classes) == (None, tuple("0123456789"))


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no set of images has the name 'mnits'\. Is 'mnist' meant"):
        read_known_set("mnits")
    with pytest.raises(DataError, match="Known are mnist, cifar10, digits"):
        read_known_set("zebra")
    with pytest.raises(DataError, match="labels were given, but digits has its own"):
        read_images("digits", labels=tmp_path)


def real_files() -> Iterator[KnownFile]:
    for known in known_sets.KNOWN_SETS.values():
        yield from known.files if known is not None else ()


def test_the_table_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    files = list(real_files())
    assert len({file.sha256 for file in files}) == len(files) == 9
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in files)
    for known in known_sets.KNOWN_SETS.values():
        assert known is None or (known.url.startswith("https://") and known.url.endswith("/"))
        assert known is None or len(set(known.classes)) == 10
