"""Bad input where images are meant: the message, the exit code, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_runs import done, refused
from image_runs import squares, write_classes

from pushforward import load, save
from pushforward.cli.files import check_output
from pushforward.data import write_pictures
from pushforward.errors import OutputError


@pytest.mark.parametrize(
    ("images", "options", "code", "says"),
    [
        ("pets", ("--condition", "a"), 2, ["--condition: is for tables", "--given says"]),
        ("pets", ("--drop", "a"), 2, ["--drop: is for tables", "move them out"]),
        ("pets", ("--valid", "table.csv"), 2, ["--valid: is for tables"]),
        ("pets", ("--group", "a"), 2, ["--group: is for tables"]),
        ("pets", ("--weights", "a"), 2, ["--weights: is for tables"]),
        ("pets", ("--bounds", "a=0:1"), 2, ["--bounds: is for tables", "--pixels"]),
        ("pets", ("--periodic", "a=0:1"), 2, ["--periodic: is for tables"]),
        ("table.csv", ("--given", "class"), 2, ["--given: is for images", "--condition"]),
        ("table.csv", ("--labels", "labels.txt"), 2, ["--labels: is for images"]),
        ("table.csv", ("--size", "8x8"), 2, ["--size: is for images"]),
        ("table.csv", ("--pixels", "logit"), 2, ["--pixels: is for images"]),
        ("table.csv", ("--model", "pixel-nsf"), 2, ["no model 'pixel-nsf' for tables"]),
        ("pets", ("--model", "planar"), 2, ["no model 'planar' for images", "flat-realnvp"]),
        ("pets", ("--model", "gloww"), 2, ["no model 'gloww'", "Is 'glow' meant?"]),
        ("pets", ("--given", "clas"), 2, ["--given", "'clas'", "Is 'class' meant?"]),
        ("pets", ("--pixels", "raw"), 2, ["--pixels", "equalise, logit, scale", "'raw'"]),
        ("pets", ("--size", "8"), 2, ["--size: expected height x width", "'8'"]),
        ("pets", ("--batch-size", "49"), 3, ["a batch of 49 images", "48 or less"]),
        ("pets", ("--labels", "labels.txt"), 3, ["classes as sub-folders", "Leave the labels out"]),
        ("grey.npy", ("--given", "class"), 3, ["grey.npy: the images have no labels", "--labels FILE"]),
        ("grey.npy", ("--labels", "lables.txt"), 3, ["no such file", "Is 'labels.txt' meant?"]),
        ("pets/cat", ("--given", "small", "--size", "6x8"), 3, ["6 x 8", "4 divides", "--size 8x8"]),
        ("pets/cat", ("--size", "7x9"), 3, ["7 x 9", "--size 8x10", "--model pixel-nsf"]),
        ("pets/cat", ("--size", "6x5", "--given", "top"), 3, ["top halves", "3 x 5", "--size 6x6"]),
        ("pets/cat/01.png", (), 3, ["01.png: one image, and at least 20"]),
        ("mnits", (), 3, ["mnits: no such file or folder", "Is 'mnist' meant?"]),
        ("pest", ("--condition", "a"), 3, ["pest: no such file or folder", "Is 'pets' meant?"]),
    ],
)
def test_fits_that_cannot_be_meant(
    pictures: Path,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: str,
    options: tuple[str, ...],
    code: int,
    says: list[str],
) -> None:
    monkeypatch.chdir(pictures)
    refused("fit", images, "-o", tmp_path / "m.flow", *options, code=code, says=says, untouched=tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[data]\ngiven = 'class'", ["[data]", "columns of a table", "--given"]),
        (
            "[model]\nname = 'glow'\nstep = 3",
            ["[model] of glow", "unknown field 'step'", "Is 'steps' meant?"],
        ),
        ("[model]\nname = 'made'", ["no model 'made' for images"]),
        ("[model]\nsteps = 3", ["name is missing", "pixel-nsf"]),
    ],
)
def test_settings_that_cannot_be_meant(pictures: Path, tmp_path: Path, text: str, says: list[str]) -> None:
    (tmp_path / "c.toml").write_text(text)
    arguments = ("fit", pictures / "pets", "-o", tmp_path / "m.flow", "--config", tmp_path / "c.toml")
    refused(*arguments, code=2, says=says, untouched=tmp_path)


def test_pictures_that_cannot_be_fitted(pictures: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "pictures", tmp_path / "m.flow"
    first, *_ = write_pictures(squares(30).pixels, folder)
    whole = first.read_bytes()
    first.write_bytes(whole[:60])
    refused("fit", folder, "-o", output, code=3, says=["01.png: cut short or damaged", "Copy it again"])
    write_pictures(squares(1, size=(10, 8)).pixels, folder, names=["01.png"])
    refused("fit", folder, "-o", output, code=3, says=["02.png: is 8x8 grey, but 01.png is 10x8", "--size"])
    first.write_bytes(whole)
    (tmp_path / "labels.txt").write_text("a\n" * 29)
    says = ["labels.txt: 29 labels for 30 images"]
    refused("fit", folder, "-o", output, "--labels", tmp_path / "labels.txt", code=3, says=says)
    (tmp_path / "labels.txt").write_text("a\n" * 30)
    options = ("--labels", tmp_path / "labels.txt", "--given", "class")
    refused("fit", folder, "-o", output, *options, code=3, says=["all images are of the class 'a'"])
    refused(
        "fit", folder, "-o", tmp_path / "m.png", code=5, says=[".png is the suffix of a picture", ".flow"]
    )
    refused("fit", folder, "-o", tmp_path / "no" / "m.flow", code=5, says=["there is no folder"])
    assert not output.exists()


@pytest.mark.parametrize(
    ("model", "output", "options", "code", "says"),
    [
        ("table", "g.png", ("--grid", "2x2"), 2, ["--grid: is for flows of images"]),
        ("table", "r.csv", ("--class", "cat"), 2, ["--class: is for flows of images"]),
        ("table", "r.csv", ("--given-images", "pets"), 2, ["--given-images: is for flows of images"]),
        ("table", "g.png", (), 5, ["'.png'", ".csv or .parquet"]),
        ("plain", "r.csv", (), 5, [".png for one sheet", ".npy"]),
        ("plain", "-", (), 5, [".png for one sheet"]),
        ("plain", "g.jpg", (), 5, ["g.jpg", ".png for one sheet"]),
        ("plain", "full", (), 5, ["full: is a folder with something in it"]),
        ("plain", "no/where", (), 5, ["there is no folder"]),
        ("plain", "no/g.png", (), 5, ["there is no folder"]),
        ("plain", "g.npy", ("--grid", "2x2"), 2, ["--grid: is for one sheet"]),
        ("plain", "g.png", ("--grid", "2x2", "-n", "4"), 2, ["--grid or -n, not both"]),
        ("plain", "g.png", ("--grid", "2"), 2, ["--grid: expected rows x columns such as 8x8"]),
        ("plain", "g.png", ("--grid", "200x200"), 2, ["--grid: a sheet has at most 10,000 pictures"]),
        ("plain", "g.png", ("-n", "10001"), 2, ["-n: a sheet has at most 10,000 pictures, got 10,001"]),
        ("top", "g.png", ("--given-images", "pets", "-n", "9990"), 2, ["-n: a sheet", "9,990 and 60 images"]),
        ("plain", "g.png", ("--set", "a=1"), 2, ["--set: is for flows of tables"]),
        ("plain", "g.png", ("--context", "table.csv"), 2, ["--context: is for flows of tables"]),
        ("plain", "g.png", ("--class", "cat"), 2, ["--class", "density of an image, so no class"]),
        ("plain", "g.png", ("--given-images", "pets"), 2, ["--given-images", "so no images are given"]),
        ("class", "g.png", ("--class", "catt"), 2, ["does not know 'catt'", "cat, dog", "Is 'cat' meant?"]),
        ("class", "g.png", ("--given-images", "pets"), 2, ["name classes with --class"]),
        ("top", "g.png", (), 2, ["bottom half of an image given the top half", "Give --given-images"]),
        ("top", "g.png", ("--given-images", "pets", "--grid", "3x1"), 2, ["2 columns are needed"]),
        ("top", "g.png", ("--given-images", "large.npy"), 3, ["grey, 10 x 8 pixels", "ones of 8 x 8"]),
        ("top", "g.png", ("--given-images", "table.csv"), 3, ["table.csv: holds no images"]),
    ],
)
def test_draws_that_cannot_be_meant(
    pictures: Path,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    output: str,
    options: tuple[str, ...],
    code: int,
    says: list[str],
) -> None:
    monkeypatch.chdir(pictures)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("old")
    where = output if output == "-" else tmp_path / output
    arguments = ("sample", pictures / f"{model}.flow", "-o", where, *options)
    refused(*arguments, code=code, says=says, untouched=tmp_path)


def test_flows_and_data_that_do_not_belong_together(pictures: Path, tmp_path: Path) -> None:
    plain, table = pictures / "plain.flow", pictures / "table.flow"
    write_pictures(squares(4).pixels, tmp_path / "birds" / "bird")
    output = ("-o", tmp_path / "s.csv")
    for arguments, code, says in (
        (("score", plain, pictures / "large.npy", *output), 3, ["10 x 8", "fitted to grey ones of 8 x 8"]),
        (("score", plain, pictures / "table.csv", *output), 3, ["table.csv: holds no images"]),
        (("score", table, pictures / "pets", *output), 3, ["pets: holds images, not a table"]),
        (
            ("score", pictures / "class.flow", pictures / "grey.npy", *output),
            3,
            ["no labels", "--labels FILE"],
        ),
        (("score", pictures / "class.flow", tmp_path / "birds", *output), 3, ["not know the class 'bird'"]),
        (("score", table, pictures / "table.csv", *output, "--num-samples", 2), 2, ["--num-samples: is for"]),
        (("score", table, pictures / "table.csv", *output, "--labels", "l.txt"), 2, ["--labels: is for"]),
        (("plot", plain, pictures / "pets", "-o", tmp_path / "f.png"), 2, ["flow of images", "--grid 8x8"]),
        (("diagnose", table, pictures / "table.csv", "--labels", "l.txt"), 2, ["--labels: is for images"]),
        (("diagnose", plain, "--labels", "l.txt"), 2, ["--labels: is for images"]),
        (("diagnose", plain, pictures / "large.npy"), 3, ["10 x 8"]),
    ):
        refused(*arguments, code=code, says=says, untouched=tmp_path)


def test_images_that_are_read_are_not_replaced(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    write_classes(squares(10), folder)
    image, link = folder / "cat" / "1.png", tmp_path / "link.png"
    link.symlink_to(image)
    for output in (image, link, tmp_path / "pets" / ".." / "pets" / "cat" / "1.png"):
        for command in (
            ("reconstruct", "plain", folder),
            ("edit", "plain", folder, "--attribute", "brightness"),
            ("interpolate", "plain", f"{folder}:1-2"),
            ("inpaint", "top", f"{folder}:1-2"),
            ("sample", "top", "--given-images", folder),
        ):
            name, model, *rest = command
            arguments = (name, pictures / f"{model}.flow", *rest, "-o", output)
            refused(*arguments, code=5, says=["is one of the inputs", "Choose another"], untouched=tmp_path)
    arguments = ("inpaint", pictures / "top.flow", f"{image}:1", "-o", image)
    refused(*arguments, code=5, says=["is the input", "Choose another"], untouched=tmp_path)
    # What stands there and is not read may be replaced.
    for _ in range(2):
        done("score", pictures / "plain.flow", folder, "-o", folder / "scores.csv")


def test_numbers_of_images_may_be_part_of_a_name(tmp_path: Path) -> None:
    pixels = squares(1).pixels
    plain, numbered = write_pictures(pixels.repeat(2, 0), tmp_path, names=["a.png", "a.png:1"])
    check_output(plain, [numbered])
    with pytest.raises(OutputError, match="is the input"):
        check_output(numbered, [numbered])
    numbered.unlink()
    for words in ("a.png:1", "a.png:1-8"):
        with pytest.raises(OutputError, match="is the input"):
            check_output(plain, [tmp_path / words])


def test_what_is_not_a_number_is_said(pictures: Path, tmp_path: Path) -> None:
    fitted = load(pictures / "plain.flow")
    with torch.no_grad():
        for parameter in fitted.flow.transform.parameters():
            parameter.fill_(torch.inf)
    save(fitted, tmp_path / "lost.flow")
    result = done("score", tmp_path / "lost.flow", pictures / "pets", "-o", tmp_path / "s.csv")
    assert "60 images without a finite log-density" in result.err and "Mean not a number" in result.err
    arguments = ("sample", tmp_path / "lost.flow", "-o", tmp_path / "drawn")
    refused(*arguments, code=4, says=["not finite"])
    assert not (tmp_path / "drawn").exists()
