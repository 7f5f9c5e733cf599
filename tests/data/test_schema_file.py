"""A schema file says what the schema says, its hints hold, and what is wrong in it is named."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runs import done, refused, run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pushforward import load
from pushforward.configs.schema import KINDS, ColumnSchema, TableSchema
from pushforward.data import infer_schema, to_matrix
from pushforward.data.schema_file import read_schema, write_schema
from pushforward.data.schema_hints import hints
from pushforward.errors import DataError
from random_tables import frames

QUICK = settings(max_examples=50, deadline=None, derandomize=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
ENDS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def schemas(draw: st.DrawFn) -> TableSchema:
    names = draw(st.lists(TEXT, min_size=1, max_size=5, unique=True))
    drawn = [draw(column_schemas(name)) for name in names]
    given_from = draw(st.integers(1, len(drawn)))
    return TableSchema(columns=tuple(drawn[:given_from]), context=tuple(drawn[given_from:]))


@st.composite
def column_schemas(draw: st.DrawFn, name: str) -> ColumnSchema:
    kind = draw(st.sampled_from(KINDS))
    column = ColumnSchema(
        name=name, kind=kind, missing=draw(st.booleans()), categories=("",) * (kind == "category")
    )
    if kind == "category":
        return replace(column, categories=tuple(draw(st.lists(TEXT, min_size=1, max_size=30, unique=True))))
    if column.labelled:
        return column
    low, high = sorted([draw(ENDS), draw(ENDS)], key=lambda end: (end is None, end))
    shape = draw(st.sampled_from(["plain", "step", "atoms", "circle"]))
    fields: dict[str, object] = {"low": low, "high": None if high == low else high}
    fields["tails"] = draw(st.none() | st.booleans())
    fields["timezone"] = draw(st.none() | st.just("Europe/Paris")) if kind == "datetime" else None
    if shape == "step":
        fields["step"] = draw(st.floats(1e-300, 1e300))
    elif shape == "atoms":
        fields["atoms"] = tuple(draw(st.lists(ENDS.filter(lambda x: x is not None), unique=True, max_size=3)))
    elif shape == "circle" and fields["high"] is not None:
        fields["periodic"] = True
    return replace(column, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schema") / "s.toml"


@given(schemas())
@example(TableSchema(columns=(ColumnSchema(name='"\\\x7f\x1f\u0085\n'),)))
@QUICK
def test_a_schema_is_read_as_it_was_written(path: Path, schema: TableSchema) -> None:
    path.write_text(write_schema(schema), encoding="utf-8", newline="\n")
    assert read_schema(path) == schema


@given(frames())
@settings(QUICK, max_examples=25)
def test_comments_change_nothing(path: Path, frame: pl.DataFrame) -> None:
    first, *others = frame.columns
    schema = infer_schema(frame, condition=others[1:2], exclude=others[:1])
    path.write_text(write_schema(schema, frame=frame), encoding="utf-8", newline="\n")
    assert read_schema(path) == schema
    assert schema.names[0] == first
    assert path.read_text().count('role = "drop"\n') == len(others[:1])


def uncommented(text: str, table: str, reason: str) -> str:
    """The file with a hint taken, and the fields that it stands instead of left out."""
    head, tail = text.split(f"[columns.{table}]", 1)
    body, *rest = tail.split("\n\n", 1)
    before, after = body.split(f"# {reason}", 1)
    instead, lines = after.split(":\n", 1)
    for name in re.findall(r"\w+", instead.removeprefix(", instead of ")):
        before = re.sub(rf"(?m)^{name} = .*\n", "", before)
    taken = re.match(r"(# \w+ = .*\n?)+", lines)
    assert taken is not None
    body = before + taken[0].replace("# ", "")
    return "\n\n".join([f"{head}[columns.{table}]{body}", *rest])


HINTED = {
    "hour": np.linspace(0, 23.9, 40),
    "start_hour": np.arange(40) % 24,
    "windDirection": np.linspace(1, 359, 40),
    "month": 1 + np.arange(40) % 12,
    "pay": np.where(np.arange(40) % 3 == 0, 0.0, np.linspace(1, 9, 40)),
    "share": np.linspace(0.01, 0.99, 40),
    "visits": np.arange(40) ** 2,
    "far": np.tan(np.linspace(-1.57, 1.57, 40)),
    "grade": 1 + np.arange(40) % 4,
    "zip": [f"{k % 4:03}" for k in range(40)],
    "key": [f"{2**60 + k % 4}" for k in range(40)],
    "truth": np.arange(40) % 2 == 0,
}
DEFAULTS = {"kind": "number", "categories": (), "atoms": ()}


def test_every_hint_holds_when_it_is_taken(path: Path) -> None:
    frame = pl.DataFrame(HINTED).with_columns(at=pl.Series(range(40)).cast(pl.Int64).cast(pl.Time))
    schema = infer_schema(frame)
    text = write_schema(schema, frame=frame)
    seen = set()
    for column in schema.columns:
        for hint in hints(frame[column.name], column):
            path.write_text(uncommented(text, f'"{column.name}"', hint.reason))
            changed = read_schema(path).columns[schema.names.index(column.name)]
            gone = {name: DEFAULTS.get(name) for name in hint.instead}
            assert changed == replace(column, **(gone | hint.fields))  # type: ignore[arg-type]
            to_matrix(frame, [changed], check_support=True)
            seen |= {(column.name, name) for name in hint.fields}
    for name, field in [
        ("hour", "periodic"), ("start_hour", "periodic"), ("windDirection", "periodic"), ("month", "periodic"),
        ("pay", "low"), ("share", "high"), ("visits", "low"), ("far", "tails"), ("grade", "categories"),
        ("at", "periodic"), ("zip", "step"),
    ]:  # fmt: skip
        assert (name, field) in seen
    assert not {"key", "truth"} & {name for name, _ in seen}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", r"not a TOML file: .*\. Write one with"),
        ("", r"has no tables \[columns\.NAME\]\. Write one with"),
        ("[colums.a]", r"unknown table \[colums\]\. Write one with"),
        ("[columns]\na = 3", "column 'a': must be a table, got 3"),
        ("[columns.a]\nhihg = 3", r"column 'a': unknown field 'hihg'; known are .*\. Is 'high' meant\?"),
        ("[columns.a]\nname = 'b'", "column 'a': unknown field 'name'"),
        ("[columns.a]\nrole = 'out'", "column 'a': role must be given or drop, or left out, got 'out'. Mend it"),
        ("[columns.a]\nrole = ['drop']", "column 'a': role must be given or drop"),
        ("[columns.a]\nlow = '0'", "column 'a': low: input should be a valid number, got '0'. Mend it"),
        ("[columns.a]\nlow = 2024-01-01", "column 'a': low: input should be a valid number, got '2024-01-01'"),
        ("[columns.a]\nlow = nan", "column 'a': low must be finite, got nan"),
        ("[columns.a]\nlow = 1\nhigh = 1.0", "column 'a': low must be below high, got 1.0 and 1.0"),
        ("[columns.a]\nmissing = 1", "column 'a': missing: input should be a valid boolean, got 1"),
        ("[columns.a]\nstep = true", "column 'a': step: input should be a valid number, got True"),
        ("[columns.a]\nkind = 'colour'", "column 'a': kind must be one of number, category"),
        ("[columns.a]\nkind = 'category'", "column 'a': a category needs categories"),
        ("[columns.a]\nkind = 'category'\ncategories = [1]", r"column 'a': categories\.0: input should be a valid"),
        ("[columns.a]\nkind = 'category'\ncategories = ['x', 'x']", "each label may stand once, got 'x' twice"),
        ("[columns.a]\nrole = 'drop'", "no column is left to model"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_schema_file_is_named(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}[:,] .*{message}") as caught:
        read_schema(path)
    assert "\n" not in str(caught.value) and caught.value.remedy


@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from("[]{}=\"'\n.,a1# columnsrolehigh"), max_size=60).map(str.encode)
)
@settings(QUICK, max_examples=150)
def test_any_bytes_are_a_schema_or_refused(path: Path, content: bytes) -> None:
    for text in (content, b"[columns.a]\n" + content):
        path.write_bytes(text)
        try:
            read_schema(path)
        except DataError as error:
            assert str(path) in str(error)


def people(rows: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "id": [f"n{i}" for i in range(rows)],
            "city": rng.choice(["Rome", "Oslo"], rows),
            "hour": rng.uniform(0, 24, rows),
            "pay": rng.gamma(2.0, size=rows),
            "w": rng.uniform(1, 2, rows),
        }
    )


def test_a_schema_is_written_changed_and_fitted_with(tmp_path: Path) -> None:
    table, schema, model = tmp_path / "t.csv", tmp_path / "s.toml", tmp_path / "m.flow"
    people().write_csv(table)
    tiny = tmp_path / "tiny.toml"
    tiny.write_text(
        '[model]\nname = "mixed"\nhidden = [8]\nbins = 4\n[training]\nepochs = 1\nbatch_size = 16\n'
    )
    refused("schema", table, code=3, says=["column 'id'", "names of rows", "--drop"], untouched=tmp_path)
    printed = done("schema", table, "--drop", "id,w", "--condition", "city").out
    done("schema", table, "--drop", "id,w", "--condition", "city", "-o", schema)
    assert schema.read_text() == printed
    text = uncommented(printed, '"hour"', "If its ends are one point")
    schema.write_text(text)
    result = done("fit", table, "-o", model, "--schema", schema, "--config", tiny, "--weights", "w")
    assert "given        city" in result.out and "left out     id, w (weights)" in result.out
    assert load(model).schema == read_schema(schema)
    again = tmp_path / "again.toml"
    again.write_text(done("schema", model).out)
    assert read_schema(again) == read_schema(schema)


def test_what_does_not_go_with_a_schema_is_refused(tmp_path: Path) -> None:
    table, schema = tmp_path / "t.csv", tmp_path / "s.toml"
    people().drop("id").write_csv(table)
    done("schema", table, "-o", schema)
    fit = ("fit", table, "-o", tmp_path / "m.flow", "--schema", schema)
    for option, value in (("condition", "w"), ("drop", "w"), ("bounds", "w=0:"), ("periodic", "hour=0:24")):
        refused(*fit, f"--{option}", value, code=2, says=["--schema: says what all columns are", option])
    for option in ("--weights", "--group"):
        refused(*fit, option, "w", code=2, says=[f"{option}: 'w' is to be modelled", 'role = "drop"'])
    other = schema.read_text().replace('categories = ["Oslo", "Rome"]', 'categories = ["Oslo"]')
    schema.write_text(other)
    refused(*fit, code=3, says=[str(table), "column 'city': unknown label 'Rome'; known are 'Oslo'"])
    schema.write_text(other.replace('"city"', '"town"'))
    refused(*fit, code=3, says=[f"{table}: column 'town' missing"])
    refused(*fit[:-1], tmp_path / "none.toml", code=3, says=["none.toml: no such file"])
    refused("schema", table, "-o", tmp_path / "s.txt", code=5, says=[".toml"])
    assert run("schema", schema).code == 3
