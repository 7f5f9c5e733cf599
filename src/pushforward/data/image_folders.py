"""Folders of pictures, with their classes as sub-folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .damage import readable
from .images import Images, ImageSet, Pixels, Size, brought_to, described, image_set
from .labels import PICTURE_SUFFIXES, read_labels, sorted_names
from .names import listed
from .pictures import check_picture, decode

PARTS = ("train", "test")
"""Sub-folders that are parts of a set and not classes."""

# Pictures that cannot be read here: a folder of them is not to look as if they were not there.
_OTHER_PICTURES = (
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".tga"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".dcm", ".psd", ".raw", ".exr"),
)


def read_picture_folder(folder: Path, labels: Path | None, size: Size | None) -> ImageSet:
    """Reads the pictures of a folder, sorted by name; hidden files, and those of other kinds, are left out.

    Its sub-folders are classes, sorted by name, or by number if all names are numbers; or they are ``train`` and,
    if there are test images, ``test``, with the same classes in each or none.

    Args:
        folder: The folder.
        labels: A file of labels, for a folder without sub-folders.
        size: Height and width that pictures are brought to; None: all have to have one.

    Raises:
        DataError: No pictures; pictures beside sub-folders; an empty class, or other classes in the test images;
            pictures of several sizes, or grey and coloured ones; one that cannot be used (`decode`); labels that
            do not fit.
    """
    folders, _ = _content(folder)
    name = folder.resolve().name
    parts = [other for other in folders if other.name in PARTS]
    if not parts:
        return ImageSet(_read_part(folder, labels, size), None, name)
    if len(parts) < len(folders) or not (folder / "train").is_dir():
        raise DataError(
            f"has the sub-folders {listed([other.name for other in folders])}, expected 'train' and 'test', or classes",
            source=folder,
            remedy="Keep 'train' and 'test' only, or rename them if they are classes.",
        )
    if labels is not None:
        raise DataError(
            "labels were given, but the folder has two parts"
            if len(parts) == 2
            else "labels were given for 'train'",
            source=folder,
            remedy="Give the path of 'train' itself, or sort its pictures into sub-folders.",
        )
    train = _read_part(folder / "train", None, size)
    if len(parts) == 1:
        return ImageSet(train, None, name)
    test = _read_part(folder / "test", None, size)
    if train.classes != test.classes:
        raise DataError(
            f"'train' has {_classes(train)}, 'test' has {_classes(test)}",
            source=folder,
            remedy="Sort both into the same sub-folders, or give the path of 'train' alone.",
        )
    return image_set(name, folder, train, test)


def read_picture_file(path: Path, labels: Path | None, size: Size | None) -> ImageSet:
    """One picture as a set of one image."""
    check_picture(path)
    pixels = _read_all([path], size)
    names = (path.name,)
    if labels is not None:
        return ImageSet(Images(pixels, *read_labels(labels, 1, names), names=names), None, path.name)
    return ImageSet(Images(pixels, names=names), None, path.name)


def _classes(images: Images) -> str:
    return f"the classes {listed(images.classes)}" if images.classes else "no classes"


def _read_part(folder: Path, labels: Path | None, size: Size | None) -> Images:
    """The images of a folder of pictures, or of classes."""
    folders, files = _content(folder)
    if folders and files:
        raise DataError(
            f"has pictures ({files[0].name!r}) beside sub-folders ({folders[0].name!r})",
            source=folder,
            remedy="Sort all pictures into sub-folders, which are their classes, or none.",
        )
    if not folders:
        if not files:
            raise DataError(
                "there are no pictures in it",
                source=folder,
                remedy=f"Give a folder of files that end in {', '.join(PICTURE_SUFFIXES)}.",
            )
        pixels, names = _read_all(files, size), tuple(path.name for path in files)
        if labels is None:
            return Images(pixels, names=names)
        return Images(pixels, *read_labels(labels, len(pixels), names), names=names)
    if labels is not None:
        raise DataError(
            "labels were given, but the folder has classes as sub-folders",
            source=folder,
            remedy="Leave the labels out.",
        )
    classes = sorted_names({other.name for other in folders})
    paths: list[Path] = []
    numbers: list[int] = []
    for number, name in enumerate(classes):
        deeper, own = _content(folder / name)
        if deeper:
            raise DataError(
                f"is a class, but has sub-folders itself ({deeper[0].name!r})",
                source=folder / name,
                remedy="Put the pictures of a class into one folder.",
            )
        if not own:
            raise DataError(
                "is a class, but there are no pictures in it",
                source=folder / name,
                remedy="Remove it, or fill it.",
            )
        paths += own
        numbers += [number] * len(own)
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    return Images(_read_all(paths, size), np.array(numbers, np.int64), classes, names=names)


def _content(folder: Path) -> tuple[list[Path], list[Path]]:
    """Sub-folders and pictures of a folder, each sorted by name."""
    folders, files = [], []
    with readable(folder):
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            if path.name.startswith("."):
                continue
            if "\\udc" in ascii(path.name):
                raise DataError("its name is not text in UTF-8", source=path, remedy="Rename it.")
            if path.is_dir():
                folders.append(path)
            elif path.suffix.lower() in PICTURE_SUFFIXES:
                files.append(path)
            elif path.suffix.lower() in _OTHER_PICTURES:
                raise DataError(
                    f"is a picture that cannot be read ({path.suffix})",
                    source=path,
                    remedy="Convert it to PNG.",
                )
    return folders, files


def _read_all(paths: Sequence[Path], size: Size | None) -> Pixels:
    """The pixels of picture files of one kind."""
    pixels: Pixels | None = None
    for i, path in enumerate(paths):
        image = brought_to(decode(path), size)
        if pixels is None:
            pixels = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            _refuse(path, image, paths[0], pixels[0])
        pixels[i] = image
    assert pixels is not None
    return pixels


def _refuse(path: Path, image: Pixels, first: Path, expected: Pixels) -> None:
    size, wanted = ((int(array.shape[1]), int(array.shape[2])) for array in (image, expected))
    if size != wanted:
        remedy = f"Bring all to one size with --size {wanted[0]}x{wanted[1]} (height x width), for one."
    elif len(image) == 1:
        remedy = "Convert it to RGB, or all others to grey."
    else:
        remedy = "Convert it to grey, or all others to RGB."
    raise DataError(
        f"is {described(len(image), size)}, but {first.name} is {described(len(expected), wanted)}",
        source=path,
        remedy=remedy,
    )
