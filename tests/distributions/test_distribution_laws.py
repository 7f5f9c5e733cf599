"""What holds for every distribution."""

from __future__ import annotations

import copy
import inspect
import math
from unittest import mock

import pytest
import torch
from distribution_cases import CASES, VECTORS_ONLY, build, context_for, event_shapes, product, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pushforward import distributions
from pushforward.distributions import Distribution

every = pytest.mark.parametrize("name", CASES)
each_shape = pytest.mark.parametrize(("name", "shape"), [(n, s) for n in CASES for s in event_shapes(n)])
seeds = st.integers(0, 2**31)
quick = settings(max_examples=5, deadline=None)


def grid(nodes: int, draws: Tensor, circle: bool) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the midpoint rule on the circle, or on the line under x = m + s tan(u)."""
    u = math.pi * ((torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes - 0.5)
    if circle:
        return 2 * u, torch.full_like(u, 2 * math.pi / nodes)
    low, middle, high = draws.flatten().quantile(torch.tensor([0.2, 0.5, 0.8], dtype=draws.dtype))
    return middle + (high - low) * torch.tan(u), math.pi / nodes * (high - low) * (1 + torch.tan(u).square())


def on_circle(distribution: Distribution) -> bool:
    return isinstance(distribution, distributions.VonMises)


def test_every_exported_distribution_is_a_case() -> None:
    exported = {
        c
        for c in vars(distributions).values()
        if inspect.isclass(c) and issubclass(c, Distribution) and c is not Distribution
    }
    assert {c.__name__ for c in exported} == set(distributions.__all__) - {"Distribution"}
    assert {type(build(n, (3,), 0)) for n in CASES} == exported


@pytest.mark.parametrize("name", [n for n in CASES if n not in VECTORS_ONLY])
@given(seed=seeds)
@quick
def test_mass_is_one_and_samples_follow_it(name: str, seed: int) -> None:
    """Kolmogorov and Smirnov: the distance is above 2.7 / sqrt(n) with a probability of 1e-6."""
    n = 4000
    distribution = build(name, (), seed)
    context = context_for(distribution, seed)
    draws = distribution.sample((n,), context, generator=seeded(seed)).sort().values
    x, weight = grid(10_001, draws, on_circle(distribution))
    with torch.no_grad():
        cdf = (distribution.log_prob(x, context).exp() * weight).cumsum(0)
    # The midpoint rule sees the edges of a box only up to its step.
    slack = 5e-3 if "uniform" in name else 1e-7
    assert abs(cdf[-1] - 1) < slack
    empirical = torch.searchsorted(draws, (x[1:] + x[:-1]) / 2).to(torch.float64) / n
    assert (empirical - cdf[:-1]).abs().max() < 2.7 / math.sqrt(n) + slack


@pytest.mark.parametrize("name", ["mixture", "product", "normal-conditional"])
@given(seed=seeds)
@settings(max_examples=4, deadline=None)
def test_mass_is_one_in_two_dimensions(name: str, seed: int) -> None:
    distribution = build(name, (2,), seed)
    context = context_for(distribution, seed)
    circle = distribution.order[1] if isinstance(distribution, distributions.Product) else None
    draws = distribution.sample((1000,), context, generator=seeded(seed))
    (x, v), (y, w) = (grid(401, draws[:, i], i == circle) for i in range(2))
    with torch.no_grad():
        density = distribution.log_prob(torch.cartesian_prod(x, y), context).exp()
    assert abs((density.view(401, 401) * v[:, None] * w).sum() - 1) < 1e-6


@each_shape
@given(seed=seeds)
@quick
def test_batch_equals_a_loop_and_elements_add(name: str, shape: tuple[int, ...], seed: int) -> None:
    distribution = build(name, shape, seed)
    contexts = context_for(distribution, seed, 4)
    x = distribution.sample((5,) if contexts is not None else (5, 4), contexts, generator=seeded(seed))
    assert x.shape == (5, 4, *shape)
    value = distribution.log_prob(x, contexts)
    assert value.shape == (5, 4)
    assert value.isfinite().all()
    for i in range(0, 5, 2):
        for j in range(4):
            alone = distribution.log_prob(x[i, j], None if contexts is None else contexts[j])
            torch.testing.assert_close(value[i, j], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["normal-conditional", "product", "product-smooth"])
@given(seed=seeds)
@quick
def test_samples_belong_to_their_context(name: str, seed: int) -> None:
    """Value by value: the stream of noise is the same, so only the context can differ."""
    distribution = build(name, (3,), seed)
    contexts = context_for(distribution, seed, 2, 3)
    assert contexts is not None
    together = distribution.sample((4,), contexts, generator=seeded(seed))
    assert together.shape == (4, 2, 3, 3)
    for i in range(2):
        for j in range(3):
            alone = distribution.sample((4, 2, 3), contexts[i, j], generator=seeded(seed))
            torch.testing.assert_close(together[:, i, j], alone[:, i, j], rtol=1e-9, atol=1e-9)
            assert not torch.allclose(together[:, i, j], alone[:, i - 1, j])


@each_shape
def test_seeds_copies_and_reloads_agree(name: str, shape: tuple[int, ...]) -> None:
    distribution = build(name, shape, 1, torch.float32)
    context = context_for(distribution, 1)

    def draw(d: Distribution, seed: int = 3) -> Tensor:
        return d.sample((6, 2), context, generator=seeded(seed))

    other = build(name, shape, 2, torch.float32)
    other.load_state_dict(distribution.state_dict())
    if not isinstance(distribution, distributions.Product):
        assert torch.equal(draw(distribution), draw(other))
    assert torch.equal(draw(distribution), draw(distribution))
    assert torch.equal(draw(distribution), draw(copy.deepcopy(distribution)))
    assert not torch.equal(draw(distribution), draw(distribution, 4))
    assert draw(distribution).dtype == torch.float32
    assert not draw(distribution).requires_grad


@each_shape
def test_moving_moves_everything(name: str, shape: tuple[int, ...]) -> None:
    distribution = build(name, shape, 1, torch.float32).to(torch.float64)
    tensors = [*distribution.parameters(), *distribution.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64} == {distribution.dtype}
    context = context_for(distribution, 1)
    x = distribution.sample((2,), context)
    assert x.dtype == distribution.log_prob(x, context).dtype == torch.float64
    meta = distribution.to("meta")
    assert {t.device.type for t in [*meta.parameters(), *meta.buffers()]} == {"meta"} == {meta.device.type}


@every
@given(seed=seeds)
@quick
def test_gradients_reach_every_parameter(name: str, seed: int) -> None:
    distribution = build(name, (3,), seed)
    context = context_for(distribution, seed, 7)
    shape = (5,) if context is not None else (5, 7)
    x = distribution.sample(shape, context, generator=seeded(seed))
    methods = [lambda: distribution.log_prob(x, context)]
    if distribution.has_rsample:
        methods.append(lambda: distribution.rsample(shape, context, generator=seeded(seed)))
        assert torch.equal(methods[1](), x)
    for method in methods:
        distribution.zero_grad()
        value = method()
        assert value.requires_grad == any(True for _ in distribution.parameters())
        if value.requires_grad:
            value.square().sum().backward()
        for key, p in distribution.named_parameters():
            assert p.grad is not None, key
            assert p.grad.isfinite().all(), key
            assert p.grad.count_nonzero() > 0, key


@every
@given(seed=seeds, temperature=st.floats(0, 3))
@quick
def test_temperature_scales_around_the_location(name: str, seed: int, temperature: float) -> None:
    distribution = build(name, (3,), seed)
    context = context_for(distribution, seed)

    def draw(t: float) -> Tensor:
        return distribution.sample((5,), context, temperature=t, generator=seeded(seed))

    if not distribution.has_temperature:
        with pytest.raises(
            ValueError, match=f"^{type(distribution).__name__}: temperature must be 1, .* 1.5$"
        ):
            draw(1.5)
        return
    location = draw(0.0)
    assert torch.equal(location, location[:1].expand_as(location))
    torch.testing.assert_close(draw(temperature), location + temperature * (draw(1.0) - location))


def test_log_prob_is_one_graph() -> None:
    families = [
        "normal-conditional",
        "logistic",
        "uniform",
        "student-trainable",
        "mixture",
        "von-mises-trainable",
    ]
    distribution = product((8,), seeded(), *(CASES[n] for n in families))
    assert {type(p) for p in distribution.parts} == {type(build(n, (3,), 0)) for n in CASES} - {
        type(distribution)
    }
    context = context_for(distribution, 1)
    x = distribution.sample((6,), context, generator=seeded())
    compiled = torch.compile(distribution.log_prob, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, context), distribution.log_prob(x, context))


@each_shape
def test_outside_is_minus_infinity_and_nan_stays(name: str, shape: tuple[int, ...]) -> None:
    distribution = build(name, shape, 1, torch.float32)
    context = context_for(distribution, 1)
    x = distribution.sample((3,), context, generator=seeded()).reshape(3, -1)
    for value in (math.inf, -math.inf, math.nan):
        y = x.clone()
        y[1, 0] = value
        got = distribution.log_prob(y.view(3, *shape), context)
        assert got[[0, 2]].isfinite().all()
        assert got[1].isnan() if math.isnan(value) else got[1] == -math.inf


@each_shape
def test_float32_tails(name: str, shape: tuple[int, ...]) -> None:
    single = build(name, shape, 1, torch.float32)
    double = copy.deepcopy(single).to(torch.float64)
    contexts = context_for(single, 1)
    for size in (1e-3, 1.0, 30.0, 1e4):
        x = torch.full((1, *shape), size) * torch.tensor([1.0, -1.0]).view(2, *(1 for _ in shape))
        got = single.log_prob(x, contexts)
        expected = double.log_prob(x.double(), None if contexts is None else contexts.double())
        torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-5)
        compact = name.startswith(("uniform", "von-mises")) or name == "product"
        assert compact or got.isfinite().all()


def test_log_prob_waits_for_nothing() -> None:
    """No value is read on the host: on the meta device there is none."""
    for name in CASES:
        distribution = build(name, (3,), 1).to("meta")
        context = context_for(distribution, 1)
        x = torch.empty(4, 3, dtype=torch.float64, device="meta")
        with mock.patch.object(Tensor, "item", side_effect=AssertionError):
            value = distribution.log_prob(x, None if context is None else context.to("meta"))
        assert value.shape == (4,)
