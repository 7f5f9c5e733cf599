"""Columns of every kind become numbers and come back; a table is the same whole, in chunks and from every file."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_series_equal

from pushforward.configs.schema import ColumnSchema, TableSchema
from pushforward.data import infer_schema, iter_table, read_table, to_frame, to_matrix
from pushforward.data.schema_file import read_schema, write_schema
from pushforward.data.writers import without_durations
from pushforward.errors import DataError
from random_tables import columns, frames

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def as_returned(series: pl.Series) -> pl.Series:
    """A column as it should come back but for its type: gaps as nulls, decimals as floats, labels as text."""
    series = series.alias("")
    if series.dtype.is_float():
        return series.fill_nan(None)
    if series.dtype.is_decimal():
        return series.cast(pl.Float64)
    return series.cast(pl.String) if series.dtype == pl.Categorical else series


JUST_OFF, FINE = (pl.Series([datetime(2042, 1, 1, microsecond=n), None]) for n in (2, 7))


@given(frames())
@example(pl.DataFrame({"a": JUST_OFF, "b": FINE.dt.cast_time_unit("ns")}))
@QUICK
def test_every_value_of_every_kind_comes_back(frame: pl.DataFrame) -> None:
    schema = infer_schema(frame)
    back = to_frame(to_matrix(frame, schema.columns, check_support=True), schema.columns)
    assert back.columns == frame.columns
    for place, column in enumerate(schema.columns):
        expected = as_returned(frame.to_series(place))
        returned = back.to_series(place).alias("")
        assert column.missing == (expected.null_count() > 0)
        if not column.labelled:
            returned = returned.cast(expected.dtype)
        assert_series_equal(returned, expected, rel_tol=1e-14, abs_tol=1e-14)


@given(frames(), st.integers(1, 8))
@QUICK
def test_chunks_are_read_as_the_whole(frame: pl.DataFrame, rows: int) -> None:
    """Also where columns are stored as text, which a chunk cannot know the others by."""
    schema = infer_schema(frame)
    texts = [
        series if series.dtype.is_nested() or series.dtype == pl.Duration else series.cast(pl.String)
        for series in frame.select(pl.all().name.map(str)).iter_columns()
    ]
    for table in (frame, pl.DataFrame(texts) if frame.columns != ["^.*$"] else frame):
        whole = to_matrix(table, schema.columns)
        chunks = [to_matrix(table[i : i + rows], schema.columns) for i in range(0, table.height, rows)]
        np.testing.assert_array_equal(np.concatenate(chunks), whole)


def without_zones(schema: TableSchema) -> list[ColumnSchema]:
    return [replace(c, timezone="UTC" if c.timezone else None) for c in schema.columns]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@given(frames(plain=True))
@example(pl.DataFrame({"a": FINE.dt.replace_time_zone("Europe/Paris"), "b": ["x", None]}))
@settings(QUICK, max_examples=25)
def test_text_and_parquet_say_the_same_of_a_table(folder: Path, frame: pl.DataFrame) -> None:
    """But for the names of time zones, which text does not hold."""
    frame.write_parquet(folder / "t.parquet")
    frame.write_csv(folder / "t.csv")
    binary, text = read_table(folder / "t.parquet"), read_table(folder / "t.csv")
    schema, from_text = infer_schema(binary), infer_schema(text)
    assert without_zones(from_text) == without_zones(schema)
    matrix = to_matrix(text, from_text.columns)
    np.testing.assert_array_equal(matrix, to_matrix(binary, schema.columns))
    chunks = [to_matrix(chunk, from_text.columns) for chunk in iter_table(folder / "t.csv", None, 3)]
    np.testing.assert_array_equal(np.concatenate(chunks), matrix)


FITTED = pl.DataFrame(
    {
        "colour": ["red", "green", None, "blue"],
        "size": ["S", "M", "M", "L"],
        "ok": [True, False, True, True],
        "day": ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-05"],
        "at": ["2024-02-28 10:00", "2024-02-29 11:30", None, "2024-03-05 00:00"],
        "price": [1.25, 3.5, 2.75, 9.125],
        "count": [3, 0, 2, None],
    }
).with_columns(pl.col("at").str.to_datetime())

REFUSED = [
    ("colour", "rad", r"unknown label 'rad'; known are 'blue', 'green', 'red'\. Is 'red' meant\?"),
    ("colour", "teal", r"unknown label 'teal'; known are .*\. Leave out the row, or fit again"),
    (
        "size",
        None,
        r"missing value, but the column had none when the flow was fitted\. Leave out the row, or fit",
    ),
    ("size", "  ", r"missing value, but the column had none"),
    ("ok", "maybe", r"unknown label 'maybe'; known are 'false', 'true'\. Leave out"),
    ("ok", "2", r"unknown label '2'; known are 'false', 'true'\. Leave out"),
    ("day", "01.03.2024", r"'01\.03\.2024' is no date\. Write it in ISO 8601"),
    ("day", None, r"missing value, the only one in rows \d+ to \d+\. Fill the gaps"),
    ("at", "noon", r"'noon' is no datetime\. Write it in ISO 8601"),
    ("price", "cheap", r"text where a number is expected: 'cheap'\. Encode it"),
    ("price", None, r"missing value, the only one in rows"),
    ("price", "1,5", r"text where a number is expected: '1,5'\. Write decimal points"),
    ("count", "many", r"text where a number is expected: 'many'\. Encode it"),
    ("count", "1.5", r"1\.5 is not a whole number, as the column's values were"),
    ("price", "inf", r"infinite value inf\. Replace it"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
@given(row=st.integers(1, 5), before=st.integers(0, 99))
@settings(QUICK, max_examples=4)
def test_a_value_that_the_schema_does_not_have_is_named(
    *, name: str, value: str | None, message: str, row: int, before: int
) -> None:
    """In a table of text, as a chunk of it may be read."""
    schema = infer_schema(FITTED)
    table = pl.concat([FITTED.with_columns(pl.col("ok").cast(pl.String)).cast(pl.String)[[0, 1, 1, 3, 0]]])
    table = table.with_columns(pl.col("count").fill_null("2"), pl.col("at").fill_null("2024-02-29 11:30"))
    cells = table[name].to_list()
    cells[row - 1] = value
    table = table.with_columns(pl.Series(name, cells))
    with pytest.raises(DataError, match=message) as caught:
        to_matrix(table, schema.columns, source="t.csv", first_row=1 + before)
    assert (caught.value.row, caught.value.column) == (row + before, name)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_blank_text_and_nan_are_gaps(dtype: type[pl.DataType]) -> None:
    frame = pl.DataFrame(
        {"a": pl.Series(["x", " ", "nan", None, "y"], dtype=dtype), "b": ["1", "NaN", "", "2.5", " 2"]}
    )
    schema = infer_schema(frame)
    assert schema.columns == (
        ColumnSchema(name="a", kind="category", categories=("x", "y"), missing=True),
        ColumnSchema(name="b", missing=True),
    )
    np.testing.assert_array_equal(to_matrix(frame, schema.columns)[:, 0], [0, np.nan, np.nan, np.nan, 1])


def test_values_of_the_same_meaning_are_the_same() -> None:
    schema = infer_schema(FITTED)
    other = FITTED.with_columns(
        ok=pl.Series([1, 0, 1, 1]),
        size=pl.Series(["S", "M", "M", "L"], dtype=pl.Enum(["L", "M", "S"])),
        day=pl.col("day").str.to_date(),
        count=pl.Series(["3", "0.0", " 2", ""]),
        at=pl.Series(["2024-02-28T10:00:00", "2024-02-29T11:30:00.0", " ", "2024-03-05T00:00:00"]),
    )
    np.testing.assert_array_equal(to_matrix(other, schema.columns), to_matrix(FITTED, schema.columns))
    column = ColumnSchema(name="a", kind="category", categories=("1", "2.5", "True"))
    assert to_matrix(pl.DataFrame({"a": [1.0, 2.5]}), [column]).ravel().tolist() == [0, 1]
    assert to_matrix(pl.DataFrame({"a": [True, True]}), [column]).ravel().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (ColumnSchema(name="a", kind="date"), [True], "holds Boolean, but the column is of kind date"),
        (ColumnSchema(name="a", kind="time"), [b"x"], "holds Binary, but the column is of kind time"),
        (
            ColumnSchema(name="a", kind="boolean"),
            [[1]],
            r"holds List\(Int64\), but the column is of kind boolean",
        ),
        (ColumnSchema(name="a", kind="duration"), ["1 day"], "'1 day' is no duration"),
        (ColumnSchema(name="a", kind="datetime"), ["2024-01-01 10:00Z"], "is no datetime"),
        (
            ColumnSchema(name="a", kind="datetime"),
            ["2024-01-01 10:00:00+01:00"],
            "the datetimes have a timezone, but the column had none",
        ),
        (
            ColumnSchema(name="a", kind="datetime", timezone="UTC"),
            ["2024-01-01 10:00:00"],
            "the datetimes have no timezone, but the column had one",
        ),
    ],
)
def test_columns_of_another_kind_are_refused(
    column: ColumnSchema, values: list[object], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^t\.csv.*column 'a': .*{message}.*\. [A-Z].*\.$"):
        to_matrix(pl.DataFrame({"a": values}), [column], source="t.csv")


@given(st.data())
@settings(QUICK, max_examples=40)
def test_what_no_calendar_holds_is_written_as_the_nearest_moment(data: st.DataObject) -> None:
    """Draws of a density may lie anywhere."""
    kind = data.draw(st.sampled_from(["date", "datetime", "time", "duration", "number"]))
    column = ColumnSchema(name="^a$", kind=kind, step=1.0 if kind == "number" else None)
    values = data.draw(st.lists(st.floats(allow_nan=False), min_size=2, max_size=6))
    written = to_frame(np.sort(np.array(values))[:, None], [column]).to_series()
    assert written.alias("").is_sorted()
    text = without_durations(pl.DataFrame([written])).write_csv()
    assert len(text.splitlines()) == len(values) + 1


def test_models_of_numbers_take_truth_values_as_numbers() -> None:
    (column,) = infer_schema(pl.DataFrame({"a": [True, False]}), mixed=False).columns
    assert column == ColumnSchema(name="a", step=1.0)
    context = infer_schema(FITTED, condition=["ok"]).context
    assert context == (ColumnSchema(name="ok"),)


@given(columns("label", 8) | columns("date", 8) | columns("zoned", 8))
@settings(QUICK, max_examples=20)
def test_a_column_given_has_the_kind_of_one_modelled(series: pl.Series) -> None:
    frame = pl.DataFrame([pl.Series("n", range(8)), series.alias("a")])
    given, modelled = infer_schema(frame, condition=["a"]).context[0], infer_schema(frame).columns[1]
    assert given == replace(modelled, step=None, atoms=(), low=None, high=None)


@given(st.lists(st.from_regex(r"[0-9]{1,6}", fullmatch=True), min_size=1, max_size=20))
@QUICK
def test_whole_numbers_with_zeros_in_front_are_labels_in_every_file(texts: list[str]) -> None:
    """Postal codes, for one; without any such zero they are numbers."""
    padded = any(text != "0" and text.startswith("0") and len(text) > 1 for text in texts)
    frame = pl.DataFrame({"code": texts, "b": range(len(texts))})
    with TemporaryDirectory() as folder:
        frame.write_csv(Path(folder) / "t.csv")
        frame.write_parquet(Path(folder) / "t.parquet")
        read = [read_table(Path(folder) / name) for name in ("t.csv", "t.parquet")]
    for table in read:
        (column, _), matrix = (schema := infer_schema(table)).columns, to_matrix(table, schema.columns)
        assert column.kind == ("category" if padded else "number")
        assert to_frame(matrix, schema.columns)["code"].to_list() == (
            texts if padded else list(map(int, texts))
        )
        # Declared a number they are one.
        assert to_matrix(table, [ColumnSchema(name="code", step=1.0)])[:, 0].tolist() == list(map(int, texts))
        for mixed in (None, False):
            ends = infer_schema(table, mixed=mixed, bounds={"code": (0, 10**6)}).columns[0]
            assert ends == ColumnSchema(name="code", low=0, high=10**6, step=1.0)
            circle = infer_schema(table, mixed=mixed, periodic={"code": (0, 10**6)}).columns[0]
            assert circle == ColumnSchema(name="code", low=0, high=10**6, periodic=True)
        if padded:
            with pytest.raises(
                DataError, match=r"column 'code': whole numbers written as codes.* step = 1\.0 .*mixed"
            ):
                infer_schema(table, mixed=False)


@given(
    texts=st.lists(st.from_regex(r"[0-9]{1,44}", fullmatch=True), min_size=1, max_size=20),
    ending=st.sampled_from(["", ".0"]),
)
@QUICK
def test_no_digit_of_a_large_whole_number_is_lost_in_a_text_table(texts: list[str], ending: str) -> None:
    """Codes stay as they are written, however long; other numbers too large for a float keep all that they say."""
    texts = [text + ending for text in texts]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("\n".join(["code,b", *(f"{text},x" for text in texts)]))
        read = read_table(path)["code"]
    whole = [int(text.removesuffix(".0")) for text in texts]
    if any(text[0] == "0" and text[1:2].isdigit() for text in texts):
        assert read.to_list() == texts
    elif max(whole) < 2**53:
        assert read.to_list() == whole
    else:
        assert [int(str(value).removesuffix(".0")) for value in read] == whole
        assert not read.dtype.is_float()


@pytest.mark.parametrize("declared", [{"bounds": {"a": (0, 24)}}, {"periodic": {"a": (0, 24)}}])
def test_ends_do_not_make_numbers_of_labels(declared: dict[str, dict[str, tuple[float, float]]]) -> None:
    with pytest.raises(
        DataError, match=r"column 'a': labels have no ends\. Leave out --bounds or --periodic"
    ):
        infer_schema(pl.DataFrame({"a": ["01", "x", "y"]}), **declared)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"row 3, column 'a': text where a number is expected: 'x'"):
        infer_schema(pl.DataFrame({"a": ["01", "02", "x"]}), **declared)  # type: ignore[arg-type]


@pytest.mark.parametrize("given_too", [False, True])
def test_codes_are_refused_with_the_ways_out_that_work(given_too: bool, tmp_path: Path) -> None:
    """Doing what the refusal says makes numbers of them; the largest cannot be, so that it is not said of these."""
    frame = pl.DataFrame({"a": [f"{k:06}" for k in range(2000)], "b": range(2000)})
    condition = ["a"] if given_too else []
    for mixed, problem in ((None, "holds 2,000 different texts"), (False, "whole numbers written as codes")):
        with pytest.raises(
            DataError, match=rf"column 'a': {problem}.*--drop; or, .* step = 1\.0 .*place of role"
        ):
            infer_schema(frame, mixed=mixed, condition=condition)
    text = write_schema(infer_schema(frame, exclude=["a"]), frame=frame)
    line = 'role = "given"' if given_too else "step = 1.0"
    (tmp_path / "s.toml").write_text(line.join(text.rsplit('role = "drop"', 1)))
    schema = read_schema(tmp_path / "s.toml")
    columns = schema.context if given_too else schema.columns
    assert to_matrix(frame, [c for c in columns if c.name == "a"])[:, 0].tolist() == list(range(2000))
    with pytest.raises(DataError, match=r"with --drop\. The model mixed can learn codes\.$"):
        infer_schema(pl.DataFrame({"a": [f"0{2**44}", "1"]}), mixed=False)
