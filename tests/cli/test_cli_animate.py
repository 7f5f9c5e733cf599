"""What ``pushforward animate`` promises: files by their endings, equal for equal seeds, and clear refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_runs import done, refused, run
from PIL import Image


def test_pictures_and_films_of_a_table(folder: Path, tmp_path: Path) -> None:
    model = folder / "plain.flow"
    result = done("animate", model, "-o", tmp_path / "a.png", "--rows", 20, "--frames", 3)
    assert "Saved" in result.err and "20 points" in result.err and result.out == ""
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
    for name in ("a", "b"):
        done(
            "animate",
            model,
            "-o",
            tmp_path / f"{name}.gif",
            "--columns",
            "c,a",
            "-n",
            9,
            "--frames",
            4,
            "--seed",
            3,
        )
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames > 1


def test_a_conditional_model_is_given_its_condition(folder: Path, tmp_path: Path) -> None:
    model, out = folder / "conditional.flow", tmp_path / "a.png"
    refused("animate", model, "-o", out, code=2, says=["--set b=... --set c=..."], untouched=tmp_path)
    refused(
        "animate", model, "-o", out, "--set", "b=1", code=2, says=["Give --set c=..."], untouched=tmp_path
    )
    refused(
        "animate",
        model,
        "-o",
        out,
        "--set",
        "q=1",
        code=2,
        says=["not conditioned on 'q'"],
        untouched=tmp_path,
    )
    refused("animate", folder / "plain.flow", "-o", out, "--set", "b=1", code=2, says=["not conditional"])
    done("animate", model, "-o", out, "--set", "b=1", "--set", "c=0.5", "-n", 20, "--frames", 3)


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = folder / "plain.flow", tmp_path / "a.gif"
    for options, says in (
        (("--columns", "aa"), "has no column 'aa'"),
        (("--columns", "a,b,c"), "one or two different columns"),
        (("--columns", "a,a"), "one or two different columns"),
        (("--seconds", 0.5), "at most 50 frames in a second"),
        (("--class", "cat"), "is for flows of images"),
    ):
        refused("animate", model, "-o", out, *options, code=2, says=[says], untouched=tmp_path)
    assert run("animate", model, "-o", out, "--frames", 1).code == 2
    refused("animate", model, "-o", tmp_path / "a.avi", code=5, says=[".avi", ".gif"], untouched=tmp_path)
    refused("animate", model, "-o", tmp_path / "no" / "a.gif", code=5, says=["there is no folder"])
    refused("animate", tmp_path / "no.flow", "-o", out, code=3, says=["no such file"], untouched=tmp_path)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    refused("animate", model, "-o", tmp_path / "a.mp4", code=5, says=["ffmpeg", ".gif"], untouched=tmp_path)


def test_images_whose_layers_change_their_shape_are_refused(pictures: Path, tmp_path: Path) -> None:
    for name, says in (("plain", "change the shape of images"), ("top", "flows of whole images")):
        refused(
            "animate",
            pictures / f"{name}.flow",
            "-o",
            tmp_path / "a.png",
            code=4,
            says=[says],
            untouched=tmp_path,
        )
    refused(
        "animate", pictures / "class.flow", "-o", tmp_path / "a.png", "--set", "a=1", code=2, says=["--set"]
    )
