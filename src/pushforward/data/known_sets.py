"""Sets of images that go by name: where they are looked for, where they come from, and how they are checked."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .damage import readable
from .idx import idx_digest, read_idx
from .images import Images, ImageSet, Labels, Pixels, image_set
from .labels import numbered
from .names import suggestion
from .writers import as_output_error, atomic_path

_DIGITS = tuple("0123456789")
_SYSTEM = Path("/usr/share/datasets")  # where Debian's packages of data sets put them


@dataclass(frozen=True, slots=True)
class KnownFile:
    """One file of a set.

    Attributes:
        name: Its name where it comes from; a ``.gz`` of images or labels may also be there without.
        sha256: SHA-256 of its content: of images and labels, when unpacked; of an archive, as it is.
        size: Bytes of that; packed, images and labels have fewer.
    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A set of images that goes by name.

    Attributes:
        url: Where its files come from, ending in a slash.
        files: Train images, train labels, test images and test labels, in IDX files; or one archive of CIFAR's.
        classes: Names of the labels.
    """

    url: str
    files: tuple[KnownFile, ...]
    classes: tuple[str, ...]


def _idx_files(sums: tuple[str, str, str, str]) -> tuple[KnownFile, ...]:
    """The four files, of the sizes that MNIST and those made after it have."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    sizes = (47_040_016, 60_008, 7_840_016, 10_008)
    return tuple(KnownFile(f"{n}-ubyte.gz", s, b) for n, s, b in zip(names, sums, sizes, strict=True))


KNOWN_SETS: dict[str, KnownSet | None] = {
    "mnist": KnownSet(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        _idx_files(
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            )
        ),
        _DIGITS,
    ),
    "fashion-mnist": KnownSet(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        _idx_files(
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            )
        ),
        (
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
    ),
    "cifar10": KnownSet(
        "https://www.cs.toronto.edu/~kriz/",
        (
            # Of the MD5 that its page, cifar.html, gives: c32a1d4ab5d03f1284b67883e8d87530.
            KnownFile(
                "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170_052_171,
            ),
        ),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "digits": None,  # scikit-learn brings it
}
"""Sets by name; None: one that needs no files."""

_CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CIFAR_TEST = "test_batch.bin"
_CIFAR_SHAPE = (3, 32, 32)


def is_known(name: str | Path) -> bool:
    """Whether a set goes by this name.

    Example:
        >>> is_known("mnist"), is_known("mnist.csv")
        (True, False)
    """
    return str(name) in KNOWN_SETS


def read_known_set(name: str) -> ImageSet:
    """Reads a set by its name.

    It is looked for in the folder of its name in ``$PUSHFORWARD_DATA``, then among Debian's data sets, then in the
    user's cache, and at last is downloaded into the cache. Files are compared with their check sums wherever they
    are found.

    Args:
        name: ``"mnist"``, ``"fashion-mnist"``, ``"cifar10"``, or ``"digits"``, which scikit-learn brings.

    Raises:
        DataError: No set of this name; a file that is not the one that belongs to the set; the set is not there and
            cannot be downloaded.
        OutputError: The cache cannot be written.

    Example:
        >>> digits = read_known_set("digits")
        >>> digits.train.pixels.shape, digits.train.levels
        ((1797, 1, 8, 8), 17)
    """
    if not is_known(name):
        raise DataError(
            f"no set of images has the name {name!r}",
            remedy=suggestion(name, list(KNOWN_SETS)) or f"Known are {', '.join(KNOWN_SETS)}.",
        )
    known = KNOWN_SETS[name]
    if known is None:
        return _digits(name)
    found = next((found for place in _places(name) if (found := _files_in(place, known))), None)
    if found is None:
        found = _download_all(name, known)
    if len(known.files) == 1:
        return _read_cifar(name, known, found[0])
    arrays = [_checked_idx(name, path, file) for path, file in zip(found, known.files, strict=True)]
    train, test = (
        Images(
            arrays[i].reshape(len(arrays[i]), 1, *arrays[i].shape[1:]),
            _labels(arrays[i + 1], len(arrays[i]), found[i + 1], known),
            known.classes,
        )
        for i in (0, 2)
    )
    return image_set(name, found[0].parent, train, test)


def _digits(name: str) -> ImageSet:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = bunch.images.astype(np.uint8)[:, None]
    return ImageSet(Images(pixels, bunch.target.astype(np.int64), _DIGITS, levels=17), None, name)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # What is not absolute is to be ignored, says the standard.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "pushforward"


def _places(name: str) -> list[Path]:
    """Folders that may hold a set, in the order in which they are looked through."""
    own = os.environ.get("PUSHFORWARD_DATA", "")
    return [*([Path(own) / name] if own else []), _SYSTEM / name, _cache() / name]


def _files_in(folder: Path, known: KnownSet) -> list[Path] | None:
    """The files of a set, if a folder has them all."""
    found = []
    for file in known.files:
        names = (file.name, file.name.removesuffix(".gz")) if len(known.files) > 1 else (file.name,)
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            return None
        found.append(path)
    return found


def _checked_idx(name: str, path: Path, file: KnownFile) -> Pixels:
    array = read_idx(path, 3 if "images" in file.name else 1)
    if idx_digest(array) != file.sha256:
        raise _changed(name, path)
    return array


def _check_archive(name: str, path: Path, file: KnownFile) -> None:
    with readable(path), path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != file.sha256:
        raise _changed(name, path)


def _changed(name: str, path: Path) -> DataError:
    return DataError(
        f"is not the file of this name of {name}: its SHA-256 is another one",
        source=path,
        remedy="Remove it, so that it is downloaded, or replace it; other images go by the path of their file.",
    )


def _labels(values: Pixels, n: int, path: Path, known: KnownSet) -> Labels:
    labels, classes = numbered(values, n, path)
    if len(classes) > len(known.classes):
        raise DataError(f"a label is {labels.max()}, there are {len(known.classes)} classes", source=path)
    return labels


def _read_cifar(name: str, known: KnownSet, path: Path) -> ImageSet:
    """Reads the batches out of the archive, none of which is written to the disk."""
    _check_archive(name, path, known.files[0])
    with readable(path):
        held: dict[str, Pixels] = {}
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                batch = Path(member.name).name
                opened = archive.extractfile(member) if batch in (*_CIFAR_TRAIN, _CIFAR_TEST) else None
                if opened is not None:
                    held[batch] = np.frombuffer(opened.read(), np.uint8).reshape(
                        -1, 1 + int(np.prod(_CIFAR_SHAPE))
                    )
        train = np.concatenate([held[batch] for batch in _CIFAR_TRAIN])
        test = held[_CIFAR_TEST]
    parts = [
        Images(
            np.ascontiguousarray(rows[:, 1:]).reshape(-1, *_CIFAR_SHAPE),
            _labels(rows[:, 0], len(rows), path, known),
            known.classes,
        )
        for rows in (train, test)
    ]
    return image_set(name, path, *parts)


def _download_all(name: str, known: KnownSet) -> list[Path]:
    """Downloads what the cache lacks of a set; each file is checked before it stands there."""
    from .downloads import download  # late: urllib takes its time

    folder = _cache() / name
    with as_output_error(folder, "Make room or permissions there, or set XDG_CACHE_HOME to another folder."):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for file in known.files:
        path = folder / file.name
        if not path.is_file():
            with atomic_path(path) as temporary:
                url = known.url + file.name
                try:
                    download(url, temporary, file.size)
                except OSError as error:
                    raise _unavailable(name, known, f"{url}: {getattr(error, 'reason', error)}") from error
                try:
                    if len(known.files) == 1:
                        _check_archive(name, temporary, file)
                    else:
                        _checked_idx(name, temporary, file)
                except DataError as error:
                    raise _unavailable(name, known, f"{url}: it is not what it was") from error
        paths.append(path)
    return paths


def _unavailable(name: str, known: KnownSet, reason: str) -> DataError:
    own = os.environ.get("PUSHFORWARD_DATA", "")
    place = Path(own) / name if own else _cache() / name
    names = [file.name for file in known.files]
    files = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return DataError(
        f"{name} is not on this computer, and cannot be downloaded ({reason})",
        remedy=f"Put {files} from {known.url} into {place}"
        + ("." if own else f", or set PUSHFORWARD_DATA to a folder with a folder {name} that holds them."),
    )
