"""Folders of pictures are read as they were written, with their classes, or it is said which file does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pushforward.data import check_enough, holds_images, read_images
from pushforward.errors import DataError

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "Nd"]), min_size=1, max_size=5).filter(
    lambda name: name not in ("train", "test")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folders")


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save(path: Path, array: np.ndarray | None = None) -> Path:
    """Writes (height, width) or (height, width, 3) by the suffix; None: 4 x 5, grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(4, 5) if array is None else array).save(path)
    return path


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(DataError, match=message):
        read_images(path, **options)  # type: ignore[arg-type]


@given(
    held=st.dictionaries(NAMES, st.sets(NAMES, min_size=1, max_size=4), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    colour=st.booleans(),
    suffix=st.sampled_from([".png", ".bmp", ".PNG"]),
    sorted_into=st.sampled_from(["nothing", "classes", "parts"]),
)
@settings(max_examples=40, deadline=None)
def test_folders_are_read_as_they_were_written(
    folder: Path,
    *,
    held: dict[str, set[str]],
    size: tuple[int, int],
    colour: bool,
    suffix: str,
    sorted_into: str,
) -> None:
    root = folder / "pictures"
    shutil.rmtree(root, ignore_errors=True)
    shape = (*size, 3) if colour else size
    if sorted_into == "nothing":
        held = {"": next(iter(held.values()))}
    classes = sorted(held)
    if all(name.isdecimal() for name in classes):
        classes = sorted(classes, key=lambda name: (int(name), name))
    parts = ["train", "test"] if sorted_into == "parts" else [""]
    expected: dict[str, list[tuple[str, int, np.ndarray]]] = {part: [] for part in parts}
    for part in parts:
        for number, name in enumerate(classes):
            for file in sorted(f"{stem}{suffix}" for stem in held[name]):
                image = pixels(*shape, seed=len(expected[part]))
                save(root / part / name / file, image)
                expected[part].append((f"{name}/{file}" if name else file, number, image))
    found = read_images(root)
    assert found.name == "pictures"
    for part, images in zip(parts, (found.train, found.test), strict=False):
        assert images is not None
        names, numbers, arrays = zip(*expected[part], strict=True)
        stacked = np.stack(arrays)
        np.testing.assert_array_equal(
            images.pixels, stacked.transpose(0, 3, 1, 2) if colour else stacked[:, None]
        )
        assert images.names == names
        assert images.classes == (() if sorted_into == "nothing" else tuple(classes))
        if images.labels is None:
            assert sorted_into == "nothing"
        else:
            assert images.labels.tolist() == list(numbers)
    assert (found.test is None) == (sorted_into != "parts")


def test_classes_named_by_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "0"):
        save(tmp_path / name / "a.png")
    found = read_images(tmp_path).train
    assert (found.classes, found.names) == (("0", "9", "10"), ("0/a.png", "9/a.png", "10/a.png"))


def test_hidden_files_and_those_of_other_kinds_are_left_out(tmp_path: Path) -> None:
    save(tmp_path / "b.png")
    save(tmp_path / "a.jpeg")
    (tmp_path / ".c.png").touch()
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "README.txt").touch()
    assert holds_images(tmp_path)
    assert read_images(tmp_path).train.names == ("a.jpeg", "b.png")
    (tmp_path / "c.tiff").touch()
    refused(tmp_path, r"c\.tiff: is a picture that cannot be read \(\.tiff\)\. Convert it to PNG")


def test_folders_that_hold_no_images_or_unsorted_ones(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, r"empty: there are no pictures in it\. Give a folder of files that end in \.png, ")
    (empty / "notes.txt").touch()
    refused(empty, "there are no pictures in it")
    mixed = save(tmp_path / "mixed" / "a.png").parent
    save(mixed / "dogs" / "b.png")
    refused(mixed, r"mixed: has pictures \('a\.png'\) beside sub-folders \('dogs'\)\. Sort all pictures into")
    classes = save(tmp_path / "classes" / "cats" / "a.png").parent.parent
    (classes / "dogs").mkdir()
    refused(classes, "dogs: is a class, but there are no pictures in it. Remove it")
    save(classes / "dogs" / "small" / "b.png")
    refused(classes, r"dogs: is a class, but has sub-folders itself \('small'\)")


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path / "test" / "a.png")
    refused(tmp_path, r"has the sub-folders 'test', expected 'train' and 'test', or classes\. Keep")
    save(tmp_path / "train" / "a.png")
    assert read_images(tmp_path).test is not None
    save(tmp_path / "val" / "a.png")
    refused(tmp_path, r"has the sub-folders 'test', 'train', 'val'")
    shutil.rmtree(tmp_path / "val")
    refused(tmp_path, "labels were given, but the folder has two parts", labels=tmp_path / "y.csv")
    save(tmp_path / "test" / "a.png", pixels(4, 6))
    refused(tmp_path, "the train images are 4x5 grey, the test images 4x6 grey")
    shutil.rmtree(tmp_path / "test")
    assert read_images(tmp_path).test is None
    refused(tmp_path, "labels were given for 'train'", labels=tmp_path / "y.csv")
    save(tmp_path / "test" / "cats" / "a.png")
    refused(tmp_path, "'train' has no classes, 'test' has the classes 'cats'")


def test_one_picture_is_one_image(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    found = read_images(path)
    assert (len(found.train), found.train.names, found.name, found.test) == (1, ("a.png",), "a.png", None)
    for source in (path, tmp_path):
        with pytest.raises(DataError, match="one image, and at least 20 are needed to fit"):
            check_enough(read_images(source).train, source)
    (tmp_path / "y.csv").write_text("a.png,3\n")
    assert read_images(path, labels=tmp_path / "y.csv").train.classes == ("0", "1", "2", "3")
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        read_images(tmp_path / "b.png")


def test_labels_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in" / name)
    labels = tmp_path / "y.csv"
    labels.write_text("file,kind\nc.png,cat\na.png,dog\nb.png,cat\n")
    found = read_images(tmp_path / "in", labels=labels).train
    assert found.labels is not None
    assert (found.labels.tolist(), found.classes) == ([1, 0, 0], ("cat", "dog"))
    labels.write_text("c.png,cat\na.png,dog\nd.png,cat\n")
    refused(tmp_path / "in", r"y\.csv, row 3: names the file 'd\.png', which is not there", labels=labels)
    np.save(tmp_path / "y.npy", np.arange(2))
    refused(tmp_path / "in", r"y\.npy: 2 labels for 3 images", labels=tmp_path / "y.npy")
    save(tmp_path / "sorted" / "cats" / "a.png")
    refused(tmp_path / "sorted", "has classes as sub-folders. Leave the labels out", labels=labels)


def test_pictures_of_one_kind_are_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(8, 6))
    odd = save(tmp_path / "b.png", pixels(4, 12))
    message = r"b\.png: is 4x12 grey, but a\.png is 8x6 grey\. Bring all to one size with --size 8x6 \(height x width\)"
    refused(tmp_path, message)
    resized = read_images(tmp_path, size=(4, 3)).train
    assert resized.pixels.shape == (2, 1, 4, 3)
    plain = Image.fromarray(pixels(8, 6)).resize((3, 4), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(resized.pixels[0, 0], np.asarray(plain))
    save(odd, pixels(8, 6, 3))
    refused(
        tmp_path,
        r"b\.png: is 8x6 coloured, but a\.png is 8x6 grey\. Convert it to grey, or all others to RGB",
    )
    refused(tmp_path, r"b\.png: is 4x3 coloured, but a\.png is 4x3 grey", size=(4, 3))
    save(tmp_path / "a.png", pixels(8, 6, 3))
    save(odd, pixels(8, 6))
    refused(
        tmp_path,
        r"b\.png: is 8x6 grey, but a\.png is 8x6 coloured\. Convert it to RGB, or all others to grey",
    )


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(40, 40))
    broken = save(tmp_path / "b.png", pixels(40, 40))
    broken.write_bytes(broken.read_bytes()[:300])
    refused(tmp_path, r"b\.png: cut short or damaged")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    save(tmp_path / "a.png").rename(tmp_path / "a\udcff.png")
    refused(tmp_path, "its name is not text in UTF-8. Rename it")
