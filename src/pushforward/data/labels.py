"""Labels of images, from a file: a NumPy array, an IDX file, or text."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import _mapped
from .damage import readable
from .delimited import is_number, open_text
from .images import CLASSES, Labels
from .names import listed, suggestion
from .npy import array_headers, check_numeric

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
"""What the name of a picture may end in."""

_WHOLE = re.compile(r"\d{1,18}")
_NUMBERS = "Number the classes 0, 1, 2, ..."
_TEXT = "Give one label a line, or lines of file name,label."


def numbered(
    values: NDArray[np.generic], n: int, source: str | Path, rows: Sequence[int] | None = None
) -> tuple[Labels, tuple[str, ...]]:
    """Numbers as labels, and the classes 0, 1, ... up to the largest, which they name.

    Args:
        values: The numbers, (n,) or (n, 1).
        n: How many images there are.
        source: The file, for messages.
        rows: Where each label stands in it; None: in order.

    Raises:
        DataError: Another number of labels, or some that are negative, not whole, or too large.

    Example:
        >>> numbered(np.array([2.0, 0.0]), 2, "y.npy")
        (array([2, 0]), ('0', '1', '2'))
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"the labels have shape {values.shape}, expected ({n},)",
            source=source,
            remedy="Give one number for each image, not a vector.",
        )
    if len(values) != n:
        raise DataError(
            f"{len(values)} labels for {n} images", source=source, remedy="Give one label for each image."
        )
    numbers = np.asarray(values)
    for wrong, what in (
        (
            np.floor(numbers) != numbers if numbers.dtype.kind == "f" else np.zeros(n, bool),
            "is not a whole number",
        ),
        (numbers < 0, "is negative"),
        (numbers >= CLASSES, f"is too large: there may be {CLASSES} classes"),
    ):
        if wrong.any():
            place = int(wrong.argmax())
            row = place + 1 if rows is None else rows[place]
            raise DataError(f"the label {numbers[place]:g} {what}", source=source, row=row, remedy=_NUMBERS)
    labels = numbers.astype(np.int64)
    return labels, tuple(str(i) for i in range(int(labels.max()) + 1))


def read_labels(path: str | Path, n: int, names: Sequence[str] = ()) -> tuple[Labels, tuple[str, ...]]:
    r"""Reads the labels of images.

    The file is a NumPy array (``.npy``) or an IDX file of numbers, or text: one label a line in the order of the
    images, or lines of file name and label in any order. Labels are whole numbers, which then also are the names
    of the classes, or words: the classes are these, sorted. A first line above that is a header, if there is a line
    too many.

    Args:
        path: The file; its content says what it is.
        n: How many images there are.
        names: Names of their files, if they have some.

    Returns:
        The class of each image, (n,), and the names of the classes.

    Raises:
        DataError: No such file, another number of labels, labels that are negative, not whole or of two kinds,
            a file name that no image has, or an image without a label.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.csv"
        ...     _ = path.write_text("file,label\nb.png,dog\na.png,cat\n")
        ...     read_labels(path, 2, ["a.png", "b.png"])
        (array([0, 1]), ('cat', 'dog'))
    """
    from .idx import is_idx, read_idx

    path = Path(path)
    if path.is_dir():
        raise DataError("is a folder", source=path, remedy="Give a file of labels.")
    with readable(path):
        if not path.exists():
            beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError("no such file", source=path, remedy=suggestion(path.name, beside))
        if is_idx(path):
            return numbered(read_idx(path, 1), n, path)
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(b"\x93NUMPY"):
            check_numeric(array_headers(path)[""].dtype, "the array", path)
            return numbered(_mapped(path), n, path)
        if b"\0" in head:
            raise DataError(
                "is no file of labels", source=path, remedy="Give a NumPy array (.npy), an IDX file, or text."
            )
        return _from_words(_read_text(path, n, names), path)


def _read_text(path: Path, n: int, names: Sequence[str]) -> list[tuple[int, str]]:
    """The labels of a text file, in the order of the images, and the row of each."""
    lines = _records(path)
    widths = {len(fields) for fields in lines}
    if not lines or widths - {1, 2} or len(widths) > 1:
        found = " and ".join(map(str, sorted(widths))) or "no"
        raise DataError(f"has lines of {found} fields", source=path, remedy=_TEXT)
    if len(lines) == n + 1 and _is_header(lines[0], names):
        lines = lines[1:]
    for row, fields in enumerate(lines, 1):
        if not fields[-1]:
            raise DataError(
                "the label is missing", source=path, row=row, remedy="Give one label for each image."
            )
    if widths == {2}:
        if not names:
            raise DataError(
                "names files, but the images have no names",
                source=path,
                remedy="Give one label a line, in order.",
            )
        return _by_name(lines, path, names)
    if len(lines) != n:
        raise DataError(
            f"{len(lines)} labels for {n} images", source=path, remedy="Give one label for each image."
        )
    return [(row, label) for row, (label,) in enumerate(lines, 1)]


def _records(path: Path) -> list[list[str]]:
    """The fields of each line that is not blank."""
    with open_text(path) as file:
        first = file.readline()
        separator = next((mark for mark in ",;\t" if mark in first), ",")
        file.seek(0)
        try:
            records = csv.reader(file, delimiter=separator)
            lines = [[field.strip() for field in fields] for fields in records]
        except csv.Error as error:
            raise DataError(f"cannot be read as text: {error}", source=path, remedy=_TEXT) from error
    if any("\udc80" <= mark <= "\udcff" for fields in lines for field in fields for mark in field):
        raise DataError("not text in UTF-8", source=path, remedy=_TEXT)
    return [fields for fields in lines if any(fields)]


def _is_header(first: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the first of lines, one more than there are images, is not the label of one."""
    if len(first) == 2:
        return first[0] not in names and not first[0].lower().endswith(PICTURE_SUFFIXES)
    return not is_number(first[0])


def _by_name(lines: Sequence[Sequence[str]], path: Path, names: Sequence[str]) -> list[tuple[int, str]]:
    """The labels, sorted as their images are."""
    known = set(names)
    labels: dict[str, tuple[int, str]] = {}
    for row, (name, label) in enumerate(lines, 1):
        if name not in known:
            raise DataError(
                f"names the file {name!r}, which is not there",
                source=path,
                row=row,
                remedy=suggestion(name, names) or "Give the names of files as they stand in the folder.",
            )
        if name in labels:
            raise DataError(
                f"names the file {name!r} again", source=path, row=row, remedy="Give one label each."
            )
        labels[name] = row, label
    lacking = [name for name in names if name not in labels]
    if lacking:
        raise DataError(
            f"{len(labels)} labels for {len(names)} images; none for {listed(lacking)}",
            source=path,
            remedy="Give one label for each image.",
        )
    return [labels[name] for name in names]


def _from_words(labels: Sequence[tuple[int, str]], path: Path) -> tuple[Labels, tuple[str, ...]]:
    """Whole numbers as they are, or the place of each word among all, sorted."""
    rows, words = [row for row, _ in labels], [word for _, word in labels]
    numbers = [is_number(word) for word in words]
    if all(numbers):
        return numbered(np.array([float(word) for word in words]), len(words), path, rows)
    if any(numbers):
        place = numbers.index(True)
        raise DataError(
            f"the label {words[place]!r} is a number, but others are words",
            source=path,
            row=rows[place],
            remedy="Give numbers 0, 1, 2, ... or words throughout.",
        )
    classes = sorted_names(set(words))
    if len(classes) > CLASSES:
        raise DataError(
            f"{len(classes)} different labels; there may be {CLASSES} classes", source=path, remedy=_TEXT
        )
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[word] for word in words], np.int64), classes


def sorted_names(names: set[str]) -> tuple[str, ...]:
    """Names of classes in order: by number if all are whole numbers.

    Example:
        >>> sorted_names({"10", "9"}), sorted_names({"10", "9", "a"})
        (('9', '10'), ('10', '9', 'a'))
    """
    if all(_WHOLE.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
