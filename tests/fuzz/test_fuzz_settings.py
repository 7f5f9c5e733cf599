"""Whatever a configuration, schema or settings file says, it is taken as it stands or refused in words."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pushforward.cli.options import UsageError, circles, ends, names, values
from pushforward.cli.settings import read_settings
from pushforward.configs import MODELS, DataConfig, TableSchema, TrainConfig, TrainingFacts

QUICK = settings(max_examples=120, deadline=2000, derandomize=True)
KINDS: list[type[Any]] = [*MODELS.values(), TrainConfig, DataConfig, TableSchema, TrainingFacts]
FIELDS = sorted(
    {name for kind in KINDS for name in kind.__dataclass_fields__} | {"name", "low", "high", "step"}
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([10**18, 2**63, 10**400, -(10**30)])
    | st.floats()
    | st.sampled_from(["a", "relu", "nsf", "1", "1e3", "nan", "", "normal", "\udcff", "é"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), VALUES, max_size=5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(TABLES)
@settings(QUICK, max_examples=60)
def test_configurations(kind: type[Any], fields: dict[str, Any]) -> None:
    adapter = TypeAdapter(kind)
    try:
        config = adapter.validate_python(fields)
    except ValidationError:
        return
    assert not set(fields) - set(kind.__dataclass_fields__)
    assert adapter.validate_python(json.loads(json.dumps(asdict(config)))) == config


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if value is None:
        return '""'
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf") if value != "\udcff" else '"?"'


def survive(path: Path) -> None:
    try:
        found = read_settings(path)
        for name, model in MODELS.items():
            try:
                model(**found.fields_of(model, name))
            except UsageError as error:
                assert str(path) in str(error)
    except UsageError as error:
        assert str(path) in str(error)
        str(error).encode()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toml") / "c.toml"


@given(st.dictionaries(st.sampled_from(["model", "training", "data", "modell"]), VALUES | TABLES, max_size=3))
@QUICK
def test_settings(path: Path, tables: dict[str, Any]) -> None:
    lines = [f"{name} = {as_toml(table)}\n" for name, table in tables.items()]
    path.write_text("".join(lines), encoding="utf-8", errors="replace")
    survive(path)


@given(st.binary(max_size=50) | st.text(st.sampled_from("[]{}=\"'\n\\.,a1# \t"), max_size=50).map(str.encode))
@QUICK
def test_settings_of_any_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    survive(path)


@pytest.mark.parametrize(
    "content",
    ["a = " + "[" * 10**5, "a = " + '{"a" = ' * 10**4, "a = " + "9" * 10**5, "a." * 10**4 + "a = 1", "["],
)
def test_settings_that_go_too_deep(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(UsageError, match=r"not a TOML file|unknown table|must be a table"):
        read_settings(path)


def test_settings_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings(tmp_path)


@given(st.lists(st.text(st.sampled_from('a,"=:.-+1e9nif \n\r\0'), max_size=12), max_size=3))
@QUICK
def test_texts_after_options(texts: list[str]) -> None:
    for read in (names, circles, values, lambda texts: ends("--bounds", texts)):
        try:
            read(texts)
        except UsageError as error:
            assert str(error)
