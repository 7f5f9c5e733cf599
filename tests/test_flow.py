"""What holds for the flow of every model: axes, exactness, reload, casts, moves and misuse."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import Tensor

from cases import (
    CONTINUOUS,
    FEATURES,
    MODEL_CASES,
    Density,
    contexts,
    fresh,
    make,
    model_id,
    points,
    seeded,
    small_flow,
)
from continuous_cases import for_single_precision, with_steps_that_are_known
from laws import check_moves
from pushforward.flows import Flow

Model = tuple[str, int, tuple[int, ...]]
every = pytest.mark.parametrize("model", MODEL_CASES, ids=model_id)


def make_flow(model: Model, dtype: torch.dtype = torch.float64, seed: int = 0) -> Flow:
    """A model with the random parameters of its law case."""
    flow = fresh(lambda: small_flow(model), seed)
    assert isinstance(flow, Flow)
    flow.transform.load_state_dict(make(model_id(model), torch.float32).state_dict())
    if dtype == torch.float32:
        for_single_precision(flow)
    return flow.to(dtype)


def density(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor:
    """The log-density, or one draw of its estimate."""
    if flow.augment is None:
        return flow.log_prob(x, context)
    return flow.estimate_log_prob(x, context, generator=seeded(9), num_samples=1).value


@every
def test_log_prob_broadcasts_points_against_contexts(model: Model) -> None:
    flow = make_flow(model)
    x, context = points(model_id(model), 4)[:, :FEATURES], contexts(flow, 3)
    with torch.no_grad():
        grid = density(flow, x[:, None], context)
        assert grid.shape == ((4, 3) if context is not None else (4, 1))
        for i in range(4):
            for j in range(grid.shape[1]):
                c = None if context is None else context[j]
                if flow.augment is None:
                    latent, log_abs_det = flow.transform(x[i], c)
                    expected = flow.base.log_prob(latent, c) + log_abs_det
                else:
                    expected = density(flow, x[i], c)
                torch.testing.assert_close(grid[i, j], expected, rtol=0, atol=1e-8)


@every
def test_sample_axes_value_by_value(model: Model) -> None:
    flow = make_flow(model)
    context = contexts(flow, 2, 3)
    samples = flow.sample((4,), context, generator=seeded(6))
    batch = (4, 2, 3) if context is not None else (4,)
    assert samples.shape == (*batch, FEATURES) and not samples.requires_grad
    noise = flow.base.sample(batch, generator=seeded(6))
    for index in torch.cartesian_prod(*[torch.arange(n) for n in batch]).reshape(-1, len(batch)).tolist():
        c = None if context is None else context[tuple(index[1:])]
        one = flow.from_latent(noise[tuple(index)], c)
        torch.testing.assert_close(samples[tuple(index)], one, rtol=0, atol=1e-8)
    if flow.augment is None:
        again, log_prob = flow.sample_and_log_prob((4,), context, generator=seeded(6))
        # A solver that follows the volume too takes other steps.
        torch.testing.assert_close(again, samples, rtol=0, atol=1e-8 if model[0] in CONTINUOUS else 0)
        torch.testing.assert_close(log_prob, flow.log_prob(samples, context), rtol=0, atol=1e-6)
    latent = flow.to_latent(samples, context)
    torch.testing.assert_close(flow.from_latent(latent, context), samples, rtol=0, atol=1e-6)


@every
def test_a_flow_built_anew_and_reloaded_is_the_same(model: Model) -> None:
    flow, rebuilt = make_flow(model), fresh(lambda: small_flow(model), seed=5).double()
    assert isinstance(rebuilt, Flow)
    buffer = io.BytesIO()
    torch.save(flow.state_dict(), buffer)
    buffer.seek(0)
    rebuilt.load_state_dict(torch.load(buffer, weights_only=True))
    context = contexts(flow, 3)
    x = points(model_id(model), 3)[:, :FEATURES]
    for other in (copy.deepcopy(flow), rebuilt):
        assert torch.equal(density(other, x, context), density(flow, x, context))
        a, b = (f.sample((2,), context, generator=seeded(7)) for f in (other, flow))
        assert torch.equal(a, b)


@every
def test_use_leaves_no_trace_and_casts_leave_nothing_behind(model: Model) -> None:
    flow = make_flow(model, torch.float32)
    before = copy.deepcopy(flow.state_dict())
    context = contexts(flow, 2)
    context = None if context is None else context.float()
    density(flow, flow.sample((3,), context), context)
    assert all(torch.equal(before[k], v) for k, v in flow.state_dict().items())
    tensors = flow.double().state_dict().values()
    assert {t.dtype for t in tensors if t.is_floating_point()} <= {torch.float64}
    assert flow.sample((3,), None if context is None else context.double()).dtype == torch.float64


@every
def test_all_that_computes_moves_to_the_device(model: Model) -> None:
    flow = make_flow(model, torch.float32)
    context = contexts(flow, 5)
    with_steps_that_are_known(flow)
    x, context = points(model_id(model), 5).float(), None if context is None else context.float()
    check_moves(*((Density(flow), x) if flow.augment is None else (flow.transform, x)), context)


@every
@pytest.mark.filterwarnings("ignore:the solve of .* rows:RuntimeWarning")
def test_nan_stays_nan_and_far_points_are_numbers(model: Model) -> None:
    flow = make_flow(model, torch.float32)
    x, context = points(model_id(model), FEATURES)[:, :FEATURES].float(), contexts(flow, FEATURES)
    context = None if context is None else context.float()
    for far in (1e4, -1e8):
        assert not density(flow, torch.full_like(x, far), context).isnan().any()
        latent = torch.full((FEATURES, *flow.transform.latent_shape), far)
        assert not flow.from_latent(latent, context).isnan().any()
    assert density(flow, x, context).isfinite().all()
    x.diagonal().fill_(math.nan)
    assert density(flow, x, context).isnan().all()
    if context is not None:
        x = points(model_id(model), FEATURES)[:, :FEATURES].float()
        assert density(flow, x, torch.full_like(context, math.nan)).isnan().all()


@every
def test_misuse(model: Model) -> None:
    flow = make_flow(model)
    codes, context = points(model_id(model), 3), contexts(flow, 3)
    log_prob = flow.log_prob if flow.augment is None else flow.estimate_log_prob
    for call, name in ((log_prob, "x"), (flow.to_latent, "x"), (flow.from_latent, "latent")):
        x = codes if name == "latent" else codes[:, :FEATURES]
        with pytest.raises(
            ValueError, match=rf"Flow: {name} must have shape \(\.\.\., {x.shape[1]}\), got \(3, 3\)"
        ):
            call(x[:, :3], context)
        if context is not None:
            with pytest.raises(ValueError, match=r"Flow: context of shape \(\.\.\., 2\) is needed, got None"):
                call(x)
            with pytest.raises(
                ValueError, match=r"Flow: context must have shape \(\.\.\., 2\), got \(3, 1\)"
            ):
                call(x, context[:, :1])
            with pytest.raises(
                ValueError, match=r"context must have the dtype torch.float64.*got torch.float32"
            ):
                call(x, context.float())
            with pytest.raises(
                ValueError, match=rf"context batch shape \(2,\) must .* that of {name}, \(3,\)"
            ):
                call(x, context[:2])
    x = codes[:, :FEATURES]
    for wrong in (x.float(), x.long()):
        with pytest.raises(
            ValueError, match=rf"x must have the flow's dtype, torch.float64, got {wrong.dtype}"
        ):
            log_prob(wrong, context)
    with pytest.raises(ValueError, match=r"y must .*float.*, got torch.int64"):
        flow.from_latent(codes.long(), context)
    if context is not None:
        with pytest.raises(ValueError, match=r"Flow: context of shape \(\.\.\., 2\) is needed, got None"):
            flow.sample((3,))
