"""What the commands promise for images: fit, sample, score, info, diagnose, models; and what they refuse."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from cli_runs import Run, continuous, done, refused, run
from numpy.typing import NDArray
from torch.nn.functional import one_hot

from pushforward import IMAGE_MODELS, MODELS, load, save
from pushforward.cli.options import UsageError, sides
from pushforward.data import Images, read_images, write_pictures
from pushforward.data.pictures import decode
from pushforward.errors import OutputError
from pushforward.flows import score

TINY = """
[model]
name = "glow"
scales = 1
steps = 1
hidden_channels = 8

[training]
epochs = 1
batch_size = 16
"""
CLASSES = ("cat", "dog")
SCALE = 10  # at which pictures of 8 x 8 pixels are drawn


def squares(n: int, seed: int = 0, *, levels: int = 256, size: tuple[int, int] = (8, 8)) -> Images:
    """Bright upper halves are cats, bright lower ones dogs."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(0, levels // 4, (n, 1, *size))
    for image, label in zip(pixels, labels, strict=True):
        half = slice(0, size[0] // 2) if label == 0 else slice(size[0] // 2, None)
        image[:, half] += levels // 2
    return Images(pixels.astype(np.uint8), labels.astype(np.int64), CLASSES, levels)


def write_classes(images: Images, folder: Path) -> None:
    assert images.labels is not None
    for i, name in enumerate(images.classes):
        write_pictures(images.pixels[images.labels == i], folder / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder pets of two classes; grey.npy without labels, and labels.txt; a flow for each of what may be given."""
    path = tmp_path_factory.mktemp("images")
    (path / "tiny.toml").write_text(TINY)
    images = squares(60)
    write_classes(images, path / "pets")
    np.save(path / "grey.npy", images.pixels[:, 0])
    assert images.labels is not None
    (path / "labels.txt").write_text("\n".join(CLASSES[i] for i in images.labels))
    np.save(path / "large.npy", squares(4, size=(10, 8)).pixels[:, 0])
    continuous(60).write_csv(path / "table.csv")
    for given in ("plain", "class", "top", "small"):
        fit(path, path / "pets", path / f"{given}.flow", *(() if given == "plain" else ("--given", given)))
    done("fit", path / "table.csv", "-o", path / "table.flow", "--model", "nice", "--epochs", 1)
    return path


def fit(place: Path, images: object, output: Path, *options: object) -> Run:
    return done("fit", images, "-o", output, "--config", place / "tiny.toml", *options)


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


def test_fit_tells_what_was_found_and_what_came_of_it(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.flow"
    out = fit(place, place / "pets", output, "--given", "class", "--pixels", "logit", "--max-time", "1h").out
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


def test_kind_of_file_does_not_matter(place: Path, tmp_path: Path) -> None:
    images = squares(60)
    np.savez(tmp_path / "a.npz", images=images.pixels, labels=images.labels)
    fit(
        place, place / "grey.npy", tmp_path / "one.flow", "--given", "class", "--labels", place / "labels.txt"
    )
    fit(place, tmp_path / "a.npz", tmp_path / "two.flow", "--given", "class")
    one, two = load(tmp_path / "one.flow"), load(tmp_path / "two.flow")
    assert (one.images.classes, two.images.classes) == (CLASSES, ("0", "1"))
    assert one.facts.valid_curve == pytest.approx(two.facts.valid_curve, rel=1e-4)


def test_a_known_set_its_size_and_another_model(place: Path, tmp_path: Path) -> None:
    out = done(
        "fit", "digits", "-o", tmp_path / "d.flow", "--size", "6x4", "--model", "flat-realnvp", "--epochs", 1,
        "--batch-size", 512,
    ).out  # fmt: skip
    assert "digits: 1,797 images" in out and "6 x 4 pixels (height x width), grey, 17 levels" in out
    assert "Model: flat-realnvp (layers" in out
    assert load(tmp_path / "d.flow").images.event_shape == (1, 6, 4)
    assert "flat-realnvp (layers" in done("info", tmp_path / "d.flow").out


def test_official_test_images_are_the_test(place: Path, tmp_path: Path) -> None:
    write_classes(squares(60), tmp_path / "set" / "train")
    write_classes(squares(10, 1), tmp_path / "set" / "test")
    out = fit(place, tmp_path / "set", tmp_path / "m.flow").out
    assert "set: 60 images, and 10 to test" in out and "54 to train, 6 to validate, 10 to test" in out
    done("score", tmp_path / "m.flow", tmp_path / "set", "-o", tmp_path / "s.csv")
    found = pl.read_csv(tmp_path / "s.csv")
    assert found.height == 10
    assert printed(out, "test") == pytest.approx(found["bits_per_dim"].mean(), abs=1e-3)


def test_a_training_is_kept_and_goes_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("m.flow: cannot be written (No space left on device).")

    arguments = ("fit", place / "pets", "-o", tmp_path / "m.flow", "--config", place / "tiny.toml")
    with monkeypatch.context() as patch:
        patch.setattr("pushforward.artifact.save", full)
        assert "The training is kept" in run(*arguments).err
    done(*arguments, "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["m.flow"]
    again, straight = (
        load(tmp_path / "m.flow").flow.state_dict(),
        load(place / "plain.flow").flow.state_dict(),
    )
    for name in straight:  # the default time budget has a say in the learning rate, so not to the last bit
        torch.testing.assert_close(again[name], straight[name], atol=1e-4, rtol=1e-3)


def test_a_sheet_holds_the_draws(place: Path, tmp_path: Path) -> None:
    result = done("sample", place / "plain.flow", "-o", tmp_path / "g.png", "--grid", "2x3", "--seed", 4)
    done("sample", place / "plain.flow", "-o", tmp_path / "a.npy", "-n", 6, "--seed", 4)
    drawn = np.load(tmp_path / "a.npy")
    assert drawn.shape == (6, 1, 8, 8) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(tiles(tmp_path / "g.png").reshape(6, 1, 8, 8), drawn)
    assert "6 images drawn" in result.err and "2 rows of 3" in result.err and result.out == ""
    done("sample", place / "plain.flow", "-o", tmp_path / "b.npy", "-n", 6, "--seed", 5)
    assert not np.array_equal(np.load(tmp_path / "b.npy"), drawn)
    done("sample", place / "plain.flow", "-o", tmp_path / "g.png")
    assert tiles(tmp_path / "g.png").shape[:2] == (8, 8)
    done("sample", place / "plain.flow", "-o", tmp_path / "g.png", "-n", 5)
    assert tiles(tmp_path / "g.png").shape[:2] == (2, 3)


def test_temperature_0_draws_one_image(place: Path, tmp_path: Path) -> None:
    done("sample", place / "plain.flow", "-o", tmp_path / "a.npy", "-n", 4, "--temperature", 0)
    drawn = np.load(tmp_path / "a.npy")
    assert (drawn == drawn[0]).all()


def test_parts_of_a_large_draw_differ(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushforward.flows.chunk_rows", lambda _: 4)
    done("sample", place / "plain.flow", "-o", tmp_path / "a.npy", "-n", 10)
    assert len(np.unique(np.load(tmp_path / "a.npy").reshape(10, -1), axis=0)) == 10


def test_a_folder_of_draws_can_be_fitted_again(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    result = done("sample", place / "class.flow", "-o", folder, "-n", 24)
    assert "24 PNG files, with their classes in labels.csv" in result.err
    assert sorted(path.name for path in folder.glob("*.png"))[::23] == ["00001.png", "00024.png"]
    images = read_images(folder, labels=folder / "labels.csv").train
    assert images.classes == CLASSES and images.labels is not None
    np.testing.assert_array_equal(images.labels, np.arange(24) % 2)
    (tmp_path / "there").mkdir()
    done("sample", place / "plain.flow", "-o", tmp_path / "there", "-n", 2)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["00001.png", "00002.png"]


def test_a_folder_is_written_whole_or_not_at_all(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pushforward.cli.sample_images.csv.writer", interrupted)
    assert run("sample", place / "class.flow", "-o", tmp_path / "drawn", "-n", 4).code == 130
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_sheet_are_classes(place: Path, tmp_path: Path) -> None:
    """A flow whose classes differ by far more than its samples tells which is which."""
    flow, noise = load(place / "class.flow").flow, torch.Generator().manual_seed(0)
    result = done("sample", place / "class.flow", "-o", tmp_path / "g.png", "--grid", "3x2")
    assert "a class a row: cat, dog" in result.err
    given = one_hot(torch.tensor([0, 0, 1, 1, 0, 0]), 2).float()
    expected = flow.sample((), given, generator=noise).to(torch.uint8).numpy()
    np.testing.assert_array_equal(tiles(tmp_path / "g.png").reshape(6, 1, 8, 8), expected)
    done(
        "sample", place / "class.flow", "-o", tmp_path / "a.npy", "-n", 4, "--class", "dog", "--class", "cat"
    )
    noise.manual_seed(0)
    expected = flow.sample((), given[[2, 0, 2, 0]], generator=noise).to(torch.uint8).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)


@pytest.mark.parametrize("name", ["top", "small"])
def test_rows_of_a_sheet_begin_with_the_image_that_is_given(place: Path, tmp_path: Path, name: str) -> None:
    model, images = place / f"{name}.flow", np.load(place / "grey.npy")[:, None]
    options = ("--given-images", place / "grey.npy")
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
def test_scores_are_those_of_the_flow(place: Path, tmp_path: Path, name: str) -> None:
    model = place / f"{name}.flow"
    result = done("score", model, place / "pets", "-o", tmp_path / "s.csv")
    table = pl.read_csv(tmp_path / "s.csv")
    assert table.columns == ["file", "bits_per_dim", "log_prob", "standard_error"]
    images = read_images(place / "pets").train
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
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("score", place / "plain.flow", place / "grey.npy", "-o")
    done(*arguments, tmp_path / "one.parquet")
    result = done(*arguments, tmp_path / "many.parquet", "--num-samples", 16)
    monkeypatch.setattr("pushforward.cli.score_images._CHUNK_IMAGES", 7)
    done(*arguments, tmp_path / "parts.parquet", "--num-samples", 16)
    one, many, parts = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "many", "parts"))
    assert many["image"].to_list() == parts["image"].to_list() == list(range(1, 61))
    x = torch.from_numpy(squares(60).pixels)
    expected = score(load(place / "plain.flow").flow, x, num_samples=16)
    np.testing.assert_allclose(many["log_prob"], expected.value, rtol=1e-5)
    np.testing.assert_allclose(many["standard_error"], expected.standard_error, rtol=1e-3)
    assert not np.array_equal(one["log_prob"], many["log_prob"])
    assert "importance-weighted estimate of the likelihood" in result.err and "16 draws" in result.err
    np.testing.assert_allclose(parts["log_prob"], many["log_prob"], rtol=1e-5)
    out = done(*arguments, "-").out
    assert out.startswith("image,bits_per_dim,log_prob,standard_error\n1,") and out.count("\n") == 61


def test_labels_are_read_for_images_without(place: Path, tmp_path: Path) -> None:
    done("score", place / "class.flow", place / "pets", "-o", tmp_path / "sorted.parquet")
    options = ("--labels", place / "labels.txt")
    done("score", place / "class.flow", place / "grey.npy", "-o", tmp_path / "s.parquet", *options)
    found, straight = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("s", "sorted"))
    turned = np.concatenate([found["log_prob"].to_numpy()[i::2] for i in (0, 1)])
    np.testing.assert_allclose(turned, straight["log_prob"], rtol=1e-5)


def test_info_shows_what_there_is_to_know(place: Path) -> None:
    text = done("info", place / "class.flow").out
    document = json.loads(done("info", place / "class.flow", "--json").out)
    facts = load(place / "class.flow").facts
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
    assert "Given          nothing" in done("info", place / "plain.flow").out


def test_models_are_listed_for_tables_and_for_images() -> None:
    tables, images = done("models").out.split("For images")
    for text, known in ((tables, MODELS), (images, IMAGE_MODELS)):
        for name, config in known.items():
            assert f"{name}  {(config.__doc__ or '').splitlines()[0]}" in text


def test_diagnose_takes_images(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it measures is tested where it lives."""
    seen = []

    def examine(*arguments: object, **_: object) -> None:
        seen.append(arguments[1:])
        raise OutputError("enough")

    monkeypatch.setattr("pushforward.evaluate.diagnose", examine)
    run("diagnose", place / "class.flow", place / "grey.npy", "--labels", place / "labels.txt")
    run("diagnose", place / "top.flow", place / "pets")
    run("diagnose", place / "plain.flow")
    (x, context), (half, given), nothing = seen
    assert x.shape == (60, 1, 8, 8) and context.tolist()[:2] == [[1, 0], [0, 1]]
    assert half.shape == given.shape == (60, 1, 4, 8)
    assert nothing == (None, None)


def test_sides_are_two_numbers() -> None:
    assert sides("28x20", "--size", "height x width", "28x28") == (28, 20)
    for text in ("28", "0x3", "x", "3x4x5", "-1x2", "axb", ""):
        with pytest.raises(UsageError, match="such as 28x28"):
            sides(text, "--size", "height x width", "28x28")


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
    place: Path,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: str,
    options: tuple[str, ...],
    code: int,
    says: list[str],
) -> None:
    monkeypatch.chdir(place)
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
def test_settings_that_cannot_be_meant(place: Path, tmp_path: Path, text: str, says: list[str]) -> None:
    (tmp_path / "c.toml").write_text(text)
    arguments = ("fit", place / "pets", "-o", tmp_path / "m.flow", "--config", tmp_path / "c.toml")
    refused(*arguments, code=2, says=says, untouched=tmp_path)


def test_pictures_that_cannot_be_fitted(place: Path, tmp_path: Path) -> None:
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
        ("plain", "g.png", ("--grid", "200x200"), 2, ["at most 10,000 pictures"]),
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
    place: Path,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    output: str,
    options: tuple[str, ...],
    code: int,
    says: list[str],
) -> None:
    monkeypatch.chdir(place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("old")
    place_of_output = output if output == "-" else tmp_path / output
    arguments = ("sample", place / f"{model}.flow", "-o", place_of_output, *options)
    refused(*arguments, code=code, says=says, untouched=tmp_path)


def test_flows_and_data_that_do_not_belong_together(place: Path, tmp_path: Path) -> None:
    plain, table = place / "plain.flow", place / "table.flow"
    write_pictures(squares(4).pixels, tmp_path / "birds" / "bird")
    output = ("-o", tmp_path / "s.csv")
    for arguments, code, says in (
        (("score", plain, place / "large.npy", *output), 3, ["10 x 8", "fitted to grey ones of 8 x 8"]),
        (("score", plain, place / "table.csv", *output), 3, ["table.csv: holds no images"]),
        (("score", table, place / "pets", *output), 3, ["pets: holds images, not a table"]),
        (("score", place / "class.flow", place / "grey.npy", *output), 3, ["no labels", "--labels FILE"]),
        (("score", place / "class.flow", tmp_path / "birds", *output), 3, ["not know the class 'bird'"]),
        (("score", table, place / "table.csv", *output, "--num-samples", 2), 2, ["--num-samples: is for"]),
        (("score", table, place / "table.csv", *output, "--labels", "l.txt"), 2, ["--labels: is for"]),
        (("plot", plain, place / "pets", "-o", tmp_path / "f.png"), 2, ["flow of images", "--grid 8x8"]),
        (("diagnose", table, place / "table.csv", "--labels", "l.txt"), 2, ["--labels: is for images"]),
        (("diagnose", plain, "--labels", "l.txt"), 2, ["--labels: is for images"]),
        (("diagnose", plain, place / "large.npy"), 3, ["10 x 8"]),
    ):
        refused(*arguments, code=code, says=says, untouched=tmp_path)


def test_what_is_not_a_number_is_said(place: Path, tmp_path: Path) -> None:
    fitted = load(place / "plain.flow")
    with torch.no_grad():
        for parameter in fitted.flow.transform.parameters():
            parameter.fill_(torch.inf)
    save(fitted, tmp_path / "lost.flow")
    result = done("score", tmp_path / "lost.flow", place / "pets", "-o", tmp_path / "s.csv")
    assert "60 images without a finite log-density" in result.err and "Mean not a number" in result.err
    arguments = ("sample", tmp_path / "lost.flow", "-o", tmp_path / "drawn")
    refused(*arguments, code=4, says=["not finite"])
    assert not (tmp_path / "drawn").exists()
