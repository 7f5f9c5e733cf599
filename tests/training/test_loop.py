"""Laws of the training loop."""

from __future__ import annotations

import math
import signal
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from pushforward.configs import MAFConfig, TrainConfig
from pushforward.distributions import DiagonalNormal
from pushforward.errors import TrainingError
from pushforward.flows import Flow, Preprocess, build_flow, score
from pushforward.training import EpochRecord, Points, train
from pushforward.training.average import Average
from pushforward.training.schedule import Schedule
from pushforward.transforms import Affine, Chain, Elementwise, Standardise, Transform

CONFIG = TrainConfig(epochs=4, batch_size=32, learning_rate=1e-2, seed=3)


def points(rows: int, seed: int, features: int = 2) -> Points:
    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))
    return Points(x @ torch.tensor([[2.0, 1.0], [0.0, 0.5]])[:features, :features] + 3.0)


def small_flow(seed: int = 0) -> Flow:
    torch.manual_seed(seed)
    return build_flow(MAFConfig(layers=2, hidden=(8,)), 2)


def affine_flow(features: int = 1) -> Flow:
    return Flow(Elementwise(Affine(), (features,)), DiagonalNormal((features,)))


def test_two_runs_with_one_seed_are_identical_and_seeds_matter() -> None:
    results, states = [], []
    for seed in (3, 3, 4):
        flow = small_flow()
        results.append(train(flow, points(200, 0), points(50, 1), replace(CONFIG, seed=seed)))
        states.append(flow.state_dict())
    assert results[0].train_curve == results[1].train_curve
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert results[0].train_curve != results[2].train_curve


def test_training_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    flow = affine_flow(2)
    train(flow, points(64, 0), points(32, 1), replace(CONFIG, epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("width", "expected"), [(8, 1), (1024, 2)])
def test_small_models_train_on_one_thread_and_the_number_of_threads_is_given_back(
    width: int, expected: int
) -> None:
    seen = []
    torch.set_num_threads(2)
    try:
        flow = build_flow(MAFConfig(layers=2, hidden=(width, width)), 2)
        config = replace(CONFIG, epochs=1, batch_size=64)
        train(
            flow, points(64, 0), points(8, 1), config, on_epoch=lambda _: seen.append(torch.get_num_threads())
        )
        assert seen == [expected]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_maximum_likelihood_of_an_affine_flow_is_the_normal_with_the_moments_of_the_data() -> None:
    x = points(512, 0).x[:, :1]
    flow = affine_flow()
    config = TrainConfig(epochs=300, batch_size=512, learning_rate=0.2, patience=300)
    result = train(flow, Points(x), Points(x), config)
    mean, variance = x.mean(), x.var(correction=0)
    exact = 0.5 * math.log(2 * math.pi * math.e * float(variance))
    assert result.valid_curve[result.best_epoch - 1] == pytest.approx(exact, abs=1e-4)
    y = flow.sample((20_000,), generator=torch.Generator().manual_seed(0))
    assert float(y.mean()) == pytest.approx(float(mean), abs=0.05)
    assert float(y.std()) == pytest.approx(float(variance.sqrt()), abs=0.05)


def test_weights_count_rows_as_often_as_they_say() -> None:
    x = points(128, 0).x[:, :1]
    weights = torch.arange(128) % 3
    repeated = x.repeat_interleave(weights, 0)
    config = TrainConfig(epochs=300, batch_size=128, learning_rate=0.2, patience=300)
    flow = affine_flow()
    weighted = Points(x, None, weights.double())
    result = train(flow, weighted, weighted, config)
    exact = 0.5 * math.log(2 * math.pi * math.e * float(repeated.var(correction=0)))
    assert result.valid_curve[result.best_epoch - 1] == pytest.approx(exact, abs=1e-4)


def test_losses_are_in_the_units_of_the_data() -> None:
    x = points(256, 0).x
    curves = []
    for scale in (1.0, 1e6):
        torch.manual_seed(0)
        plain = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
        flow = Flow(plain.transform, plain.base, preprocess=Preprocess(Standardise(2)))
        result = train(flow, Points(x.double() * scale), Points(x.double() * scale), CONFIG)
        curves.append(result.valid_curve)
        mean = -score(flow, x.double() * scale).value.double().mean()
        assert float(mean) == pytest.approx(min(result.valid_curve), abs=1e-4)
    shifted = [loss + 2 * math.log(1e6) for loss in curves[0]]
    assert curves[1] == pytest.approx(shifted, abs=1e-3)


def test_the_best_epoch_is_kept() -> None:
    flow, valid = small_flow(), points(64, 1)
    # A learning rate this large makes later epochs worse than earlier ones.
    config = TrainConfig(epochs=30, batch_size=16, learning_rate=0.5, patience=30, seed=1)
    result = train(flow, points(64, 0), valid, config)
    best = min(result.valid_curve)
    assert result.best_epoch == result.valid_curve.index(best) + 1
    assert result.valid_curve[-1] > best
    assert -float(score(flow, valid.x).value.double().mean()) == pytest.approx(best, abs=1e-4)


def test_patience_counts_epochs_without_a_better_loss() -> None:
    config = TrainConfig(epochs=200, batch_size=16, learning_rate=0.5, patience=3, seed=1)
    result = train(small_flow(), points(64, 0), points(64, 1), config)
    assert result.stopped == "patience"
    assert len(result.valid_curve) - result.best_epoch == config.patience


def test_a_time_budget_ends_training() -> None:
    config = TrainConfig(epochs=100_000, batch_size=32, patience=100_000, max_seconds=1.0)
    result = train(small_flow(), points(64, 0), points(64, 1), config)
    assert result.stopped == "time"
    assert result.best_epoch >= 1


def test_an_interrupt_keeps_the_best_weights_so_far() -> None:
    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 3:
            signal.raise_signal(signal.SIGINT)

    flow, valid = small_flow(), points(64, 1)
    result = train(flow, points(200, 0), valid, replace(CONFIG, epochs=50), on_epoch=interrupt)
    assert result.stopped == "interrupt"
    assert len(result.valid_curve) == 3
    assert -float(score(flow, valid.x).value.double().mean()) == pytest.approx(
        min(result.valid_curve), abs=1e-4
    )


class _Poison(Transform):
    """The identity, whose log-determinant is NaN for points beyond a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__((2,))
        self.limit = limit
        self.scale = nn.Parameter(torch.zeros(2))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        bad = torch.where(x.abs().amax(-1) > self.limit, torch.nan, 0.0)
        return x * self.scale.exp(), self.scale.sum() + bad

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return y * (-self.scale).exp(), -self.scale.sum().expand(y.shape[:-1])


def test_a_step_that_is_not_finite_is_skipped_and_its_transform_and_row_are_named() -> None:
    x = points(128, 0).x
    x[7] = 1e3
    flow = Flow(Chain([Elementwise(Affine(), (2,)), _Poison(100.0)]), DiagonalNormal((2,)))
    notes: list[str] = []
    rows = torch.arange(128) + 1001
    result = train(
        flow, Points(x, rows=rows), points(32, 1), replace(CONFIG, batch_size=16), on_note=notes.append
    )
    assert all(bool(torch.isfinite(p).all()) for p in flow.parameters())
    assert all(math.isfinite(loss) for loss in result.valid_curve)
    assert result.notes == notes and len(notes) == CONFIG.epochs, "once an epoch that row is met"
    for epoch, note in enumerate(notes, 1):
        assert note.startswith(f"Epoch {epoch}, step ")
        assert (
            "loss is not finite. It begins with the log-determinant of transform.transforms[1] (_Poison)"
            in note
        )
        assert "at row 1008. The step is skipped" in note


def test_the_learning_rate_is_halved_with_every_step_that_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rates = points(128, 0).x, []
    x[7] = 1e3
    plain = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object) -> None:
        rates.append(self.param_groups[0]["lr"])
        plain(self, *args)  # type: ignore[arg-type]

    flow = Flow(_Poison(100.0), DiagonalNormal((2,)))
    config = replace(CONFIG, batch_size=128, warmup=0.0, epochs=8)
    with pytest.raises(TrainingError):
        train(flow, Points(x), points(32, 1), config, on_note=lambda _: None)
    assert rates == [], "every batch has the row"
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    notes: list[str] = []
    train(flow, Points(x), points(32, 1), replace(config, batch_size=64), on_note=notes.append)
    half_periods = [rate / (0.5 * (1 + math.cos(math.pi * i / 16))) for i, rate in enumerate(rates)]
    assert len(notes) == 8
    assert min(half_periods) < CONFIG.learning_rate * 0.5**6


def test_too_many_skipped_steps_end_training_with_the_last_good_weights() -> None:
    x = points(128, 0).x
    x[7] = 1e3
    flow, valid = Flow(_Poison(100.0), DiagonalNormal((2,))), points(32, 1)
    config = replace(CONFIG, batch_size=16, epochs=40, patience=40)
    result = train(flow, Points(x), valid, config, on_note=lambda _: None)
    assert result.stopped == "diverged"
    assert len(result.valid_curve) == 13 and len(result.notes) == 14
    assert "Training stopped after 13 such steps. Try a smaller learning rate" in result.notes[-1]
    best = min(result.valid_curve)
    assert result.best_epoch == result.valid_curve.index(best) + 1
    assert -float(score(flow, valid.x).value.double().mean()) == pytest.approx(best, abs=1e-4)


def test_nothing_but_steps_that_are_not_finite_is_an_error_with_advice() -> None:
    flow = Flow(_Poison(0.0), DiagonalNormal((2,)))
    with pytest.raises(
        TrainingError, match=r"epoch 1.*not finite.*transform \(_Poison\).*smaller learning rate"
    ):
        train(flow, points(1024, 0), points(32, 1), replace(CONFIG, batch_size=16), on_note=lambda _: None)


def test_a_step_that_is_skipped_is_a_warning_where_nobody_listens() -> None:
    x = points(128, 0).x
    x[7] = 1e3
    flow = Flow(_Poison(100.0), DiagonalNormal((2,)))
    with pytest.warns(UserWarning, match=r"transform \(_Poison\), at row 8"):
        train(flow, Points(x), points(32, 1), replace(CONFIG, epochs=1))


def test_no_finite_validation_loss_is_an_error() -> None:
    flow = Flow(_Poison(100.0), DiagonalNormal((2,)))
    far = Points(torch.full((8, 2), 1e3))
    with pytest.raises(TrainingError, match="no epoch of 4 had a finite validation loss"):
        train(flow, points(64, 0), far, CONFIG)


def test_the_average_is_that_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(3))
    average = Average([parameter], 0.9)
    expected = torch.zeros(3)
    for step in range(1, 31):
        with torch.no_grad():
            parameter.copy_(torch.randn(3, generator=generator))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter.detach()
    last = parameter.detach().clone()
    with average.applied():
        assert torch.allclose(parameter, expected, atol=1e-6)
    assert torch.equal(parameter, last)


def test_with_an_average_the_averaged_weights_are_validated_and_kept() -> None:
    flow, valid = small_flow(), points(64, 1)
    result = train(flow, points(200, 0), valid, replace(CONFIG, ema=0.9))
    assert -float(score(flow, valid.x).value.double().mean()) == pytest.approx(
        min(result.valid_curve), abs=1e-4
    )


def test_the_schedule_warms_up_and_falls_to_zero() -> None:
    clock = Schedule(TrainConfig(warmup=0.1), 1000, 0.0)
    factors = []
    for step in range(1001):
        clock.steps = step
        factors.append(clock.factor())
    peak = factors.index(max(factors))
    assert peak == 100 and factors[peak] == pytest.approx(1.0)
    assert all(a < b for a, b in pairwise(factors[: peak + 1]))
    assert all(a > b for a, b in pairwise(factors[peak:]))
    assert factors[0] > 0 and factors[-1] == pytest.approx(0.0, abs=1e-12)
    assert factors[550] == pytest.approx(0.5)


def test_validation_rows_of_weight_0_do_not_count() -> None:
    x, weights = points(9000, 0).x, torch.ones(9000)
    weights[:8192] = 0.0  # a whole chunk
    flow = small_flow()
    result = train(flow, points(64, 0), Points(x, None, weights), replace(CONFIG, epochs=1))
    expected = train(small_flow(), points(64, 0), Points(x[8192:]), replace(CONFIG, epochs=1))
    assert result.valid_curve == pytest.approx(expected.valid_curve, abs=1e-6)


def test_an_epoch_without_a_step_has_no_training_loss() -> None:
    x = points(16, 0).x
    x[7] = 1e30
    flow = small_flow()
    result = train(
        flow, Points(x), points(32, 1), replace(CONFIG, batch_size=8, epochs=3), on_note=lambda _: None
    )
    assert len(result.notes) == 3 and all(math.isfinite(loss) for loss in result.train_curve)
    with pytest.raises(TrainingError):
        result = train(flow, Points(x), points(32, 1), replace(CONFIG, batch_size=16), on_note=lambda _: None)


def test_an_interrupt_while_the_best_weights_are_copied_leaves_true_facts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = [0]

    def interrupted(state: object) -> object:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return deepcopy(state)

    monkeypatch.setattr("pushforward.training.run.deepcopy", interrupted)
    flow, valid = small_flow(), points(64, 1)
    result = train(flow, points(200, 0), valid, replace(CONFIG, learning_rate=1e-3))
    assert (result.stopped, result.best_epoch, len(result.valid_curve)) == ("interrupt", 2, 2)
    assert -float(score(flow, valid.x).value.double().mean()) == pytest.approx(
        result.valid_curve[1], abs=1e-4
    )


def test_rows_must_match() -> None:
    with pytest.raises(ValueError, match="one row for each of the 4 points, got 3"):
        Points(torch.zeros(4, 2), torch.zeros(3, 1))
