"""What is written is read; chunks equal the whole; whatever is wrong is named, with its place and a remedy."""

from __future__ import annotations

import gzip
import math
import re
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pushforward.data import iter_table, read_table
from pushforward.data.delimited import has_names
from pushforward.errors import DataError

FLOATS = st.floats(allow_nan=False)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
    lambda name: name == name.strip() and not _is_number(name)
)
KINDS = ["csv", "csv.gz", "tsv", "parquet", "npy", "npz"]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def save(frame: pl.DataFrame, path: Path) -> Path:
    """Writes by other means than the package's own writer."""
    if path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=7)
    elif path.suffix == ".npy":
        np.save(path, frame.to_numpy())
    elif path.suffix == ".npz":
        np.savez(path, X=frame.to_numpy(), y=np.zeros(frame.height))
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in path.name else ",").encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def table(rows: int = 20) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame({f"x{i}": rng.normal(size=rows) for i in range(3)})


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    rows = draw(st.integers(1, 12))
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    columns = []
    for name in names:
        values = draw(st.sampled_from([FLOATS, INTEGERS, st.booleans()]))
        columns.append(pl.Series(name, draw(st.lists(values, min_size=rows, max_size=rows))))
    return pl.DataFrame(columns)


@given(frame=frames(), kind=st.sampled_from(["csv", "csv.gz", "tsv", "parquet"]), rows=st.integers(1, 13))
@settings(max_examples=80, deadline=None)
def test_every_value_is_read_as_it_was_written_whole_and_in_chunks(
    folder: Path, frame: pl.DataFrame, kind: str, rows: int
) -> None:
    path = save(frame, folder / f"t.{kind}")
    whole = read_table(path)
    assert_frame_equal(whole, frame, check_exact=True)
    chunks = list(iter_table(path, None, rows))
    assert_frame_equal(pl.concat(chunks), whole, check_exact=True)
    assert [c.height for c in chunks[:-1]] == [rows] * (len(chunks) - 1)
    some = frame.columns[::-2]
    assert_frame_equal(read_table(path, some), frame.select(pl.nth(frame.columns.index(n)) for n in some))
    assert_frame_equal(pl.concat(iter_table(path, some, rows)), read_table(path, some))


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 4)),
    dtype=st.sampled_from(["<f8", ">f8", "<f4", "<f2", "i1", "<i4", ">i8", "u1", "<u8", "?"]),
    order=st.sampled_from("CF"),
    kind=st.sampled_from(["npy", "npz"]),
    rows=st.integers(1, 10),
    flat=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_arrays_are_read_as_they_were_saved_whole_and_in_chunks(
    folder: Path, *, shape: tuple[int, int], dtype: str, order: str, kind: str, rows: int, flat: bool
) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype, order=order)
    array = array[:, 0] if flat else array
    path = folder / f"a.{kind}"
    np.save(path, array) if kind == "npy" else np.savez_compressed(path, X=array)
    whole = read_table(path)
    assert whole.columns == [f"x{i}" for i in range(1 if flat else shape[1])]
    np.testing.assert_array_equal(whole.to_numpy(), array.reshape(shape[0], -1))
    assert_frame_equal(pl.concat(iter_table(path, None, rows)), whole)
    last = whole.columns[-1:]
    assert_frame_equal(pl.concat(iter_table(path, last, rows)), whole[last])


def test_an_archive_without_x_gives_its_only_table_and_else_lists_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, data=np.eye(3), label=np.zeros(3))
    assert_frame_equal(read_table(path), pl.DataFrame(np.eye(3), schema=["x0", "x1", "x2"]))
    np.savez(path, left=np.eye(3), right=np.eye(2))
    with pytest.raises(DataError, match=r"a\.npz: which array.*'left' \(3, 3\), 'right' \(2, 2\).*key 'X'"):
        read_table(path)


def test_a_text_value_far_down_does_not_stop_the_reading_and_makes_text_of_its_column_only(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{i},{i / 8}" for i in range(90_000)]
    lines[89_998] = "unknown,0.5"
    path.write_text("a,b\n" + "\n".join(lines) + "\n")
    assert read_table(path).dtypes == [pl.String, pl.Float64]
    assert {tuple(c.dtypes) for c in iter_table(path, None, 20_000)} == {(pl.String, pl.Float64)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a,b\n1,NA\n2,3\n", {"a": [1, 2], "b": [None, 3]}, id="missing word"),
        pytest.param("a,b\n1, \n2,nan\n", {"a": [1, 2], "b": [None, math.nan]}, id="blank and nan"),
        pytest.param("a, b\n 1, +2.5\n3 ,1e3\n", {"a": [1, 3], "b": [2.5, 1000.0]}, id="blanks and signs"),
        pytest.param('a,b\n"1","2.5"\n"3","4"\n', {"a": [1, 3], "b": [2.5, 4.0]}, id="quoted numbers"),
        pytest.param("a;b\n1;2.5\n", {"a": [1], "b": [2.5]}, id="semicolons"),
        pytest.param("a\tb\n1\t2.5\n", {"a": [1], "b": [2.5]}, id="tabs"),
        pytest.param(
            "\ufeffa,b\r\n1,2\r\n3,4", {"a": [1, 3], "b": [2, 4]}, id="spreadsheet's mark and line ends"
        ),
        pytest.param("\n\na,b\n1,2\n\n\n", {"a": [1], "b": [2]}, id="blank lines around"),
        pytest.param("a,b\n1,2\n\n3,4\n", {"a": [1, None, 3], "b": [2, None, 4]}, id="blank line within"),
        pytest.param("a,b\n\n1\n2,3\n", {"a": [None, 1, 2], "b": [None, None, 3]}, id="short record"),
        pytest.param('"a\nb",^c$\n1,2\n', {"a\nb": [1], "^c$": [2]}, id="odd names"),
        pytest.param("a,b\n1,True\n2,false\n", {"a": [1, 2], "b": [True, False]}, id="booleans"),
        pytest.param(
            "a,b\nx y,inf\nNA,-1\n", {"a": ["x y", None], "b": [math.inf, -1.0]}, id="text and infinity"
        ),
        pytest.param(",a\n0,1.5\n", {"": [0], "a": [1.5]}, id="nameless column"),
        pytest.param('"1","2"\n3,4\n', {"1": [3], "2": [4]}, id="numbers as quoted names"),
        pytest.param('"a, 1.5",b\n3,4\n', {"a, 1.5": [3], "b": [4]}, id="separator in a name"),
        pytest.param("0.5,-1\n2,3\n", {"x0": [0.5, 2.0], "x1": [-1, 3]}, id="no header: a sign"),
        pytest.param("\r\n\n5,5\r\n7,8", {"x0": [5, 7], "x1": [5, 8]}, id="no header, blank lines above"),
        pytest.param("\n5,5\n2,3\n", {"x0": [5, 2], "x1": [5, 3]}, id="no header: a tie"),
        pytest.param(
            "1,,9,2\n2,3,4,5\n", {"x0": [1, 2], "x1": [None, 3], "x2": [9, 4], "x3": [2, 5]}, id="a gap"
        ),
        pytest.param("id,2019,2020\n1,2,3\n", {"id": [1], "2019": [2], "2020": [3]}, id="years among names"),
    ],
)
def test_text_tables_of_all_sorts(tmp_path: Path, text: str, expected: dict[str, list[object]]) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    frame = pl.DataFrame(expected)
    assert_frame_equal(read_table(path), frame)
    assert_frame_equal(pl.concat(iter_table(path, None, 1)), frame)


def test_integers_too_large_for_64_bits_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n18446744073709551615,1\n3,2\n")
    assert read_table(path)["a"].to_list() == [18446744073709551615, 3]


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
@example(values=[5.1, 3.5, 1.4, 0.2])
@example(values=[5.1, 3.5, 3.5, 0.2])
def test_a_line_of_numbers_is_never_silently_taken_for_names(values: list[float]) -> None:
    """It is data, or refused if it might be a scale."""
    fields = [repr(value) for value in values]
    try:
        assert not has_names(fields, source="t.csv")
    except DataError:
        steps = np.diff(values)
        assert all(math.copysign(1, v) > 0 and "e" not in repr(v) for v in values)
        assert (steps > 0).all() or (steps < 0).all()


@pytest.mark.parametrize(
    "line", ["0,1,2", "2019,2020", "400.5,401.5,402.5", "7", "5.1,3.5,setosa", '5.1,3.5,"setosa"', ",0,1"]
)
def test_a_first_line_that_may_be_names_or_data_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{line}\n5,5,5\n")
    with pytest.raises(
        DataError, match=rf"t\.csv: the first line, {line}, may be names or data.*in quotes.*above it"
    ):
        read_table(path)


def written(write: Callable[[BytesIO], object]) -> bytes:
    buffer = BytesIO()
    write(buffer)
    return buffer.getvalue()


def parquet_bytes() -> bytes:
    return written(table(1000).write_parquet)


def npy_of(array: np.ndarray, pickled: bool = False) -> bytes:
    return written(lambda buffer: np.save(buffer, array, allow_pickle=pickled))


def npz_of(**arrays: np.ndarray) -> bytes:
    return written(lambda buffer: np.savez(buffer, **arrays))


def npz_bytes() -> bytes:
    return npz_of(X=np.random.default_rng(0).normal(size=(1000, 3)))


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("t.csv", lambda: b"", "the file is empty.*Give a table"),
    "empty parquet": ("t.parquet", lambda: b"", "the file is empty"),
    "blank": ("t.csv", lambda: b"\n\r\n", "the file is empty"),
    "empty gz": ("t.csv.gz", lambda: gzip.compress(b""), "the file is empty"),
    "header only": ("t.csv", lambda: b"a,b\n", "no rows below the header"),
    "header only, no line end": ("t.csv", lambda: b"a,b", "no rows below the header"),
    "header and blank lines": ("t.csv", lambda: b"a,b\r\n\r\n\r\n", "no rows below the header"),
    "image as CSV": ("t.csv", lambda: PNG, r"name says \.csv, but the content is a PNG image.*Rename it"),
    "binary as CSV": ("t.csv", lambda: b"ab\0\1\2", r"name says \.csv, but the content is unknown binary"),
    "UTF-16": ("t.csv", lambda: "a,b\n1,2\n".encode("utf-16"), "content is text in UTF-16"),
    "Parquet as CSV": ("t.csv", parquet_bytes, r"name says \.csv, but the content is a Parquet file"),
    "CSV as Parquet": ("t.parquet", lambda: b"a,b\n1,2\n", r"name says \.parquet, but the content is .*text"),
    "CSV as npy": ("t.npy", lambda: b"a,b\n1,2\n", r"name says \.npy, but"),
    "npy as npz": ("t.npz", lambda: npy_of(np.ones(3)), r"name says \.npz, but the content is a NumPy array"),
    "plain as gz": ("t.csv.gz", lambda: b"a,b\n1,2\n", r"name says \.csv\.gz, but"),
    "image as gz": ("t.csv.gz", lambda: gzip.compress(PNG), r"name says \.csv\.gz, but the content is a PNG"),
    "Parquet cut short": ("t.parquet", lambda: parquet_bytes()[:-100], "cut short or damaged.*again"),
    "npz cut short": ("t.npz", lambda: npz_bytes()[:-100], "cut short or damaged.*again"),
    "npz damaged": (
        "t.npz",
        lambda: npz_bytes().replace(npz_bytes()[5000:5008], b"\0" * 8),
        "cut short or damaged",
    ),
    "npy cut short": ("t.npy", lambda: npy_of(np.ones((100, 3)))[:-9], "cut short or damaged.*again"),
    "gz cut short": (
        "t.csv.gz",
        lambda: gzip.compress(parquet_bytes().hex().encode())[:-90],
        "cut short or damaged",
    ),
    "long record": ("t.csv", lambda: b"a,b\n1,2\n\n1,2,3\n", "row 3: 3 fields, but 2 columns.*Quote"),
    "long record, gz": ("t.csv.gz", lambda: gzip.compress(b"a,b\n1,2\n1,2,3\n"), "row 2: 3 fields"),
    "long record, no header": ("t.csv", lambda: b"5,5\n1,2\n1,2,3\n", "row 3: 3 fields"),
    "Latin-1": ("t.csv", lambda: b"a,b\n1,x\n2,\xe9\n", "row 2: not text in UTF-8.*Save it"),
    "Latin-1 header": ("t.csv", lambda: b"a,\xe9\n1,x\n", "not text in UTF-8.*Save it"),
    "open quote": (
        "t.csv",
        lambda: b'a,b\n1,"x\n2,3\n',
        "row 1: a quote that does not end its field.*Quote a whole",
    ),
    "one name twice": (
        "t.csv",
        lambda: b"a,b,a\n1,2,3\n",
        "column 'a': columns number 1 and 3 have the same name",
    ),
    "objects": (
        "t.npy",
        lambda: npy_of(np.array([1, "a"], dtype=object), True),
        "holds Python objects.*pickled",
    ),
    "objects in npz": (
        "t.npz",
        lambda: npz_of(X=np.array([1, {}], dtype=object)),
        "holds Python objects.*pickled",
    ),
    "complex": (
        "t.npy",
        lambda: npy_of(np.ones((2, 2)) * 1j),
        r"complex numbers \(complex128\).*two columns",
    ),
    "strings": ("t.npz", lambda: npz_of(X=np.array([["a", "b"]])), "array 'X' holds text"),
    "dates": ("t.npy", lambda: npy_of(np.zeros((2, 2), "M8[s]")), "holds dates.*seconds"),
    "three axes": (
        "t.npy",
        lambda: npy_of(np.ones((2, 3, 4))),
        r"shape \(2, 3, 4\), expected \(rows, columns\)",
    ),
    "scalar": ("t.npy", lambda: npy_of(np.array(3.0)), r"shape \(\), expected \(rows, columns\)"),
    "no rows, npy": ("t.npy", lambda: npy_of(np.ones((0, 3))), r"empty, with shape \(0, 3\)"),
    "no arrays": ("t.npz", npz_of, "holds nothing"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_a_remedy(tmp_path: Path, case: str) -> None:
    name, content, message = BAD[case]
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(DataError, match=rf"(?s)^{re.escape(str(path))}[:,].*{message}"):
        read_table(path)
    with pytest.raises(DataError, match=rf"(?s)^{re.escape(str(path))}[:,].*{message}"):
        list(iter_table(path, None, 2))


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = save(table(5).clear(), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: no rows\. Give"):
        read_table(path)


@pytest.mark.parametrize("read", [read_table, lambda path: iter_table(path, None, 3)])
def test_paths_that_are_no_table(tmp_path: Path, read: Callable[[Path], object]) -> None:
    save(table(), tmp_path / "heights.csv")
    (tmp_path / "t.csv").mkdir()
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"height\.csv: no such file\. Is 'heights\.csv' meant\?"):
        read(tmp_path / "height.csv")
    with pytest.raises(DataError, match=r"nowhere/t\.csv: no such file"):
        read(tmp_path / "nowhere" / "t.csv")
    with pytest.raises(DataError, match=r"t\.csv: is a folder"):
        read(tmp_path / "t.csv")
    with pytest.raises(
        DataError, match=r"suffix '\.xlsx'\. Known are \.csv, \.csv\.gz, .*\.parquet, \.npy, \.npz"
    ):
        read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("kind", KINDS)
def test_absent_columns_are_named_with_what_there_is(tmp_path: Path, kind: str) -> None:
    path = save(table(), tmp_path / f"t.{kind}")
    for read in (read_table, lambda path, names: iter_table(path, names, 5)):
        with pytest.raises(
            DataError, match=r"column 'X1' missing; the table has 'x0', 'x1', 'x2'\. Is 'x1' meant\?"
        ):
            read(path, ["x0", "X1"])
        with pytest.raises(DataError, match=r"no column to read\. The table has 'x0', 'x1', 'x2'"):
            read(path, [])
        with pytest.raises(DataError, match="2 columns 'p', 'q' missing"):
            read(path, ["p", "q"])
        with pytest.raises(DataError, match="column 'x0': the column is asked for twice"):
            read(path, ["x0", "x1", "x0"])


def test_a_name_that_stands_twice_does_not_matter_unless_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,a\n1,2,3\n")
    assert read_table(path, ["b"]).to_dict(as_series=False) == {"b": [2]}


def test_chunks_need_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows_per_chunk: expected at least 1, got 0"):
        iter_table(save(table(), tmp_path / "t.csv"), None, 0)


def test_brackets_and_equal_signs_in_a_path_mean_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "k=1"
    folder.mkdir()
    for kind in ("csv", "parquet"):
        assert_frame_equal(read_table(save(table(), folder / f"t[1].{kind}")), table())


def test_streaming_holds_a_part_of_the_file_only(tmp_path: Path) -> None:
    """The mapped array stays on the disk: chunks own their memory and may outlive the file."""
    path = save(table(100), tmp_path / "t.npy")
    first = next(iter_table(path, None, 10))
    path.write_bytes(b"")
    assert_frame_equal(first, table(100)[:10])


def test_tables_are_read_without_torch() -> None:
    code = "import sys, pushforward.data; assert not {'torch', 'pyarrow.parquet'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
