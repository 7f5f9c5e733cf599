"""Text tables: the header, and the types of the columns over the whole file."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import IO

import polars as pl

from ..errors import DataError
from .columns import WHOLE, WHOLE_LIMIT
from .names import check_names

MISSING = ("NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "?")
"""What a text table may hold in the place of a missing value, besides nothing and NaN."""

_TEXT_REMEDY = "Save it as comma-separated text in UTF-8."
_WHOLE = re.compile(r"\d+")
_DECIMAL = re.compile(r"\d+\.\d*|\.\d+")
_QUOTED = re.compile(r'"[^"]*"')
_UNDECODED = re.compile(r"[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Header:
    """Names of the columns of a text table.

    Attributes:
        names: The names, one per column; ``x0, x1, ...`` when the file has none.
        separator: The character between fields.
        present: Whether the first record holds the names.
        skipped: Number of blank lines above it.
    """

    names: tuple[str, ...]
    separator: str
    present: bool
    skipped: int


def is_number(text: str) -> bool:
    """Whether a field reads as a number (NaN and infinities included).

    Example:
        >>> [is_number(t) for t in ("1", "-2.5e3", "nan", "", "x1", "1_000")]
        [True, True, True, False, False, False]
    """
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def has_names(fields: Sequence[str], *, source: str | Path) -> bool:
    """Whether the first record of a text table, quotes kept, holds names rather than the first row of data.

    Numbers may be names (years, wavelengths, the ``0,1,2`` of a nameless frame), and taking data for names
    would lose a row. So a record is data only if it consists of numbers and gaps that cannot be a scale: some
    number has a sign or an exponent, or they neither rise nor fall throughout. A record with a name in it
    holds names, if its numbers are whole (``id,2019,2020``). Anything else is refused. A quoted field always
    is a name.

    Raises:
        DataError: The record may be either.

    Example:
        >>> has_names(["a", "b"], source="t.csv"), has_names(["0.5", "-1.2"], source="t.csv")
        (True, False)
        >>> has_names(["0", "1", "2"], source="t.csv")
        Traceback (most recent call last):
        pushforward.errors.DataError: t.csv: the first line, 0,1,2, may be names or data. If it holds ...
    """
    fields = [field.strip() for field in fields]
    numbers = [field for field in fields if is_number(field)]
    gaps = [field for field in fields if not field or field in MISSING]
    if not numbers:
        return True
    if len(numbers) + len(gaps) < len(fields):
        if all(_WHOLE.fullmatch(number) for number in numbers):
            return True
    else:
        values = [float(number) for number in numbers]
        steps = [after - before for before, after in pairwise(values)]
        monotone = all(s > 0 for s in steps) or all(s < 0 for s in steps)
        if not (monotone and all(_WHOLE.fullmatch(n) or _DECIMAL.fullmatch(n) for n in numbers)):
            return False
    start = ",".join(fields[:6]) + (",..." if len(fields) > 6 else "")
    raise DataError(
        f"the first line, {start}, may be names or data",
        source=source,
        remedy="If it holds names, put them in quotes or begin each with a letter; "
        "if it holds data, put a line of names above it.",
    )


def open_text(path: Path) -> IO[str]:
    """A text table opened for Python's ``csv``, unpacked if its name ends in ``.gz``; what is not UTF-8, escaped."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def read_header(path: Path) -> Header:
    """Reads the first record, and tells names from data by `has_names`.

    The separator is the tab in a ``.tsv``; elsewhere the comma, or the semicolon or tab if the first line
    holds one of these and no comma.

    Raises:
        DataError: The file has no record, is not UTF-8 text, or begins with what may be names or data.
    """
    with open_text(path) as file:
        skipped, line = next(((i, line) for i, line in enumerate(file) if line.strip("\r\n")), (0, ""))
    if not line:
        raise DataError("the file is empty", source=path, remedy="Give a table with a header and rows.")
    if _UNDECODED.search(line):
        raise DataError("not text in UTF-8", source=path, remedy=_TEXT_REMEDY)
    bare = _QUOTED.sub("", line)
    separator = "\t" if ".tsv" in (s.lower() for s in path.suffixes[-2:]) else ","
    if separator not in bare:
        separator = next((other for other in ";\t" if other in bare), separator)
    try:
        with open_text(path) as file:
            records = csv.reader(
                islice(file, skipped, None), delimiter=separator, skipinitialspace=separator != "\t"
            )
            fields = next(records)
    except csv.Error as error:
        raise DataError(
            f"the first line cannot be read: {error}", source=path, remedy=_TEXT_REMEDY
        ) from error
    if has_names(line.split(separator), source=path):
        return Header(tuple(fields), separator, True, skipped)
    return Header(tuple(f"x{i}" for i in range(len(fields))), separator, False, skipped)


def scan_delimited(path: Path, columns: Sequence[str] | None = None) -> pl.LazyFrame:
    """A text table as a lazy frame whose column types hold for every row.

    All fields are read as text, a first pass counts what each column's values can be read as, and the frame
    casts them: whole numbers to integers, other numbers to 64-bit floats, true and false to booleans; a column
    with any other value stays text, and so does one of whole numbers with zeros in front, as codes have them, or
    that no integer type holds as they are written.
    Nothing and the words in `MISSING` become nulls. Both passes stream.

    Raises:
        DataError: No rows, no such column, a header that may be data.
    """
    header = read_header(path)
    taken = check_names(header.names, columns, source=path)
    text = pl.scan_csv(
        path,
        has_header=header.present,
        skip_lines=0 if header.present else header.skipped,  # above a header polars skips them itself
        separator=header.separator,
        infer_schema=False,
        null_values=list(MISSING),
        glob=False,
    )
    # By position: the names stay ours, and polars reads a name such as "^a$" as a pattern.
    text = text.select([pl.nth(header.names.index(name)).alias(f"{i}") for i, name in enumerate(taken)])
    rows, types = _types(text, len(taken))
    rows -= _trailing_blank_lines(path)
    if rows <= 0:
        raise _no_rows(path)
    typed = [_typed(i, dtype).alias(name) for i, (name, dtype) in enumerate(zip(taken, types, strict=True))]
    return text.head(rows).select(typed)


def parsing_error(path: Path, cause: Exception) -> DataError:
    """Finds the record that polars could not read; it names none itself."""
    header = read_header(path)
    width = len(header.names)
    first = 0 if header.present else 1
    with open_text(path) as file:
        records = csv.reader(
            islice(file, header.skipped, None),
            delimiter=header.separator,
            skipinitialspace=header.separator != "\t",
            strict=True,
        )
        row = first - 1
        try:
            for row, record in enumerate(records, first):
                if len(record) > width:
                    return _too_long(path, row, record, header)
                if _UNDECODED.search("".join(record)):
                    return DataError("not text in UTF-8", source=path, row=row, remedy=_TEXT_REMEDY)
        except csv.Error:
            remedy = "Quote a whole field or nothing of it, and double the quotes within."
            return DataError("a quote that does not end its field", source=path, row=row + 1, remedy=remedy)
    reason = str(cause).strip().split("\n", 1)[0]
    return DataError(
        f"not a readable text table: {reason}", source=path, remedy="Check quotes and line ends."
    )


def _too_long(path: Path, row: int, record: Sequence[str], header: Header) -> DataError:
    """The error about a record of more fields than there are columns."""
    width = len(header.names)
    remedy = "Quote fields that hold the separator."
    if header.present and header.names[0].startswith("#"):
        remedy = "Leave out the comment above the line of names."
    elif not any(record[width:]):
        remedy = "Leave out separators at the ends of lines."
    problem = f"{len(record)} fields, but {width} column{'' if width == 1 else 's'}"
    return DataError(problem, source=path, row=row, remedy=remedy)


def _no_rows(path: Path) -> DataError:
    """The error about a table without rows, or with line ends that polars does not know."""
    with open_text(path) as file:
        lines = sum(1 for _ in islice(file, 2))
        ends = getattr(file, "newlines", None)
    if lines > 1 and ends == "\r":
        remedy = "Save it with line feeds, as Unix and Windows have them."
        return DataError("its lines end in carriage returns alone", source=path, remedy=remedy)
    return DataError("no rows below the header", source=path, remedy="Give a table with rows.")


def _clean(column: pl.Expr) -> pl.Expr:
    bare = column.str.strip_chars()
    return pl.when(bare != "").then(bare)


def _typed(position: int, dtype: pl.DataType) -> pl.Expr:
    column = pl.nth(position)
    if dtype == pl.String:
        return column
    return _clean(column).str.to_lowercase() == "true" if dtype == pl.Boolean else _clean(column).cast(dtype)


def _types(text: pl.LazyFrame, width: int) -> tuple[int, list[pl.DataType]]:
    """Number of rows, and the narrowest type that holds all values of each column."""
    counts = []
    for i in range(width):
        value = _clean(pl.nth(i))
        number = value.cast(pl.Float64, strict=False)
        counts += [
            value.count().alias(f"{i} values"),
            value.cast(pl.Int64, strict=False).count().alias(f"{i} integers"),
            number.count().alias(f"{i} numbers"),
            (number.abs() >= WHOLE_LIMIT).any().alias(f"{i} large"),
            # Texts sort between these if they begin with a zero and a digit.
            value.is_between(pl.lit("00"), pl.lit("0:"), closed="left").any().alias(f"{i} padded"),
        ]
    found = text.select([pl.len().alias("rows"), *counts]).collect(engine="streaming").row(0, named=True)
    types: list[pl.DataType] = []
    for i in range(width):
        value, values, padded = _clean(pl.nth(i)), found[f"{i} values"], found[f"{i} padded"]
        if found[f"{i} integers"] == values:
            types.append(pl.String() if padded else pl.Int64())
        elif found[f"{i} numbers"] == values:
            whole = value.str.contains(WHOLE).all()
            rounded = whole if padded else whole & _rounded_by_floats(value)
            exact = (padded or found[f"{i} large"]) and _holds(text, rounded)
            held = (
                exact and not padded and _holds(text, value.cast(pl.Int128, strict=False).count() == values)
            )
            types.append(pl.Int128() if held else pl.String() if exact else pl.Float64())
        else:
            truths = value.str.to_lowercase().is_in(["true", "false"])
            boolean = found[f"{i} numbers"] == 0 and _holds(text, truths.all())
            types.append(pl.Boolean() if boolean else pl.String())
    return found["rows"], types


def _rounded_by_floats(value: pl.Expr) -> pl.Expr:
    """Whether whole numbers are not to be floats: digits would be lost, or no point tells that they were floats."""
    digits = value.str.replace(r"\.0*$", "").cast(pl.Int128, strict=False)
    same = (digits == value.cast(pl.Float64, strict=False).cast(pl.Int128, strict=False)).fill_null(False)
    pointed = value.str.contains(".", literal=True).any()
    return ~pointed | ~same.all()


def _holds(text: pl.LazyFrame, condition: pl.Expr) -> bool:
    return bool(text.select(condition.alias("holds")).collect(engine="streaming").item())


def _trailing_blank_lines(path: Path) -> int:
    """Empty lines at the end of a plain text file: polars makes a row of nulls of each."""
    if path.suffix.lower() == ".gz":
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    return max(0, tail[len(tail.rstrip(b"\r\n")) :].count(b"\n") - 1)
