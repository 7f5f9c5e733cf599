"""The demonstration from end to end, with trainings of a moment."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from rich.console import Console

from page_reader import images, read, urls
from pushforward.artifact import load
from pushforward.configs import NSFConfig, TrainConfig
from pushforward.data import read_table, to_matrix
from pushforward.errors import OutputError
from pushforward.flows import score
from pushforward.report.demo import run_demo
from pushforward.report.demo_table import explain
from pushforward.report.progress import Stages
from pushforward.training import fit

FILES = {
    "index.html", "checkerboard.png", "checkerboard_planar.flow", "checkerboard_nsf.flow", "digits.flow",
    "digits_scores.csv", "wine.csv", "wine.flow", "scores.csv", "drawn.csv",
}  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "new" / "demo"
    out = io.StringIO()
    page = run_demo(folder, quick=True, console=Console(file=out, width=100))
    assert page == folder / "index.html"
    return folder, out.getvalue()


def test_the_page_has_all_sections_and_refers_to_nothing_outside(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    text = (folder / "index.html").read_text(encoding="utf-8")
    reader = read(text)
    assert [attrs["id"] for tag, attrs in reader.attributes if tag == "section"] == [
        "checkerboard",
        "digits",
        "wine",
    ]
    for url in urls(reader):
        local = url.startswith(("data:", "#"))
        assert local or (folder / url).is_file(), url
    assert "://" not in text and "@import" not in text and "url(" not in text
    assert all(attrs["alt"] for tag, attrs in reader.attributes if tag == "img")
    assert len(images(reader)) == 2 * (3 + 2 + 2 + 2 + 1 + 1)
    for phrase in (
        "3.4657",
        "KL divergence",
        "Bits per dimension",
        "most anomalous",
        "seed",
        "quick mode",
        " s in all",
    ):
        assert phrase in reader.text, phrase


def test_every_file_is_there_and_nothing_else(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    assert {path.name for path in folder.iterdir()} == FILES
    with Image.open(folder / "checkerboard.png") as image:
        image.load()
    for name in FILES:
        if name.endswith(".flow"):
            assert load(folder / name).facts.stopped in ("epochs", "time")


def test_the_figures_on_the_page_are_those_of_the_saved_flows(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    text = read((folder / "index.html").read_text(encoding="utf-8")).text.replace("−", "-")
    for name in ("checkerboard_planar.flow", "checkerboard_nsf.flow"):
        nll = -load(folder / name).facts.test_log_prob
        assert f"{nll:.4f}" in text and f"{nll - math.log(32):.4f}" in text
    assert f"{load(folder / 'digits.flow').facts.test_log_prob:.1f} nats" in text


def test_the_scores_are_those_of_the_saved_flow_row_by_row(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    table, scores, fitted = (
        read_table(folder / "wine.csv"),
        pl.read_csv(folder / "scores.csv"),
        load(folder / "wine.flow"),
    )
    assert table.height == scores.height == 178 and "cultivar" not in fitted.schema.names
    expected = score(fitted.flow, torch.from_numpy(to_matrix(table, fitted.schema.columns))).value
    np.testing.assert_allclose(scores["log_prob"].to_numpy(), expected.double().numpy(), rtol=1e-6)
    facts = fitted.facts
    means = dict(scores.group_by("part").agg(pl.col("log_prob").mean()).rows())
    for part, mean in (("training", facts.train_log_prob), ("test", facts.test_log_prob)):
        assert means[part] == pytest.approx(mean, rel=1e-6)
    drawn = read_table(folder / "drawn.csv")
    to_matrix(drawn, fitted.schema.columns)  # on the grids of the discrete columns, with all of them
    assert drawn.height == 178


def test_the_digits_scored_are_the_held_out_ones(demo: tuple[Path, str]) -> None:
    from sklearn.datasets import load_digits

    folder, _ = demo
    scores, fitted = pl.read_csv(folder / "digits_scores.csv"), load(folder / "digits.flow")
    assert scores.height == fitted.facts.test_rows == 359
    bunch = load_digits()
    rows = scores["image"].to_numpy()
    np.testing.assert_array_equal(bunch.target[rows], scores["digit"].to_numpy())
    expected = score(fitted.flow, torch.from_numpy(bunch.data[rows])).value.double().numpy()
    np.testing.assert_allclose(scores["log_prob"].to_numpy(), expected, rtol=1e-6)


def test_progress_names_every_stage(demo: tuple[Path, str]) -> None:
    _, shown = demo
    for stage in ("checkerboard: planar flow", "checkerboard: neural spline flow", "digits", "wine"):
        assert stage in shown
    assert shown.count("done in") >= 7


def test_a_terminal_sees_the_training_live() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    x = np.random.default_rng(0).normal(size=(60, 1))
    with Stages(console).training("a title [with brackets]") as on_epoch:
        fit(pl.DataFrame({"x": x[:, 0]}), training=TrainConfig(epochs=3, batch_size=16), on_epoch=on_epoch)
    with Stages(console).work("some work"):
        pass
    shown = out.getvalue()
    assert "a title [with brackets]" in shown and "NLL train" in shown and "some work: done" in shown


def test_an_interrupt_ends_the_demonstration() -> None:
    from pushforward.configs import DataConfig
    from pushforward.training import split_table

    class Interrupted(Stages):
        def _print(self, line: str) -> None:
            raise KeyboardInterrupt

    frame = pl.DataFrame({"x": np.random.default_rng(0).normal(size=60)})
    split = split_table(frame, DataConfig(), seed=0)
    stages = Interrupted(Console(file=io.StringIO()))
    with pytest.raises(KeyboardInterrupt):
        stages.fit("a title", split, NSFConfig(layers=1), TrainConfig(epochs=2, batch_size=16), "x")


def test_a_folder_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run_demo(tmp_path / "file" / "demo", quick=True, console=Console(file=io.StringIO()))
    (tmp_path / "index.html").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        run_demo(tmp_path, quick=True, console=Console(file=io.StringIO()))


def test_a_value_that_contradicts_the_others_is_the_first_reason() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    x = np.stack([a, a + 0.05 * rng.normal(size=300), rng.normal(size=300)], 1)
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    fitted = fit(
        frame,
        model=NSFConfig(layers=2, hidden=(16, 16)),
        training=TrainConfig(epochs=25, batch_size=32, learning_rate=1e-2),
    )
    x[0] = [0.0, 0.0, 4.0]
    x[1] = [1.5, -1.5, 0.0]
    assert explain(fitted, x, 0)[0].column == "c"
    first, second, third = explain(fitted, x, 1)
    assert {first.column, second.column} == {"a", "b"} and third.column == "c"
    assert first.gain >= second.gain > 5 > third.gain >= 0
    assert abs(first.usual - (-1.5 if first.column == "a" else 1.5)) < 0.5
