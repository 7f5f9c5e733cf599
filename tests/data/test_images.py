"""Arrays of images are read as they were written, or it is said what is wrong with which file."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pushforward.data import Images, check_enough, holds_images, read_images
from pushforward.data.idx import idx_header
from pushforward.data.images import image_set
from pushforward.data.labels import read_labels
from pushforward.errors import DataError

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))


def gzipped(content: bytes) -> bytes:
    """Without a time in it: the names of tests are made of it, and must be the same in every process."""
    return gzip.compress(content, mtime=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save_idx(path: Path, array: np.ndarray) -> Path:
    blob = idx_header(array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(blob) if path.suffix == ".gz" else blob)
    return path


def mnist_like(folder: Path, end: str = "", point: str = "-") -> dict[str, np.ndarray]:
    """Four files as those of MNIST."""
    held = {}
    for part, n in (("train", 7), ("t10k", 3)):
        held[part], held[part + " labels"] = pixels(n, 4, 5, seed=n), np.arange(n) % 4
        save_idx(folder / f"{part}-images{point}idx3-ubyte{end}", held[part])
        save_idx(folder / f"{part}-labels{point}idx1-ubyte{end}", held[part + " labels"])
    return held


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_images(path, **options)  # type: ignore[arg-type]
    assert path.name in str(caught.value) or options


@given(shape=SHAPES, seed=st.integers(0, 99), packed=st.booleans())
@settings(max_examples=50, deadline=None)
def test_idx_files_are_read_as_they_were_written(
    folder: Path, shape: tuple[int, int, int], seed: int, packed: bool
) -> None:
    array = pixels(*shape, seed=seed)
    path = save_idx(folder / f"a.{'gz' if packed else 'idx'}", array)
    found = read_images(path)
    np.testing.assert_array_equal(found.train.pixels[:, 0], array)
    assert found.train.pixels.dtype == np.uint8
    assert (found.train.labels, found.train.classes, found.train.levels, found.test) == (None, (), 256, None)


@given(shape=SHAPES, place=st.integers(0, 15), change=st.integers(1, 255))
@example(shape=(1, 1, 1), place=3, change=2)
@settings(max_examples=200, deadline=None)
def test_a_changed_header_is_refused_and_takes_no_memory(
    folder: Path, shape: tuple[int, int, int], place: int, change: int
) -> None:
    blob = bytearray(idx_header(shape) + pixels(*shape).tobytes())
    blob[place] ^= change
    for name, content in (("b.idx3-ubyte", bytes(blob)), ("b.gz", gzip.compress(bytes(blob)))):
        (folder / name).write_bytes(content)
        refused(folder / name, re.escape(name))


@given(shape=SHAPES, cut=st.integers(0, 200), packed=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_cut_file_is_refused(folder: Path, shape: tuple[int, int, int], cut: int, packed: bool) -> None:
    blob = idx_header(shape) + pixels(*shape).tobytes()
    blob = gzip.compress(blob) if packed else blob
    path = folder / "c-images-idx3-ubyte"
    path.write_bytes(blob[: cut % len(blob)])
    refused(path, path.name)


def test_a_packed_file_whose_sum_is_wrong(tmp_path: Path) -> None:
    blob = bytearray(gzip.compress(idx_header((2, 3, 3)) + bytes(18)))
    blob[-7] ^= 1
    (tmp_path / "a.gz").write_bytes(blob)
    refused(tmp_path / "a.gz", "cut short or damaged .*CRC")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"begins with nothing, expected 00 00 08 03"),
        (b"P5\n1", r"is no IDX file: it begins with 50 35 0a 31"),
        (b"\0\0\x0d\3" + bytes(12), r"holds 32-bit floats, expected unsigned bytes\. Save its values"),
        (b"\0\0\x0a\3" + bytes(12), r"holds an unknown type \(10\)"),
        (idx_header((5,)) + bytes(5), r"with 1 axes, expected 3 for images\. Labels and images are not"),
        (idx_header((2, 2)) + bytes(4), r"with 2 axes, expected 3"),
        (idx_header((2, 2, 2))[:9], "cut short within its header"),
        (idx_header((0, 2, 2)), "is empty: the header says 0 x 2 x 2 bytes"),
        (
            idx_header((2, 2, 2)) + bytes(7),
            "says 2 x 2 x 2 bytes, more than the file can hold|there are only 7",
        ),
        (idx_header((2, 2, 2)) + bytes(9), "says 2 x 2 x 2 bytes, but there are more"),
        (idx_header((2**32 - 1,) * 3) + bytes(9), "more than the file can hold"),
        (gzipped(idx_header((2**20, 2**10, 2)) + bytes(9)), "more than the file can hold"),
        (gzipped(idx_header((2, 2, 2)) + bytes(7)), "but there are only 7"),
        (gzipped(idx_header((2, 2, 2)) + bytes(2**20)), "but there are more"),
        (gzipped(idx_header((2, 2, 2)) + bytes(8)) + b"more", "damaged"),
    ],
)
def test_idx_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x-images-idx3-ubyte"
    path.write_bytes(content)
    refused(path, message)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("point", ["-", "."])
def test_labels_and_test_images_beside_train_images(tmp_path: Path, end: str, point: str) -> None:
    held = mnist_like(tmp_path, end, point)
    for path in (tmp_path, tmp_path / f"train-images{point}idx3-ubyte{end}"):
        found = read_images(path)
        assert found.name == path.name
        assert found.test is not None
        for part, images in (("train", found.train), ("t10k", found.test)):
            np.testing.assert_array_equal(images.pixels[:, 0], held[part])
            np.testing.assert_array_equal(images.labels, held[part + " labels"])
            assert images.classes == ("0", "1", "2", "3")
    alone = read_images(tmp_path / f"t10k-images{point}idx3-ubyte{end}")
    assert (len(alone.train), alone.train.classes, alone.test) == (3, ("0", "1", "2"), None)


def test_what_may_be_wrong_beside_an_idx_file(tmp_path: Path) -> None:
    mnist_like(tmp_path)
    train, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte"
    save_idx(labels, np.zeros(4))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: 4 labels for 3 images"):
        read_images(train)
    labels.unlink()
    refused(train, "the train images have labels, the test images have none. Add")
    save_idx(tmp_path / "own.idx", np.arange(7))
    own = read_images(train, labels=tmp_path / "own.idx")
    assert own.train.labels is not None
    assert (own.train.labels.tolist(), own.test) == (list(range(7)), None)
    save_idx(tmp_path / "t10k-images-idx3-ubyte", pixels(3, 4, 4))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    refused(train, "train images are 4x5 grey, the test images 4x4 grey")
    save_idx(tmp_path / "b-train-images-idx3-ubyte", pixels(3, 4, 4))
    refused(tmp_path, "which file holds the images. There are b-train-images-idx3-ubyte and train-images")


@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 4, 5, 1), (6, 4, 5, 3), (6, 1, 4, 5), (6, 3, 4, 5)])
@pytest.mark.parametrize("dtype", ["u1", "i8", ">u2", "f4", "f8"])
def test_arrays_of_every_layout_and_type(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    array = pixels(*shape)
    expected = array[:, None] if array.ndim == 3 else array
    if shape[-1] in (1, 3):
        expected = expected.transpose(0, 3, 1, 2)
    np.save(tmp_path / "a.npy", array.astype(dtype))
    np.savez_compressed(tmp_path / "b.npz", age=np.arange(3), photos=array.astype(dtype))
    for name in ("a.npy", "b.npz"):
        assert holds_images(tmp_path / name)
        found = read_images(tmp_path / name)
        np.testing.assert_array_equal(found.train.pixels, expected)
        assert (found.name, found.train.labels, found.test) == (name, None, None)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 4)), r"has shape \(5, 4\), expected \(n, height, width\), \(n, height"),
        (np.zeros((5, 4, 4, 2)), r"has shape \(5, 4, 4, 2\)"),
        (np.zeros((5, 3, 9, 3)), "the channels may stand second or last"),
        (np.zeros((0, 4, 4)), "is empty"),
        (np.full((2, 3, 4), 256), "holds the value 256, expected whole numbers 0 to 255"),
        (np.full((2, 3, 4), -1), "holds the value -1"),
        (np.full((2, 3, 4), np.nan), "holds the value nan"),
        (np.full((2, 3, 4), np.inf), "holds the value inf"),
        (np.full((2, 3, 4), 0.5), r"fractions between 0 and 1, .*\. Multiply it by 255 and round"),
        (np.eye(4)[None], r"floats of 0 and 1 only, .*\. Multiply it by 255 and round"),
        (np.full((2, 3, 4), 100.5), r"numbers that are not whole, .*\. Round it"),
        (np.zeros((2, 3, 4), bool), "holds truth values"),
        (np.zeros((2, 3, 4), complex), r"holds complex numbers \(complex128\)"),
        (np.full((2, 3, 4), "a"), r"holds text \(<U1\)"),
        (np.full((2, 3, 4), None), r"holds Python objects .*pickled objects are never loaded"),
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", message)
    if array.ndim > 2:
        np.savez(tmp_path / "a.npz", images=array)
        refused(tmp_path / "a.npz", message)


def test_archives_with_labels_and_test_images(tmp_path: Path) -> None:
    path, x, y = tmp_path / "mnist.npz", pixels(6, 4, 5), np.arange(6)[:, None]
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    found = read_images(path)
    assert found.test is not None
    assert found.test.labels is not None
    assert (found.test.labels.tolist(), found.test.classes) == ([0, 1], tuple("012345"))
    np.savez(path, X=x, y=y[:5])
    refused(path, r"mnist\.npz, array 'y': 5 labels for 6 images")
    np.savez(path, images=x, labels=np.array(list("abcdef"), dtype=object))
    refused(path, "array 'labels' holds Python objects")
    np.savez(path, a=x, b=x)
    refused(
        path, r"which array holds the images\? It holds 'a' \(6, 4, 5\), 'b' \(6, 4, 5\)\. Save them under"
    )
    np.savez(path, x_test=x)
    refused(path, "which array holds the images")
    np.savez(path, X=y)
    refused(path, "which array holds the images")
    assert not holds_images(path)


def test_an_array_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, pixels(6, 4, 5))
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "cut short")
    path.write_bytes(path.read_bytes().replace(b"(6, 4, 5)", b"(6,4,9**9"))
    refused(path, "damaged")
    path.write_bytes(path.read_bytes().replace(b"(6,4,9**9", b"(6,4,9999"))
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n1\n", "2 labels for 3 images"),
        ("0\n1\n2\n3\n", "4 labels for 3 images"),
        ("0\n-1\n2\n", "row 2: the label -1 is negative"),
        ("0\n1.5\n2\n", r"row 2: the label 1\.5 is not a whole number\. Number the classes"),
        ("0\n1\nnan\n", "row 3: the label nan is not a whole number"),
        ("0\n1\n1000\n", "row 3: the label 1000 is too large: there may be 1000 classes"),
        ("0\ncat\n2\n", "row 1: the label '0' is a number, but others are words"),
        ("a,b,c\n" * 3, "has lines of 3 fields. Give one label a line"),
        ("0\na.png,1\n2\n", "has lines of 1 and 2 fields"),
        ("", "has lines of no fields"),
        ("a.png,0\nb.png,\nc.png,1\n", "row 2: the label is missing"),
        ("a.png,0\nd.png,1\nc.png,1\n", "row 2: names the file 'd.png', which is not there. Is"),
        ("a.png,0\na.png,1\nc.png,1\n", "row 2: names the file 'a.png' again"),
        ("name,y\na.png,0\nb.png,1\n", "row 1: names the file 'name', which is not there"),
        ("a.png,0\nc.png,1\n", "2 labels for 3 images; none for 'b.png'"),
        ("d.png,0\na.png,0\nb.png,1\nc.png,1\n", "row 1: names the file 'd.png'"),
        ("0\n\udcff\n1\n", "not text in UTF-8"),
        ("\0\0\0", "is no file of labels"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=rf"labels\.csv(, |: ){message}"):
        read_labels(path, 3, ["a.png", "b.png", "c.png"])


@pytest.mark.parametrize(
    ("text", "labels", "classes"),
    [
        ("2\n0\n2\n", [2, 0, 2], ("0", "1", "2")),
        ("label\n1\n0\n1\n", [1, 0, 1], ("0", "1")),
        ("\ufeffdog\n\ncat\ndog", [1, 0, 1], ("cat", "dog")),
        ("kind\ndog\ncat\ndog\n", [1, 0, 1], ("cat", "dog")),
        ("c.png;2\na.png;0\nb.png;1\n", [0, 1, 2], ("0", "1", "2")),
        ("file,label\r\nc.png,2\r\na.png,0\r\nb.png,1\r\n", [0, 1, 2], ("0", "1", "2")),
        ('a.png,"big, brown"\nb.png,small\nc.png,small\n', [0, 1, 1], ("big, brown", "small")),
        ("1.0\n0.0\n1.0\n", [1, 0, 1], ("0", "1")),
    ],
)
def test_labels_of_text(tmp_path: Path, text: str, labels: list[int], classes: tuple[str, ...]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found, names = read_labels(path, 3, ["a.png", "b.png", "c.png"])
    assert (found.tolist(), found.dtype, names) == (labels, np.int64, classes)


def test_labels_of_arrays(tmp_path: Path) -> None:
    images, path = tmp_path / "a.npy", tmp_path / "y.npy"
    np.save(images, pixels(3, 4, 4))
    for array in (np.array([0, 2, 1]), np.array([0.0, 2.0, 1.0]), np.array([[0], [2], [1]], np.uint8)):
        np.save(path, array)
        found = read_images(images, labels=path).train
        assert found.labels is not None
        assert (found.labels.tolist(), found.classes) == ([0, 2, 1], ("0", "1", "2"))
    for array, message in (
        (np.array([0, -2, 1]), r"y\.npy, row 2: the label -2 is negative"),
        (np.zeros((3, 2)), r"the labels have shape \(3, 2\), expected \(3,\)"),
        (np.array([0, None, 1]), "holds Python objects"),
        (np.array(["a", "b", "c"]), "holds text"),
    ):
        np.save(path, array)
        refused(images, message, labels=path)
    (tmp_path / "y.csv").write_text("a.png,0\nb.png,1\nc.png,1\n")
    refused(images, "names files, but the images have no names", labels=tmp_path / "y.csv")
    refused(images, r"z\.npy: no such file\. Is '[ay]\.npy' meant", labels=tmp_path / "z.npy")
    refused(images, "is a folder. Give a file of labels", labels=tmp_path)


def test_what_holds_images(tmp_path: Path) -> None:
    mnist_like(tmp_path, ".gz")
    (tmp_path / "plain.gz").write_bytes((tmp_path / "train-images-idx3-ubyte.gz").read_bytes())
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "a.JPG").touch()
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"\0\0\x08\3")[:12])
    (tmp_path / "empty").touch()
    np.save(tmp_path / "table.npy", np.zeros((5, 4)))
    np.save(tmp_path / "images.npy", np.zeros((5, 4, 4)))
    (tmp_path / "broken.npz").write_bytes(b"PK\3\4")
    os.mkfifo(tmp_path / "pipe")
    yes = ["", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "plain.gz", "a.JPG", "images.npy"]
    no = [
        "table.csv",
        "table.csv.gz",
        "cut.gz",
        "empty",
        "table.npy",
        "broken.npz",
        "pipe",
        "gone",
        "a" * 300,
        "\0",
    ]
    assert [name for name in yes + no if holds_images(tmp_path / name)] == yes
    assert [name for name in ("mnist", "digits", "mnist/x") if holds_images(name)] == ["mnist", "digits"]


def test_a_file_of_a_known_name_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_idx(tmp_path / "mnist", pixels(2, 3, 3))
    assert len(read_images("mnist").train) == 2
    (tmp_path / "mnist").write_text("a,b\n")
    assert not holds_images("mnist")
    refused(Path("mnist"), "holds no images. Give a folder")


def test_paths_that_hold_no_images(tmp_path: Path) -> None:
    refused(tmp_path / "gone.npy", "no such file or folder")
    refused(Path("mnits"), "mnits: no such file or folder. Is 'mnist' meant")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is a device or pipe")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    refused(tmp_path / "a.csv", "holds no images")


def test_images_are_brought_to_a_size(tmp_path: Path) -> None:
    array = pixels(4, 8, 8, 3)
    array[0] = 200
    np.save(tmp_path / "a.npy", array)
    found = read_images(tmp_path / "a.npy", size=(4, 2)).train
    assert found.pixels.shape == (4, 3, 4, 2)
    assert (found.pixels[0] == 200).all()
    digits = read_images("digits", size=(16, 16)).train
    assert (digits.levels, digits.pixels.max(), digits.classes) == (17, 16, tuple("0123456789"))
    for wrong in ((0, 4), (4,), (1, 2, 3)):
        with pytest.raises(ValueError, match="size: expected height and width"):
            read_images("digits", size=wrong)  # type: ignore[arg-type]


def test_rows_are_taken_with_all_that_belongs_to_them() -> None:
    images = Images(pixels(4, 1, 2, 2), np.arange(4), tuple("abcd"), 256, ("1", "2", "3", "4"))
    for rows, expected in ((np.array([3, 1]), [3, 1]), (images.labels == 2, [2]), (slice(1, 3), [1, 2])):
        part = images.take(rows)  # type: ignore[arg-type]
        assert part.labels is not None
        assert (part.labels.tolist(), part.classes) == (expected, images.classes)
        assert part.names == tuple(str(i + 1) for i in expected)
        np.testing.assert_array_equal(part.pixels, images.pixels[expected])
    bare = Images(pixels(4, 3, 2, 2)).take(np.array([0]))
    assert (bare.labels, bare.names, bare.channels, bare.size) == (None, (), 3, (2, 2))


def test_images_that_are_none() -> None:
    for wrong in (pixels(2, 2, 2), pixels(2, 2, 2, 2), np.zeros((2, 1, 2, 2))):
        with pytest.raises(ValueError, match="pixels: expected unsigned bytes of shape"):
            Images(wrong)
    array = pixels(2, 1, 2, 2)
    with pytest.raises(ValueError, match=r"labels: expected 64-bit integers of shape \(2,\), got float64"):
        Images(array, np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names: expected 2, one for each image, got 1"):
        Images(array, names=("a",))
    with pytest.raises(DataError, match="x: 2 images, and at least 20 are needed to fit"):
        check_enough(Images(array), "x")
    check_enough(Images(pixels(20, 1, 2, 2)), "x")
    labelled = Images(array, np.zeros(2, np.int64), ("a",))
    merged = image_set("x", Path("x"), Images(array), labelled)
    assert merged.test is not None
    assert (merged.test.labels, merged.test.classes) == (None, ())
