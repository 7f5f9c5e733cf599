"""A catalogue of odd and malformed tables: what each is taken for, or the line that refuses it."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from io import BytesIO
from itertools import cycle, islice

import numpy as np
import pyarrow as pa
from pyarrow import parquet

ROWS = 30
NUMBERS = [f"{value:.5f}" for value in np.random.default_rng(0).normal(size=ROWS)]
SPLIT_REMEDY = "Leave out separators at the ends of lines"
ODD_DATE = "row {}, column 'b': no date of ISO 8601, or of another form than most: '{}'. "
ISO = "Write all dates in one form of ISO 8601, such as 2024-02-29"
TEXT = "row {row}, column 'b': text where a number is expected: {text}. {remedy}"


def csv(cells: Sequence[object], head: str = "a,b", separator: str = ",") -> bytes:
    """A continuous column a, and a column b of these cells, over and over."""
    rows = zip(NUMBERS, islice(cycle(cells), ROWS), strict=True)
    return "\n".join([head, *(f"{number}{separator}{cell}" for number, cell in rows)]).encode() + b"\n"


def counted(form: str) -> bytes:
    """A column b of texts that all differ, as the numbers of the rows stand in the form."""
    return csv([form.format(row) for row in range(ROWS)])


def arrow(values: object, name: str = "b") -> bytes:
    memory = BytesIO()
    a = pa.array(np.array(NUMBERS, float))
    parquet.write_table(pa.Table.from_arrays([a, values], names=["a", name]), memory)
    return memory.getvalue()


def npy(array: np.ndarray) -> bytes:
    memory = BytesIO()
    np.save(memory, array, allow_pickle=True)
    return memory.getvalue()


def refused(row: int, text: str, remedy: str) -> str:
    return TEXT.format(row=row, text=text, remedy=remedy)


ROUND = [datetime(2024, 1, 1) + timedelta(hours=7 * i) for i in range(ROWS)]

# The file, its content, and what b is taken for, or the start of the line that refuses the file.
TAKEN: dict[str, tuple[str, bytes, str]] = {
    "mark of UTF-8": ("t.csv", b"\xef\xbb\xbf" + csv(["x", "y"]), "category x/y"),
    "line ends of Windows": ("t.csv", csv(["x", "y"]).replace(b"\n", b"\r\n"), "category x/y"),
    "semicolons": ("t.csv", csv(["x", "y"], "a;b", ";"), "category x/y"),
    "short row": ("t.csv", csv(["x", "y"]) + b"1.5\n", "category x/y gaps"),
    "blank line within": ("t.csv", csv(["x", "y\n"]), "category x/y gaps"),
    "blank lines at the end": ("t.csv", csv(["x", "y"]) + b"\n\n\n", "category x/y"),
    "words for nothing": ("t.csv", csv([1.5, 2.25, "NA", "n/a", "?", ""]), "number step 0.01 gaps"),
    "words for nothing among text": ("t.csv", csv(["x", "y", "NaN", " ", "N/A"]), "category x/y gaps"),
    "yes and no": ("t.csv", csv(["yes", "no"]), "category no/yes"),
    "truth values of all spellings": ("t.csv", csv(["TRUE", "False", "true"]), "boolean"),
    "truth values and more": ("t.csv", csv(["TRUE", "false", "maybe"]), "category TRUE/false/maybe"),
    "few with units": ("t.csv", csv(["1 kg", "2 kg"]), "category 1 kg/2 kg"),
    "ordinals": ("t.csv", csv(["1st", "2nd", "3rd"]), "category 1st/2nd/3rd"),
    "spaces are part of labels": ("t.csv", csv(["x ", "x"]), "category x/x "),
    "letters of all scripts": ("t.csv", csv(["ñ", "列", "😀"]), "category ñ/列/😀"),
    "one label and gaps": ("t.csv", csv(["x", ""]), "category x gaps"),
    "one number and gaps": ("t.csv", csv([3, ""]), "number step 1 gaps"),
    "leading zeros": ("t.csv", csv(["0123", "0456"]), "category 0123/0456"),
    "long codes": ("t.csv", csv(["0" + "9" * 20, "0" + "8" * 20]), f"category 0{'8' * 20}/0{'9' * 20}"),
    "microseconds": ("t.csv", csv([1_700_000_000_000_000 + 10**6 * k for k in range(10)]), "number"),
    "dates": ("t.csv", csv([f"2024-02-{day:02}" for day in range(1, 30)]), "date step 1"),
    "moments in a zone": (
        "t.csv",
        csv(["2024-02-01T10:00:00+02:00", "2024-02-01T10:30:00+02:00"]),
        "datetime step 60",
    ),
    "times of day": ("t.csv", csv(["10:00", "23:59", ""]), "time step 1 gaps"),
    "vast floats": ("t.csv", csv([1e300, -1e300, 1.5e299, 2.5e299]), "number"),
    "dictionary": ("t.parquet", arrow(pa.array(["x", "y"] * 15).dictionary_encode()), "category x/y"),
    "decimal128": (
        "t.parquet",
        arrow(pa.array([Decimal("1.25"), Decimal("2.5")] * 15, pa.decimal128(20, 2))),
        "number step 0.01",
    ),
    "half precision": ("t.parquet", arrow(pa.array(np.array(NUMBERS, np.float16))), "number"),
    "durations": (
        "t.parquet",
        arrow(pa.array([timedelta(minutes=i) for i in range(ROWS)])),
        "duration step 1",
    ),
    "nanoseconds in a zone": (
        "t.parquet",
        arrow(pa.array(ROUND, pa.timestamp("ns", "Asia/Tokyo"))),
        "datetime step 3600",
    ),
    "time64": ("t.parquet", arrow(pa.array([time(i % 24, i) for i in range(ROWS)])), "time step 1"),
}

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "UTF-16": (
        "t.csv",
        csv([1]).decode().encode("utf-16"),
        "the name says .csv, but the content is text in UTF-16. Rename",
    ),
    "Latin-1": ("t.csv", csv(["x", "é"]).decode().encode("latin-1"), "row 2: not text in UTF-8. Save it as"),
    "two encodings": ("t.csv", csv(["é"]) + b"1.5,\xe9\n", "row 31: not text in UTF-8. Save it as"),
    "zero bytes": (
        "t.csv",
        csv(["x", "\0"]),
        "the name says .csv, but the content is unknown binary data. Rename",
    ),
    "line ends of old": (
        "t.csv",
        csv([1, 2]).replace(b"\n", b"\r"),
        "its lines end in carriage returns alone. Save",
    ),
    "long row": (
        "t.csv",
        csv([1, 2, "3,4"]),
        "row 3: 3 fields, but 2 columns. Quote fields that hold the separator.",
    ),
    "separators at the end": (
        "t.csv",
        csv(["1.5,", "2.5,"]),
        f"row 1: 3 fields, but 2 columns. {SPLIT_REMEDY}",
    ),
    "and in the header": (
        "t.csv",
        csv(["1.5,", "2.5,"], "a,b,"),
        f"column number 3 has neither name nor values. {SPLIT_REMEDY}",
    ),
    "comment above": (
        "t.csv",
        b"# by a device\n" + csv([1, 2]),
        "row 1: 2 fields, but 1 column. Leave out the comment",
    ),
    "open quote": (
        "t.csv",
        csv([1, 2]) + b'1.5,"2\n',
        "row 31: a quote that does not end its field. Quote a whole",
    ),
    "name twice": (
        "t.csv",
        csv([1, 2], "a,a"),
        "column 'a': columns number 1 and 2 have the same name. Rename",
    ),
    "no name": (
        "t.csv",
        csv([1, 2], "a,"),
        "column number 2 has no name. Name it; or, if it numbers the rows",
    ),
    "names or data": (
        "t.csv",
        csv(["x"], "0.5,x"),
        "the first line, 0.5,x, may be names or data. If it holds names",
    ),
    "separator unknown": (
        "t.csv",
        csv(["x", "y"], "a|b", "|"),
        "column 'a|b': the only column has '|' in its name and values",
    ),
    "commas in tabs": (
        "t.tsv",
        csv(["x", "y"]),
        "column 'a,b': the only column has ',' in its name and values",
    ),
    "no columns": ("t.csv", b"\n\n\n", "the file is empty. Give a table with a header and rows."),
    "nothing": ("t.csv", b"", "the file is empty. Give a table with a header and rows."),
    "header alone": ("t.csv", b"a,b", "no rows below the header. Give a table with rows."),
    "one row": ("t.csv", b"a,b\n1.5,x\n", "1 row, but at least 20 are needed. Give more rows."),
    "text among numbers": (
        "t.csv",
        csv([1, 2.5, 3, "x"]),
        refused(4, "'x'", "Write a number, or nothing where it is missing"),
    ),
    "dash for nothing": (
        "t.csv",
        csv([1, 2.5, "-"]),
        refused(3, "'-'", "Write a number, or nothing where it is missing"),
    ),
    "comment below": (
        "t.csv",
        csv([1, 2]) + b"# end\n",
        "row 31, column 'a': text where a number is expected: '# end'. Write",
    ),
    "all missing": ("t.csv", csv([""]), "column 'b': holds no value at all. Leave it out with --drop."),
    "all NA": ("t.csv", csv(["NA"]), "column 'b': holds no value at all. Leave it out with --drop."),
    "beyond 2**53": (
        "t.csv",
        counted("1000000000000000{:02}"),
        "row 1, column 'b': the integer 100000000000000000 reaches 2**53",
    ),
    "beyond 2**64": (
        "t.csv",
        csv([2**64, 2**64 + 1]),
        "row 1, column 'b': the integer 18446744073709551616 reaches 2**53",
    ),
    "infinite": (
        "t.csv",
        csv([1.5, "-inf", 2.5]),
        "row 2, column 'b': infinite value -inf. Replace it by a number",
    ),
    "too large": (
        "t.csv",
        csv([1.5, "1e400", 2.5]),
        "row 2, column 'b': infinite value inf. Replace it by a number",
    ),
    "decimal commas": (
        "t.csv",
        csv(["1,5", "2,5"], "a;b", ";"),
        refused(1, "'1,5'", "Write decimal points, not commas."),
    ),
    "thousands": (
        "t.csv",
        csv(['"1,234"', '"22,345"']),
        refused(1, "'1,234'", "Write decimal points, not commas, and no sep"),
    ),
    "European thousands": (
        "t.csv",
        csv(["1.234,5"], "a;b", ";"),
        refused(1, "'1.234,5'", "Write decimal points, not commas, and"),
    ),
    "units": ("t.csv", counted("{} kg"), refused(1, "'0 kg'", "Write the number alone, without its unit.")),
    "currency": (
        "t.csv",
        counted("${}.50"),
        refused(1, "'$0.50'", "Write the number alone, without its unit."),
    ),
    "percent": (
        "t.csv",
        counted("{}%"),
        refused(1, "'0%'", "Write the number alone, without the percent sign."),
    ),
    "dates of two forms": (
        "t.csv",
        csv(["2024-02-28", "2024-02-29", "01.03.2024"]),
        ODD_DATE.format(3, "01.03.2024") + ISO,
    ),
    "day and month": ("t.csv", csv(["03/04/2024", "04/03/2024"]), ODD_DATE.format(1, "03/04/2024") + ISO),
    "a day that is none": (
        "t.csv",
        csv(["2024-02-29", "2024-02-30"]),
        ODD_DATE.format(2, "2024-02-30") + ISO,
    ),
    "identifiers": (
        "t.csv",
        counted("user-{}"),
        "column 'b': holds 30 different texts in 30 rows, such as 'user-0': names of",
    ),
    "constant text": (
        "t.csv",
        csv(["x"]),
        "column 'b': all 30 values are x, so it has no density. Drop it with --drop b.",
    ),
    "constant date": (
        "t.csv",
        csv(["2024-02-29"]),
        "column 'b': all 30 values are 2024-02-29, so it has no density.",
    ),
    "many constants": (
        "t.csv",
        (",".join(f"c{i}" for i in range(300)) + "\n" + (",".join(["1"] * 300) + "\n") * ROWS).encode(),
        "and 279 more. Leave such columns out of the table.",
    ),
    "list": (
        "t.parquet",
        arrow(pa.array([[1.0]] * ROWS)),
        "column 'b': holds List(Float64), not numbers. Leave it out",
    ),
    "struct": (
        "t.parquet",
        arrow(pa.array([{"u": 1}] * ROWS)),
        "column 'b': holds Struct({'u': Int64}), not numbers. Leave",
    ),
    "map": (
        "t.parquet",
        arrow(pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64()))),
        "column 'b': holds Map(String, Int64), not numbers. Leave it out",
    ),
    "binary": (
        "t.parquet",
        arrow(pa.array([b"\xff"] * ROWS)),
        "column 'b': holds Binary, not numbers. Leave it out",
    ),
    "uint64": (
        "t.parquet",
        arrow(pa.array([2**64 - 1] * ROWS, pa.uint64())),
        "row 1, column 'b': the integer 18446744073709551615 reaches 2**53",
    ),
    "null type": (
        "t.parquet",
        arrow(pa.nulls(ROWS)),
        "column 'b': holds no value at all. Leave it out with --drop.",
    ),
    "decimal256": (
        "t.parquet",
        arrow(pa.array([Decimal(1)] * ROWS, pa.decimal256(50, 2))),
        "column 'b': holds decimal256(50, 2), of more digits than can be read. Write",
    ),
    "no name in Parquet": ("t.parquet", arrow(pa.nulls(ROWS), ""), "column number 2 has no name. Name it."),
    "Parquet cut short": (
        "t.parquet",
        arrow(pa.nulls(ROWS))[:-20],
        "cut short or damaged (Parquet magic bytes not found",
    ),
    "CSV as Parquet": (
        "t.parquet",
        csv([1]),
        "the name says .parquet, but the content is something else, text perhaps. Rename it",
    ),
    "Parquet as CSV": (
        "t.csv",
        arrow(pa.nulls(ROWS)),
        "the name says .csv, but the content is a Parquet file. Rename it",
    ),
    "gzip cut short": (
        "t.csv.gz",
        gzip.compress(csv(NUMBERS))[:-12],
        "cut short or damaged (Compressed file ended before",
    ),
    "objects": (
        "t.npy",
        npy(np.array([1, "a"], object)),
        "the array holds Python objects. Save it as an array of numbers",
    ),
    "complex": (
        "t.npy",
        npy(np.ones((ROWS, 2)) * 1j),
        "the array holds complex numbers (complex128). Give real and imaginary",
    ),
    "four axes": (
        "t.npy",
        npy(np.ones((2, 2, 2, 2, 2))),
        "the array has shape (2, 2, 2, 2, 2), expected (rows, columns). Reshape it",
    ),
    "text in an array": (
        "t.npy",
        npy(np.array([["a", "b"]])),
        "the array holds text (<U1). Leave text columns out",
    ),
    "a spreadsheet": (
        "t.xlsx",
        b"PK\3\4",
        "cannot tell the kind of table from the suffix '.xlsx'. Known are",
    ),
}
