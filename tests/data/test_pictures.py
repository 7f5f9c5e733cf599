"""What is written as a picture is read again; pictures that are not what they have to be are named."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pushforward.configs.images import ImageSchema
from pushforward.data import read_images, read_picture, write_grid, write_pictures
from pushforward.data.pictures import decode
from pushforward.errors import DataError, OutputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


def pixels(*shape: int, seed: int = 0, below: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, below, shape).astype(np.uint8)


@given(
    n=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    levels=st.integers(2, 256),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_written_pictures_are_read_again_whatever_their_levels(
    folder: Path, *, n: int, channels: int, size: tuple[int, int], levels: int, seed: int
) -> None:
    array = pixels(n, channels, *size, seed=seed, below=levels)
    place = folder / f"{n}"
    for old in place.glob("*"):
        old.unlink()
    paths = write_pictures(array, place, levels=levels)
    assert sorted(path.name for path in paths) == [path.name for path in paths]
    schema = ImageSchema(height=size[0], width=size[1], channels=channels, levels=levels)
    np.testing.assert_array_equal(np.stack([read_picture(path, schema) for path in paths]), array)
    if levels == 256:
        found = read_images(place).train
        np.testing.assert_array_equal(found.pixels, array)
        assert found.names == tuple(path.name for path in paths)


def test_a_grid_shows_each_image_in_its_place_on_white(tmp_path: Path) -> None:
    array = pixels(5, 3, 4, 6)
    write_grid(array, 2, 3, tmp_path / "grid.png", gap=1, scale=2)
    sheet = decode(tmp_path / "grid.png")
    assert sheet.shape == (3, 2 * 9 + 1, 3 * 13 + 1)
    for i, image in enumerate(array):
        top, left = i // 3 * 9 + 1, i % 3 * 13 + 1
        part = sheet[:, top : top + 8, left : left + 12]
        np.testing.assert_array_equal(part, image.repeat(2, axis=1).repeat(2, axis=2))
        sheet[:, top : top + 8, left : left + 12] = 255
    assert (sheet == 255).all()


@pytest.mark.parametrize(("size", "factor"), [(28, 3), (32, 3), (8, 10), (64, 1), (200, 1), (1, 84)])
def test_small_images_are_enlarged_in_a_grid(tmp_path: Path, size: int, factor: int) -> None:
    write_grid(pixels(1, 1, size, size, below=17), 1, 1, tmp_path / "grid.png", gap=0, levels=17)
    assert decode(tmp_path / "grid.png").shape == (1, size * factor, size * factor)


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pixels(4, 1, 3, 3)
    with pytest.raises(OutputError, match=r"g\.jpg: a grid is written as PNG\. End the name in \.png"):
        write_grid(array, 2, 2, tmp_path / "g.jpg")
    for rows, columns in ((1, 3), (0, 9)):
        with pytest.raises(ValueError, match="rows, columns: expected a grid for 4 images"):
            write_grid(array, rows, columns, tmp_path / "g.png")
    for options in ({"gap": -1}, {"scale": 0}):
        with pytest.raises(ValueError, match="gap, scale: expected at least 0 and 1"):
            write_grid(array, 2, 2, tmp_path / "g.png", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"levels: expected 2\.\.256, got 300"):
        write_grid(array, 2, 2, tmp_path / "g.png", levels=300)
    with pytest.raises(ValueError, match="pixels: expected values below 2"):
        write_pictures(array, tmp_path / "out", levels=2)
    with pytest.raises(ValueError, match=r"pixels: expected unsigned bytes .*, got float64"):
        write_pictures(array.astype(float), tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names: expected 4, each another one, got 2"):
        write_pictures(array, tmp_path / "out", names=["a.png", "b.png"])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be written"):
        write_pictures(array, tmp_path / "file")
    with pytest.raises(OutputError, match="there is no folder"):
        write_grid(array, 2, 2, tmp_path / "no" / "g.png")

    def full(self: Image.Image, path: Path, format: str) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    write_grid(array, 2, 2, tmp_path / "g.png")
    before = (tmp_path / "g.png").read_bytes()
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"g\.png: cannot be written \(No space left on device\)"):
        write_grid(array[:1], 2, 2, tmp_path / "g.png")
    assert (tmp_path / "g.png").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_names_of_pictures(tmp_path: Path) -> None:
    paths = write_pictures(pixels(2, 1, 3, 3), tmp_path / "a" / "b", names=["x.png", "y.png"])
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a/b/x.png", "a/b/y.png"]
    assert [path.name for path in write_pictures(pixels(10, 1, 3, 3), tmp_path)][::9] == ["01.png", "10.png"]


GREY, COLOUR = pixels(3, 4), pixels(3, 4, 3)
OPAQUE = np.full((3, 4, 1), 255, np.uint8)


def palette(transparent: bool = False) -> Image.Image:
    image = Image.fromarray(COLOUR).quantize(8)
    if transparent:
        image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.fromarray(GREY), ".png", GREY),
        (Image.fromarray(COLOUR), ".png", COLOUR),
        (Image.fromarray(COLOUR), ".bmp", COLOUR),
        (Image.fromarray(GREY), ".gif", GREY),
        (Image.fromarray(GREY > 99), ".png", np.where(GREY > 99, np.uint8(255), np.uint8(0))),
        (palette(), ".png", np.asarray(palette().convert("RGB"))),
        (palette(), ".gif", np.asarray(palette().convert("RGB"))),
        (Image.fromarray(np.concatenate([COLOUR, OPAQUE], axis=2)), ".png", COLOUR),
        (Image.fromarray(np.concatenate([GREY[..., None], OPAQUE], axis=2)), ".png", GREY),
    ],
)
def test_modes_that_are_read(tmp_path: Path, image: Image.Image, suffix: str, expected: np.ndarray) -> None:
    path = tmp_path / f"a{suffix}"
    image.save(path)
    found = decode(path)
    np.testing.assert_array_equal(
        found, expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    )
    assert (found.dtype, found.flags.writeable) == (np.uint8, True)


# WebP has colours only.
@pytest.mark.parametrize(("suffix", "colour"), [(".jpg", False), (".jpg", True), (".webp", True)])
def test_formats_that_lose_little(tmp_path: Path, suffix: str, colour: bool) -> None:
    smooth = np.add.outer(np.arange(0, 128, 4), np.arange(0, 128, 4)).astype(np.uint8)
    Image.fromarray(np.stack([smooth] * 3, axis=2) if colour else smooth).save(
        tmp_path / f"a{suffix}", quality=95
    )
    found = decode(tmp_path / f"a{suffix}")
    assert found.shape == ((3 if colour else 1), 32, 32)
    assert np.abs(found.astype(int) - smooth).max() < 12


@pytest.mark.parametrize(
    ("image", "suffix", "message"),
    [
        (
            Image.fromarray(np.concatenate([COLOUR, OPAQUE - 1], axis=2)),
            ".png",
            "is transparent in part. Flatten it",
        ),
        (
            Image.fromarray(np.concatenate([GREY[..., None], OPAQUE - 1], axis=2)),
            ".png",
            "is transparent in part",
        ),
        (palette(transparent=True), ".png", "is transparent in part"),
        (palette(transparent=True), ".gif", "is transparent in part"),
        (
            Image.fromarray(GREY.astype(np.uint16) * 257),
            ".png",
            "has more than eight bits .* Convert it to eight bits",
        ),
        (
            Image.fromarray(COLOUR).convert("CMYK"),
            ".jpg",
            "has the colours CMYK, expected grey or red, green and blue",
        ),
    ],
)
def test_modes_that_are_refused(tmp_path: Path, image: Image.Image, suffix: str, message: str) -> None:
    path = tmp_path / f"a{suffix}"
    image.save(path)
    with pytest.raises(DataError, match=rf"a\{suffix}: {message}"):
        decode(path)


def png(width: int, height: int, depth: int, kind: int, content: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_sixteen_bits_of_each_colour_are_seen(tmp_path: Path) -> None:
    """Pillow would drop the lower half of each without a word."""
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, 2, bytes(7)))
    with pytest.raises(DataError, match="has more than eight bits"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize("side", [12_000, 40_000])
def test_a_picture_that_would_fill_the_memory(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side, 8, 0, bytes(100)))
    with pytest.raises(DataError, match=r"a\.png: is larger than 89478485 pixels\. Make it smaller"):
        decode(tmp_path / "a.png")


def test_a_picture_is_turned_as_it_says(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), np.rot90(COLOUR, -1).transpose(2, 0, 1))


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (decode(tmp_path / "a.gif") == 10).all()


def test_pictures_that_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for content in (b"", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png: (is no picture|cut short or damaged)"):
            decode(path)
    Image.fromarray(GREY).save(path, format="TIFF")
    with pytest.raises(DataError, match=r"is no picture \(PNG, JPEG, BMP, GIF or WebP\), or damaged\. Copy"):
        decode(path)


def test_a_picture_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"may not be read\. Check its permissions"):
        decode(tmp_path / "a.png")


SCHEMA = ImageSchema(height=3, width=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pixels(4, 3),
            r"is 4x3 grey, expected 3x4 grey\. Resize it to 3x4 \(height x width\) first\.",
        ),
        (lambda: COLOUR, r"is 3x4 coloured, expected 3x4 grey\. Convert it to grey first\."),
        (lambda: pixels(4, 3, 3), r"Resize it to 3x4 \(height x width\) and convert it to grey first\."),
    ],
)
def test_a_picture_of_another_kind_than_the_flow_knows(
    tmp_path: Path, make: Callable[[], np.ndarray], message: str
) -> None:
    Image.fromarray(make()).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: .*" + message):
        read_picture(tmp_path / "a.png", SCHEMA)


def test_pictures_that_cannot_be_read_as_images(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(str(tmp_path / "a.png"), SCHEMA)[0], GREY)
    with pytest.raises(DataError, match=r"is 3x4 grey, expected 3x4 coloured\. Convert it to RGB first"):
        read_picture(tmp_path / "a.png", ImageSchema(height=3, width=4, channels=3))
    with pytest.raises(
        DataError, match=r"holds the value \d+, which is none of the 17 between 0 and 255. Round"
    ):
        read_picture(tmp_path / "a.png", ImageSchema(height=3, width=4, levels=17))
    with pytest.raises(DataError, match=r"b\.png: no such file\. Is 'a\.png' meant"):
        read_picture(tmp_path / "b.png", SCHEMA)
    with pytest.raises(DataError, match=r"is a folder\. Give the path of one picture"):
        read_picture(tmp_path, SCHEMA)
    (tmp_path / "a.tif").touch()
    with pytest.raises(
        DataError, match=r"cannot tell the kind of picture from the suffix '\.tif'\. Known are"
    ):
        read_picture(tmp_path / "a.tif", SCHEMA)


def test_decoders_warn_nobody(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.fromarray(np.zeros((3, 4), np.uint8)).quantize(4)
    image.save(tmp_path / "a.png", transparency=b"\xff\xff")
    assert decode(tmp_path / "a.png").shape == (1, 3, 4)
    assert not recwarn.list
