"""What the commands that use a fitted model promise: score, sample, info, plot, models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from cli_runs import contents, continuous, done, mixed, refused
from rich.console import Console

from pushforward import MODELS, load, save
from pushforward.flows import score

SCORES = {"plain": ["log_prob", "kind"], "mixed": ["log_prob", "kind", "standard_error"]}


def scores(model: Path, table: Path, output: Path) -> pl.DataFrame:
    done("score", model, table, "-o", output)
    return pl.read_parquet(output) if output.suffix == ".parquet" else pl.read_csv(output)


@pytest.mark.parametrize("name", ["plain", "mixed"])
def test_score_writes_one_row_for_each_row(folder: Path, tmp_path: Path, name: str) -> None:
    table = scores(folder / f"{name}.flow", folder / f"{name}.csv", tmp_path / "s.csv")
    parquet = scores(folder / f"{name}.flow", folder / f"{name}.csv", tmp_path / "s.parquet")
    assert table.columns == parquet.columns == SCORES[name]
    assert table.height == parquet.height == 200
    assert set(table["kind"]) == {"exact" if name == "plain" else "estimate"}
    np.testing.assert_allclose(table["log_prob"], parquet["log_prob"], rtol=1e-6)
    facts = load(folder / f"{name}.flow").facts
    parts = (facts.train_log_prob, facts.valid_log_prob, facts.test_log_prob)
    assert table["log_prob"].mean() == pytest.approx(np.dot([0.8, 0.1, 0.1], parts), abs=1e-4)


def test_scores_of_a_plain_flow_are_its_log_density(folder: Path, tmp_path: Path) -> None:
    table = scores(folder / "conditional.flow", folder / "plain.csv", tmp_path / "s.csv")
    x = torch.from_numpy(continuous().to_numpy().copy())
    exact = load(folder / "conditional.flow").flow.log_prob(x[:, :1], x[:, 1:])
    np.testing.assert_allclose(table["log_prob"], exact.detach(), atol=1e-5)


def test_what_is_not_a_number_is_said(folder: Path, tmp_path: Path) -> None:
    fitted = load(folder / "plain.flow")
    with torch.no_grad():
        for parameter in fitted.flow.transform.parameters():
            parameter.fill_(torch.inf)
    save(fitted, tmp_path / "lost.flow")
    result = done("score", tmp_path / "lost.flow", folder / "plain.csv", "-o", tmp_path / "s.csv")
    assert "200 rows without a finite log-density" in result.err and "diagnose" in result.err
    refused(
        "sample", tmp_path / "lost.flow", "-o", tmp_path / "r.csv", code=4, says=["row 1 drawn", "diagnose"]
    )
    assert not (tmp_path / "r.csv").exists()


@pytest.mark.parametrize("name", ["plain", "mixed", "conditional"])
def test_scores_follow_their_rows_and_columns(folder: Path, tmp_path: Path, name: str) -> None:
    """Rows shuffled, columns turned round and another added: the scores are shuffled with the rows."""
    frame = pl.read_csv(folder / ("mixed.csv" if name == "mixed" else "plain.csv"))
    order = np.random.default_rng(1).permutation(frame.height)
    turned = frame[order].select(frame.columns[::-1]).with_columns(extra=pl.lit("text"))
    turned.write_parquet(tmp_path / "turned.parquet")
    frame.write_parquet(tmp_path / "t.parquet")
    model = folder / f"{name}.flow"
    straight = scores(model, tmp_path / "t.parquet", tmp_path / "straight.parquet")
    shuffled = scores(model, tmp_path / "turned.parquet", tmp_path / "shuffled.parquet")
    for column in straight.columns:
        if column != "kind":
            np.testing.assert_allclose(shuffled[column], straight[column].to_numpy()[order], atol=2e-5)


@pytest.mark.parametrize("name", ["plain", "mixed", "conditional"])
def test_scores_do_not_depend_on_chunks(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = folder / ("mixed.csv" if name == "mixed" else "plain.csv")
    whole = scores(folder / f"{name}.flow", table, tmp_path / "whole.parquet")
    monkeypatch.setattr("pushforward.cli.score._CHUNK_ROWS", 37)
    pieces = scores(folder / f"{name}.flow", table, tmp_path / "pieces.parquet")
    assert pieces.height == whole.height
    for column in whole.columns:
        if column != "kind":
            np.testing.assert_allclose(pieces[column], whole[column], atol=2e-5)


def test_scores_do_not_depend_on_the_row_groups_of_a_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether chunks end where row groups do, within them or beyond several."""
    monkeypatch.setattr("pushforward.cli.score._CHUNK_ROWS", 37)
    monkeypatch.setattr("pushforward.flows.scoring._CHUNK_ROWS", 16)
    frame, model = pl.read_csv(folder / "plain.csv"), folder / "plain.flow"
    exact = score(load(model).flow, torch.from_numpy(frame.to_numpy().copy())).value
    for rows in (1, 10, 37, 40, 200):
        frame.write_parquet(tmp_path / "t.parquet", row_group_size=rows)
        found = scores(model, tmp_path / "t.parquet", tmp_path / "s.parquet")
        np.testing.assert_allclose(found["log_prob"], exact, atol=2e-5)
        assert found.schema == {"log_prob": pl.Float32, "kind": pl.String}


def test_rows_outside_the_support_have_density_zero(folder: Path, tmp_path: Path) -> None:
    done(
        "fit", folder / "plain.csv", "-o", tmp_path / "m.flow", "--config", folder / "tiny.toml",
        "--bounds", "c=0:",
    )  # fmt: skip
    continuous(3).with_columns(c=pl.Series([1.0, -1.0, 2.0])).write_csv(tmp_path / "t.csv")
    run = done("score", tmp_path / "m.flow", tmp_path / "t.csv", "-o", tmp_path / "s.csv")
    assert pl.read_csv(tmp_path / "s.csv")["log_prob"].is_infinite().to_list() == [False, True, False]
    assert "1 row of density 0" in run.err


def test_standard_output_takes_rows_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    run = done("score", folder / "mixed.flow", folder / "mixed.csv", "-o", "-")
    done("score", folder / "mixed.flow", folder / "mixed.csv", "-o", tmp_path / "s.csv")
    assert run.out == (tmp_path / "s.csv").read_text()
    assert "200 rows scored" in run.err
    run = done("sample", folder / "mixed.flow", "-n", 3, "-o", "-")
    done("sample", folder / "mixed.flow", "-n", 3, "-o", tmp_path / "r.csv")
    assert run.out == (tmp_path / "r.csv").read_text()


def test_drawn_rows_have_the_columns_of_the_table(folder: Path, tmp_path: Path) -> None:
    done("sample", folder / "mixed.flow", "-n", 300, "-o", tmp_path / "r.csv")
    drawn, fitted = pl.read_csv(tmp_path / "r.csv"), mixed()
    assert drawn.columns == fitted.columns
    assert drawn.schema == fitted.schema
    assert drawn.height == 300
    np.testing.assert_array_equal(drawn["tenths"], drawn["tenths"].round(1))
    for name in drawn.columns:
        assert abs(float(drawn[name].mean()) - float(fitted[name].mean())) < float(fitted[name].std())  # type: ignore[arg-type]
    scores(folder / "mixed.flow", tmp_path / "r.csv", tmp_path / "s.csv")


def test_one_seed_draws_one_table(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        done("sample", folder / "mixed.flow", "-n", 20, "--seed", seed, "-o", tmp_path / f"{name}.csv")
    one, again, other = ((tmp_path / f"{name}.csv").read_bytes() for name in ("one", "again", "other"))
    assert one == again
    assert one != other


def test_chunks_of_a_large_sample_differ(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushforward.cli.given._CHUNK_ROWS", 16)
    done("sample", folder / "plain.flow", "-n", 50, "-o", tmp_path / "r.parquet")
    drawn = pl.read_parquet(tmp_path / "r.parquet")
    assert drawn.height == drawn.unique().height == 50


def test_low_temperature_draws_closer(folder: Path, tmp_path: Path) -> None:
    for temperature in (0.1, 1.0):
        done(
            "sample", folder / "plain.flow", "-n", 200, "--temperature", temperature,
            "-o", tmp_path / f"{temperature}.parquet",
        )  # fmt: skip
    cold, warm = (pl.read_parquet(tmp_path / f"{t}.parquet") for t in (0.1, 1.0))
    assert float(cold["a"].std()) < 0.5 * float(warm["a"].std())  # type: ignore[arg-type]


def test_each_condition_gets_its_draws_in_order(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws under far-apart conditions lie where the flow itself puts them; pieces do not end with conditions."""
    monkeypatch.setattr("pushforward.cli.given._CHUNK_ROWS", 70)
    conditions = pl.DataFrame({"c": [1.0, 2.0, 3.0], "b": [-3.0, 0.0, 3.0], "name": ["x", "y", "z"]})
    conditions.write_csv(tmp_path / "c.csv")
    run = done(
        "sample", folder / "conditional.flow", "-n", 100, "--context", tmp_path / "c.csv",
        "-o", tmp_path / "r.parquet",
    )  # fmt: skip
    assert "300 rows drawn" in run.err
    assert "100 for each row of" in run.err
    drawn = pl.read_parquet(tmp_path / "r.parquet")
    assert drawn.columns == ["a", "b", "c"]
    assert drawn["b"].to_list() == np.repeat([-3.0, 0.0, 3.0], 100).tolist()
    flow = load(folder / "conditional.flow").flow
    for i in range(3):
        given = torch.tensor([[drawn["b"][100 * i], drawn["c"][100 * i]]], dtype=torch.float64)
        expected = flow.sample((4000,), given, generator=torch.Generator().manual_seed(1))
        part = drawn["a"][100 * i : 100 * (i + 1)]
        error = float(expected.std()) / 10
        assert abs(float(part.mean()) - float(expected.mean())) < 4 * error  # type: ignore[arg-type]


def test_one_condition_can_be_set(folder: Path, tmp_path: Path) -> None:
    done(
        "sample",
        folder / "conditional.flow",
        "-n",
        5,
        "--set",
        "b=2",
        "--set",
        "c=0.5",
        "-o",
        tmp_path / "set.csv",
    )
    pl.DataFrame({"b": [2], "c": [0.5]}).write_csv(tmp_path / "c.csv")
    done(
        "sample", folder / "conditional.flow", "-n", 5, "--context", tmp_path / "c.csv",
        "-o", tmp_path / "table.csv",
    )  # fmt: skip
    assert (tmp_path / "set.csv").read_text() == (tmp_path / "table.csv").read_text()
    assert pl.read_csv(tmp_path / "set.csv").select("b", "c").unique().row(0) == (2, 0.5)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("conditional", (), ["density of a given b, c", "--set b=... --set c=...", "--context"]),
        ("conditional", ("--set", "b=1"), ["a value for 'c' is missing"]),
        ("conditional", ("--set", "b=1", "--set", "cc=1"), ["not conditioned on 'cc'", "Is 'c' meant?"]),
        ("conditional", ("--set", "b"), ["COL=VALUE", "'b'"]),
        ("conditional", ("--set", "b=1", "--context", "t.csv"), ["not both"]),
        ("plain", ("--set", "b=1"), ["is not conditional"]),
    ],
)
def test_conditions_that_do_not_fit_the_model(
    folder: Path, tmp_path: Path, model: str, options: tuple[str, ...], says: list[str]
) -> None:
    arguments = ("sample", folder / f"{model}.flow", "-o", tmp_path / "r.csv", *options)
    refused(*arguments, code=2, says=says, untouched=tmp_path)


def test_info_shows_what_there_is_to_know(folder: Path) -> None:
    text = done("info", folder / "mixed.flow").out
    document = json.loads(done("info", folder / "mixed.flow", "--json").out)
    fitted = load(folder / "mixed.flow")
    assert document["model"] == {
        "name": "nsf", "layers": 1, "bins": 4, "bound": 5.0, "hidden": [8], "activation": "relu",
        "whiten": False,
    }  # fmt: skip
    assert document["parameters"] == sum(p.numel() for p in fitted.flow.parameters())
    assert document["bytes"] == (folder / "mixed.flow").stat().st_size
    assert [column["name"] for column in document["columns"]] == list(fitted.schema.names)
    facts = document["facts"]
    assert facts["test_log_prob"] == fitted.facts.test_log_prob
    assert (facts["source"], facts["stopped"], facts["kind"]) == ("mixed.csv", "epochs", "estimate")
    for words in (
        f"Parameters     {document['parameters']:,}",
        "160 train, 20 validation, 20 test",
        f"test {facts['test_log_prob']:.4f}",
        "n       dequantised  whole numbers",
        "tenths  dequantised  multiples of 0.1",
        "2 of 2, best",
        "pushforward 0.1.0",
    ):
        assert words in text
    assert "b       given" in done("info", folder / "conditional.flow").out


def test_models_are_listed_with_their_fields() -> None:
    text = done("models").out
    for name, config in MODELS.items():
        first = (config.__doc__ or "").splitlines()[0]
        assert f"{name}" in text and first in text
    assert "layers 2, bins 32, bound 5.0, hidden 64x64x64" in text


def test_plot_writes_a_figure(folder: Path, tmp_path: Path) -> None:
    done("plot", folder / "mixed.flow", folder / "mixed.csv", "-o", tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_demo_names_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration itself is tested where it lives."""

    def run_demo(folder: Path, *, quick: bool, console: Console) -> Path:
        console.print(f"quick {quick}")
        return folder / "index.html"

    monkeypatch.setitem(sys.modules, "pushforward.report.demo", SimpleNamespace(run_demo=run_demo))
    out = done("demo", "-o", tmp_path / "d", "--quick").out
    assert out == f"quick True\nOpen {tmp_path / 'd' / 'index.html'} in a browser.\n"


def test_an_output_is_replaced_and_nothing_else_is_left(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("old")
    done("score", folder / "plain.flow", folder / "plain.csv", "-o", tmp_path / "s.csv")
    assert list(contents(tmp_path)) == ["s.csv"]
    assert pl.read_csv(tmp_path / "s.csv").height == 200
