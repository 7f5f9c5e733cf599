"""What the commands that go through the latent space of images promise: reconstruct, interpolate, edit, inpaint."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runs import done, refused
from numpy.typing import NDArray
from torch import Tensor

from pushforward import TrainConfig, load, save
from pushforward.configs import ImageGlowConfig
from pushforward.data import Images, ImageSet, write_pictures
from pushforward.data.pictures import decode
from pushforward.distributions import DiagonalNormal
from pushforward.evaluate.editing import Direction, measure_edit
from pushforward.flows import Flow
from pushforward.report.picture_sheets import write_sheet
from pushforward.training.images import fit_images
from pushforward.transforms import Affine, Elementwise

TINY = ImageGlowConfig(scales=1, steps=1, hidden_channels=8)
TRAINING = TrainConfig(epochs=2, batch_size=16)
SCALE = 10  # at which pictures of 8 x 8 pixels are drawn


def bars(n: int, seed: int = 0) -> Images:
    """Bars, upright and lying, of different brightness, slants and places."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:8, :8]
    labels = np.arange(n) % 2
    pixels = np.empty((n, 1, 8, 8), np.uint8)
    for i in range(n):
        along, across = (rows, columns) if labels[i] == 0 else (columns, rows)
        middle = rng.uniform(2.5, 4.5) - rng.uniform(-0.5, 0.5) * (along - 3.5)
        ink = np.clip(rng.uniform(1.0, 1.8) - abs(across - middle), 0, 1)
        pixels[i, 0] = rng.uniform(120, 255) * ink + rng.uniform(0, 4, (8, 8))
    return Images(pixels, labels.astype(np.int64), ("upright", "lying"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bars.npy, its labels.txt, the folder bars with two classes, and a flow for each of what may be given."""
    path = tmp_path_factory.mktemp("latent")
    images = bars(80)
    np.save(path / "bars.npy", images.pixels)
    assert images.labels is not None
    (path / "labels.txt").write_text("\n".join(images.classes[i] for i in images.labels))
    for i, name in enumerate(images.classes):
        write_pictures(images.pixels[images.labels == i][:12], path / "bars" / name)
    for given in ("", "class", "top", "right", "small"):
        fitted = fit_images(ImageSet(images, None, "bars"), model=TINY, training=TRAINING, given=given)
        save(fitted, path / f"{given or 'plain'}.flow")
    return path


def tiles(path: Path, left: int, top: int) -> NDArray[np.uint8]:
    """The pictures of a sheet, (rows, columns, channels, height, width), for margins of so many pixels."""
    sheet = decode(path)
    sheet = sheet[:, top:, left:]
    step = 8 * SCALE + 4
    rows, columns = (sheet.shape[1] - 4) // step, (sheet.shape[2] - 4) // step
    starts = np.arange(8) * SCALE + 4
    return np.stack(
        [
            np.stack([sheet[:, i * step + starts][:, :, j * step + starts] for j in range(columns)])
            for i in range(rows)
        ]
    )


def margin(names: list[str]) -> int:
    return round(7.5 * max(map(len, names))) + 8


def test_sheets_hold_pictures_pixel_for_pixel(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 8, 8)).astype(np.uint8)
    write_sheet(tmp_path / "s.png", pictures, columns=["a", "b", "c"], rows=["one", "two"])
    np.testing.assert_array_equal(tiles(tmp_path / "s.png", margin(["one"]), 16), pictures)
    with pytest.raises(ValueError, match="expected words for 3, got 1"):
        write_sheet(tmp_path / "s.png", pictures, columns=["a"])


@pytest.mark.parametrize("name", ["plain", "class", "top", "small"])
def test_reconstruct_shows_that_images_come_back(place: Path, tmp_path: Path, name: str) -> None:
    options = ("--labels", place / "labels.txt") if name == "class" else ()
    run = done(
        "reconstruct", place / f"{name}.flow", place / "bars.npy", "-o", tmp_path / "r.png", "-n", 30, "--rows", 4,
        *options,
    )  # fmt: skip
    assert [line.split()[0] for line in run.out.splitlines()[2:4]] == ["data", "samples"]
    assert re.search(r"The worst image is bars.npy:\d+: an error of \S+ of the range", run.out)
    assert "warning" not in run.out and re.search(r"the difference 1[0,]+ times", run.err)
    rows = tiles(tmp_path / "r.png", 0, 16)
    assert rows.shape == (4, 3, 3, 8, 8)
    images = np.load(place / "bars.npy")
    for image, back, _ in rows:
        assert (images == image[0]).all((1, 2, 3)).any()
        assert (
            abs(image.astype(int) - back.astype(int)).max() <= 1
        )  # at the end of a cell rounding may miss by one


def test_reconstruct_names_files_and_says_what_explodes(place: Path, tmp_path: Path) -> None:
    fitted = load(place / "plain.flow")
    with torch.no_grad():
        for parameter in fitted.flow.transform.parameters():
            parameter.fill_(torch.inf)
    save(dataclasses.replace(fitted), tmp_path / "lost.flow")
    run = done("reconstruct", tmp_path / "lost.flow", place / "bars", "-o", tmp_path / "r.png")
    assert "warning: on images of the kind 'data' the inverse explodes: 24 of 24 do not come back" in run.out
    assert "The worst image is lying/01.png: not finite" in run.out
    pictures = ("interpolate", tmp_path / "lost.flow", f"{place / 'bars.npy'}:1-2", "-o", tmp_path / "i.png")
    refused(*pictures, code=4, says=["not finite", "pushforward reconstruct"])
    assert not (tmp_path / "i.png").exists()


@pytest.mark.parametrize("options", [(), ("--linear",)])
def test_interpolation_begins_and_ends_with_the_pictures(
    place: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    bars, one = place / "bars.npy", place / "bars" / "upright" / "03.png"
    run = done(
        "interpolate",
        place / "plain.flow",
        f"{bars}:2-3",
        one,
        "-o",
        tmp_path / "i.png",
        "--steps",
        5,
        *options,
    )
    assert ("along lines" if options else "along arcs") in run.err
    rows = tiles(tmp_path / "i.png", margin(["bars.npy:2 to bars.npy:3"]), 16)
    assert rows.shape == (2, 5, 3, 8, 8)
    images = np.load(bars)
    wanted = [images[1, 0], images[2, 0], decode(one)[0]]
    for i in (0, 1):
        np.testing.assert_array_equal(rows[i, 0, 0], wanted[i])
        np.testing.assert_array_equal(rows[i, -1, 0], wanted[i + 1])
        assert (rows[i, 2, 0] != wanted[i]).any() and (rows[i, 2, 0] != wanted[i + 1]).any()


def test_interpolation_under_a_class(place: Path, tmp_path: Path) -> None:
    pictures = ("interpolate", place / "class.flow", f"{place / 'bars.npy'}:1", f"{place / 'bars.npy'}:3")
    for name in ("upright", "lying"):
        done(*pictures, "-o", tmp_path / f"{name}.png", "--class", name)
    assert (tmp_path / "upright.png").read_bytes() != (tmp_path / "lying.png").read_bytes()
    output = ("-o", tmp_path / "no.png")
    refused(*pictures, *output, code=2, says=["is given the class", "upright, lying"])
    refused(*pictures, *output, "--class", "uprigt", code=2, says=["does not know", "Is 'upright' meant?"])
    plain = ("interpolate", place / "plain.flow", *pictures[2:])
    refused(*plain, *output, "--class", "lying", code=2, says=["is not given the class"])


def test_edit_draws_and_measures(place: Path, tmp_path: Path) -> None:
    run = done(
        "edit", place / "plain.flow", place / "bars.npy", "--attribute", "brightness", "--strengths=-1,0,1",
        "-o", tmp_path / "e.png", "-n", 3, "--against", "none", "--labels", place / "labels.txt",
    )  # fmt: skip
    assert (
        run.out.startswith("Edits of brightness in 40 images.\n")
        and "images that keep their class" in run.out
    )
    assert "a strength of 1 is a standard deviation of brightness, 0." in run.err
    rows = tiles(tmp_path / "e.png", margin(["bars.npy:10"]), 16)
    assert rows.shape == (3, 3, 3, 8, 8)
    images = np.load(place / "bars.npy")
    for row in rows[:, :, 0]:
        assert (images[:, 0] == row[1]).all((1, 2)).any()
        assert row[0].mean() < row[1].mean() < row[2].mean()
    held = done(
        "edit", place / "top.flow", place / "bars.npy", "--attribute", "slant", "--against", "thickness,width",
        "-o", tmp_path / "h.png",
    )  # fmt: skip
    assert "with thickness, width held fixed" in held.out and "given the top half" in held.out


@pytest.mark.parametrize(("lost", "kept"), [(0, 1.0), (2, 1.0), (4, math.nan)])
def test_images_that_are_lost_do_not_count_as_of_another_class(
    monkeypatch: pytest.MonkeyPatch, lost: int, kept: float
) -> None:
    shape, images = (1, 2, 2), torch.arange(16.0).reshape(4, 1, 2, 2)
    flow = Flow(Elementwise(Affine(), shape), DiagonalNormal(shape))
    straight = Flow.from_latent

    def overflow(self: Flow, z: Tensor, context: Tensor | None = None) -> Tensor:
        x = straight(self, z, context).clone()
        x[:lost] = torch.inf
        return x

    monkeypatch.setattr(Flow, "from_latent", overflow)
    direction = Direction("brightness", torch.ones(shape), 1.0, 256, (), 4)
    report = measure_edit(flow, images, direction, strengths=(0.0,), classifier=lambda x: x[:, 0, 0, 0] > 9)
    assert report.not_finite == (lost / 4,)
    np.testing.assert_equal(report.kept, (kept,))


def test_edit_towards_a_class_and_by_numbers_of_a_table(place: Path, tmp_path: Path) -> None:
    run = done(
        "edit", place / "plain.flow", place / "bars", "--attribute", "class=lying", "--strengths", "0,1",
        "-o", tmp_path / "c.png",
    )  # fmt: skip
    assert "class=lying, standard deviations" in run.out and "by a classifier, which is right on" in run.out
    assert "from images without to those with class=lying" in run.err
    images = np.load(place / "bars.npy")
    shine = images.mean((1, 2, 3))
    lines = ["image,shine", *(f"{i + 1},{shine[i]}" for i in range(79, 4, -1)), "1,"]
    (tmp_path / "shine.csv").write_text("\n".join(lines))
    arguments = ("edit", place / "plain.flow", place / "bars.npy", "--attribute", "shine", "--values")
    run = done(*arguments, tmp_path / "shine.csv", "-o", tmp_path / "v.png")
    found = re.search(r"by a regression, right about (\d+) % of its variance", run.out)
    assert found is not None and int(found[1]) > 50
    assert "shine" in run.out and "standard deviation of shine" in run.err
    lines = [f"{line.split(',')[0]}.0,{line.split(',')[1]}" if i else line for i, line in enumerate(lines)]
    (tmp_path / "shine.csv").write_text("\n".join(lines))
    assert done(*arguments, tmp_path / "shine.csv", "-o", tmp_path / "w.png").out == run.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,size\n1,2\n", ["no column 'shine', but image, size"]),
        ("shine\n2\n", ["no column that says which image"]),
        ("image,shine\n1,2\n81,2\n", ["row 2", "no image 81", "from 1 to 80"]),
        ("image,shine\n1,2\n1,2\n", ["row 2", "image 1 stands twice"]),
        ("image,shine\n1.0,2\n1.5,2\n", ["row 2", "no image 1.5"]),
        ("image,shine\n1.0,2\n1.0,2\n", ["row 2", "image 1 stands twice"]),
        ("image,shine\na.png,2\n", ["no image 'a.png'"]),
        ("image,shine\n1,x\n", ["'shine'", "not a column of numbers"]),
        ("image,shine\n1,2\n", ["at least 10 images with a number"]),
    ],
)
def test_tables_of_numbers_that_cannot_be_used(
    place: Path, tmp_path: Path, text: str, says: list[str]
) -> None:
    (tmp_path / "v.csv").write_text(text)
    arguments = (
        "edit",
        place / "plain.flow",
        place / "bars.npy",
        "--attribute",
        "shine",
        "-o",
        tmp_path / "e.png",
    )
    refused(*arguments, "--values", tmp_path / "v.csv", code=3, says=["v.csv", *says], untouched=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("plain", "--attribute", "slan"), 2, ["no 'slan'", "class=NAME", "Is 'slant' meant?"]),
        (("plain", "--attribute", "slant", "--against", "with"), 2, ["no 'with'", "Is 'width' meant?"]),
        (("plain", "--attribute", "slant", "--against", "slant"), 3, ["bars.npy", "edited and held fixed"]),
        (("plain", "--attribute", "slant", "--strengths", "1,x"), 2, ["-2,-1,0,1,2", "'1,x'"]),
        (("plain", "--attribute", "class=lying"), 3, ["bars.npy", "no labels", "--labels FILE"]),
        (("class", "--attribute", "slant"), 3, ["bars.npy", "no labels", "--labels FILE"]),
    ],
)
def test_edits_that_cannot_be(
    place: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, says: list[str]
) -> None:
    name, *options = arguments
    command = ("edit", place / f"{name}.flow", place / "bars.npy", "-o", tmp_path / "e.png", *options)
    refused(*command, code=code, says=says, untouched=tmp_path)


def test_a_flow_given_the_class_has_no_direction_of_classes(place: Path, tmp_path: Path) -> None:
    arguments = ("edit", place / "class.flow", place / "bars", "-o", tmp_path / "e.png", "--attribute")
    refused(*arguments, "class=lying", code=2, says=["is given the class", "do not tell classes apart"])
    done(*arguments, "brightness")
    (place / "bars" / "lying").rename(place / "bars" / "flat")
    try:
        refused(*arguments, "slant", code=3, says=["does not know the class 'flat'", "upright, lying"])
    finally:
        (place / "bars" / "flat").rename(place / "bars" / "lying")


@pytest.mark.parametrize("name", ["top", "right"])
def test_inpainting_keeps_what_is_given(place: Path, tmp_path: Path, name: str) -> None:
    bars, one = place / "bars.npy", place / "bars" / "upright" / "03.png"
    arguments = ("inpaint", place / f"{name}.flow", f"{bars}:1-2", one, "-n", 3)
    run = done(*arguments, "-o", tmp_path / "i.png")
    for words in (
        "bars.npy:1  ",
        "03.png      ",
        "mean",
        "Across the seam 9 samples",
        "under one of 3 conditions",
    ):
        assert words in run.out
    rows = tiles(tmp_path / "i.png", margin(["bars.npy:1"]), 16)
    assert rows.shape == (3, 5, 3, 8, 8)
    given = np.s_[:4, :] if name == "top" else np.s_[:, 4:]
    hidden = np.s_[4:, :] if name == "top" else np.s_[:, :4]
    wanted = [*np.load(bars)[:2, 0], decode(one)[0]]
    for row, truth in zip(rows, wanted, strict=True):
        np.testing.assert_array_equal(row[-1, 0], truth)
        for picture in row[:-1]:
            np.testing.assert_array_equal(picture[0][given], truth[given])
        assert len(np.unique(row[0, 0][hidden])) == 1 and (row[0, 0] != row[0, 2]).any()
        assert (row[1, 0][hidden] != row[2, 0][hidden]).any()
    done(*arguments, "-o", tmp_path / "again.png")
    done(*arguments, "-o", tmp_path / "other.png", "--seed", 1)
    same, again, other = ((tmp_path / f"{n}.png").read_bytes() for n in ("i", "again", "other"))
    assert same == again != other


def test_inpainting_tells_how_likely_the_truth_is(place: Path, tmp_path: Path) -> None:
    from pushforward.flows import bits_per_dim, score

    run = done("inpaint", place / "top.flow", f"{place / 'bars.npy'}:5", "-o", tmp_path / "i.png", "-n", 1)
    truth = torch.from_numpy(np.load(place / "bars.npy")[4:5])
    value = score(load(place / "top.flow").flow, truth[:, :, 4:], truth[:, :, :4].float()).value
    assert f"bars.npy:5  {bits_per_dim(value, 32).item():.3f}" in run.out
    assert "mean" not in run.out and "conditions" not in run.out and "real images" not in run.out


def test_small_pictures_are_drawn_large(place: Path, tmp_path: Path) -> None:
    run = done(
        "inpaint", place / "small.flow", f"{place / 'bars.npy'}:1-2", "-o", tmp_path / "i.png", "-n", 2
    )
    assert "4 samples made 4 times smaller" in run.out and "true image given the small one" in run.out
    rows = tiles(tmp_path / "i.png", margin(["bars.npy:1"]), 16)
    assert rows.shape == (2, 4, 3, 8, 8)
    for row, truth in zip(rows, np.load(place / "bars.npy")[:2, 0], strict=True):
        means = truth.reshape(2, 4, 2, 4).mean((1, 3)).round()
        np.testing.assert_array_equal(row[0, 0], means.repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ("inpaint", "plain.flow", "bars.npy:1"),
            4,
            ["is given nothing", "pushforward fit IMAGES --given top"],
        ),
        (("inpaint", "class.flow", "bars.npy:1"), 4, ["is given the class"]),
        (("inpaint", "top.flow", "bars.npy"), 2, ["holds many images", "bars.npy:1"]),
        (("inpaint", "top.flow", "bars.npy:81"), 3, ["no image 81", "from 1 to 80"]),
        (("inpaint", "top.flow", "bars.npy:0"), 2, ["a number from 1", "got 0"]),
        (("inpaint", "top.flow", "bars.npy:3-2"), 2, ["in order", "got 3-2"]),
        (("inpaint", "top.flow", "no.png"), 3, ["no.png: no such file"]),
        (("inpaint", "top.flow", "no.npy:3"), 3, ["no.npy: no such file"]),
        (("inpaint", "top.flow", "large.png"), 3, ["large.png: is 9x8 grey, expected 8x8 grey"]),
        (
            ("interpolate", "top.flow", "bars.npy:1", "bars.npy:2"),
            2,
            ["given its top half", "without --given"],
        ),
        (("interpolate", "plain.flow", "bars.npy:1"), 2, ["two pictures or more"]),
        (("interpolate", "plain.flow", "bars.npy:1-1"), 2, ["two pictures or more"]),
        (("reconstruct", "class.flow", "bars.npy"), 3, ["bars.npy", "no labels"]),
        (("reconstruct", "plain.flow", "large.png"), 3, ["large.png", "9 x 8"]),
    ],
)
def test_what_cannot_be_drawn(
    place: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, says: list[str]
) -> None:
    write_pictures(np.zeros((1, 1, 9, 8), np.uint8), place, names=["large.png"])
    command, *rest = arguments
    inputs = [str(place / name) for name in rest]
    refused(command, *inputs, "-o", tmp_path / "o.png", code=code, says=says, untouched=tmp_path)
    refused(command, *inputs, "-o", tmp_path / "o.svg", code=5, says=[".svg", ".png"], untouched=tmp_path)


def test_the_flow_of_a_table_has_no_images(place: Path, folder: Path, tmp_path: Path) -> None:
    for command in ("reconstruct", "interpolate", "inpaint"):
        arguments = (command, folder / "plain.flow", f"{place / 'bars.npy'}:1", f"{place / 'bars.npy'}:2")
        refused(
            *arguments[: 3 if command == "reconstruct" else 4],
            "-o",
            tmp_path / "o.png",
            code=4,
            says=["a table"],
        )
