"""The figure of a fit: complete for any number of columns, atomic, and without global state."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pushforward.artifact import FittedFlow
from pushforward.configs import (
    ColumnSchema,
    DataConfig,
    MAFConfig,
    NSFConfig,
    TableSchema,
    TrainConfig,
    TrainingFacts,
)
from pushforward.errors import DataError, OutputError
from pushforward.flows import score, table_flow
from pushforward.report.comparison import compare, limits, log_density, most_dependent, outside
from pushforward.report.figures import LIGHT, cell_centres, draw_curves, one_axes
from pushforward.report.plots import fit_figure, plot_fit
from pushforward.training import fit

TRAINING = TrainConfig(epochs=2, batch_size=32)
MODEL = NSFConfig(layers=1, bins=4, hidden=(8,))


def frame_of(columns: int, rows: int = 60, seed: int = 0) -> pl.DataFrame:
    """Dependent columns, every third of whole numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)) @ (np.eye(columns) + 0.3)
    return pl.DataFrame({f"c{j}": np.round(5 * x[:, j]) if j % 3 == 2 else x[:, j] for j in range(columns)})


def fitted_to(frame: pl.DataFrame) -> FittedFlow:
    return fit(frame, model=MODEL, training=TRAINING)


def texts(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("columns", "panels"), [(1, 3), (2, 2 + 3 + 1), (3, 2 + 6), (13, 2 + 21)])
def test_the_figure_is_complete_for_any_number_of_columns(tmp_path: Path, columns: int, panels: int) -> None:
    frame = frame_of(columns)
    fitted = fitted_to(frame)
    plot_fit(fitted, frame, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.format == "PNG" and image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
    figure = fit_figure(fitted, compare(fitted, frame))
    assert len(figure.axes) == panels
    assert any("7 more not shown" in text for text in texts(figure)) == (columns == 13)
    assert any(text.startswith("best:") for text in texts(figure))


def test_a_conditional_flow_is_drawn_under_the_conditions_of_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    far = 1000.0 * rng.integers(2, size=400)
    frame = pl.DataFrame({"x": far + rng.normal(size=400), "y": rng.normal(size=400), "far": far})
    fitted = fit(
        frame,
        model=MAFConfig(layers=2, hidden=(16,)),
        training=TrainConfig(epochs=40, batch_size=32, learning_rate=1e-2),
        data=DataConfig(condition=("far",)),
    )
    drawn = compare(fitted, frame)
    assert np.corrcoef(drawn.drawn[:, 0], far)[0, 1] > 0.99
    expected = score(fitted.flow, torch.from_numpy(drawn.real), torch.from_numpy(far[:, None])).value
    np.testing.assert_allclose(drawn.real_log_prob, expected.double().numpy())
    plot_fit(fitted, frame, tmp_path / "a.png")
    figure = fit_figure(fitted, drawn)
    assert len(figure.axes) == 2 + 3  # no map: there is no one density
    assert any("given far" in text for text in texts(figure))


def test_of_many_rows_some_are_taken_and_the_choice_is_the_same_again() -> None:
    frame = frame_of(2, rows=500)
    fitted = fitted_to(frame)
    one, two = (compare(fitted, frame, most_rows=100) for _ in range(2))
    assert one.real.shape == one.drawn.shape == (100, 2) and one.rows == 500
    np.testing.assert_array_equal(one.drawn, two.drawn)
    rows = {tuple(row) for row in frame.rows()}
    assert all(tuple(row) in rows for row in one.real.tolist())


def test_equal_calls_write_equal_files(tmp_path: Path) -> None:
    frame = frame_of(1)
    fitted = fitted_to(frame)
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        path = tmp_path / f"a{suffix}"
        plot_fit(fitted, frame, path)
        first = path.read_bytes()
        plot_fit(fitted, frame, path)
        assert first.startswith(magic)
        if suffix != ".svg":  # where matplotlib names its parts by chance
            assert path.read_bytes() == first


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.gz"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    frame = frame_of(1)
    with pytest.raises(OutputError, match=r"End the name in \.png, \.pdf, \.svg"):
        plot_fit(fitted_to(frame), frame, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_figure_and_no_other_file(tmp_path: Path) -> None:
    frame = frame_of(2)
    fitted = fitted_to(frame)
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(DataError):
        plot_fit(fitted, frame.drop("c1"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == b"old"
    with pytest.raises(OutputError, match="there is no folder"):
        plot_fit(fitted, frame, tmp_path / "absent" / "a.png")


def test_nothing_global_in_matplotlib_changes() -> None:
    # In a process of its own, since asking for the backend already imports pyplot.
    code = (
        "import sys, matplotlib as mpl; before = list(dict.items(mpl.rcParams)); "
        "from pushforward.report.figures import *; fig, ax = one_axes(3, 3, LIGHT, margins=(.5, .5, .5, .5)); "
        "draw_curves(ax, [2, 1], [2, 1], 2, DARK); draw_density(ax, np.ones((2, 2)), (0, 1, 0, 1), DARK); png(fig); "
        "print(before == list(dict.items(mpl.rcParams)), 'matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_importing_the_reports_imports_no_matplotlib_and_no_sklearn() -> None:
    code = (
        "import sys, pushforward.report, pushforward.report.demo, pushforward.report.plots; "
        "print([m for m in ('matplotlib', 'sklearn', 'jinja2', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_names_that_look_like_mathematics_and_values_outside_the_support_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"$a_b$^": rng.random(60), "x" * 80: rng.normal(size=60)})
    data = DataConfig(bounds={"$a_b$^": (0.0, 1.0)})
    fitted = fit(frame, model=MODEL, training=TRAINING, data=data)
    other = frame.with_columns(pl.col("$a_b$^") + 0.5)
    assert not np.isfinite(compare(fitted, other).real_log_prob).all()
    plot_fit(fitted, other, tmp_path / "a.png")


def test_the_map_is_the_density_of_the_flow() -> None:
    frame = pl.DataFrame(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).numpy(), ["a", "b"])
    fitted = fitted_to(frame)
    comparison = compare(fitted, frame)
    (ax,) = [
        a for a in fit_figure(fitted, comparison).axes if a.get_title(loc="left") == "Density of the flow"
    ]
    values = np.asarray(ax.images[0].get_array())
    x0, x1, y0, y1 = ax.images[0].get_extent()
    i, k = 70, 100
    point = [[cell_centres(x0, x1, values.shape[1])[k], cell_centres(y0, y1, values.shape[0])[i]]]
    expected = score(fitted.flow, torch.tensor(point, dtype=torch.float64)).value.exp()
    assert values[i, k] == pytest.approx(float(expected), rel=1e-5)
    mass = values.sum() * (x1 - x0) * (y1 - y0) / values.size
    assert 0.9 < mass < 1.01


def test_a_discrete_column_has_one_density_in_each_cell() -> None:
    schema = TableSchema(columns=(ColumnSchema(name="n", step=0.5),))
    torch.manual_seed(0)
    fitted = FittedFlow(table_flow(MODEL, schema), MODEL, schema, _facts())
    steps = np.array([0.5])
    values = log_density(fitted, np.array([[1.0], [1.2], [1.49], [1.5]]), steps)
    assert values[0] == values[1] == values[2] != values[3]


def _facts() -> TrainingFacts:
    return TrainingFacts(
        source="", train_rows=1, valid_rows=1, test_rows=1, train_log_prob=0.0, valid_log_prob=0.0,
        test_log_prob=0.0, kind="exact", train_curve=(), valid_curve=(), best_epoch=0, stopped="interrupt",
        seconds=0.0, config=TRAINING, versions={},
    )  # fmt: skip


def test_a_flow_without_a_curve_is_drawn_too() -> None:
    frame = frame_of(1)
    fitted = fitted_to(frame)
    bare = FittedFlow(fitted.flow, fitted.model, fitted.schema, _facts())
    assert len(fit_figure(bare, compare(bare, frame)).axes) == 3


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=40),
    st.integers(0, 45),
    st.sampled_from([float("inf"), float("nan"), 1e30]),
)
@settings(max_examples=20, deadline=None)
def test_curves_show_the_best_epoch_even_where_losses_are_not_finite(
    losses: list[float], best: int, first: float
) -> None:
    _, ax = one_axes(4.0, 3.0, LIGHT, margins=(0.5, 0.5, 0.1, 0.1))
    valid = [first, *losses]
    draw_curves(ax, valid, valid, min(best, len(valid)), LIGHT, floor=-60.0, floor_label="entropy")
    low, high = ax.get_ylim()
    assert np.isfinite([low, high]).all() and low <= -60.0 < high
    if len(losses) >= 20:
        assert low <= min(losses[5:]) and high >= max(losses[5:])


@given(st.integers(0, 2**32 - 1), st.integers(7, 12))
@settings(max_examples=10, deadline=None)
def test_columns_that_depend_on_others_are_chosen_before_noise(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, columns))
    dependent = sorted(rng.choice(columns, 6, replace=False).tolist())
    x[:, dependent] += 3 * rng.normal(size=(300, 1))
    x[:, next(j for j in range(columns) if j not in dependent)] = 7.0
    assert most_dependent(x, 6) == dependent


@given(st.integers(0, 2**32 - 1), st.floats(1e2, 1e8))
@settings(max_examples=10, deadline=None)
def test_axes_hold_all_rows_but_far_outliers_and_these_are_counted(seed: int, far: float) -> None:
    comparison = compare(_fitted_three(), frame_of(3, rows=400, seed=seed))
    for column in range(3):
        low, high = limits(comparison, column)
        for rows in (comparison.real, comparison.drawn):
            middle = np.quantile(rows[:, column], [0.02, 0.98])
            assert low < middle[0] and middle[1] + comparison.steps[column] < high
    width = limits(comparison, 0)[1] - limits(comparison, 0)[0]
    before = outside(comparison, range(3))
    comparison.real[7, 0] = far
    assert limits(comparison, 0)[1] - limits(comparison, 0)[0] < 2 * width
    assert before <= outside(comparison, range(3)) <= before + 1 and outside(comparison, [0]) >= 1


@cache
def _fitted_three() -> FittedFlow:
    return fitted_to(frame_of(3))
