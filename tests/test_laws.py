"""The laws of every transform and of every model."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from cases import (
    BOTH,
    CASES,
    CONTEXT,
    MODEL_CASES,
    TRANSFORMS,
    contexts,
    fresh,
    make,
    model_id,
    parts,
    points,
)
from continuous_cases import with_steps_that_are_known
from laws import (
    check_batch_is_a_loop,
    check_compiles,
    check_gradients,
    check_log_det,
    check_moves,
    check_round_trip,
    check_same,
    check_shapes,
)
from pushforward import transforms
from pushforward.configs import MODELS
from pushforward.evaluate.jacobians import local_lipschitz
from pushforward.transforms import (
    Autoregressive,
    Chain,
    Coupling,
    Elementwise,
    ElementwiseMap,
    Inverse,
    Transform,
)

every = pytest.mark.parametrize("name", CASES)
N = 16


def drawn(name: str, dtype: torch.dtype = torch.float64) -> tuple[Transform, Tensor, Tensor | None]:
    transform = make(name, dtype)
    context = contexts(transform, N)
    return transform, points(name, N).to(dtype), None if context is None else context.to(dtype)


@functools.cache
def stretch(name: str) -> tuple[Tensor, Tensor]:
    return local_lipschitz(*drawn(name))


def test_every_exported_transform_and_map_is_registered_in_every_wiring() -> None:
    exported = {getattr(transforms, n) for n in transforms.__all__}
    assert all(inspect.isclass(c) for c in exported)
    concrete = {c for c in exported if not inspect.isabstract(c)}
    assert exported - concrete == {Transform, ElementwiseMap}
    seen = {pair for name in TRANSFORMS for pair in parts(fresh(CASES[name].build))}  # type: ignore[arg-type]
    maps = {c for c in concrete if issubclass(c, ElementwiseMap)}
    missing = concrete - {c for pair in seen for c in pair}
    assert not missing, f"no case for {sorted(c.__name__ for c in missing)}"
    for wiring in (Elementwise, Coupling, Autoregressive):
        wired = {inner for owner, inner in seen if owner is wiring}
        missing = {m for m in maps if wiring is Elementwise or m().parameters_each} - wired
        assert not missing, f"no {wiring.__name__} of {sorted(m.__name__ for m in missing)}"
    compiled = [
        {c for n in CASES if d in CASES[n].compiles for p in parts(fresh(CASES[n].build)) for c in p}  # type: ignore[arg-type]
        for d in BOTH
    ]
    assert not concrete - compiled[0] and not concrete - compiled[1]


def test_every_model_is_registered_with_and_without_context() -> None:
    assert {(name, context) for name, context, _ in MODEL_CASES} == {
        (n, c) for n in MODELS for c in (0, CONTEXT)
    }
    assert {model_id(c) for c in MODEL_CASES} == set(CASES) - set(TRANSFORMS)


@every
def test_round_trip(name: str) -> None:
    case = CASES[name]
    transform, x, context = drawn(name)
    check_round_trip(
        transform,
        x,
        context,
        case.round_trip_tolerance,
        stretch(name),
        period=case.period,
        latent_period=case.latent_period,
    )


@every
def test_round_trip_in_single_precision(name: str) -> None:
    case = CASES[name]
    transform, x, context = drawn(name, torch.float32)
    check_round_trip(
        transform, x, context, 1e-4, stretch(name), period=case.period, latent_period=case.latent_period
    )


@every
def test_log_det_is_that_of_the_jacobian(name: str) -> None:
    check_log_det(*drawn(name), tolerance=CASES[name].log_det_tolerance)


@every
def test_batch_and_context_shapes(name: str) -> None:
    transform = make(name, torch.float32)

    def give(*batch: int) -> Tensor | None:
        context = contexts(transform, *batch)
        return None if context is None else context.float()

    check_shapes(transform, lambda *batch: points(name, *batch).float(), give)


@every
def test_a_batch_is_a_loop_over_points_and_contexts(name: str) -> None:
    transform = make(name)
    check_batch_is_a_loop(transform, points(name, 2), contexts(transform, 3), CASES[name].loop_tolerance)


@every
def test_gradients_reach_every_parameter_also_in_evaluation_mode(name: str) -> None:
    transform, x, context = drawn(name)
    check_gradients(transform.eval(), x, context)


@every
def test_copies_and_reloaded_states_are_the_same_function(name: str) -> None:
    transform, x, context = drawn(name)
    check_same(transform, copy.deepcopy(transform).eval(), x, context)
    buffer = io.BytesIO()
    torch.save(transform.state_dict(), buffer)
    buffer.seek(0)
    rebuilt = fresh(CASES[name].build, seed=1).double()
    rebuilt.load_state_dict(torch.load(buffer, weights_only=True))
    assert isinstance(rebuilt, Transform)
    check_same(transform, rebuilt, x, context)


@every
def test_a_cast_leaves_nothing_behind(name: str) -> None:
    for dtype in (torch.float64, torch.float32):
        tensors = (make(name, dtype)).state_dict().values()
        assert {t.dtype for t in tensors if t.is_floating_point()} <= {dtype}


@every
def test_a_move_leaves_nothing_behind(name: str) -> None:
    transform, x, context = drawn(name)
    y = transform(x, context)[0].detach()
    if CASES[name].adaptive:
        with_steps_that_are_known(transform)
    check_moves(transform, x, context)
    check_moves(Inverse(transform), y, context)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.starts_as_identity])
def test_a_fresh_conditioner_gives_the_identity(name: str) -> None:
    transform = fresh(CASES[name].build).double()
    assert isinstance(transform, Transform)
    x, context = points(name, N), contexts(transform, N)
    for direction in (transform.forward, transform.inverse):
        y, log_abs_det = direction(x, context)
        # Some constants in it are single precision until the cast.
        torch.testing.assert_close(y, x, rtol=0, atol=1e-12)
        torch.testing.assert_close(log_abs_det, torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "direction"), [(n, d) for n, c in CASES.items() for d in c.compiles])
def test_compiles_in_one_graph(name: str, direction: str) -> None:
    transform, x, context = drawn(name)
    check_compiles(transform, direction, x if direction == "forward" else transform(x, context)[0], context)


@every
def test_misuse_is_refused_with_expected_and_got(name: str) -> None:
    transform, x, context = drawn(name)
    label, point = type(transform).__name__, x
    for method, argument, event in (
        (transform.forward, "x", transform.event_shape),
        (transform.inverse, "y", transform.latent_shape),
    ):
        x = point if argument == "x" else transform(point, context)[0].detach()
        if event:
            expected = ", ".join(map(str, event))
            with pytest.raises(
                ValueError, match=rf"{label}: {argument} must have shape \(\.\.\., {expected}\), got \({N}, "
            ):
                method(x[..., :-1], context)
            with pytest.raises(ValueError, match=rf"{label}: {argument} must have shape .*, got \(\)"):
                method(x.new_zeros(()), context)
        with pytest.raises(
            ValueError, match=rf"{label}: {argument} must be of a floating dtype, got torch.int64"
        ):
            method(x.long(), context)
        if any(True for _ in transform.parameters()):
            wrong = None if context is None else context.float()
            with pytest.raises(
                ValueError, match=rf"{label}: {argument} must have the dtype .*float64, got torch.float32"
            ):
                method(x.float(), wrong)
        if context is not None:
            shape = ", ".join(map(str, transform.context_shape or ()))
            with pytest.raises(
                ValueError, match=rf"{label}: context of shape \(\.\.\., {shape}\) is needed, got None"
            ):
                method(x)
            with pytest.raises(
                ValueError, match=rf"{label}: context must have shape \(\.\.\., {shape}\), got \({N}, 1"
            ):
                method(x, context[:, :1])
            with pytest.raises(
                ValueError, match=rf"{label}: context must have the dtype .*64.*, got torch.float32"
            ):
                method(x, context.float())
            with pytest.raises(
                ValueError, match=rf"{label}: context batch shape \(2,\) does not broadcast .* \({N},\)"
            ):
                method(x, context[:2])


# --- composition and side effects -------------------------------------------------------------------------------


def test_inverse_exchanges_the_directions_and_twice_is_nothing() -> None:
    transform, x, context = drawn("chain-context")
    check_same(transform, Inverse(Inverse(transform)), x, context)
    y = transform(x, context)[0]
    for a, b in zip(Inverse(transform)(y, context), transform.inverse(y, context), strict=True):
        assert torch.equal(a, b)


def test_a_chain_of_chains_is_the_chain_of_their_parts() -> None:
    transform, x, context = drawn("chain-context")
    assert isinstance(transform, Chain)
    first, *rest = transform
    nested = Chain([first, Chain(rest)])
    for a, b in zip(transform(x, context), nested(x, context), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


SIDE_EFFECTS = """
import torch
def state():
    from torch.distributions import Distribution
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
            torch.get_num_interop_threads(), Distribution._validate_args, torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(), torch.is_anomaly_enabled(), torch.get_default_device(),
            torch.backends.cudnn.benchmark)
before, noise = state(), torch.random.get_rng_state()
import pushforward
from pushforward import configs, distributions, flows, surjections, transforms
assert torch.equal(noise, torch.random.get_rng_state()), "importing draws random numbers"
for config in configs.MODELS.values():
    flow = flows.build_flow(config(), 2)
    flow.estimate_log_prob(flow.sample((3,)))
assert state() == before, (before, state())
"""


def test_importing_and_building_changes_nothing_global() -> None:
    done = subprocess.run([sys.executable, "-c", SIDE_EFFECTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
