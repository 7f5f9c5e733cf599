"""Pictures and films of points on their way: complete for any columns, the same for equal seeds, and atomic."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage
from PIL import Image
from torch import nn

from pushforward.artifact import FittedFlow
from pushforward.configs import (
    AugmentedConfig,
    ColumnSchema,
    FlowMatchingConfig,
    ImageFlowMatchingConfig,
    ImageSchema,
    ModelConfig,
    RealNVPConfig,
    TableSchema,
    TrainConfig,
    TrainingFacts,
)
from pushforward.errors import ArtifactError, OutputError
from pushforward.flows import image_flow, table_flow
from pushforward.report import films, image_motion, motion
from pushforward.report.films import Film, write_film
from pushforward.report.image_motion import follow_images, write_images
from pushforward.report.motion import follow_table, frame_times
from pushforward.report.motion_figures import draw_still, write_motion

CONTINUOUS = FlowMatchingConfig(hidden=(8, 8), atol=1e-3, rtol=1e-3)
LAYERS = RealNVPConfig(layers=3, hidden=(8,))
FACTS = TrainingFacts(
    source="", train_rows=1, valid_rows=1, test_rows=1, train_log_prob=0.0, valid_log_prob=0.0,
    test_log_prob=0.0, kind="exact", train_curve=(), valid_curve=(), best_epoch=0, stopped="interrupt",
    seconds=0.0, config=TrainConfig(), versions={},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "_CELLS", {1: 60, 2: 24})
    monkeypatch.setattr(films, "DPI", 40)
    monkeypatch.setattr(image_motion, "DPI", 40)


def fitted(
    model: ModelConfig, columns: int, *, context: bool = False, step: float | None = None
) -> FittedFlow:
    """The flow of columns a, b, ... with weights that move points, given c where it is conditional."""
    schema = TableSchema(
        columns=tuple(ColumnSchema(name=n, step=step) for n in "abde"[:columns]),
        context=(ColumnSchema(name="c"),) if context else (),
    )
    flow = table_flow(model, schema)
    generator = torch.Generator().manual_seed(0)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return FittedFlow(flow, model, schema, FACTS)


def texts(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", [CONTINUOUS, LAYERS], ids=["continuous", "layers"])
@pytest.mark.parametrize("suffix", [".png", ".gif"])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_every_table_can_be_shown(model: ModelConfig, suffix: str, columns: int, tmp_path: Path) -> None:
    if model is LAYERS and columns == 1:
        pytest.skip("a coupling needs two columns")
    motion = follow_table(fitted(model, columns), rows=30, frames=7, still=suffix == ".png")
    assert motion.points.shape[1:] == (30, min(columns, 2))
    assert bool(motion.densities) == (columns < 3)
    write_motion(motion, tmp_path / f"a{suffix}", seconds=1.0)
    with Image.open(tmp_path / f"a{suffix}") as picture:
        assert getattr(picture, "n_frames", 1) == (len(motion.times) if suffix == ".gif" else 1)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_densities_are_ones_at_every_time() -> None:
    for columns in (1, 2):
        motion = follow_table(fitted(CONTINUOUS, columns), rows=2000, frames=4)
        assert sorted(motion.densities) == [0, 1, 2, 3]
        cell = np.prod([(b - a) for a, b in motion.box]) / motion.densities[0].size
        for frame, density in motion.densities.items():
            inside = np.ones(2000, bool)
            for j, (low, high) in enumerate(motion.box):
                inside &= (motion.points[frame, :, j] > low) & (motion.points[frame, :, j] < high)
            assert abs(density.sum() * cell - inside.mean()) < 0.03


def test_columns_are_those_asked_for() -> None:
    flow = fitted(CONTINUOUS, 2)
    one, other = (
        follow_table(flow, frames=2, rows=20),
        follow_table(flow, frames=2, rows=20, columns=["b", "a"]),
    )
    assert other.names == ("b", "a")
    np.testing.assert_array_equal(one.points[..., ::-1], other.points)
    peak = [np.unravel_index(m.densities[1].argmax(), (24, 24)) for m in (one, other)]
    assert peak[0] == peak[1][::-1]
    alone = follow_table(flow, frames=3, rows=20, columns=["b"])
    assert alone.points.shape == (3, 20, 1) and not alone.densities
    assert any("1 of 2 columns" in text for text in texts(draw_still(alone)))


def test_what_is_shown_and_what_not_is_said() -> None:
    given = follow_table(fitted(CONTINUOUS, 2, context=True), frames=6, rows=20, given={"c": 1.5}, still=True)
    words = texts(draw_still(given))
    assert any("Given c\u00a0=\u00a01.5" in text and "exact density" in text for text in words)
    assert {"t = 0.00", "t = 0.20", "t = 1.00", "a", "b"} <= set(words)
    assert any(
        "spread over their cells" in n for n in follow_table(fitted(CONTINUOUS, 2, step=1.0), frames=2).notes
    )
    added = follow_table(fitted(AugmentedConfig(hidden=(8, 8)), 2), frames=2, rows=5)
    assert not added.densities and any("added elements" in n for n in added.notes)
    other = follow_table(
        fitted(CONTINUOUS, 2, context=True), frames=6, rows=20, given={"c": -1.5}, still=True
    )
    assert not np.array_equal(given.points[-1], other.points[-1])


def test_frames_stand_where_layers_are_done() -> None:
    flow = fitted(LAYERS, 2).flow
    layers = len(flow.transform.transforms)
    for frames in (2, 4, 7, 30):
        times, done, titles = frame_times(flow, frames)
        assert done is not None and len(times) == len(titles) <= max(frames, 2)
        assert times[0] == 0 and times[-1] == 1 and all(a < b for a, b in pairwise(times))
        assert titles[0] == "base" and titles[-1] == f"layer {layers} of {layers}"
        np.testing.assert_allclose(times[done] * layers, np.round(times[done] * layers), atol=1e-12)
    times, done, titles = frame_times(fitted(CONTINUOUS, 2).flow, 5)
    assert done is None and times.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0] and titles[1] == "t = 0.25"
    with pytest.raises(ValueError, match="frames must be at least 2"):
        frame_times(flow, 1)


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    flow = fitted(CONTINUOUS, 2)
    for suffix in (".png", ".gif"):
        files = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            path = tmp_path / f"{name}{suffix}"
            write_motion(follow_table(flow, rows=9, frames=3, seed=seed, still=suffix == ".png"), path)
            files.append(path.read_bytes())
        assert files[0] == files[1] != files[2]


def test_a_film_runs_as_long_as_it_is_asked_to(tmp_path: Path) -> None:
    write_motion(follow_table(fitted(CONTINUOUS, 3), rows=5, frames=7), tmp_path / "a.gif", seconds=0.5)
    lengths = []
    with Image.open(tmp_path / "a.gif") as film:
        for i in range(film.n_frames):
            film.seek(i)
            lengths.append(film.info["duration"])
    assert film.info["loop"] == 0 and len(lengths) == 7
    assert sum(lengths) == 500 + 1000 * films._FIRST + 1000 * films._HELD


def test_points_that_are_lost_are_counted() -> None:
    broken = fitted(CONTINUOUS, 2)
    with torch.no_grad():
        next(iter(broken.flow.transform.parameters())).fill_(torch.nan)
    with pytest.raises(ArtifactError, match="none of the points"):
        follow_table(broken, rows=5, frames=3)


@pytest.mark.parametrize("columns", [1, 2])
def test_cells_without_a_density_are_counted_and_are_not_drawn_as_0(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion, "_MOST_STEPS", 3)
    shown = follow_table(fitted(CONTINUOUS, columns), rows=9, frames=3)
    lost = np.isnan(list(shown.densities.values())).any(0)
    assert 0 < lost.sum() < lost.size and not np.isnan(shown.densities[0]).any()
    assert f"grey: {lost.sum():,} of {lost.size:,} cells, where it is not found at some time" in shown.notes
    drawn = [image.get_array().mask for image in draw_still(shown).findobj(AxesImage)]
    assert sum(mask.sum() for mask in drawn) == np.isnan(list(shown.densities.values())).sum()
    monkeypatch.setattr(motion, "_MOST_STEPS", 1)
    nothing = follow_table(fitted(CONTINUOUS, columns), rows=9, frames=3)
    assert np.isnan(nothing.densities[2]).all()
    write_motion(nothing, tmp_path / "a.gif", seconds=0.5)


def images(**options: object) -> FittedFlow:
    model = ImageFlowMatchingConfig(width=8, atol=0.1, rtol=0.1)
    schema = ImageSchema(height=4, width=4, levels=17, **options)  # type: ignore[arg-type]
    return FittedFlow(image_flow(model, schema), model, schema, FACTS)


def test_images_emerge(tmp_path: Path) -> None:
    pictures, titles = follow_images(images(), count=5, frames=3)
    assert pictures.shape == (3, 5, 1, 4, 4) and pictures.dtype == np.uint8 and len(titles) == 3
    write_images(pictures, titles, tmp_path / "a.png")
    write_images(pictures, titles, tmp_path / "a.gif", seconds=0.5)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 3
    classed = images(classes=("x", "y"), given="class")
    pair, titles = follow_images(classed, count=2, frames=2, classes=[0, 1])
    assert pair.shape == (2, 2, 1, 4, 4)
    write_images(pair, titles, tmp_path / "b.png", rows=["x", "y"])


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    motion = follow_table(fitted(CONTINUOUS, 3), rows=5, frames=3)
    with pytest.raises(OutputError, match="GIF or an MP4"):
        write_motion(motion, tmp_path / "a.avi")
    with pytest.raises(OutputError, match="there is no folder"):
        write_motion(motion, tmp_path / "no" / "a.gif")
    with pytest.raises(ValueError, match="at most 50 frames in a second"):
        write_motion(motion, tmp_path / "a.gif", seconds=0.01)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(OutputError, match=r"needs the program ffmpeg.*\.gif"):
        write_motion(motion, tmp_path / "a.mp4")
    from pushforward.report.figures import new_figure

    def fail(frame: int) -> None:
        raise RuntimeError(f"frame {frame}")

    with pytest.raises(RuntimeError, match="frame 0"):
        write_film(tmp_path / "a.gif", Film(new_figure(1, 1), 2, fail), seconds=1.0)
    assert list(tmp_path.iterdir()) == []
