"""Tables with columns of several kinds through the commands: fit, info, score with alarms, sample, plot."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runs import done, refused

ROWS = 300


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    size = rng.normal(size=ROWS)
    frame = pl.DataFrame(
        {
            "city": rng.choice(["Bern", "Oslo"], ROWS),
            "rain": np.where(rng.random(ROWS) < 0.4, 0.0, rng.exponential(size=ROWS)),
            "size": [None if gap else float(v) for gap, v in zip(rng.random(ROWS) < 0.2, size, strict=True)],
            "count": rng.poisson(3.0, ROWS),
            "day": [date(2024, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 300, ROWS)],
        }
    )
    frame.write_csv(folder / "t.csv")
    settings = '[model]\nname = "mixed"\nhidden = [16]\nbins = 4\n'
    (folder / "s.toml").write_text(settings)
    result = done(
        "fit", folder / "t.csv", "-o", folder / "t.flow", "--epochs", 2, "--config", folder / "s.toml"
    )
    for words in ("categories   city (2 labels)", "with gaps    size", "point masses rain: 0"):
        assert words in result.out + result.err, result.out
    return folder


def test_info_says_what_the_columns_are(place: Path) -> None:
    out = done("info", place / "t.flow").out
    for words in (
        "2 labels: Bern, Oslo",
        "real numbers; 0 by itself",
        "real numbers; gaps",
        "whole numbers",
        "date",
    ):
        assert words in out, out


def test_alarms_are_as_rare_as_promised_and_have_reasons(place: Path, tmp_path: Path) -> None:
    strange = (
        pl.read_csv(place / "t.csv")
        .head(40)
        .with_columns(rain=pl.when(pl.int_range(40) == 7).then(60.0).otherwise("rain"))
    )
    strange.write_csv(tmp_path / "n.csv")
    result = done(
        "score",
        place / "t.flow",
        tmp_path / "n.csv",
        "-o",
        tmp_path / "s.csv",
        "--alarm-rate",
        0.05,
        "--explain",
    )
    found = pl.read_csv(tmp_path / "s.csv")
    assert found.columns == ["log_prob", "kind", "anomaly_score", "p_value", "alarm", "reasons"]
    np.testing.assert_allclose(found["anomaly_score"], -found["log_prob"])
    assert found["alarm"].to_list() == (found["p_value"] <= 0.05).to_list()
    assert found["alarm"][7] and found["reasons"][7].startswith("rain 60 (+")
    assert found.filter(~pl.col("alarm"))["reasons"].null_count() == found.height - found["alarm"].sum()
    assert f"{found['alarm'].sum()} alarm" in result.err


def test_a_rate_that_cannot_be_promised_and_reasons_without_one(place: Path, tmp_path: Path) -> None:
    arguments = ("score", place / "t.flow", place / "t.csv", "-o", tmp_path / "s.csv")
    refused(
        *arguments,
        "--alarm-rate",
        0.001,
        code=2,
        says=["cannot be promised by 30 calibration rows", "999 rows"],
    )
    refused(*arguments, "--explain", code=2, says=["--alarm-rate is needed too"])


def test_drawn_rows_are_rows_of_the_table(place: Path, tmp_path: Path) -> None:
    done("sample", place / "t.flow", "-n", 200, "-o", tmp_path / "r.parquet")
    drawn, real = pl.read_parquet(tmp_path / "r.parquet"), pl.read_csv(place / "t.csv", try_parse_dates=True)
    assert drawn.schema == real.schema
    assert set(drawn["city"]) <= set(real["city"]) and drawn["size"].null_count() > 0
    assert drawn["city"].null_count() == 0 and (drawn["rain"] == 0).any() and (drawn["count"] >= -50).all()


def test_some_columns_given_others(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.csv"
    done("sample", place / "t.flow", "-n", 20, "-o", output, "--set", "city=Oslo")
    assert set(pl.read_csv(output)["city"]) == {"Oslo"}
    result = done(
        "sample", place / "t.flow", "-n", 20, "-o", output, "--set", "size=", "--set", "day=2024-02-01"
    )
    assert "candidates" in result.err
    drawn = pl.read_csv(output)
    assert drawn["size"].null_count() == 20 and set(drawn["day"]) == {"2024-02-01"}
    refused(
        "sample",
        place / "t.flow",
        "-o",
        output,
        "--set",
        "city=Olso",
        code=3,
        says=["unknown label 'Olso'", "'Oslo' meant"],
    )
    refused("sample", place / "t.flow", "-o", output, "--set", "town=1", code=2, says=["town"])


def test_what_needs_a_bijection_is_refused_and_the_rest_is_drawn(place: Path, tmp_path: Path) -> None:
    done("plot", place / "t.flow", place / "t.csv", "-o", tmp_path / "p.png")
    refused(
        "diagnose", place / "t.flow", place / "t.csv", code=2, says=["mixed density", "no inverse to check"]
    )
    refused("animate", place / "t.flow", "-o", tmp_path / "a.png", code=2, says=["no base to the data"])
    refused(
        "fit",
        place / "t.csv",
        "-o",
        tmp_path / "n.flow",
        "--model",
        "nsf",
        code=3,
        says=["city", "text where a number"],
    )
