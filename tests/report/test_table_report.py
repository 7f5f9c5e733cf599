"""The report about a flow of a table: whole, self-contained, honest about what the flow has seen, readable anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from browser import CHROMIUM, layouts
from page_reader import images, read, urls
from pushforward.artifact import FittedFlow
from pushforward.configs import DataConfig, MAFConfig, TrainConfig
from pushforward.data import split_rows
from pushforward.errors import DataError
from pushforward.evaluate import Explanation
from pushforward.report.baselines import gaussian_given
from pushforward.report.comparison import Comparison, compare
from pushforward.report.html import Picture, Points, Section, Table
from pushforward.report.table_report import write_report
from pushforward.report.table_report_anomalies import anomalies
from pushforward.report.table_report_checks import latents, soundness
from pushforward.report.table_report_columns import marginals
from pushforward.report.table_report_fit import likelihood
from pushforward.report.table_report_rows import Rows, rows_of, thinned
from pushforward.report.table_report_samples import together
from pushforward.training import fit

SECTIONS = [
    "summary",
    "likelihood",
    "rows",
    "columns",
    "anomalies",
    "training",
    "latents",
    "soundness",
    "reproduction",
]
GIVEN = DataConfig(condition=("far",))
MODEL, TRAINING = MAFConfig(layers=1, hidden=(8,)), TrainConfig(epochs=2, batch_size=64)


def frame_of(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    return pl.DataFrame({"a": a, "<b> & 'c'": 3 * a + rng.normal(size=rows), "n": rng.poisson(3.0, rows)})


def fitted_to(frame: pl.DataFrame, source: str = "table.csv", **roles: object) -> FittedFlow:
    return fit(frame, model=MODEL, training=TRAINING, data=DataConfig(**roles), source=source)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted() -> FittedFlow:
    return fitted_to(frame_of())


@pytest.fixture(scope="module")
def page(fitted: FittedFlow, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(fitted, frame_of(), path, source="table.csv")
    return path.read_text(encoding="utf-8")


def held(fitted: FittedFlow, frame: pl.DataFrame) -> tuple[Rows, Comparison]:
    return rows_of(fitted, frame, source=None), compare(fitted, frame)


def verdicts(part: Section) -> dict[str, str]:
    table = next(b for b in part.blocks if isinstance(b, Table))
    return {row[0]: row[2] for row in table.rows}


def words(part: Section) -> str:
    texts = [part.lead]
    for block in part.blocks:
        texts += block.points if isinstance(block, Points) else [getattr(block, "text", "")]
    return " ".join(texts)


def test_the_page_is_whole_and_asks_for_nothing_outside_itself(page: str) -> None:
    reader = read(page)
    assert [attrs["id"] for tag, attrs in reader.attributes if tag == "section"] == SECTIONS
    assert all(url.startswith(("data:", "#")) for url in urls(reader))
    assert not any(tag in ("script", "iframe", "object", "b") for tag, _ in reader.attributes)
    policy = [attrs for _, attrs in reader.attributes if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy[0]["content"]
    shown = [attrs for tag, attrs in reader.attributes if tag == "img"]
    assert all(attrs["alt"] for attrs in shown) and len(images(reader)) == 2 * len(shown) > 16
    assert "Left out" not in reader.text and " nan" not in reader.text
    assert reader.text.count("<b> & 'c'") > 3
    for word in ("standard error", "Gaussian mixture", "usual", "SHA-256", "p-values", "The verdict is"):
        assert (word in reader.text) == (word != "SHA-256"), word


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed, which lays the page out")
def test_a_browser_shows_it_whole_on_a_telephone_and_on_a_desk(page: str, tmp_path: Path) -> None:
    widths = [390, 1280]
    for found, width in zip(layouts(page, widths, tmp_path), widths, strict=True):
        assert found.inner == width and found.width <= width
        assert found.images > 8 and found.broken == 0 and found.requests == []
        assert found.smallest >= 15


def test_of_few_rows_it_says_what_it_cannot_tell_and_names_its_files(
    fitted: FittedFlow, tmp_path: Path
) -> None:
    frame_of(7, seed=2).write_csv(tmp_path / "other.csv")
    write_report(
        fitted, frame_of(7, seed=2), tmp_path / "r.html", source=tmp_path / "other.csv", most_rows=90, seed=3
    )
    reader = read((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "other.csv, " in reader.text and "SHA-256 " in reader.text and str(tmp_path) not in reader.text
    assert "--rows 90 --seed 3" in reader.text
    assert [attrs["id"] for tag, attrs in reader.attributes if tag == "section"] == SECTIONS
    assert "7 rows to judge by" in reader.text and "too few rows (7)" in reader.text


def test_equal_seeds_give_equal_parts(fitted: FittedFlow) -> None:
    one, two = (latents(fitted, rows_of(fitted, frame_of(), source=None), seed=4) for _ in range(2))
    assert one == two


def test_the_rows_held_out_are_found_by_what_the_flow_has_on_record(fitted: FittedFlow) -> None:
    frame = frame_of()
    for name in ("table.csv", "renamed.csv"):
        rows = rows_of(fitted, frame, source=Path(name))
        assert rows.origin == "split"
        np.testing.assert_array_equal(rows.judged, split_rows(400, seed=0)[2])
        assert rows.log_prob[rows.judged].mean() == pytest.approx(fitted.facts.test_log_prob, rel=1e-5)
    shuffled = frame[np.random.default_rng(0).permutation(400)]
    assert rows_of(fitted, shuffled, source=Path("table.csv")).origin == "seen"
    assert rows_of(fitted, frame[:399], source=Path("table.csv")).origin == "seen"
    assert rows_of(fitted, shuffled, source=Path("other.csv")).origin == "other"
    other = rows_of(fitted, frame_of(80, seed=5), source=None)
    assert other.origin == "other" and len(other.judged) == 80


def test_of_many_rows_some_are_taken_with_their_numbers_and_parts(fitted: FittedFlow) -> None:
    frame = frame_of()
    rows = rows_of(fitted, frame, source=Path("table.csv"), most=250, seed=1)
    assert len(rows) == 250 and rows.total == 400 and rows.origin == "split"
    np.testing.assert_array_equal(rows.x[:, 0], frame["a"].to_numpy()[rows.numbers - 1])
    assert set(rows.numbers[rows.judged] - 1) <= set(split_rows(400, seed=0)[2])
    x, _ = rows.tensors(rows.judged)
    assert torch.equal(x, torch.from_numpy(rows.x[rows.judged]))


@pytest.mark.parametrize(("count", "most"), [(10, 4), (3, 5), (1, 1), (0, 2)])
def test_thinned_places_reach_from_the_first_to_the_last(count: int, most: int) -> None:
    places = thinned(np.arange(count) * 7, most)
    assert len(places) == min(count, most) and len(set(places)) == len(places)
    assert count < 2 or (places[0] == 0 and places[-1] == 7 * (count - 1))


def test_a_flow_of_something_else_is_found_out(fitted: FittedFlow) -> None:
    frame = frame_of().with_columns(a=pl.col("a") * 4 + 3)
    rows, comparison = held(fitted, frame)
    chapter = likelihood(fitted, rows, comparison, seed=0)
    assert any("not clearly ahead" in doubt for doubt in chapter.doubts)
    assert any("Real rows are less likely" in doubt for doubt in chapter.doubts)
    assert any("they differ" in doubt for doubt in together(fitted, rows, comparison, seed=0).doubts)
    assert any("do not look like" in doubt for doubt in latents(fitted, rows, seed=0).doubts)
    columns = marginals(fitted, rows, seed=0)
    assert verdicts(columns.section)["a"] == "off" and "off by themselves" in columns.doubts[0]


def test_a_conditional_flow_is_judged_under_the_conditions_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    far = rng.normal(size=400)
    frame = pl.DataFrame({"x": 30 * far + rng.normal(size=400), "y": rng.normal(size=400), "far": far})
    training = TrainConfig(epochs=40, batch_size=64, learning_rate=2e-2)
    flow = fit(frame, model=MAFConfig(layers=1, hidden=(16,)), training=training, data=GIVEN)
    rows, comparison = held(flow, frame[::2])
    assert verdicts(marginals(flow, rows, seed=0).section)["y"] == "agrees"
    chapter = likelihood(flow, rows, comparison, seed=0)
    table = next(b for b in chapter.section.blocks if isinstance(b, Table))
    assert [row[0] for row in table.rows] == ["The flow", "Gaussian given the conditions"]
    assert "Given conditions" in words(chapter.section)
    moved = rows_of(flow, frame.with_columns(pl.col("x").shift(1, fill_value=0.0)), source=None)
    assert verdicts(marginals(flow, moved, seed=0).section)["x"] == "off"


def test_columns_of_other_kinds_are_compared_or_left_out_with_a_reason() -> None:
    rng = np.random.default_rng(0)
    label = np.array(["red", "green", "blue"])[rng.integers(3, size=300)]
    gaps = [None if rng.random() < 0.2 else float(v) for v in rng.normal(size=300)]
    frame = pl.DataFrame(
        {"label": label, "gap": gaps, "flag": rng.random(300) < 0.3, "n": rng.poisson(2.0, 300)}
    )
    flow = fit(frame, training=TRAINING)
    rows, comparison = held(flow, frame)
    for chapter in (latents(flow, rows, seed=0), soundness(flow, rows, seed=0, command="")):
        assert chapter.left_out and chapter.section.lead.startswith("Left out: ")
    assert "Simple models are left out" in words(likelihood(flow, rows, comparison, seed=0).section)
    table = next(b for b in marginals(flow, rows, seed=0).section.blocks if isinstance(b, Table))
    assert [row[1] for row in table.rows] == ["category", "continuous, with gaps", "boolean", "whole numbers"]
    assert "missing" in table.rows[1][5] and "%" in table.rows[0][5]
    part = together(flow, rows, comparison, seed=0).section
    assert any(isinstance(b, Picture) for b in part.blocks) and "A classifier" in part.lead


def test_gaps_and_labels_of_another_share_are_found_out() -> None:
    rng = np.random.default_rng(0)
    flag = rng.random(400) < 0.5
    frame = pl.DataFrame({"flag": flag, "gap": [None if r < 0.1 else float(r) for r in rng.random(400)]})
    flow = fit(frame, training=TRAINING)
    other = frame.with_columns(flag=pl.lit(True), gap=pl.when(flag).then(pl.col("gap")))
    assert verdicts(marginals(flow, rows_of(flow, other, source=None), seed=0).section) == {
        "flag": "off",
        "gap": "off",
    }


def test_rows_of_density_zero_are_counted() -> None:
    frame = frame_of(200).with_columns(share=pl.Series(np.random.default_rng(1).random(200)))
    flow = fitted_to(frame, bounds={"share": (0.0, 1.0)})
    rows, comparison = held(flow, frame.with_columns(pl.col("share") + 0.5))
    outside = int((frame["share"] + 0.5 >= 1).sum())
    assert (
        f"{outside} rows of 200 have no finite log-density"
        in likelihood(flow, rows, comparison, seed=0).doubts[0]
    )
    with pytest.raises(DataError, match="missing"):
        rows_of(flow, frame.drop("share"), source=None)


def test_rows_of_density_zero_are_the_most_anomalous_and_have_their_reasons() -> None:
    frame = frame_of(200).with_columns(share=pl.Series(np.random.default_rng(1).random(200)))
    flow = fitted_to(frame, bounds={"share": (0.0, 1.0), "a": (-9.0, 9.0)})
    odd = frame[:40].with_columns(
        share=pl.when(pl.int_range(40) < 2).then(7.5).otherwise("share"),
        a=pl.when(pl.int_range(40) == 1).then(-70.0).otherwise("a"),
    )
    (table,) = (
        b
        for b in anomalies(flow, rows_of(flow, odd, source=None), seed=0).section.blocks
        if isinstance(b, Table)
    )
    assert [row[:2] for row in table.rows[:2]] == [("1", "−inf"), ("2", "−inf")] and len(table.rows) == 10
    assert "share 7.5 (usual " in table.rows[0][-1] and ": impossible)" in table.rows[0][-1]
    assert "a −70 (usual " in table.rows[1][-1] and table.rows[1][-1].count("impossible") == 2
    assert "inf" not in "".join(row[-1] for row in table.rows) and "inf" not in table.caption


def test_a_row_whose_values_cannot_be_together_says_so(
    fitted: FittedFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(fitted, frame_of(3), source=None)
    nothing = torch.zeros(3, 3)
    found = Explanation(torch.tensor([1.0, torch.inf, 1.0]), nothing, nothing, nothing)
    monkeypatch.setattr("pushforward.report.table_report_anomalies.explain", lambda *args, **kwargs: found)
    table = anomalies(fitted, rows, seed=0).section.blocks[-1]
    assert isinstance(table, Table)
    told = [row[-1] for row in table.rows]
    assert told[1] == "impossible together, though each value may be by itself"
    assert told[0] == told[2] == "no single value; the row is rare as a whole"


def test_a_gaussian_given_a_condition_is_the_least_squares_line() -> None:
    rng = np.random.default_rng(4)
    c = rng.normal(size=(900, 2))
    x = c @ rng.normal(size=(2, 2)) + rng.normal(size=(900, 2)) @ [[1.0, 0.4], [0.0, 0.5]]
    parts = [slice(0, 600), slice(600, 700), slice(700, 900)]
    found = gaussian_given(tuple(x[p] for p in parts), tuple(c[p] for p in parts), regularisation=1e-12)  # type: ignore[arg-type]
    design = np.column_stack([np.ones(600), c[:600]])
    weights = np.linalg.lstsq(design, x[:600], rcond=None)[0]
    error = x[:600] - design @ weights
    residual = x[700:] - np.column_stack([np.ones(200), c[700:]]) @ weights
    spread = error.T @ error / 600
    expected = -0.5 * (residual @ np.linalg.inv(spread) * residual).sum(1)
    expected -= 0.5 * np.log(np.linalg.det(2 * np.pi * spread))
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)


def test_rows_say_whether_they_have_been_seen(fitted: FittedFlow) -> None:
    rows: list[Rows] = [
        rows_of(fitted, frame, source=Path(name))
        for frame, name in ((frame_of(), "table.csv"), (frame_of(50), "table.csv"), (frame_of(50), "new.csv"))
    ]
    for one, said in zip(rows, ("never saw", "flatter", "count as new"), strict=True):
        assert said in one.seen
