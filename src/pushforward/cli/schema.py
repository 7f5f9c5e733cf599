"""``pushforward schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..configs import DataConfig, ImageSchema, TableSchema
from .files import check_output, check_table, is_saved_flow, load_model
from .options import UsageError, names
from .text import console

_SUFFIXES = (".toml",)


def schema(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|MODEL",
            help="A table, whose columns are looked at; or a saved flow, which knows its columns.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The file to write: .toml.", show_default=False),
    ] = None,
    condition: Annotated[
        list[str] | None, typer.Option(metavar="COL,...", help="Columns that the others are given.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="COL,...", help="Leave these out.")] = None,
) -> None:
    """Write what the columns of a table are, to be read, changed and given to fit --schema.

    A TOML file with a table for each column: the kind of its values, their support and step, labels, gaps and point
    masses, with comments on what was found and what may be changed.
    """
    if output is not None:
        check_output(output, [table], suffixes=_SUFFIXES)
    out = console(stderr=True)
    roles = DataConfig(condition=names(condition or []), drop=names(drop or []))
    with out.status(f"Reading {table}"):
        if table.suffix.lower() == ".flow" or is_saved_flow(table):
            text = _of_model(table, roles)
        else:
            text = _of_table(table, roles)
    if output is None:
        typer.echo(text, nl=False)
        return
    from ..data import atomic_path

    with atomic_path(output) as path:
        path.write_text(text, encoding="utf-8", newline="\n")
    out.print(f"Saved {output}. Fit with it by --schema {output}.", soft_wrap=True)


def columns_of(path: Path | None, data: DataConfig) -> TableSchema | None:
    """Return what a schema file says, if there is one.

    Raises:
        DataError: It is no schema.
        UsageError: Something else says what the columns are, or weights and groups are modelled columns.
    """
    if path is None:
        return None
    for name in ("condition", "drop", "bounds", "periodic"):
        if getattr(data, name):
            raise UsageError(
                f"--schema: says what all columns are, so {name} cannot be given as well. Write it into {path}."
            )
    from ..data.schema_file import read_schema

    schema = read_schema(path)
    for option, column in (("--weights", data.weights), ("--group", data.group)):
        if column in (*schema.names, *schema.context_names):
            raise UsageError(
                f'{option}: {column!r} is to be modelled by {path}. Set role = "drop" for it there.'
            )
    return schema


def _of_table(table: Path, roles: DataConfig) -> str:
    from ..data import infer_schema, read_table
    from ..data.schema_file import write_schema

    check_table(table)
    frame = read_table(table)
    found = infer_schema(frame, condition=roles.condition, exclude=roles.drop, source=table)
    return write_schema(found, frame=frame)


def _of_model(model: Path, roles: DataConfig) -> str:
    from ..data.schema_file import write_schema

    if roles.condition or roles.drop:
        raise UsageError(
            f"{model}: is a saved flow, whose columns cannot be changed by --condition or --drop"
        )
    fitted = load_model(model)
    if isinstance(fitted.schema, ImageSchema):
        raise UsageError(f"{model}: is a flow of images, which have no columns")
    return write_schema(fitted.table)
