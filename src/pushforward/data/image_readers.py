"""Reading images: by name, from folders of pictures, and from IDX and NumPy files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from .damage import readable
from .idx import has_idx_name, idx_in_folder, is_idx, read_idx_set
from .image_arrays import image_key, read_arrays
from .image_folders import read_picture_file, read_picture_folder
from .images import ImageSet, Size, resized
from .known_sets import KNOWN_SETS, is_known, read_known_set
from .labels import PICTURE_SUFFIXES
from .names import suggestion
from .npy import array_headers
from .parquet import parquet_files

_ARRAYS = (".npy", ".npz")


def holds_images(path: str | Path) -> bool:
    """Whether a path is to be taken for images rather than for a table.

    True of the name of a known set where no file has that name, of a folder without Parquet files, a picture by its
    suffix, an IDX file by its name or its first bytes, and a NumPy file by the axes of its array. Never raises, and
    reads no more than headers.

    Args:
        path: The path, or the name of a known set.

    Example:
        >>> holds_images("mnist"), holds_images("no/such/table.csv")
        (True, False)
    """
    path = Path(path)
    try:
        if not path.exists():
            return is_known(path)
        if path.is_dir():
            return not parquet_files(path)
        if path.suffix.lower() in PICTURE_SUFFIXES or has_idx_name(path):
            return True
        if not path.is_file():  # a pipe would have to be waited for
            return False
        if path.suffix.lower() in _ARRAYS:
            return image_key(array_headers(path)) is not None
        return is_idx(path)
    except Exception:  # what is wrong with a file is said by who reads it
        return False


def read_images(path: str | Path, *, labels: str | Path | None = None, size: Size | None = None) -> ImageSet:
    """Reads images, and their labels if there are any.

    Args:
        path: The name of a known set (`read_known_set`); a folder of pictures, with classes as sub-folders or without
            (`read_picture_folder`); an IDX file as those of MNIST, gzipped or not, whose labels and test images are
            found beside it by their names, or a folder of these; a ``.npy`` or ``.npz`` file (`read_arrays`); or one
            picture.
        labels: A file of labels for images that have none by themselves (`read_labels`).
        size: Height and width that all images are brought to; None: as they are, which has to be one size.

    Returns:
        The images, and the official test images where they are there.

    Raises:
        DataError: There are no images, or they are damaged or of several kinds, or labels do not fit; the text names
            the file.
        OutputError: A known set has to be downloaded, and the cache cannot be written.
        ValueError: ``size`` is no size.

    Example:
        >>> read_images("digits", size=(16, 12)).train.pixels.shape
        (1797, 1, 16, 12)
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size: expected height and width of at least 1, got {size}")
    path, labels = Path(path), None if labels is None else Path(labels)
    found = _read(path, labels, size)
    test = None if found.test is None else resized(found.test, size)
    return ImageSet(resized(found.train, size), test, found.name)


def _read(path: Path, labels: Path | None, size: Size | None) -> ImageSet:
    with readable(path):
        there, folder = path.exists(), path.is_dir()
        if not there and not is_known(path):
            beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError(
                "no such file or folder", source=path, remedy=suggestion(path.name, [*beside, *KNOWN_SETS])
            )
    if not there:  # not under `readable`: the cache may refuse to be written
        if labels is not None:
            raise DataError(f"labels were given, but {path} has its own", remedy="Leave the labels out.")
        return read_known_set(str(path))
    with readable(path):
        if folder:
            file = idx_in_folder(path)
            if file is None:
                return read_picture_folder(path, labels, size)
            return replace(read_idx_set(file, labels), name=path.resolve().name)
        if not path.is_file():
            raise DataError("is a device or pipe", source=path, remedy="Give the path of a file or a folder.")
        if path.suffix.lower() in _ARRAYS:
            return read_arrays(path, labels)
        if path.suffix.lower() in PICTURE_SUFFIXES:
            return read_picture_file(path, labels, size)
        if has_idx_name(path) or is_idx(path):
            return read_idx_set(path, labels)
    raise DataError(
        "holds no images",
        source=path,
        remedy="Give a folder of pictures, one picture, an IDX file as those of MNIST, a NumPy array (.npy, .npz), "
        f"or one of the names {', '.join(KNOWN_SETS)}.",
    )
