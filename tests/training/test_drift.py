"""Training with constant memory: the ordinary run, and a refusal where it would not be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pushforward.configs import GlowConfig, MAFConfig, NSFCouplingConfig, RealNVPConfig, TrainConfig
from pushforward.distributions import DiagonalNormal
from pushforward.errors import TrainingError
from pushforward.flows import Flow, build_flow
from pushforward.training import Points, TrainResult, TrainStep, run, train
from pushforward.training.drift import find_drift, with_constant_memory
from pushforward.training.memory import bytes_per_row
from pushforward.transforms import ActNorm, Affine, Chain, Elementwise

CONFIG = TrainConfig(epochs=3, batch_size=32, learning_rate=5e-3, seed=3, memory="constant")


def points(rows: int, seed: int, context: bool = False) -> Points:
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))
    return Points(x.cumsum(1) + 3.0, x[:, :2].abs() if context else None)


def fitted(
    config: object, training: TrainConfig, dtype: torch.dtype, context: bool
) -> tuple[TrainResult, Flow]:
    torch.manual_seed(0)
    flow = build_flow(config, 4, 2 if context else 0).to(dtype)  # type: ignore[arg-type]
    return train(flow, points(200, 0, context), points(50, 1, context), training), flow


@pytest.mark.parametrize("context", [False, True], ids=["", "context"])
@pytest.mark.parametrize(
    "config",
    [
        RealNVPConfig(layers=4, hidden=(8,)),
        GlowConfig(layers=2, hidden=(8,)),
        NSFCouplingConfig(layers=2, hidden=(8,), bins=4),
        MAFConfig(layers=2, hidden=(8,)),
    ],
    ids=lambda c: type(c).__name__,
)
def test_the_run_is_the_ordinary_one(config: object, context: bool) -> None:
    ordinary, one = fitted(config, replace(CONFIG, memory="ordinary"), torch.float64, context)
    constant, other = fitted(config, CONFIG, torch.float64, context)
    assert constant.notes == []
    assert constant.valid_curve == pytest.approx(ordinary.valid_curve, abs=1e-7)
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_128_layers_in_single_precision_give_their_input_back_after_training() -> None:
    config = replace(CONFIG, epochs=2, batch_size=64)
    result, flow = fitted(RealNVPConfig(layers=128, hidden=(8,)), config, torch.float32, context=False)
    assert result.stopped == "epochs" and result.valid_curve[1] < result.valid_curve[0]
    x, frugal = points(64, 2).x, with_constant_memory(flow)
    gradients: list[Tensor] = []
    for log_prob in (flow.log_prob, frugal.log_prob, flow.double().log_prob):
        like = x.to(flow.like)
        gradient = torch.autograd.grad(log_prob(like).sum(), list(flow.parameters()))
        gradients.append(torch.cat([g.flatten() for g in gradient]).double())
    ordinary, constant, exact = gradients
    assert (ordinary - exact).norm() < 1e-4 * exact.norm()
    assert (constant - exact).norm() < 1e-4 * exact.norm()


def ill_conditioned() -> Flow:
    """The second layer takes all digits away, after which nothing tells how the points stood before it."""
    flow = Flow(Chain([Elementwise(Affine(), (4,)), ActNorm(4), ActNorm(4)]), DiagonalNormal((4,)))
    with torch.no_grad():
        far = flow.transform.get_submodule("transforms.1")
        assert isinstance(far, ActNorm)
        far.loc.fill_(-1e8)
        far.raw_log_scale.fill_(8.0)
    return flow


def test_a_layer_that_does_not_give_its_input_back_is_named() -> None:
    x = points(32, 0).x
    found = find_drift(ill_conditioned(), x)
    assert found is not None
    assert "before transform.transforms[1] (ActNorm) the points come back with a relative error of" in found
    assert "2.4e-05, two thirds of the digits of float32, are allowed" in found
    assert "Set memory='ordinary', or train in float64" in found
    # Of a hundred million, float64 keeps seven digits behind the point.
    assert find_drift(ill_conditioned().double(), x.double()) is not None
    assert find_drift(build_flow(RealNVPConfig(layers=8), 4), x) is None


def test_points_beyond_the_arithmetic_are_left_to_the_step_that_skips_them() -> None:
    assert find_drift(build_flow(RealNVPConfig(layers=2), 4), torch.full((3, 4), torch.inf)) is None


class Lossy(ActNorm):
    """What it claims to undo, it does not quite."""

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_abs_det = super()._inverse(y, context)
        return x * 1.001, log_abs_det


def lossy() -> Flow:
    return Flow(Chain([Elementwise(Affine(), (4,)), Lossy(4)]), DiagonalNormal((4,)))


def test_training_is_refused_before_the_first_step_and_nothing_has_moved() -> None:
    flow = lossy()
    flow.transform.initialize(points(200, 0).x)
    before = {name: t.clone() for name, t in flow.state_dict().items()}
    with pytest.raises(
        TrainingError, match=r"transforms\[1\] \(Lossy\) .* error of 0.001, .*memory='ordinary'"
    ):
        train(flow, points(200, 0), points(50, 1), CONFIG)
    assert all(torch.equal(t, before[name]) for name, t in flow.state_dict().items())
    assert (
        train(lossy(), points(200, 0), points(50, 1), replace(CONFIG, memory="ordinary")).stopped == "epochs"
    )


def test_training_that_becomes_too_inexact_stops_with_the_best_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "_STEPS_BETWEEN_DRIFTS", 8)
    exact = Lossy._inverse
    calls = []

    def soon(self: Lossy, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return (ActNorm._inverse if len(calls) < 10 else exact)(self, y, context)

    monkeypatch.setattr(Lossy, "_inverse", soon)
    notes: list[str] = []
    result = train(lossy(), points(200, 0), points(50, 1), CONFIG, on_note=notes.append)
    assert result.stopped == "drift" and len(result.valid_curve) == 2 and result.best_epoch >= 1
    assert notes == result.notes and len(notes) == 1
    assert notes[0].startswith("Training stopped after step 8. memory='constant' recovers the input")


def test_what_a_row_needs_does_not_grow_with_the_layers_but_holds_one_of_them() -> None:
    needed = []
    for layers in (2, 16):
        flow = build_flow(RealNVPConfig(layers=layers, hidden=(64, 64)), 4)
        ordinary, constant = (
            bytes_per_row(TrainStep(f), torch.randn(64, 4), None, None)
            for f in (flow, with_constant_memory(flow))
        )
        needed.append(constant)
        assert constant < ordinary
    assert needed[0] == pytest.approx(needed[1], rel=0.01) and needed[0] >= 2 * 64 * 4


def test_an_unknown_kind_of_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="memory must be 'ordinary' or 'constant', got 'none'"):
        TrainConfig(memory="none")
