"""What ``pushforward fit`` promises."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from cli_runs import TINY, Run, continuous, done, mixed, refused, run

from pushforward import FittedFlow, MAFConfig, load
from pushforward.cli.options import UsageError, duration, ends, values


def fit(folder: Path, table: Path, output: Path, *options: object) -> Run:
    return done("fit", table, "-o", output, "--config", folder / "tiny.toml", *options)


def printed(out: str, part: str) -> float:
    match = re.search(rf"^  {part} +(-?[\d.]+) ", out, re.MULTILINE)
    assert match is not None, out
    return float(match[1])


def same(first: FittedFlow, second: FittedFlow) -> bool:
    one, other = first.flow.state_dict(), second.flow.state_dict()
    curves = (first.facts.train_curve, first.facts.valid_curve) == (
        second.facts.train_curve,
        second.facts.valid_curve,
    )
    return curves and one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_output_tells_what_was_found_and_what_came_of_it(folder: Path, tmp_path: Path) -> None:
    result = fit(folder, folder / "mixed.csv", tmp_path / "m.flow", "--drop", "c", "--condition", "b")
    for words in (
        "mixed.csv: 200 rows, 5 columns",
        "continuous   a\n",
        "dequantised  n: whole numbers",
        "dequantised  tenths: multiples of 0.1",
        "given        b",
        "left out     c",
        "Rows: 160 to train, 20 to validate, 20 to test",
        "nsf (layers 1, bins 4,",
        "epoch 2/2  NLL train",
        "of a, n, tenths given b in nats, units of the data (estimate",
        f"Saved {tmp_path / 'm.flow'}",
        "Next: pushforward score",
    ):
        assert words in result.out
    facts = load(tmp_path / "m.flow").facts
    for part, value in (
        ("train", facts.train_log_prob),
        ("validation", facts.valid_log_prob),
        ("test", facts.test_log_prob),
    ):
        assert printed(result.out, part) == pytest.approx(value, abs=1e-4)


def test_printed_figures_are_means_of_the_scores(folder: Path, tmp_path: Path) -> None:
    """With the table itself to validate on, training and test rows together are all of its rows."""
    result = fit(folder, folder / "plain.csv", tmp_path / "m.flow", "--valid", folder / "plain.csv")
    assert "Rows: 180 to train, 200 to validate, 20 to test" in result.out
    done("score", tmp_path / "m.flow", folder / "plain.csv", "-o", tmp_path / "s.csv")
    mean = float(pl.read_csv(tmp_path / "s.csv")["log_prob"].mean())  # type: ignore[arg-type]
    assert printed(result.out, "validation") == pytest.approx(mean, abs=2e-4)
    parts = 180 * printed(result.out, "train") + 20 * printed(result.out, "test")
    assert parts / 200 == pytest.approx(mean, abs=2e-4)


def test_one_seed_gives_one_model_and_another_seed_another(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        fit(folder, folder / "mixed.csv", tmp_path / f"{name}.flow", "--seed", seed)
    one, again, other = (load(tmp_path / f"{name}.flow") for name in ("one", "again", "other"))
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".npz", ".tsv", ".csv.gz"])
def test_kind_of_file_does_not_matter(folder: Path, tmp_path: Path, suffix: str) -> None:
    frame = continuous().rename({"a": "x0", "b": "x1", "c": "x2"})
    table = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        frame.write_parquet(table)
    elif suffix == ".npy":
        np.save(table, frame.to_numpy())
    elif suffix == ".npz":
        np.savez(table, X=frame.to_numpy(), y=np.zeros(frame.height))
    elif suffix == ".tsv":
        frame.write_csv(table, separator="\t")
    else:
        frame.write_csv(table, compression="gzip")
    frame.write_csv(tmp_path / "reference.csv")
    fit(folder, table, tmp_path / "m.flow")
    fit(folder, tmp_path / "reference.csv", tmp_path / "reference.flow")
    assert same(load(tmp_path / "m.flow"), load(tmp_path / "reference.flow"))


def test_rows_of_weight_zero_are_as_if_they_were_not_there(folder: Path, tmp_path: Path) -> None:
    frame = continuous().with_columns(w=pl.Series(np.arange(200) % 4 / 2.0))
    frame.write_csv(tmp_path / "all.csv")
    frame.filter(pl.col("w") > 0).write_csv(tmp_path / "some.csv")
    frame.filter(pl.col("w") > 0).with_columns(w=1.0).write_csv(tmp_path / "equal.csv")
    for name in ("all", "some", "equal"):
        result = fit(folder, tmp_path / f"{name}.csv", tmp_path / f"{name}.flow", "--weights", "w")
        assert ("50 of weight 0 left out" in result.out) == (name == "all")
    every, some, equal = (load(tmp_path / f"{name}.flow") for name in ("all", "some", "equal"))
    assert same(every, some)
    assert not same(some, equal)


def test_rows_of_a_group_stay_in_one_part(folder: Path, tmp_path: Path) -> None:
    """Each group has a value of its own, so a part of the rows tells which groups it holds."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(25), 8)
    frame = pl.DataFrame(
        {"a": rng.normal(size=200), "b": rng.normal(size=200), "g": [f"g{i}" for i in group]}
    )
    frame.write_csv(tmp_path / "t.csv")
    result = fit(folder, tmp_path / "t.csv", tmp_path / "m.flow", "--group", "g")
    assert "left out     g (group)" in result.out
    facts = load(tmp_path / "m.flow").facts
    assert all(rows % 8 == 0 for rows in (facts.train_rows, facts.valid_rows, facts.test_rows))


def test_options_win_over_the_file_and_the_file_over_the_defaults(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        "[model]\nlayers = 1\nhidden = [4]\n[training]\nepochs = 1\nema = 0.5\nseed = 3\n"
        '[data]\ndrop = ["a"]\nbounds = { c = [0, inf] }\n'
    )
    done(
        "fit", folder / "plain.csv", "-o", tmp_path / "m.flow", "--config", tmp_path / "c.toml",
        "--model", "maf", "--epochs", 2, "--drop", "b", "--max-time", "1h", "--learning-rate", 1e-4,
    )  # fmt: skip
    fitted = load(tmp_path / "m.flow")
    config = fitted.facts.config
    assert fitted.model == MAFConfig(layers=1, hidden=(4,))
    assert (config.epochs, config.ema, config.seed, config.max_seconds) == (2, 0.5, 3, 3600.0)
    assert (config.learning_rate, config.batch_size) == (1e-4, 64)
    assert fitted.schema.names == ("a", "c")
    assert (fitted.schema.columns[1].low, fitted.schema.columns[1].high) == (0.0, None)


def test_declared_supports_are_kept(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"angle": rng.uniform(0, 360, 100), "share": rng.uniform(0, 1, 100)})
    frame.write_csv(tmp_path / "t.csv")
    options = ("--bounds", "share=0:1", "--periodic", "angle=0:360")
    result = fit(folder, tmp_path / "t.csv", tmp_path / "m.flow", *options)
    assert "angle: circle [0, 360), share: (0, 1)" in result.out
    done("sample", tmp_path / "m.flow", "-n", 500, "-o", tmp_path / "r.parquet")
    drawn = pl.read_parquet(tmp_path / "r.parquet")
    assert drawn["angle"].is_between(0, 360).all()
    assert drawn["share"].is_between(0, 1).all()


def test_a_handful_of_rows_is_enough(folder: Path, tmp_path: Path) -> None:
    """Fewer rows than the default batch: the batch is cut to them."""
    continuous(25).write_csv(tmp_path / "t.csv")
    done("fit", tmp_path / "t.csv", "-o", tmp_path / "m.flow", "--epochs", 1)
    facts = load(tmp_path / "m.flow").facts
    assert facts.config.batch_size == facts.train_rows < 25


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("0.5h", 1800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text, "--max-time") == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "10x", "m10", "1s1h", "nan", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time such as"):
        duration(text, "--max-time")


def test_column_options_take_names_with_equal_signs_and_open_ends() -> None:
    assert ends("--bounds", ["a=b=-1:", "c=:2.5", "d=-inf:inf"]) == {
        "a=b": (-1.0, None), "c": (None, 2.5), "d": (None, None),
    }  # fmt: skip
    # Another way to write a number may be a label, and is read as a number where the column holds numbers.
    assert values(["a=b=-3", "c=1e3", "d=2.5"]) == {"a=b": -3, "c": "1e3", "d": 2.5}


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--model", "nfs"), 2, ["no model 'nfs'", "nsf-coupling", "Is 'nsf' meant?"]),
        (("--max-time", "soon"), 2, ["--max-time", "'soon'"]),
        (("--learning-rate", "-1"), 2, ["learning_rate must be positive"]),
        (("--bounds", "a=1"), 2, ["--bounds", "COL=LOW:HIGH", "'a=1'"]),
        (("--bounds", "a=0:1", "--bounds", "a=0:2"), 2, ["'a' is given twice"]),
        (("--periodic", "a=0:"), 2, ["'a' needs both ends"]),
        (("--bounds", "a=1:0"), 3, ["plain.csv", "'a'", "low must be below high"]),
        (("--bounds", "a=6:9"), 3, ["plain.csv, row 1, column 'a'", "Widen the bound"]),
        (("--drop", "heigth"), 3, ["plain.csv, column 'heigth'", "the table has 'a', 'b', 'c'"]),
        (("--drop", "a", "--condition", "a"), 3, ["column 'a'", "both"]),
        (("--drop", "a,b,c"), 3, ["no column is left to model"]),
        (("--batch-size", "161"), 3, ["a batch of 161 rows", "160 training rows", "160 or less"]),
        (("--weights", "a", "--seed", "1", "--drop", "a"), 3, ["column 'a'"]),
        (("--model", "nice", "--drop", "b,c"), 2, ["nice needs at least 2 features, got 1"]),
        (("--model", "maf", "--periodic", "b=-9:9"), 2, ["maf", "periodic", "use nsf"]),
        (("--valid", "nowhere.csv"), 3, ["nowhere.csv", "no such file"]),
        (("--config", "nowhere.toml"), 2, ["nowhere.toml", "no such file"]),
    ],
)
def test_options_that_cannot_be_meant(
    folder: Path, tmp_path: Path, options: tuple[str, ...], code: int, says: list[str]
) -> None:
    arguments = ("fit", folder / "plain.csv", "-o", tmp_path / "m.flow", *options)
    refused(*arguments, code=code, says=says, untouched=tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[training]\nepoch = 3",
            ["[training]", "unknown field 'epoch'", "known are epochs", "Is 'epochs' meant?"],
        ),
        ("[training]\nepochs = 'many'", ["[training], epochs", "valid integer", "'many'"]),
        ("[training]\nepochs = 0", ["[training]", "epochs must be at least 1, got 0"]),
        ("[model]\nname = 'maff'", ["[model] name", "no model 'maff'", "realnvp", "Is 'maf' meant?"]),
        ("[model]\nlayers = 3", ["[model]", "name is missing", "nsf"]),
        ("[model]\nname = 'maf'\nbins = 3", ["[model] of maf", "unknown field 'bins'", "layers, hidden"]),
        ("[model]\nname = 'nice'\nprior = 'flat'", ["[model] of nice", "'logistic' or 'normal'", "'flat'"]),
        ("[model]\nname = 'maf'\nactivation = 'rleu'", ["activation", "relu", "'rleu'"]),
        ("[models]\nname = 'maf'", ["unknown table [models]", "Is 'model' meant?"]),
        ("model = 'maf'", ["model must be a table"]),
        ("[data]\nbounds = { a = [1] }", ["[data], bounds.a"]),
        ("[training\n", ["not a TOML file", "line 1"]),
    ],
)
def test_settings_that_cannot_be_meant(folder: Path, tmp_path: Path, text: str, says: list[str]) -> None:
    settings = tmp_path / "c.toml"
    settings.write_text(text)
    arguments = ("fit", folder / "plain.csv", "-o", tmp_path / "m.flow", "--config", settings)
    refused(*arguments, code=2, says=says, untouched=tmp_path)


def test_unknown_options_are_refused(folder: Path, tmp_path: Path) -> None:
    result = run("fit", folder / "plain.csv", "-o", tmp_path / "m.flow", "--epoch", 3)
    assert result.code == 2
    assert "--epoch" in result.err
    assert run("fit", folder / "plain.csv").code == 2
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_tests_are_read(folder: Path) -> None:
    """The others would pass with any model, only slower."""
    assert (folder / "tiny.toml").read_text() == TINY
    assert load(folder / "mixed.flow").model.hidden == (8,)  # type: ignore[union-attr]
    assert mixed().columns == ["a", "b", "c", "n", "tenths"]


def test_degenerate_tables_are_said_to_be_and_the_saved_flow_remembers(folder: Path, tmp_path: Path) -> None:
    frame = continuous().with_columns(b=pl.when(pl.col("a") > 6).then(0.25).otherwise(pl.col("b")))
    share = frame.filter(pl.col("b") == 0.25).height / frame.height
    frame.with_columns(d=2 * pl.col("a") + 1).write_csv(tmp_path / "t.csv")
    out = fit(folder, tmp_path / "t.csv", tmp_path / "m.flow").out
    named = re.search(r"Note: One value fills a good part of column 'b' \((\d+)% are 0.25\)", out)
    assert named is not None, out
    assert abs(int(named[1]) / 100 - share) < 0.1
    assert "Note: Column 'd' is a linear function of the others" in out
    assert [note.split(" ", 1)[0] for note in load(tmp_path / "m.flow").facts.notes] == ["One", "Column"]
    assert "Note: " not in fit(folder, folder / "mixed.csv", tmp_path / "n.flow").out
