"""What the commands promise for images: fit, sample, score, info, diagnose, models."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from cli_runs import done, refused, run
from image_runs import CLASSES, fit_pictures, squares, write_classes
from numpy.typing import NDArray
from torch.nn.functional import one_hot

from pushforward import IMAGE_MODELS, MODELS, load
from pushforward.cli.image_files import images_for
from pushforward.cli.options import UsageError, sides
from pushforward.data import read_images, read_picture, write_pictures
from pushforward.data.pictures import decode
from pushforward.errors import OutputError
from pushforward.flows import score

SCALE = 10  # at which pictures of 8 x 8 pixels are drawn


def tiles(path: Path) -> NDArray[np.uint8]:
    """The pictures of a sheet, (rows, columns, channels, height, width)."""
    sheet, step = decode(path), 8 * SCALE + 2
    rows, columns = (sheet.shape[1] - 2) // step, (sheet.shape[2] - 2) // step
    at = np.arange(8) * SCALE + 2
    return np.stack(
        [
            np.stack([sheet[:, i * step + at][:, :, j * step + at] for j in range(columns)])
            for i in range(rows)
        ]
    )


def printed(out: str, part: str) -> float:
    match = re.search(rf"^  {part} +(-?[\d.]+) ", out, re.MULTILINE)
    assert match is not None, out
    return float(match[1])


def test_fit_tells_what_was_found_and_what_came_of_it(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.flow"
    out = fit_pictures(
        pictures, pictures / "pets", output, "--given", "class", "--pixels", "logit", "--max-time", "1h"
    ).out
    for words in (
        "pets: 60 images\n",
        "size         8 x 8 pixels (height x width), grey, 256 levels",
        "classes      2: cat, dog",
        "given        the class",
        "Images: 48 to train, 6 to validate, 6 to test\n",
        "Model: glow (scales 1, steps 1,",
        "at most 1 epoch or 1h 00m, batches of 16",
        "epoch 1/1  bits/dim train",
        "images/s",
        "Bits per dimension of an image given the class, a bound, by one draw",
        f"Next: pushforward sample {output} --grid 2x8 -o grid.png",
    ):
        assert words in out, out
    fitted = load(output)
    assert (fitted.images.given, fitted.images.pixels, fitted.facts.source) == ("class", "logit", "pets")
    for part, nats in (("train", fitted.facts.train_log_prob), ("test", fitted.facts.test_log_prob)):
        assert printed(out, part) == pytest.approx(-nats / (64 * math.log(2)), abs=1e-4)
    shown = re.search(r"epoch 1/1  bits/dim train \S+  valid (\S+)", out)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(fitted.facts.valid_curve[0] / (64 * math.log(2)), abs=1e-3)
    assert f"{fitted.facts.test_log_prob:.2f} nats each" in out


def test_kind_of_file_does_not_matter(pictures: Path, tmp_path: Path) -> None:
    images = squares(60)
    np.savez(tmp_path / "a.npz", images=images.pixels, labels=images.labels)
    fit_pictures(
        pictures,
        pictures / "grey.npy",
        tmp_path / "one.flow",
        "--given",
        "class",
        "--labels",
        pictures / "labels.txt",
    )
    fit_pictures(pictures, tmp_path / "a.npz", tmp_path / "two.flow", "--given", "class")
    one, two = load(tmp_path / "one.flow"), load(tmp_path / "two.flow")
    assert (one.images.classes, two.images.classes) == (CLASSES, ("0", "1"))
    assert one.facts.valid_curve == pytest.approx(two.facts.valid_curve, rel=1e-4)


def test_a_known_set_its_size_and_another_model(pictures: Path, tmp_path: Path) -> None:
    out = done(
        "fit", "digits", "-o", tmp_path / "d.flow", "--size", "6x4", "--model", "flat-realnvp", "--epochs", 1,
        "--batch-size", 512,
    ).out  # fmt: skip
    assert "digits: 1,797 images" in out and "6 x 4 pixels (height x width), grey, 17 levels" in out
    assert "Model: flat-realnvp (layers" in out
    assert load(tmp_path / "d.flow").images.event_shape == (1, 6, 4)
    assert "flat-realnvp (layers" in done("info", tmp_path / "d.flow").out


def test_official_test_images_are_the_test(pictures: Path, tmp_path: Path) -> None:
    write_classes(squares(60), tmp_path / "set" / "train")
    write_classes(squares(10, 1), tmp_path / "set" / "test")
    out = fit_pictures(pictures, tmp_path / "set", tmp_path / "m.flow").out
    assert "set: 60 images, and 10 to test" in out and "54 to train, 6 to validate, 10 to test" in out
    done("score", tmp_path / "m.flow", tmp_path / "set", "-o", tmp_path / "s.csv")
    found = pl.read_csv(tmp_path / "s.csv")
    assert found.height == 10
    assert printed(out, "test") == pytest.approx(found["bits_per_dim"].mean(), abs=1e-3)


def test_a_training_is_kept_and_goes_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("m.flow: cannot be written (No space left on device).")

    arguments = ("fit", pictures / "pets", "-o", tmp_path / "m.flow", "--config", pictures / "tiny.toml")
    with monkeypatch.context() as patch:
        patch.setattr("pushforward.artifact.save", full)
        assert "The training is kept" in run(*arguments).err
    done(*arguments, "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["m.flow"]
    again, straight = (
        load(tmp_path / "m.flow").flow.state_dict(),
        load(pictures / "plain.flow").flow.state_dict(),
    )
    for name in straight:  # the default time budget has a say in the learning rate, so not to the last bit
        torch.testing.assert_close(again[name], straight[name], atol=1e-4, rtol=1e-3)


def test_a_sheet_holds_the_draws(pictures: Path, tmp_path: Path) -> None:
    result = done("sample", pictures / "plain.flow", "-o", tmp_path / "g.png", "--grid", "2x3", "--seed", 4)
    done("sample", pictures / "plain.flow", "-o", tmp_path / "a.npy", "-n", 6, "--seed", 4)
    drawn = np.load(tmp_path / "a.npy")
    assert drawn.shape == (6, 1, 8, 8) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(tiles(tmp_path / "g.png").reshape(6, 1, 8, 8), drawn)
    assert "6 images drawn" in result.err and "2 rows of 3" in result.err and result.out == ""
    done("sample", pictures / "plain.flow", "-o", tmp_path / "b.npy", "-n", 6, "--seed", 5)
    assert not np.array_equal(np.load(tmp_path / "b.npy"), drawn)
    done("sample", pictures / "plain.flow", "-o", tmp_path / "g.png")
    assert tiles(tmp_path / "g.png").shape[:2] == (8, 8)


@pytest.mark.parametrize("name", ["plain", "class"])
def test_a_sheet_of_a_number_of_draws_holds_as_many(pictures: Path, tmp_path: Path, name: str) -> None:
    result = done("sample", pictures / f"{name}.flow", "-o", tmp_path / "g.png", "-n", 5, "--seed", 4)
    assert result.err.startswith("5 images drawn") and "2 rows of up to 3" in result.err
    flow, noise = load(pictures / f"{name}.flow").flow, torch.Generator().manual_seed(4)
    given = one_hot(torch.tensor([0, 0, 0, 1, 1]), 2).float() if name == "class" else None
    expected = flow.sample(() if name == "class" else (5,), given, generator=noise).to(torch.uint8).numpy()
    found = tiles(tmp_path / "g.png")
    assert found.shape[:2] == (2, 3)
    np.testing.assert_array_equal(found.reshape(6, 1, 8, 8)[:5], expected)
    assert (found[1, 2] == 255).all()


@pytest.mark.parametrize(
    ("draws", "images", "rows", "each"), [(1, 60, 1, 1), (5, 60, 2, 3), (7, 2, 2, 4), (5, 1, 1, 5)]
)
def test_images_that_are_given_come_on_top_of_the_draws(
    pictures: Path, *, tmp_path: Path, draws: int, images: int, rows: int, each: int
) -> None:
    whole = squares(60).pixels[:images]
    np.save(tmp_path / "given.npy", whole[:, 0])
    options = ("--given-images", tmp_path / "given.npy", "-n", draws)
    result = done("sample", pictures / "top.flow", "-o", tmp_path / "g.png", *options)
    assert result.err.startswith(f"{draws} image")
    found = tiles(tmp_path / "g.png")
    assert found.shape[:2] == (rows, each + 1)
    np.testing.assert_array_equal(found[:, 0], whole[:rows])
    drawn = found[:, 1:].reshape(-1, 8, 8)
    assert (drawn[draws:] == 255).all() and not (drawn[:draws] == 255).all((1, 2)).any()
    np.testing.assert_array_equal(drawn[:draws, :4], whole[:rows, 0, :4].repeat(each, 0)[:draws])


@pytest.fixture(scope="module")
def few_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow of digits, which have 17 levels."""
    path = tmp_path_factory.mktemp("levels") / "d.flow"
    done(
        "fit", "digits", "-o", path, "--size", "4x4", "--model", "flat-realnvp", "--epochs", 1, "--batch-size", 512
    )  # fmt: skip
    return path


def test_pictures_hold_few_levels_as_they_are_written(few_levels: Path, tmp_path: Path) -> None:
    done("sample", few_levels, "-o", tmp_path / "a.npy", "-n", 30)
    done("sample", few_levels, "-o", tmp_path / "samp", "-n", 30)
    fitted, drawn = load(few_levels), np.load(tmp_path / "a.npy")
    assert drawn.max() == 16
    for path in (tmp_path / "samp", tmp_path / "a.npy"):
        found = images_for(fitted, path)
        np.testing.assert_array_equal(found.pixels, drawn)
    one = tmp_path / "samp" / "00007.png"
    np.testing.assert_array_equal(images_for(fitted, one).pixels[0], read_picture(one, fitted.images))
    done("score", few_levels, tmp_path / "samp", "-o", tmp_path / "files.parquet")
    done("score", few_levels, tmp_path / "a.npy", "-o", tmp_path / "array.parquet")
    files, array = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("files", "array"))
    np.testing.assert_allclose(files["log_prob"], array["log_prob"], rtol=1e-5)
    write_pictures(np.full((1, 1, 4, 4), 7, np.uint8), tmp_path / "samp", names=["00007.png"])
    arguments = ("score", few_levels, tmp_path / "samp", "-o", tmp_path / "no.csv")
    says = ["samp: 00007.png holds the value 7, which is none of the 17 between 0 and 255", "255/16"]
    refused(*arguments, code=3, says=says, untouched=tmp_path)


def test_temperature_0_draws_one_image(pictures: Path, tmp_path: Path) -> None:
    done("sample", pictures / "plain.flow", "-o", tmp_path / "a.npy", "-n", 4, "--temperature", 0)
    drawn = np.load(tmp_path / "a.npy")
    assert (drawn == drawn[0]).all()


def test_parts_of_a_large_draw_differ(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushforward.flows.chunk_rows", lambda _: 4)
    done("sample", pictures / "plain.flow", "-o", tmp_path / "a.npy", "-n", 10)
    assert len(np.unique(np.load(tmp_path / "a.npy").reshape(10, -1), axis=0)) == 10


def test_a_folder_of_draws_can_be_fitted_again(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    result = done("sample", pictures / "class.flow", "-o", folder, "-n", 24)
    assert "24 PNG files, with their classes in labels.csv" in result.err
    assert sorted(path.name for path in folder.glob("*.png"))[::23] == ["00001.png", "00024.png"]
    images = read_images(folder, labels=folder / "labels.csv").train
    assert images.classes == CLASSES and images.labels is not None
    np.testing.assert_array_equal(images.labels, np.arange(24) % 2)
    (tmp_path / "there").mkdir()
    done("sample", pictures / "plain.flow", "-o", tmp_path / "there", "-n", 2)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["00001.png", "00002.png"]


def test_a_folder_is_written_whole_or_not_at_all(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pushforward.cli.sample_images.csv.writer", interrupted)
    assert run("sample", pictures / "class.flow", "-o", tmp_path / "drawn", "-n", 4).code == 130
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_sheet_are_classes(pictures: Path, tmp_path: Path) -> None:
    """A flow whose classes differ by far more than its samples tells which is which."""
    flow, noise = load(pictures / "class.flow").flow, torch.Generator().manual_seed(0)
    result = done("sample", pictures / "class.flow", "-o", tmp_path / "g.png", "--grid", "3x2")
    assert "a class a row: cat, dog" in result.err
    given = one_hot(torch.tensor([0, 0, 1, 1, 0, 0]), 2).float()
    expected = flow.sample((), given, generator=noise).to(torch.uint8).numpy()
    np.testing.assert_array_equal(tiles(tmp_path / "g.png").reshape(6, 1, 8, 8), expected)
    done(
        "sample",
        pictures / "class.flow",
        "-o",
        tmp_path / "a.npy",
        "-n",
        4,
        "--class",
        "dog",
        "--class",
        "cat",
    )
    noise.manual_seed(0)
    expected = flow.sample((), given[[2, 0, 2, 0]], generator=noise).to(torch.uint8).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)


@pytest.mark.parametrize("name", ["top", "small"])
def test_rows_of_a_sheet_begin_with_the_image_that_is_given(
    pictures: Path, tmp_path: Path, name: str
) -> None:
    model, images = pictures / f"{name}.flow", np.load(pictures / "grey.npy")[:, None]
    options = ("--given-images", pictures / "grey.npy")
    done("sample", model, "-o", tmp_path / "g.png", *options, "--grid", "3x4")
    found = tiles(tmp_path / "g.png")
    np.testing.assert_array_equal(found[:, 0], images[:3])
    if name == "top":
        np.testing.assert_array_equal(
            found[:, :, :, :4], np.broadcast_to(images[:3, None, :, :4], (3, 4, 1, 4, 8))
        )
    assert len(np.unique(found[:, 1:].reshape(9, -1), axis=0)) == 9
    done("sample", model, "-o", tmp_path / "a.npy", *options)
    assert np.load(tmp_path / "a.npy").shape == (60, 1, 8, 8)
    done("sample", model, "-o", tmp_path / "a.npy", *options, "-n", 61)
    drawn = np.load(tmp_path / "a.npy")
    assert len(drawn) == 61
    if name == "top":
        np.testing.assert_array_equal(drawn[:, :, :4], np.concatenate([images, images[:1]])[:, :, :4])


@pytest.mark.parametrize("name", ["plain", "class"])
def test_scores_are_those_of_the_flow(pictures: Path, tmp_path: Path, name: str) -> None:
    model = pictures / f"{name}.flow"
    result = done("score", model, pictures / "pets", "-o", tmp_path / "s.csv")
    table = pl.read_csv(tmp_path / "s.csv")
    assert table.columns == ["file", "bits_per_dim", "log_prob", "standard_error"]
    images = read_images(pictures / "pets").train
    assert table["file"].to_list() == list(images.names)
    assert table["standard_error"].null_count() == 60
    assert images.labels is not None
    given = one_hot(torch.from_numpy(images.labels), 2).float() if name == "class" else None
    expected = score(load(model).flow, torch.from_numpy(images.pixels), given, num_samples=1).value
    np.testing.assert_allclose(table["log_prob"], expected, rtol=1e-5)
    np.testing.assert_allclose(table["bits_per_dim"], -expected / (64 * math.log(2)), rtol=1e-5)
    mean = re.search(r"Mean (\S+) ± (\S+) bits/dim \((\S+) nats\)", result.err)
    assert mean is not None and "a bound, by one draw" in result.err
    bits = table["bits_per_dim"].to_numpy()
    assert float(mean[1]) == pytest.approx(bits.mean(), abs=1e-4)
    assert float(mean[2]) == pytest.approx(bits.std(ddof=1) / math.sqrt(60), abs=1e-4)
    assert float(mean[3]) == pytest.approx(float(expected.mean()), abs=1e-2)


def test_several_draws_estimate_the_likelihood_itself(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("score", pictures / "plain.flow", pictures / "grey.npy", "-o")
    done(*arguments, tmp_path / "one.parquet")
    result = done(*arguments, tmp_path / "many.parquet", "--num-samples", 16)
    monkeypatch.setattr("pushforward.cli.score_images._CHUNK_IMAGES", 7)
    done(*arguments, tmp_path / "parts.parquet", "--num-samples", 16)
    one, many, parts = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "many", "parts"))
    assert many["image"].to_list() == parts["image"].to_list() == list(range(1, 61))
    x = torch.from_numpy(squares(60).pixels)
    expected = score(load(pictures / "plain.flow").flow, x, num_samples=16)
    np.testing.assert_allclose(many["log_prob"], expected.value, rtol=1e-5)
    np.testing.assert_allclose(many["standard_error"], expected.standard_error, rtol=1e-3)
    assert not np.array_equal(one["log_prob"], many["log_prob"])
    assert "importance-weighted estimate of the likelihood" in result.err and "16 draws" in result.err
    np.testing.assert_allclose(parts["log_prob"], many["log_prob"], rtol=1e-5)
    out = done(*arguments, "-").out
    assert out.startswith("image,bits_per_dim,log_prob,standard_error\n1,") and out.count("\n") == 61


def test_labels_are_read_for_images_without(pictures: Path, tmp_path: Path) -> None:
    done("score", pictures / "class.flow", pictures / "pets", "-o", tmp_path / "sorted.parquet")
    options = ("--labels", pictures / "labels.txt")
    done("score", pictures / "class.flow", pictures / "grey.npy", "-o", tmp_path / "s.parquet", *options)
    found, straight = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("s", "sorted"))
    turned = np.concatenate([found["log_prob"].to_numpy()[i::2] for i in (0, 1)])
    np.testing.assert_allclose(turned, straight["log_prob"], rtol=1e-5)


def test_info_shows_what_there_is_to_know(pictures: Path) -> None:
    text = done("info", pictures / "class.flow").out
    document = json.loads(done("info", pictures / "class.flow", "--json").out)
    facts = load(pictures / "class.flow").facts
    assert document["images"]["classes"] == list(CLASSES) and document["images"]["height"] == 8
    assert "columns" not in document
    assert document["bits_per_dim"]["test"] == pytest.approx(-facts.test_log_prob / (64 * math.log(2)))
    for words in (
        "Model          glow (scales 1",
        "Images         48 train, 6 validation, 6 test",
        "Size           8 x 8 pixels (height x width), grey, 256 levels",
        "Classes        2: cat, dog",
        "Given          the class",
        "Pixels         equalise",
        f"test {document['bits_per_dim']['test']:.4f}",
        "a bound, by one draw of noise",
    ):
        assert words in text, text
    assert "Given          nothing" in done("info", pictures / "plain.flow").out


def test_models_are_listed_for_tables_and_for_images() -> None:
    tables, images = done("models").out.split("For images")
    for text, known in ((tables, MODELS), (images, IMAGE_MODELS)):
        for name, config in known.items():
            assert f"{name}  {(config.__doc__ or '').splitlines()[0]}" in text


def test_diagnose_takes_images(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it measures is tested where it lives."""
    seen = []

    def examine(*arguments: object, **_: object) -> None:
        seen.append(arguments[1:])
        raise OutputError("enough")

    monkeypatch.setattr("pushforward.evaluate.diagnose", examine)
    run("diagnose", pictures / "class.flow", pictures / "grey.npy", "--labels", pictures / "labels.txt")
    run("diagnose", pictures / "top.flow", pictures / "pets")
    run("diagnose", pictures / "plain.flow")
    (x, context), (half, given), nothing = seen
    assert x.shape == (60, 1, 8, 8) and context.tolist()[:2] == [[1, 0], [0, 1]]
    assert half.shape == given.shape == (60, 1, 4, 8)
    assert nothing == (None, None)


def test_sides_are_two_numbers() -> None:
    assert sides("28x20", "--size", "height x width", "28x28") == (28, 20)
    for text in ("28", "0x3", "x", "3x4x5", "-1x2", "axb", ""):
        with pytest.raises(UsageError, match="such as 28x28"):
            sides(text, "--size", "height x width", "28x28")
