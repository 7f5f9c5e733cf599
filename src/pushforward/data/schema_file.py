"""The schema of a table as a TOML file that a person reads, corrects and fits with."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import polars as pl

from ..configs.schema import ColumnSchema, TableSchema
from ..errors import DataError
from .names import listed, suggestion
from .schema_hints import described, hints

_ROLES = ("given", "drop")
_DEFAULTS = {f.name: f.default for f in fields(ColumnSchema) if f.default is not MISSING}
_FIELDS = ("role", *_DEFAULTS)
_HEAD = """\
# The columns of a table, each with what is not as by default; lines that begin with # say what was found, and what may
# be changed. role = "given" is for columns that the others are conditioned on, role = "drop" for those left out.
"""
_LINE = 110
_MEND = 'Mend it, or write the schema anew with "pushforward schema TABLE".'
_REMEDY = 'Write one with "pushforward schema TABLE", and change that.'


def write_schema(schema: TableSchema, *, frame: pl.DataFrame | None = None) -> str:
    r"""The schema as TOML: a table ``[columns."name"]`` for each column, in the order of the model.

    Only fields that differ from their defaults are written. With a frame, comments say what its columns hold and
    suggest what may be changed, and columns that are not in the schema are listed with ``role = "drop"``.

    Args:
        schema: The columns.
        frame: The table that they were found in.

    Example:
        >>> columns = (ColumnSchema(name="n", step=1.0, low=0.0), ColumnSchema(name="age"))
        >>> text = write_schema(TableSchema(columns=columns[:1], context=columns[1:]))
        >>> print(text.split("\n\n", 1)[1])
        [columns."n"]
        low = 0.0
        step = 1.0
        <BLANKLINE>
        [columns."age"]
        role = "given"
        <BLANKLINE>
    """
    parts = [_HEAD]
    for column in schema.columns:
        series = None if frame is None else frame[column.name]
        parts.append(_table(column, series, {}, suggest=True))
    for column in schema.context:
        series = None if frame is None else frame[column.name]
        parts.append(_table(column, series, {"role": "given"}, suggest=False))
    known = {*schema.names, *schema.context_names}
    others = [] if frame is None else [name for name in frame.columns if name not in known]
    parts += [_table(ColumnSchema(name=name), None, {"role": "drop"}, suggest=False) for name in others]
    return "\n".join(parts)


def read_schema(path: str | Path) -> TableSchema:
    r"""Reads the schema of a table from a TOML file, such as `write_schema` makes.

    Args:
        path: The file.

    Returns:
        The columns to model and those given, each in the order of the file.

    Raises:
        DataError: No such file, no TOML, an unknown field, or a value that a column cannot have; the text names the
            file and the column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "schema.toml"
        ...     _ = file.write_text('[columns.size]\nlow = 0\n[columns.id]\nrole = "drop"')
        ...     read_schema(file).columns
        (ColumnSchema(name='size', low=0.0, high=None, periodic=False, step=None, ...),)
    """
    path = Path(path)
    tables = _tables(path)
    modelled: list[ColumnSchema] = []
    given: list[ColumnSchema] = []
    for name, table in tables.items():
        role, column = _column(name, table, path)
        if role != "drop":
            (given if role == "given" else modelled).append(column)
    try:
        return TableSchema(columns=tuple(modelled), context=tuple(given))
    except ValueError as error:
        remedy = 'Leave the role of one out, or write it with "pushforward schema TABLE".'
        raise DataError("no column is left to model", source=path, remedy=remedy) from error


def _table(column: ColumnSchema, series: pl.Series | None, role: Mapping[str, str], *, suggest: bool) -> str:
    lines = [f"[columns.{_toml(column.name)}]"]
    if series is not None:
        lines.append(f"# {described(series, column)}")
    lines += [_assigned(name, value) for name, value in {**role, **_chosen(column)}.items()]
    for hint in hints(series, column) if series is not None and suggest else ():
        instead = f", instead of {_enumerated(hint.instead)}" if hint.instead else ""
        lines.append(f"# {hint.reason}{instead}:")
        lines += [f"# {_assigned(name, value)}" for name, value in hint.fields.items()]
    return "\n".join(lines) + "\n"


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _chosen(column: ColumnSchema) -> dict[str, object]:
    """The fields of a column that are not as by default."""
    return {name: getattr(column, name) for name in _DEFAULTS if getattr(column, name) != _DEFAULTS[name]}


def _assigned(name: str, value: object) -> str:
    line = f"{name} = {_toml(value)}"
    if len(line) <= _LINE or not isinstance(value, tuple):
        return line
    return "\n".join([f"{name} = [", *(f"    {_toml(item)}," for item in value), "]"])


def _toml(value: object) -> str:
    """A string, number, truth value or tuple of these as TOML, whose strings are those of JSON but for one control."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _tables(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("no such file", source=path, remedy=suggestion(path.name, beside)) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", source=path) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not a TOML file: {error}", source=path, remedy=_REMEDY) from error
    tables = content.pop("columns", {})
    if content:
        raise DataError(f"unknown table [{next(iter(content))}]", source=path, remedy=_REMEDY)
    if not isinstance(tables, dict) or not tables:
        raise DataError("has no tables [columns.NAME]", source=path, remedy=_REMEDY)
    return tables


def _column(name: str, table: object, path: Path) -> tuple[str | None, ColumnSchema]:
    """The role of a column and the column, checked."""
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(table, dict):
        raise DataError(f"must be a table, got {table!r}", source=path, column=name, remedy=_REMEDY)
    unknown = next((field for field in table if field not in _FIELDS), None)
    if unknown is not None:
        problem = f"unknown field {unknown!r}; known are {listed(_FIELDS)}"
        raise DataError(problem, source=path, column=name, remedy=suggestion(unknown, _FIELDS) or _MEND)
    role = table.pop("role", None)
    if role not in (None, *_ROLES):
        problem = f"role must be {' or '.join(_ROLES)}, or left out, got {role!r}"
        raise DataError(problem, source=path, column=name, remedy=_MEND)
    text = json.dumps(
        {**table, "name": name}, default=str
    )  # of JSON, since only there a list is a tuple, if strictly
    try:
        return role, TypeAdapter(ColumnSchema).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        message = first["msg"].removeprefix("Value error, ").removeprefix(f"column {name!r}: ")
        where = ".".join(map(str, first["loc"]))
        if where:
            message = f"{where}: {message[:1].lower()}{message[1:]}, got {first['input']!r}"
        raise DataError(message, source=path, column=name, remedy=_MEND) from error
