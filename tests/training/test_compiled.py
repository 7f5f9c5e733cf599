"""Compiled steps: the same training, resumed as it was, and plain steps where nothing can be compiled."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pushforward.configs import MAFConfig, NSFConfig, RealNVPConfig, TrainConfig
from pushforward.flows import Flow, build_flow
from pushforward.kernels.table import available
from pushforward.training import Checkpoints, Points, TrainResult, compiled, train
from pushforward.training.compiled import CompiledStep, pays
from pushforward.training.run import Run

CONFIG = TrainConfig(epochs=4, batch_size=64, learning_rate=1e-2, weight_decay=0.01, ema=0.9, seed=3)
SMALL = RealNVPConfig(layers=2, hidden=(8,), activation="tanh")


def points(rows: int, seed: int) -> Points:
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    return Points(x + torch.stack([torch.zeros(rows), x[:, 0].square()], 1))


def run(
    config: TrainConfig, checkpoints: Checkpoints | None = None, **options: Any
) -> tuple[Flow, TrainResult]:
    torch.manual_seed(0)
    flow = build_flow(SMALL, 2)
    return flow, train(flow, points(600, 0), points(100, 1), config, checkpoints=checkpoints, **options)


def differences(one: tuple[Flow, TrainResult], other: tuple[Flow, TrainResult]) -> tuple[float, float]:
    pairs = zip(one[0].parameters(), other[0].parameters(), strict=True)
    curves = zip(one[1].valid_curve, other[1].valid_curve, strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs), max(abs(a - b) for a, b in curves)


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let compilation pay after five steps."""
    monkeypatch.setattr(compiled, "_STEPS_BEFORE", 5)
    monkeypatch.setattr(compiled, "_LEAST_STEPS", 10)


@pytest.mark.usefixtures("early")
def test_compiled_steps_train_as_plain_ones_do_and_go_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    plain_call, plain_step = CompiledStep.__call__, Run.step

    def call(self: CompiledStep, *arguments: Any) -> Any:
        calls[0] += 1
        return plain_call(self, *arguments)

    monkeypatch.setattr(CompiledStep, "__call__", call)
    plain = run(replace(CONFIG, compile="never"))
    assert calls == [0]
    expected = run(CONFIG)
    assert calls == [4 * 9 - 5]
    assert max(differences(plain, expected)) < 1e-4
    run(replace(CONFIG, epochs=1, compile="always"))
    assert calls == [4 * 9 - 5 + 9]

    for last in (3, 5, 20):  # before, at and after the beginning of compiled steps

        def step(self: Run, batch: Any, last: int = last) -> None:
            plain_step(self, batch)
            if self.schedule.steps > last:
                raise KeyError

        folder = tmp_path / str(last)
        monkeypatch.setattr(Run, "step", step)
        with pytest.raises(KeyError):
            run(CONFIG, Checkpoints(folder, every=0.0))
        monkeypatch.setattr(Run, "step", plain_step)
        resumed = run(CONFIG, Checkpoints(folder, every=0.0, resume=True))
        assert differences(resumed, expected) == (0.0, 0.0)

    # What comes out owns its memory, as the weights of any flow do.
    state = expected[0].state_dict()
    assert all(t.untyped_storage().nbytes() == t.nbytes for n, t in state.items() if n.endswith("weight"))


@pytest.mark.usefixtures("early")
def test_a_step_that_is_not_finite_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = points(600, 0)
    spoilt.x[17, 0] = math.inf
    notes: list[str] = []
    torch.manual_seed(0)
    flow = build_flow(SMALL, 2)
    result = train(flow, spoilt, points(100, 1), CONFIG, on_note=notes.append)
    assert len(notes) == 4 and all("at row 18" in note for note in notes), notes
    assert all(bool(p.isfinite().all()) for p in flow.parameters())
    assert all(math.isfinite(v) for v in [*result.valid_curve, *result.train_curve])


def test_without_a_compiler_training_goes_on_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand much more")

    monkeypatch.setattr(compiled.torch, "compile", lambda *_, **__: fail)
    notes: list[str] = []
    tried = run(replace(CONFIG, compile="always"), on_note=notes.append)
    assert len(notes) == 1 and notes[0].startswith(
        "The steps could not be compiled: No working C++ compiler found and"
    )
    assert differences(tried, run(replace(CONFIG, compile="never"))) == (0.0, 0.0)


def test_compilation_is_for_long_runs_of_small_models() -> None:
    small, config = build_flow(SMALL, 2), TrainConfig()
    assert pays(small, config, 256, 50_000)
    assert pays(build_flow(MAFConfig(layers=3, hidden=(32,), activation="tanh"), 4), config, 256, 50_000)
    # With rectifiers, all layers are one call of a kernel.
    assert pays(build_flow(RealNVPConfig(layers=2, hidden=(8,)), 2), config, 256, 50_000) != available()
    assert not pays(small, config, 256, 2_000)
    assert not pays(small, replace(config, memory="constant"), 256, 50_000)
    assert not pays(small, replace(config, precision="bf16-mixed"), 256, 50_000)
    assert not pays(
        build_flow(RealNVPConfig(layers=8, hidden=(256, 256), activation="tanh"), 43), config, 1024, 50_000
    )
    assert not pays(build_flow(NSFConfig(layers=2, hidden=(8,)), 2), config, 256, 50_000)


@pytest.mark.parametrize("options", [{"compile": "sometimes"}, {"compile": "always", "memory": "constant"}])
def test_impossible_settings_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="compile"):
        TrainConfig(**options)  # type: ignore[arg-type]
