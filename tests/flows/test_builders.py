"""What the models of the literature are: densities of mass 1, built the same from one configuration."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from case_parts import HALF_TURN
from cases import (
    CONTEXT,
    CONTINUOUS,
    MODEL_CASES,
    PERIODIC,
    contexts,
    fresh,
    model_id,
    randomise,
    seeded,
    small_config,
    small_flow,
)
from continuous_cases import for_single_precision
from pushforward.configs import MODELS, NICEConfig
from pushforward.flows import Flow, build_flow
from pushforward.ode import Adaptive
from pushforward.transforms import (
    Autoregressive,
    Chain,
    Continuous,
    Coupling,
    LULinear,
    RationalQuadraticSpline,
)

Model = tuple[str, int, tuple[int, ...]]
every = pytest.mark.parametrize("model", MODEL_CASES, ids=model_id)
NODES = 400
# Its density is known up to noise only, and has a test of its own.
AUGMENTED = "augmented-ffjord"
ONE_DIMENSIONAL = sorted(set(MODELS) - {"nice", "realnvp", "glow", "nsf-coupling"})
STRENGTH = 0.4


def plane(model: Model, features: int = 2) -> Flow:
    """A model of a point or a pair, the second of which is an angle where the model has one."""
    flow = fresh(lambda: small_flow(model, features))
    assert isinstance(flow, Flow)
    randomise(flow, STRENGTH, seeded(2))
    for part in flow.modules():
        if isinstance(part, Continuous):
            part.control = Adaptive(1e-5, 1e-5)
    return flow.double()


def quadrature(flow: Flow, context: Tensor | None, angles: tuple[int, ...]) -> tuple[Tensor, float]:
    """Midpoint rule on a box well around a sample, and once around each circle."""
    sample = flow.sample((20_000,), context, generator=seeded(1))
    axes, weight = [], 1.0
    for i in range(sample.shape[-1]):
        low, high = sample[:, i].min().item(), sample[:, i].max().item()
        middle, reach = (low + high) / 2, 0.85 * (high - low)
        if i in angles:
            middle, reach = 0.0, HALF_TURN
        axes.append(middle + reach * ((2 * torch.arange(NODES, dtype=torch.float64) + 1) / NODES - 1))
        weight *= 2 * reach / NODES
    return torch.cartesian_prod(*axes).reshape(-1, len(axes)), weight


@pytest.mark.parametrize("model", [c for c in MODEL_CASES if c[0] != AUGMENTED], ids=model_id)
def test_total_mass_and_entropy_of_the_plane(model: Model) -> None:
    flow = plane(model)
    context = contexts(flow)
    with torch.no_grad():
        x, weight = quadrature(flow, context, model[2])
        log_density = flow.log_prob(x, context)
        mass = log_density.exp() * weight
        assert abs(mass.sum().item() - 1) < 1e-3
        entropy = -(mass * log_density).sum().item()
        samples, log_prob = flow.sample_and_log_prob((20_000,), context, generator=seeded(9))
        standard_error = log_prob.std().item() / math.sqrt(len(log_prob))
        assert abs(-log_prob.mean().item() - entropy) < 4 * standard_error + 2e-3
        # Moments, too: samples that merely have likely places would pass the test above.
        for value, f in ((samples, x), (samples.square(), x.square()), (samples.sin(), x.sin())):
            expected = (mass[:, None] * f).sum(0)
            assert (
                (value.mean(0) - expected).abs() < 4.5 * value.std(0) / math.sqrt(len(value)) + 5e-3
            ).all()


@pytest.mark.parametrize("name", [n for n in ONE_DIMENSIONAL if n != AUGMENTED])
@pytest.mark.parametrize("context_features", [0, CONTEXT])
def test_total_mass_of_the_line(name: str, context_features: int) -> None:
    flow = plane((name, context_features, ()), features=1)
    context = contexts(flow)
    x, weight = quadrature(flow, context, ())
    with torch.no_grad():
        assert abs((flow.log_prob(x, context).exp() * weight).sum().item() - 1) < 1e-3


@pytest.mark.parametrize("context_features", [0, CONTEXT])
def test_total_mass_of_the_circle(context_features: int) -> None:
    flow = fresh(lambda: build_flow(small_config("nsf"), 1, context_features, [0])).double()
    assert isinstance(flow, Flow)
    randomise(flow, STRENGTH, seeded(2))
    context = contexts(flow)
    x, weight = quadrature(flow, context, (0,))
    with torch.no_grad():
        assert abs((flow.log_prob(x, context).exp() * weight).sum().item() - 1) < 1e-3


@pytest.mark.parametrize("model", [c for c in MODEL_CASES if c[2]], ids=model_id)
def test_a_density_of_angles_has_no_seam(model: Model) -> None:
    flow = plane(model, features=4)
    context = contexts(flow)
    x = torch.randn(4, generator=seeded(3), dtype=torch.float64)
    for angle in model[2]:
        jumps = []
        for nodes in (1000, 20_000):
            around = x.expand(nodes, 4).clone()
            around[:, angle] = HALF_TURN * (2 * torch.arange(nodes, dtype=torch.float64) / nodes - 1)
            log_prob = flow.log_prob(around, context)
            jumps.append((log_prob - log_prob.roll(1)).abs().max().item())
        # Steps along a continuous line shrink with their length, a jump stays.
        assert jumps[1] < 0.2 * jumps[0]
    samples = flow.sample((1000,), context, generator=seeded(4))[:, list(model[2])]
    assert (samples.abs() <= HALF_TURN).all() and samples.std() > 0.5


@every
def test_the_shapes_of_a_model_do_not_depend_on_the_seed(model: Model) -> None:
    for features in (5, 6):
        one, two = (fresh(lambda f=features: small_flow(model, f), seed) for seed in (0, 1))
        fixed = ("stay", "move", "order", "mask", "bound")
        for (name, a), (other, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
            assert name == other and a.shape == b.shape
            assert torch.equal(a, b) or not name.endswith(fixed)


@every
def test_every_element_moves_and_every_context_counts(model: Model) -> None:
    flow = plane(model, features=5)
    context = contexts(flow, 1)
    x = torch.randn(1, 5, generator=seeded(3), dtype=torch.float64).clamp(-3, 3)
    latent = flow.to_latent(x, context)
    assert ((latent[:, :5] - x).abs() > 1e-4).all()
    if context is not None:
        context.requires_grad_()
        log_prob = flow.estimate_log_prob(x, context, generator=seeded(4), num_samples=1).value
        (gradient,) = torch.autograd.grad(log_prob.sum(), context)
        assert (gradient.abs() > 0).all()


@pytest.mark.parametrize("name", ["nice", "realnvp", "nsf-coupling", "maf", "iaf", "nsf"])
def test_layers_come_in_pairs_that_complete_each_other(name: str) -> None:
    modules = list(build_flow(replace(small_config(name), layers=6), 5).modules())  # type: ignore[call-arg]
    masks = [(set(m.stay.tolist()), set(m.move.tolist())) for m in modules if isinstance(m, Coupling)]
    orders = [m.order.tolist() for m in modules if isinstance(m, Autoregressive)]
    assert len(masks) + len(orders) == 6
    for (stay, move), (other_stay, other_move) in zip(masks[::2], masks[1::2], strict=True):
        assert stay == other_move and move == other_stay
    for order, other in zip(orders[::2], orders[1::2], strict=True):
        assert order == [4 - place for place in other]
    assert len({str(m) for m in masks}) > 2 or len({str(o) for o in orders}) > 2, "the pairs are all alike"


def test_fresh_couplings_and_autoregressive_layers_are_the_identity() -> None:
    x = torch.randn(20, 4, generator=seeded(0))
    for name in ("nice", "realnvp", "made", "maf", "iaf", "nsf"):
        for periodic in ((), (1,)) if name in PERIODIC else ((),):
            flow = fresh(lambda n=name, p=periodic: build_flow(small_config(n), 4, CONTEXT, p))
            assert isinstance(flow, Flow)
            latent, log_abs_det = flow.transform(x, torch.randn(20, CONTEXT, generator=seeded(1)))
            torch.testing.assert_close(latent, x, rtol=0, atol=1e-5)
            torch.testing.assert_close(log_abs_det, torch.zeros(20), rtol=0, atol=1e-5)


def test_glow_and_spline_couplings_begin_as_rotations() -> None:
    x = torch.randn(20, 6, generator=seeded(0))
    for name in ("glow", "nsf-coupling"):
        latent, log_abs_det = fresh(lambda n=name: build_flow(small_config(n), 6)).transform(x)  # type: ignore[union-attr,operator]
        torch.testing.assert_close(latent.norm(dim=-1), x.norm(dim=-1), rtol=1e-4, atol=0)
        torch.testing.assert_close(log_abs_det, torch.zeros(20), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_configured_sizes_are_built(name: str) -> None:
    config = small_config(name)
    flow = build_flow(config, 4)
    if "layers" in MODELS[name].__dataclass_fields__:
        more = build_flow(replace(config, layers=5), 4)  # type: ignore[call-arg]
        assert isinstance(flow.transform, Chain) and isinstance(more.transform, Chain)
        assert len(more.transform) > len(flow.transform)
    if "hidden" in MODELS[name].__dataclass_fields__:
        wide = build_flow(replace(config, hidden=(32,)), 4)  # type: ignore[call-arg]
        assert any(p.shape[:1] == (32,) for p in wide.parameters())
        # Solvers cannot follow a kink.
        other = "softplus" if name in CONTINUOUS else "relu"
        x = torch.randn(5, 4, generator=seeded(0))
        latents = []
        for activation in ("tanh", other):
            flow = fresh(lambda a=activation: build_flow(replace(config, activation=a), 4))  # type: ignore[call-arg]
            assert isinstance(flow, Flow)
            randomise(flow, STRENGTH, seeded(2))
            for_single_precision(flow)
            latents.append(flow.to_latent(x, generator=seeded(1)))
        assert not torch.allclose(*latents, atol=1e-3)
        with pytest.raises(ValueError, match=r"activation must be one of .*, got 'step'"):
            build_flow(replace(config, activation="step"), 4)  # type: ignore[call-arg]


def test_angles_turn_once_and_the_line_has_the_configured_bound() -> None:
    for name in PERIODIC:
        flow = build_flow(replace(small_config(name), bound=4.0), 4, 0, [1])  # type: ignore[call-arg]
        maps = [m for m in flow.modules() if isinstance(m, RationalQuadraticSpline)]
        found = {round(b, 4) for m in maps for b in m.bound.reshape(-1).tolist()}
        assert found == {4.0, round(math.pi, 4)}
        for m in maps:
            circles = (m.bound.reshape(-1) != 4.0).tolist()
            assert circles == [t == 2 for t in m.tail.expand(len(circles)).tolist()]


def test_periodic_spline_couplings_mix_no_angles() -> None:
    flow = build_flow(small_config("nsf-coupling"), 4, 0, [1])
    assert isinstance(flow.transform, Chain)
    assert {type(t) for t in flow.transform} == {Coupling}
    free = build_flow(small_config("nsf-coupling"), 4)
    assert isinstance(free.transform, Chain)
    assert {type(t) for t in free.transform} == {Coupling, LULinear}


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_built_is_refused(name: str) -> None:
    config = small_config(name)
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        build_flow(config, 0)
    if name not in ONE_DIMENSIONAL:
        with pytest.raises(ValueError, match=f"{name} needs at least 2 features, got 1"):
            build_flow(config, 1)
    if name not in PERIODIC:
        with pytest.raises(ValueError, match=rf"{name} cannot model periodic columns \(\[1\]\).*use nsf"):
            build_flow(config, 3, 0, [1])
    for wrong in ([3], [-1], [1, 1]):
        with pytest.raises(ValueError, match=r"periodic must name elements among 0..2, each once, got \["):
            build_flow(config, 3, 0, wrong)
    with pytest.raises(ValueError, match=r"must be at least 1, got"):
        build_flow(config, 3, -1)


def test_the_prior_of_nice() -> None:
    assert [
        type(build_flow(NICEConfig(layers=2, prior=p), 2).base).__name__ for p in ("logistic", "normal")
    ] == [
        "Logistic",
        "DiagonalNormal",
    ]
    with pytest.raises(ValueError, match="prior must be 'logistic' or 'normal', got 'flat'"):
        NICEConfig(prior="flat")
