"""A run that was stopped and goes on is the run that never was."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pushforward import sealed
from pushforward.configs import DataConfig, MAFConfig, NSFConfig, TrainConfig
from pushforward.errors import ArtifactError, OutputError, TerminatedError, TrainingError
from pushforward.flows import Flow, build_flow
from pushforward.training import (
    Checkpoints,
    EpochRecord,
    Points,
    TrainResult,
    fit,
    fit_split,
    split_table,
    train,
)
from pushforward.training.checkpoints import Snapshot, finished_run
from pushforward.training.run import Run

CONFIG = TrainConfig(epochs=5, batch_size=16, learning_rate=1e-2, ema=0.9, seed=3)


class Killed(Exception):
    """Stands for the end of the process: nothing of it is handled."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give a function that lets the next runs die after so many steps."""
    plain, left = Run.step, [math.inf]

    def step(self: Run, batch: Any) -> None:
        plain(self, batch)
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def set_left(steps: float) -> None:
        left[0] = steps

    monkeypatch.setattr(Run, "step", step)
    return set_left


def points(rows: int, seed: int) -> Points:
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    return Points(x @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]) + 3.0)


def run(checkpoints: Checkpoints | None = None, config: TrainConfig = CONFIG) -> tuple[Flow, TrainResult]:
    torch.manual_seed(0)
    flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
    return flow, train(flow, points(100, 0), points(30, 1), config, checkpoints=checkpoints)


def assert_same(one: tuple[Flow, TrainResult], other: tuple[Flow, TrainResult]) -> None:
    assert one[1].train_curve == other[1].train_curve
    assert one[1].valid_curve == other[1].valid_curve
    assert (one[1].best_epoch, one[1].stopped) == (other[1].best_epoch, other[1].stopped)
    states = one[0].state_dict(), other[0].state_dict()
    assert all(torch.equal(t, states[1][name]) for name, t in states[0].items())


def test_a_run_killed_after_any_step_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, killed_after: Callable[[float], None]
) -> None:
    expected = run()
    for steps in range(30):
        folder = tmp_path / str(steps)
        killed_after(steps)
        with pytest.raises(Killed):
            run(Checkpoints(folder, every=0.0))
        killed_after(math.inf)
        notes: list[str] = []
        assert_same(run(Checkpoints(folder, every=0.0, resume=True, on_note=notes.append)), expected)
        assert bool(notes) == (steps == 0), "only a run without a checkpoint begins anew"


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    tmp_path: Path, killed_after: Callable[[float], None]
) -> None:
    expected, rng, kills = run(), np.random.default_rng(0), 0
    while True:
        killed_after(int(rng.integers(1, 6)))
        try:
            found = run(Checkpoints(tmp_path / "a", every=0.0, resume=True, on_note=lambda _: None))
            break
        except Killed:
            kills += 1
    assert kills > 5
    assert_same(found, expected)


def test_skipped_steps_and_cut_batches_are_remembered(
    tmp_path: Path, killed_after: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = points(100, 0)
    x.x[7] = 1e30  # its square overflows
    monkeypatch.setattr("pushforward.training.pieces.pieces_that_fit", lambda *_: 2)

    def run(checkpoints: Checkpoints | None) -> tuple[Flow, TrainResult]:
        torch.manual_seed(0)
        flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
        return flow, train(flow, x, points(30, 1), CONFIG, checkpoints=checkpoints, on_note=lambda _: None)

    expected = run(None)
    assert "2 pieces" in expected[1].notes[0] and len(expected[1].notes) == 1 + CONFIG.epochs
    for steps in (3, 8, 14, 29):
        folder = tmp_path / str(steps)
        killed_after(steps)
        with pytest.raises(Killed):
            run(Checkpoints(folder, every=0.0))
        killed_after(math.inf)
        # What fits now does not matter to a run that has been cut.
        with monkeypatch.context() as patch:
            patch.setattr("pushforward.training.pieces.pieces_that_fit", lambda *_: 1)
            found = run(Checkpoints(folder, every=0.0, resume=True))
        assert_same(found, expected)
        assert found[1].notes == expected[1].notes


def test_a_table_with_noise_weights_and_context_goes_on_too(
    tmp_path: Path, killed_after: Callable[[float], None]
) -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=120) for name in "abc"}
    frame = pl.DataFrame({**columns, "n": rng.poisson(3.0, 120), "w": rng.uniform(size=120)})

    def fitted(checkpoint: Path | None, *, resume: bool = False) -> Any:
        return fit(
            frame,
            model=NSFConfig(layers=1, bins=4, hidden=(8,)),
            training=TrainConfig(epochs=4, batch_size=16),
            data=DataConfig(condition=("c",), weights="w"),
            checkpoint=checkpoint,
            resume=resume,
        )

    expected = fitted(None)
    killed_after(15)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "due", lambda _: True)
        fitted(tmp_path / "a")
    killed_after(math.inf)
    again = fitted(tmp_path / "a", resume=True)
    assert replace(again.facts, seconds=0.0) == replace(expected.facts, seconds=0.0)
    states = again.flow.state_dict(), expected.flow.state_dict()
    assert all(torch.equal(t, states[1][name]) for name, t in states[0].items())


def test_sigterm_writes_a_checkpoint_at_once_and_the_handler_is_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    torch.manual_seed(0)
    flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)

    def term(record: EpochRecord) -> None:
        if record.epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TerminatedError, match=r"SIGTERM in epoch 3.*--resume") as caught:
        train(
            flow,
            points(100, 0),
            points(30, 1),
            CONFIG,
            checkpoints=Checkpoints(tmp_path / "a"),
            on_epoch=term,
        )
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) is before
    assert_same(run(Checkpoints(tmp_path / "a", resume=True)), run())


@pytest.fixture
def two(tmp_path: Path, killed_after: Callable[[float], None]) -> list[Path]:
    """The two checkpoints of a run that was killed."""
    killed_after(10)
    with pytest.raises(Killed):
        run(Checkpoints(tmp_path / "a", every=0.0))
    killed_after(math.inf)
    return sorted((tmp_path / "a").iterdir())


def test_the_last_two_are_kept_and_hold_nothing_but_tensors(two: list[Path]) -> None:
    assert [path.name for path in two] == ["pushforward-000009.checkpoint", "pushforward-000010.checkpoint"]
    for path in two:
        kinds = set(sealed.read(path, kind=sealed.CHECKPOINT, latest=1).dtypes.values())
        assert kinds <= {torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool}


def test_where_the_newest_is_cut_or_changed_the_older_is_used_and_nothing_overwritten(
    two: list[Path],
) -> None:
    whole, expected = two[1].read_bytes(), run()
    rng = np.random.default_rng(0)
    flipped = bytearray(whole)
    flipped[int(rng.integers(len(whole)))] ^= 4
    for damaged in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        two[1].write_bytes(damaged)
        older = two[0].read_bytes()
        notes: list[str] = []
        with pytest.raises(TerminatedError):
            stopped_at_once(Checkpoints(two[0].parent, resume=True, on_note=notes.append))
        assert len(notes) == 1 and two[1].name in notes[0] and "checkpoint before it is used" in notes[0]
        assert two[1].read_bytes() == damaged
        assert two[0].read_bytes() == older
        next_one = two[0].parent / "pushforward-000011.checkpoint"
        next_one.unlink()
    assert_same(run(Checkpoints(two[0].parent, resume=True, on_note=lambda _: None)), expected)


def stopped_at_once(checkpoints: Checkpoints) -> None:
    """Go on for one step only."""
    plain = Run.step

    def step(self: Run, batch: Any) -> None:
        plain(self, batch)
        signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "step", step)
        run(checkpoints)


def test_every_length_and_every_changed_byte_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "a")
    checkpoints.write(Snapshot({"weight": torch.arange(3.0)}, {"epoch": 1}), {"data": "x"}, finished=False)
    checkpoints.write(Snapshot({"weight": torch.arange(3.0)}, {"epoch": 2}), {"data": "x"}, finished=False)
    newest = tmp_path / "a" / "pushforward-000002.checkpoint"
    whole = newest.read_bytes()
    rng = np.random.default_rng(0)

    def epoch() -> Any:
        found = Checkpoints(tmp_path / "a", resume=True, on_note=lambda _: None).newest({"data": "x"})
        return None if found is None else found.progress["epoch"]

    assert epoch() == 2
    for length in range(len(whole)):
        newest.write_bytes(whole[:length])
        assert epoch() == 1, length
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        newest.write_bytes(changed)
        assert epoch() == 1, place


def test_damaged_checkpoints_only_are_an_error_and_stay(two: list[Path]) -> None:
    for path in two:
        path.write_bytes(b"no checkpoint at all")
    with pytest.raises(ArtifactError, match=r"none of the checkpoints can be used.*--no-resume"):
        run(Checkpoints(two[0].parent, resume=True))
    assert [path.read_bytes() for path in two] == [b"no checkpoint at all"] * 2


def test_another_run_is_named_by_what_differs(two: list[Path]) -> None:
    before = [path.read_bytes() for path in two]
    with pytest.raises(ArtifactError, match=r"another run: training\.epochs was 5 there and is 7 here"):
        run(Checkpoints(two[0].parent, resume=True), replace(CONFIG, epochs=7))
    flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
    with pytest.raises(ArtifactError, match="another run: the training rows have changed"):
        train(
            flow, points(100, 7), points(30, 1), CONFIG, checkpoints=Checkpoints(two[0].parent, resume=True)
        )
    wider = build_flow(MAFConfig(layers=2, hidden=(9,)), 2)
    with pytest.raises(ArtifactError, match="does not fit the flow"):
        train(
            wider, points(100, 0), points(30, 1), CONFIG, checkpoints=Checkpoints(two[0].parent, resume=True)
        )
    assert [path.read_bytes() for path in two] == before


def test_the_model_and_the_columns_are_part_of_the_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=100), "b": rng.normal(size=100)})
    split, training = split_table(frame, DataConfig(), seed=0), TrainConfig(epochs=1, batch_size=32)
    fit_split(split, model=MAFConfig(layers=1), training=training, checkpoints=Checkpoints(tmp_path / "a"))
    with pytest.raises(ArtifactError, match=r"model\.activation was relu there and is tanh here"):
        fit_split(
            split,
            model=MAFConfig(layers=1, activation="tanh"),
            training=training,
            checkpoints=Checkpoints(tmp_path / "a", resume=True),
        )


def test_an_unfinished_run_is_not_thrown_away_unasked(two: list[Path]) -> None:
    folder, before = two[0].parent, [path.read_bytes() for path in two]
    with pytest.raises(OutputError, match=r"unfinished run.*--resume.*--no-resume"):
        Checkpoints(folder)
    assert [path.read_bytes() for path in two] == before
    replaced = Checkpoints(folder, replace=True)
    assert [path.read_bytes() for path in two] == before, "nothing is lost before training begins"
    assert_same(run(replaced), run())


def test_a_finished_run_is_read_back_and_may_be_replaced(
    tmp_path: Path, killed_after: Callable[[float], None]
) -> None:
    expected = run(Checkpoints(tmp_path / "a"))
    killed_after(0)  # no step is taken
    assert_same(run(Checkpoints(tmp_path / "a", resume=True)), expected)
    killed_after(math.inf)
    with pytest.raises(OutputError, match=r"has ended, but was not saved.*--resume"):
        Checkpoints(tmp_path / "a")
    other = run(Checkpoints(tmp_path / "a", replace=True), replace(CONFIG, epochs=2))
    assert len(other[1].valid_curve) == 2


def test_many_lives_leave_no_more_than_two_checkpoints(
    tmp_path: Path, killed_after: Callable[[float], None]
) -> None:
    for _ in range(5):
        killed_after(4)
        with pytest.raises(Killed):
            run(Checkpoints(tmp_path / "a", every=0.0, resume=True, on_note=lambda _: None))
        assert len(list((tmp_path / "a").glob("*.checkpoint"))) == 2


def test_a_second_process_is_kept_out_until_the_first_has_ended(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path / "a")
    expected = run()
    with first.held():
        first.write(Snapshot({}, {}), {}, finished=False)
        half = tmp_path / "a" / ".pushforward-0123456789ab.checkpoint"
        half.write_bytes(b"being written")
        with pytest.raises(OutputError, match="another process trains with these checkpoints"):
            run(Checkpoints(tmp_path / "a", resume=True))
        assert half.exists()
    assert_same(run(Checkpoints(tmp_path / "a", replace=True)), expected)


def test_sigterm_at_the_very_end_reaches_who_called(tmp_path: Path) -> None:
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))

    def term(record: EpochRecord) -> None:
        if record.epoch == CONFIG.epochs:
            signal.raise_signal(signal.SIGTERM)

    try:
        torch.manual_seed(0)
        flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
        checkpoints = Checkpoints(tmp_path / "a")
        train(flow, points(100, 0), points(30, 1), CONFIG, checkpoints=checkpoints, on_epoch=term)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [True]
    assert finished_run(tmp_path / "a")


def test_a_run_that_never_was_finite_leaves_no_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    far = Points(torch.full((30, 2), 1e30))
    flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
    with pytest.raises(TrainingError):
        train(flow, points(100, 0), far, CONFIG, checkpoints=Checkpoints(tmp_path / "a", every=0.0))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_where_it_was_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("a", every=0.0)
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    run(checkpoints)
    assert finished_run(tmp_path / "a")
    assert list((tmp_path / "b").iterdir()) == []


def test_in_python_a_finished_run_makes_way_and_an_unfinished_one_does_not(
    tmp_path: Path, killed_after: Callable[[float], None]
) -> None:
    frame = pl.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), schema=["a", "b"])
    settings = {"model": MAFConfig(layers=1, hidden=(8,)), "checkpoint": tmp_path / "a"}
    for epochs in (1, 2):
        found = fit(frame, training=TrainConfig(epochs=epochs, batch_size=32), **settings)  # type: ignore[arg-type]
        assert len(found.facts.valid_curve) == epochs
    killed_after(2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "due", lambda _: True)
        fit(frame, training=TrainConfig(epochs=3, batch_size=32), **settings)  # type: ignore[arg-type]
    killed_after(math.inf)
    with pytest.raises(OutputError, match="unfinished run"):
        fit(frame, training=TrainConfig(epochs=3, batch_size=32), **settings)  # type: ignore[arg-type]


def test_resuming_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="resume: needs checkpoint"):
        fit(pl.DataFrame({"a": [0.0]}), resume=True)


def test_a_run_resumed_with_another_number_of_threads_takes_the_one_that_it_had(
    tmp_path: Path, killed_after: Callable[[float], None]
) -> None:
    seen = []
    plain = Run._validate

    def validate(self: Run, asked: Callable[[], None]) -> float:
        seen.append(torch.get_num_threads())
        return plain(self, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_validate", validate)
        patch.setattr("pushforward.training.step._ONE_THREAD_WORK", 0.0)
        try:
            torch.set_num_threads(2)
            killed_after(8)
            with pytest.raises(Killed):
                run(Checkpoints(tmp_path / "a", every=0.0))
            killed_after(math.inf)
            torch.set_num_threads(1)
            run(Checkpoints(tmp_path / "a", every=0.0, resume=True))
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(1)
    assert seen == [2] * CONFIG.epochs


def test_discarding_leaves_what_is_not_ours(two: list[Path]) -> None:
    folder = two[0].parent
    (folder / "mine.txt").write_text("mine")
    Checkpoints(folder, replace=True).discard()
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_half_written_files_are_swept_away(two: list[Path]) -> None:
    half = two[0].parent / ".pushforward-0123456789ab.checkpoint"
    half.write_bytes(b"half")
    run(Checkpoints(two[0].parent, resume=True))
    assert not half.exists()


def test_a_disk_that_refuses_does_not_end_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise OutputError(f"{path}: cannot be written (No space left on device).")

    expected, notes = run(), []
    monkeypatch.setattr(sealed, "write", refuse)
    assert_same(run(Checkpoints(tmp_path / "a", every=0.0, on_note=notes.append)), expected)
    assert len(notes) == 1 and "No space left" in notes[0] and "goes on without" in notes[0]


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for folder, words in (
        (tmp_path / "file", "is no folder"),
        (tmp_path / "dangling", "is no folder"),
        (tmp_path / "no" / "such", "there is no folder"),
        (Path("/proc/nowhere"), "no checkpoint could be written there"),
    ):
        with pytest.raises(OutputError, match=words):
            Checkpoints(folder)


def test_another_environment_is_said(two: list[Path]) -> None:
    for path in two:
        found = sealed.read(path, kind=sealed.CHECKPOINT, latest=1)
        metadata = found.metadata | {"environment": found.metadata["environment"] | {"torch": "1.0"}}
        sealed.write(path, found.load(), metadata, kind=sealed.CHECKPOINT)
    with pytest.warns(UserWarning, match=r"Resumed with torch .*, begun with 1\.0.*rounding"):
        run(Checkpoints(two[0].parent, resume=True))
