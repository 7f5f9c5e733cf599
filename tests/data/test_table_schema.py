"""Discrete and continuous columns are told apart, and every value that a flow cannot take is named."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.configs.schema import ColumnSchema
from pushforward.data import check_fittable, infer_schema, iter_table, read_table, to_matrix
from pushforward.errors import DataError

A = ColumnSchema(name="a")


def step_of(values: object, dtype: pl.DataType | None = None) -> float | None:
    frame = pl.DataFrame({"a": pl.Series(values, dtype=dtype)})
    return infer_schema(frame).columns[0].step


@given(
    values=st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1, max_size=20),
    as_float=st.booleans(),
)
def test_whole_numbers_come_back_exactly_however_stored_and_are_discrete_if_cells_have_room(
    values: list[int], as_float: bool
) -> None:
    frame = pl.DataFrame({"a": pl.Series(values, dtype=pl.Float64 if as_float else pl.Int64)})
    large = max(map(abs, values)) >= 2**44
    schema = infer_schema(frame)
    assert schema.columns[0].step == (None if large else 1)
    assert to_matrix(frame, schema.columns, check_support=True)[:, 0].tolist() == values


@pytest.mark.parametrize("largest", [2**44, 5 * 10**13, 2**53 - 1])
def test_large_whole_numbers_that_repeat_are_continuous_with_atoms(largest: int) -> None:
    """Bytes sent, of which most are 0; moments in microseconds, of which none stands out."""
    numbers = [largest - k for k in range(40)]
    (column,) = infer_schema(pl.DataFrame({"a": numbers + [0] * 60})).columns
    assert (column.step, column.atoms) == (None, (0.0,))
    assert infer_schema(pl.DataFrame({"a": numbers * 2}), mixed=False).columns == (A,)
    assert infer_schema(pl.DataFrame({"a": numbers * 2})).columns == (A,)


@given(
    values=st.lists(st.integers(2**53 - 2, 2**53 + 2) | st.integers(2**60, 2**62), min_size=1, max_size=9),
    sign=st.sampled_from([-1, 1]),
    dtype=st.sampled_from([pl.Int64(), pl.Int128(), pl.Decimal(38, 0), pl.Decimal(38, 2), pl.String()]),
    ending=st.sampled_from(["", ".", ".00"]),
)
def test_whole_numbers_that_a_float_loses_are_refused_or_labels(
    values: list[int], sign: int, dtype: pl.DataType, ending: str
) -> None:
    values = [sign * value for value in values]
    frame = pl.DataFrame({"a": pl.Series(values).cast(dtype)})
    if dtype == pl.String:
        frame = frame.select(pl.col("a") + ending)
    first = next((i for i, value in enumerate(values) if abs(value) >= 2**53), None)
    if first is None:
        assert to_matrix(frame, infer_schema(frame).columns)[:, 0].tolist() == values
        return
    message = rf"^t\.csv, row {first + 1}, column 'a': the integer {values[first]}(\.0*)? reaches 2\*\*53.*identifier"
    with pytest.raises(DataError, match=message):
        to_matrix(frame, [A], source="t.csv")
    if dtype == pl.String and not ending:
        columns = infer_schema(frame).columns
        places = to_matrix(frame, columns)[:, 0]
        assert [columns[0].labels[int(place)] for place in places] == list(map(str, values))
    else:
        with pytest.raises(DataError, match=message):
            infer_schema(frame, source="t.csv")


@pytest.mark.parametrize("step", [1.0, 0.5])
def test_a_declared_step_is_refused_where_cells_have_no_room(step: float) -> None:
    frame = pl.DataFrame({"a": [0.0, 2.0**44 * step]})
    column = ColumnSchema(name="a", step=step)
    with pytest.raises(
        DataError, match=r"row 2, column 'a': .* lies 2\*\*44 or more steps .*Subtract an offset"
    ):
        to_matrix(frame, [column], check_support=True)
    assert to_matrix(frame, [column])[1, 0] == 2.0**44 * step  # it may be scored


@given(
    written=st.decimals(-(10**6), 10**6, places=7, allow_nan=False).map(str),
    learned_single=st.booleans(),
)
def test_an_atom_is_met_in_32_bits_and_in_text(written: str, learned_single: bool) -> None:
    """Learned from one and looked for in the other, also where the text is that of the 32 bits in full."""
    single = np.float32(written)
    if learned_single:
        written = str(single)
    rest = np.random.default_rng(0).normal(size=90)
    values = np.append(rest, [float(written)] * 10)
    learned = pl.Series("a", values, dtype=pl.Float32 if learned_single else pl.Float64)
    columns = infer_schema(learned.to_frame(), bounds={"a": (None, 1e7)}).columns
    if columns[0].step is not None:
        return
    assert columns[0].atoms == (float(written),)
    for series in (
        pl.Series("a", [single], dtype=pl.Float32),
        pl.Series("a", [float(single)]),
        pl.Series("a", [written]),
    ):
        assert to_matrix(series.to_frame(), columns).item() == float(written)


def test_atoms_keep_apart() -> None:
    """From a neighbour that is 32 bits long, and from zero where they are too small for these."""
    single = float(np.float32(0.1))
    column = ColumnSchema(name="a", atoms=(0.1, single, 1e-60, 1e300))
    values = [0.1, single, np.nextafter(0.1, 1), 0.0, 1e-60, 1e300]
    assert to_matrix(pl.DataFrame({"a": values}), [column])[:, 0].tolist() == values


@given(
    k=st.integers(1, 6),
    cells=st.lists(st.integers(-(10**4), 10**4), min_size=1, max_size=20),
    single=st.booleans(),
    noisy=st.booleans(),
)
def test_repeated_decimals_are_discrete_and_come_back_as_the_decimals_written(
    k: int, cells: list[int], single: bool, noisy: bool
) -> None:
    """With a value that needs all k digits; stored in 32 bits, or carrying the rounding of a sum."""
    cells = [*cells, 1, 2]
    written = [float(f"{cell}e-{k}") for cell in cells] * 2
    stored = [value * (1 + 2**-52) for value in written] if noisy else written
    frame = pl.DataFrame({"a": pl.Series(stored, dtype=pl.Float32 if single else pl.Float64)})
    schema = infer_schema(frame)
    if single and max(map(abs, cells)) > 2**24 / 64:
        return  # 32 bits cannot tell such a grid from any other numbers
    assert schema.columns[0].step == 10.0**-k
    assert to_matrix(frame, schema.columns)[:, 0].tolist() == written


@pytest.mark.parametrize(
    ("values", "step"),
    [
        pytest.param([0.5, 0.5, 1.25, 3.0], 0.01, id="half of the rows repeat"),
        pytest.param([0.5, 0.5, 1.25, 3.0, 4.0], None, id="fewer do"),
        pytest.param([1 / 3, 1 / 3, 2 / 3, 2 / 3], None, id="no decimal grid"),
        pytest.param([1e-7, 1e-7, 3e-7, 3e-7], None, id="finer than six digits"),
        pytest.param([1e9 + 0.123457, 1e9 + 0.123457], None, id="grid as fine as the rounding"),
        pytest.param([1e300, 1e300, 2.0], None, id="whole but beyond 2**53"),
        pytest.param([1e300, 1e300, 2.5, 2.5], None, id="vast"),
        pytest.param([3e-20, 3e-20, 1e-20, 1e-20], None, id="tiny"),
        pytest.param([2.0**53, 1.0], None, id="at 2**53"),
        pytest.param([2.0, 3.0, -0.0], 1.0, id="whole floats"),
        pytest.param([Decimal("0.10"), Decimal("0.10")], 0.1, id="decimals"),
    ],
)
def test_what_counts_as_discrete(values: list[object], step: float | None) -> None:
    assert step_of(values) == step


def test_a_sample_of_a_density_is_continuous_also_when_rounded_to_six_digits() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    assert step_of(values) is None
    assert step_of(values.round(6)) is None
    assert step_of(values.round(1)) == 0.1


def test_roles_bounds_and_circles() -> None:
    frame = pl.DataFrame({"n": [1, 2], "day": [1, 2], "t": ["x", "y"], "p": [0.1, 0.7], "angle": [0, 90]})
    schema = infer_schema(
        frame,
        condition=["day"],
        exclude=["t"],
        bounds={"p": (0, 1), "n": (0, None)},
        periodic={"angle": (0, 360)},
    )
    assert schema.columns == (
        ColumnSchema(name="n", low=0, step=1.0),
        ColumnSchema(name="p", low=0, high=1),
        ColumnSchema(name="angle", low=0, high=360, periodic=True),
    )
    assert schema.context == (ColumnSchema(name="day"),)


FRAME = pl.DataFrame({"height": [1.5, 1.7], "age": [3, 4], "": [1, 2]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"condition": ["heigth"]}, r"t\.csv, column 'heigth': no such column, to be conditioned on; the table has "
         r"'height', 'age', ''\. Is 'height' meant\?"),
        ({"exclude": ["AGE"]}, r"column 'AGE': no such column, to be excluded.*Is 'age' meant\?"),
        ({"bounds": {"x": (0, 1)}}, "column 'x': no such column, to be given bounds"),
        ({"periodic": {"x": (0, 1)}}, "column 'x': no such column, to be declared periodic"),
        ({"condition": ["age"], "exclude": ["age"]}, "'age': the column cannot be both conditioned on and excluded"),
        ({"condition": ["age"], "bounds": {"age": (0, 1)}}, "cannot be both conditioned on and given bounds"),
        ({"exclude": ["age"], "periodic": {"age": (0, 1)}}, "cannot be both excluded and declared periodic"),
        ({"exclude": ["age", "age"]}, "column 'age': excluded twice"),
        ({"condition": ["height", "age"], "exclude": [""]}, r"t\.csv: no column is left to model\. Exclude"),
        ({"exclude": [""], "bounds": {"age": (1, 0)}}, "column 'age': low must be below high"),
        ({}, r"t\.csv: column number 3 has no name.*index=False"),
    ],
)  # fmt: skip
def test_roles_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        infer_schema(FRAME, source="t.csv", **arguments)  # type: ignore[arg-type]


BAD: dict[str, tuple[pl.Series, str]] = {
    "null": (
        pl.Series([1.0, None, None]),
        r"row 2, column 'a': missing value, the first of 2 in rows 1 to 3\. Fill",
    ),
    "NaN": (pl.Series([1.0, 2.0, np.nan]), "row 3, column 'a': missing value, the only one in rows 1 to 3"),
    "null integer": (pl.Series([None, 2]), "row 1, column 'a': missing value"),
    "nothing else": (pl.Series([None, None]), "row 1, column 'a': missing value, the first of 2"),
    "no text": (pl.Series([None, None], dtype=pl.String), "row 1, column 'a': missing value, the first of 2"),
    "infinite": (pl.Series([1.0, -np.inf]), "row 2, column 'a': infinite value -inf. Replace"),
    "text": (
        pl.Series([None, "1", " 2.5", "n/k"]),
        r"row 4, column 'a': text where.*'n/k'\. Encode .*--drop",
    ),
    "category": (pl.Series(["u", "v"], dtype=pl.Categorical), "row 1, column 'a': text where a number.*'u'"),
    "decimal comma": (pl.Series(["1.5", "-1,5"]), r"row 2, .*'-1,5'\. Write decimal points, not commas"),
    "date as text": (
        pl.Series(["2024-03-01 12:00"]),
        r"row 1, .*'2024-03-01 12:00'\. Convert dates to seconds",
    ),
    "list": (pl.Series([[1.0], [2.0]]), r"column 'a': holds List\(Float64\), not numbers.*--drop"),
    "binary": (pl.Series([b"1"]), "holds Binary, not numbers"),
    "vast": (
        pl.Series([1, -(2**53)]),
        r"row 2, column 'a': the integer -9007199254740992 reaches 2\*\*53.*offset",
    ),
    "unsigned": (
        pl.Series([1, 2**64 - 1], dtype=pl.UInt64),
        r"row 2, column 'a': the integer 18446744073709551615",
    ),
    "beyond": (pl.Series([2**63], dtype=pl.Int128), "row 1, column 'a': the integer 9223372036854775808"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("before", [0, 7])
def test_a_value_that_is_no_number_is_named_with_its_row_and_a_remedy(case: str, before: int) -> None:
    series, message = BAD[case]
    frame = pl.DataFrame({"b": pl.Series([1] * len(series)), "a": series})
    with pytest.raises(DataError, match=rf"^t\.csv, .*{message}"):
        to_matrix(frame, [ColumnSchema(name="b"), A], source="t.csv")
    with pytest.raises(DataError, match=message):
        infer_schema(frame, mixed=False, source="t.csv")
    with pytest.raises(DataError, match=message):
        infer_schema(frame, condition=["a"], mixed=False, source="t.csv")
    infer_schema(frame, exclude=["a"], mixed=False)
    with pytest.raises(DataError) as moved:
        to_matrix(frame, [A], source="t.csv", first_row=1 + before)
    with pytest.raises(DataError) as first:
        to_matrix(frame, [A], source="t.csv")
    assert moved.value.column == "a"
    assert (moved.value.row or 0) == (first.value.row or 0) + (before if first.value.row else 0)


@pytest.mark.parametrize(
    "value", [date(2024, 3, 1), datetime(2024, 3, 1, tzinfo=UTC), time(1), timedelta(1)], ids=repr
)
def test_dates_and_times_are_numbers_only_where_the_schema_says_so(value: object) -> None:
    frame = pl.DataFrame({"a": [value, value]})
    with pytest.raises(DataError, match=r"column 'a': holds dates or times \(.*\)\. Convert it to seconds"):
        to_matrix(frame, [A], source="t.csv")
    for mixed in (None, True, False):
        assert to_matrix(frame, infer_schema(frame, mixed=mixed).columns).shape == (2, 1)


def test_a_text_value_far_down_is_named_by_its_row_in_the_file_also_when_streamed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = ["a"] + [str(i / 8) for i in range(100_000)]
    lines[90_000] = "offline"
    path.write_text("\n".join(lines))
    row = 1
    with pytest.raises(
        DataError, match=r"t\.csv, row 90000, column 'a': text where a number is expected: 'offline'"
    ):
        for chunk in iter_table(path, ["a"], 10_000):
            to_matrix(chunk, [A], source=path, first_row=row)
            row += chunk.height


@given(
    data=st.data(),
    kind=st.sampled_from(["continuous", "discrete", "circle"]),
    rows=st.integers(1, 10),
)
@settings(max_examples=100)
def test_the_first_value_off_the_support_is_named(data: st.DataObject, kind: str, rows: int) -> None:
    """Against a plain loop over the values."""
    values = data.draw(st.lists(st.integers(-6, 6).map(lambda i: i / 2), min_size=rows, max_size=rows))
    column = ColumnSchema(
        name="a", low=-2.0, high=2.5, periodic=kind == "circle", step=0.5 if kind == "discrete" else None
    )
    inside = {
        "continuous": lambda v: -2 < v < 2.5,
        "discrete": lambda v: -2 <= v <= 2.5,
        "circle": lambda v: -2 <= v < 2.5,
    }[kind]
    first = next((i for i, value in enumerate(values) if not inside(value)), None)
    frame = pl.DataFrame({"a": values})
    if kind != "circle":
        assert to_matrix(frame, [column])[:, 0].tolist() == values
    if first is None:
        assert to_matrix(frame, [column], check_support=True)[:, 0].tolist() == values
        return
    words = {
        "continuous": r"not strictly within the column's range in its schema, from -2\.0 to 2\.5\.",
        "discrete": r"outside the column's range in its schema, from -2\.0 to 2\.5\.",
        "circle": "off its circle",
    }
    widen = r"Widen the bounds \(--bounds or --schema\), train on rows with such values too"
    remedy = {"continuous": widen, "discrete": widen, "circle": "modulo 4.5"}
    with pytest.raises(
        DataError, match=f"row {first + 1}, column 'a': {values[first]} is {words[kind]}.*{remedy[kind]}"
    ):
        to_matrix(frame, [column], check_support=True)


def test_half_open_bounds_bound_one_side() -> None:
    frame = pl.DataFrame({"a": [1e300, 0.5]})
    assert to_matrix(frame, [ColumnSchema(name="a", low=0.0)], check_support=True).shape == (2, 1)
    with pytest.raises(DataError, match=r"row 1, column 'a': 1e\+300 is not strictly within.* -inf to 7"):
        to_matrix(frame, [ColumnSchema(name="a", high=7.0)], check_support=True)


@pytest.mark.parametrize(
    ("step", "value", "message"),
    [
        (1.0, 2.5, "row 3, column 'a': 2.5 is not a whole number.*Round the column"),
        (0.01, 2.505, "row 3, column 'a': 2.505 is not a multiple of 0.01"),
        (5.0, 12.0, "row 3, column 'a': 12.0 is not a multiple of 5.0"),
        (0.1, 1e308 / 3, "not a multiple of 0.1"),
    ],
)
def test_a_discrete_column_off_its_grid_at_scoring(step: float, value: float, message: str) -> None:
    frame = pl.DataFrame({"a": [5.0, 10.0, value]})
    if value < 1e300:
        with pytest.raises(DataError, match=message):
            to_matrix(frame, [ColumnSchema(name="a", step=step)], source="t.csv")
    assert to_matrix(frame[:2], [ColumnSchema(name="a", step=step)]).tolist() == [[5.0], [10.0]]


@given(
    fraction=st.sampled_from(["0.15", "2.5", "0.25", "3e-05", "1e-06", "7", "12.5"]),
    cells=st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=10),
)
def test_multiples_of_any_decimal_step_come_back_as_the_decimals_written(
    fraction: str, cells: list[int]
) -> None:
    written = [float(Decimal(fraction) * cell) for cell in cells]
    frame = pl.DataFrame({"a": [float(fraction) * cell for cell in cells]})
    assert to_matrix(frame, [ColumnSchema(name="a", step=float(fraction))])[:, 0].tolist() == written


def test_columns_are_taken_by_name_and_order_and_numbers_may_be_text() -> None:
    frame = pl.DataFrame({"t": ["x", "y"], "b": [True, False], "a": ["1.5", " 2.5"]})
    matrix = to_matrix(frame, [A, ColumnSchema(name="b", step=1.0)])
    assert matrix.tolist() == [[1.5, 1.0], [2.5, 0.0]]
    assert matrix.dtype == np.float64
    with pytest.raises(
        DataError, match=r"t\.csv: column 'B' missing; the table has 't', 'b', 'a'\. Is 'b' meant\?"
    ):
        to_matrix(frame, [A, ColumnSchema(name="B")], source="t.csv")
    with pytest.raises(DataError, match=r"t\.csv: no rows"):
        to_matrix(frame.clear(), [A], source="t.csv")


def test_too_few_rows_and_constant_columns_cannot_be_fitted() -> None:
    columns = [ColumnSchema(name=name) for name in "abc"]
    good = np.random.default_rng(0).normal(size=(10, 3))
    check_fittable(good, columns, source="t.csv", minimum_rows=10)
    with pytest.raises(DataError, match=r"t\.csv: 10 rows, but at least 11 are needed\. Give more rows\."):
        check_fittable(good, columns, source="t.csv", minimum_rows=11)
    good[:, [0, 2]] = 4.0, 5.0
    with pytest.raises(
        DataError,
        match=r"t\.csv, column 'a': all 10 values are 4\.0, so it .*; neither have 'c'\. .*--drop a,c\.",
    ):
        check_fittable(good, columns, source="t.csv", minimum_rows=10)


def test_a_matrix_of_many_rows_and_columns_is_that_of_the_frame() -> None:
    """More of both than are copied at once, of several types."""
    rng = np.random.default_rng(0)
    x = rng.integers(-99, 99, size=(20_001, 19)).astype(float)
    types = [pl.Float64, pl.Float32, pl.Int8]
    frame = pl.DataFrame([pl.Series(f"c{j}", x[:, j]).cast(types[j % 3]) for j in range(19)])
    columns = [ColumnSchema(name=name, step=1.0 if name < "c15" else None) for name in frame.columns[::-1]]
    np.testing.assert_array_equal(to_matrix(frame, columns), x[:, ::-1])


def test_ends_of_a_grid_in_32_bits_are_those_of_its_decimals() -> None:
    tenths = np.repeat(np.arange(1, 8) / 10, 30)
    frame = pl.DataFrame({"a": tenths, "label": ["x", "y"] * 105})
    single = frame.with_columns(pl.col("a").cast(pl.Float32))
    columns = infer_schema(single).columns
    assert columns == infer_schema(frame).columns and (columns[0].low, columns[0].high) == (0.1, 0.7)
    assert to_matrix(single, columns)[:, 0].tolist() == tenths.tolist()


def test_large_whole_numbers_with_a_point_are_floats_unless_digits_are_lost(tmp_path: Path) -> None:
    """A float column that other tools wrote as text is read as such."""
    floats = (np.random.default_rng(0).random(50) * 9e15).round()
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{x:.1f},0.5\n" for x in floats))
    assert read_table(path)["a"].to_list() == floats.tolist()
    path.write_text("a,b\n" + "".join(f"{2**60 + k}.0,0.5\n" for k in range(50)))
    assert read_table(path)["a"].dtype == pl.String
