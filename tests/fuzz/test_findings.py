"""What fuzzing once found."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pushforward.cli.options import UsageError, names
from pushforward.data import infer_schema, read_table, to_matrix
from pushforward.errors import DataError


@pytest.mark.parametrize("values", [[1.5, 2.5, 0.1], ["1.5", "2.5", "0.1"], [1, 2, 3]])
def test_a_column_whose_name_is_a_pattern(values: list[object]) -> None:
    """Methods of a polars series look its name up, as a pattern when it begins with ^ and ends with $."""
    frame = pl.DataFrame({"^a$": values, "a": [1.0, 2.0, 3.5], "^.*$": values})
    schema = infer_schema(frame)
    assert schema.names == ("^a$", "a", "^.*$")
    expected = np.array(values, dtype=float)
    np.testing.assert_array_equal(to_matrix(frame, schema.columns)[:, [0, 2]].T, [expected, expected])


def test_a_damaged_parquet_file_is_refused_without_a_trace(tmp_path: Path) -> None:
    """Polars panics here, which is no exception, and writes a trace to the standard error."""
    memory = io.BytesIO()
    pl.DataFrame({"a": np.arange(50.0), "t": ["x"] * 50}).write_parquet(memory, row_group_size=7)
    blob = memory.getvalue()
    (length,) = struct.unpack("<I", blob[-8:-4])
    for i, cut in enumerate(range(4, len(blob) - length - 8, 97)):
        (tmp_path / f"{i}.parquet").write_bytes(blob[:cut] + blob[-length - 8 :])
    code = """
import sys
from pathlib import Path
from pushforward.data import read_table
from pushforward.errors import DataError
for path in Path(sys.argv[1]).iterdir():
    try:
        values = read_table(path)["a"].to_list()
    except DataError:
        continue
    if values != list(range(50)):  # the very end may be cut: it holds statistics
        print(path, values)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize(
    "header",
    ["{'descr': '<f8', 'shape': (2,", "(((((", "{'shape': (10**9,)}", "[" * 300, "{1: 2}", "\0\0", "1 +"],
)
def test_a_header_of_numpy_that_is_no_expression(header: str, tmp_path: Path) -> None:
    """NumPy tries to mend what it cannot parse, and raises what Python's tokenizer does."""
    raw = header.encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(raw)) + raw + b"\0" * 16)
    with pytest.raises(DataError, match=r"a\.npy: cut short or damaged"):
        read_table(tmp_path / "a.npy")


def test_an_array_that_claims_more_than_its_file(tmp_path: Path) -> None:
    raw = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000000, 2), }\n"
    blob = b"\x93NUMPY\1\0" + struct.pack("<H", len(raw)) + raw + b"\0" * 160
    (tmp_path / "a.npy").write_bytes(blob)
    with pytest.raises(DataError, match=r"a\.npy: (cut short or damaged|needs more memory)"):
        read_table(tmp_path / "a.npy")


def test_a_line_end_in_an_option() -> None:
    with pytest.raises(UsageError, match="column names"):
        names(["a\rb"])


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t\udcff.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="its name is not text in UTF-8"):
        read_table(path)
