"""The files behind the messages of the page on troubleshooting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from pushforward.artifact import load, save
from pushforward.cli import main
from pushforward.cli.parts import job_of
from pushforward.configs import DataConfig, default_training
from pushforward.data import read_table
from pushforward.training import Checkpoints, fit_split, split_table


def make_troubles(folder: Path) -> None:
    """Tables and saved flows, each with one thing wrong with it, and three flows that are sound."""
    table = pl.read_csv(folder / "table.csv")
    few = table.head(60)
    tables = {
        "gaps.csv": few.with_columns(income=pl.Series([None, *few["income"][1:]])),
        "words.csv": few.with_columns(city=pl.lit("Rome")),
        "dates.csv": few.with_columns(day=pl.lit("2024-05-01")),
        "dash.csv": few.with_columns(age=pl.Series([few["age"][0], "-", *few["age"][2:]], strict=False)),
        "units.csv": few.with_columns(weight=pl.Series([f"{50 + i} kg" for i in range(60)])),
        "days.csv": few.with_columns(day=pl.Series(["2024-05-01", "02/05/2024"] * 30)),
        "names.csv": few.with_columns(name=pl.Series([f"n{i}" for i in range(60)])),
        "blank.csv": few.with_columns(note=pl.lit(None)),
        "cities.csv": few.with_columns(city=pl.Series(["Rome", "Oslo"] * 30)),
        "other.csv": few.with_columns(city=pl.Series(["Rome", "Oslo", "Romme"] * 20)),
        "commas.csv": few.with_columns(age=pl.lit("41,5")),
        "endless.csv": few.with_columns(income=pl.Series([float("inf"), *few["income"][1:]])),
        "constant.csv": few.with_columns(country=pl.lit(49)),
        "short.csv": few.head(5),
        "ids.csv": few.with_columns(id=pl.Series(range(2**60, 2**60 + 60))),
        "halves.csv": few.with_columns(visits=pl.col("visits") + 0.5),
        "edges.csv": few.with_columns(share=pl.Series([0.0, *few["share"][1:]])),
        "clock.csv": few.with_columns(hour=pl.Series([24.0, *few["hour"][1:]])),
        "fewer.csv": few.drop("income"),
        "zeros.csv": table.with_columns(income=pl.when(pl.col("visits") <= 1).then(0.0).otherwise("income")),
        "euros.csv": table.with_columns(euros=pl.col("income") * 1.95583 + 1),
        "copies.csv": pl.concat([table.head(600), table.head(90)]),
    }
    for name, frame in tables.items():
        frame.write_csv(folder / name)
    texts = {
        "nameless.csv": "1,2,3\n4,5,6\n",
        "ragged.csv": "a,b\n1,2\n3,4,5\n",
        "quotes.csv": 'a,b\n1,x\n2,"y\n',
        "trailing.csv": "a,b\n1,2,\n3,4,\n",
        "comment.csv": "# by a device\na,b\n1,2\n",
        "bars.csv": "a|b\n1|2\n3|4\n",
        "typing.toml": "[columns.age]\nhihg = 90.0\n",
        "order.toml": "[columns.age]\nlow = 90.0\nhigh = 18.0\n",
        "types.toml": '[columns.age]\nlow = "18"\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    few.write_parquet(folder / "cut.parquet")
    (folder / "cut.parquet").write_bytes((folder / "cut.parquet").read_bytes()[:-20])
    (folder / "table.parquet").write_bytes((folder / "table.csv").read_bytes())
    (folder / "table.xlsx").write_bytes(b"PK\x03\x04")
    (folder / "typo.toml").write_text("[training]\nlearning_rat = 1e-3\n")
    fit("table.csv", "-o", "table.flow")
    fit("cities.csv", "-o", "cities.flow")
    fit("table.csv", "-o", "clock.flow", "--periodic", "hour=0:24")
    fit("table.csv", "-o", "given_age.flow", "--condition", "age")
    whole = (folder / "table.flow").read_bytes()
    (folder / "cut.flow").write_bytes(whole[: len(whole) // 2])
    changed = bytearray(whole)
    changed[-1] ^= 1
    (folder / "changed.flow").write_bytes(changed)
    (folder / "picture.flow").write_bytes(b"\x89PNG" + bytes(100))
    break_flow(folder)
    leave_unfinished(folder)
    leave_parts(folder)
    (folder / "unlike").mkdir()
    for name, ages in (("a", [30, 41]), ("b", ["30", "41"])):
        pl.DataFrame({"age": ages}).write_parquet(folder / "unlike" / f"{name}.parquet")


def break_flow(folder: Path) -> None:
    """A flow whose every layer squeezes the data as far as it can: no digit comes back."""
    fit("table.csv", "-o", "broken.flow", "--model", "maf")
    fitted = load(folder / "broken.flow")
    with torch.no_grad():
        for name, parameter in fitted.flow.transform.named_parameters():
            if "last" in name:
                parameter.fill_(-30.0 if name.endswith("bias") else 0.0)
    save(fitted, folder / "broken.flow")


def leave_unfinished(folder: Path) -> None:
    """The checkpoint of a fit of 20 epochs that was interrupted after the first."""

    def interrupt(record: object) -> None:
        raise KeyboardInterrupt

    split = split_table(read_table(folder / "table.csv"), DataConfig(), seed=0)
    training = replace(default_training(len(split.train)), epochs=20)
    checkpoints = Checkpoints(folder / "killed.flow.checkpoints", every=0.0)
    fit_split(split, training=training, checkpoints=checkpoints, on_epoch=interrupt)


def leave_parts(folder: Path) -> None:
    """What is left of scoring the table by a flow that was replaced since."""
    job = job_of(
        "score", folder / "table.flow", {"table": folder / "table.csv"}, alarm_rate=None, explain=False
    )
    manifest = {"format": 1, "job": job | {"model": "of another"}, "parts": [], "state": {}}
    (folder / "killed.csv.parts").mkdir()
    (folder / "killed.csv.parts" / "manifest.json").write_text(json.dumps(manifest))


def fit(*arguments: str) -> None:
    code = main(["fit", *arguments])
    assert code == 0, f"fit ended with {code}"
