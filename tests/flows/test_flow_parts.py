"""What a flow's parts do for it: contexts and embeddings, preprocessing, temperature, initial values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cases import CONTEXT, Density, contexts, fresh, randomise, seeded
from laws import check_moves
from pushforward.configs import GlowConfig
from pushforward.distributions import DiagonalNormal, Uniform
from pushforward.flows import Flow, Preprocess, build_flow
from pushforward.networks import MLP
from pushforward.surjections import Dequantise
from pushforward.transforms import (
    Affine,
    Chain,
    Coupling,
    Permutation,
    RationalQuadraticSpline,
    Standardise,
    Support,
)


def conditional(base_too: bool = True, **parts: object) -> Flow:
    """A spline coupling of three elements, whose base, too, depends on a context."""
    transform = Coupling(
        [True, False, False],
        RationalQuadraticSpline(4, 3.0),
        MLP(1, 22, context_features=CONTEXT, hidden=(8,)),
        context_features=CONTEXT,
    )
    base = DiagonalNormal((3,), context_features=CONTEXT if base_too else 0)
    flow = Flow(transform, base, **parts)  # type: ignore[arg-type]
    randomise(flow, 1.0, seeded(3))
    return flow


def table(*, discrete: bool) -> Flow:
    """Columns with a support, a large offset and a step, under two columns of context."""
    preprocess = Preprocess(Chain([Support([0.0, None, 0.0], [1.0, None, None]), Standardise(3)]))
    context = Preprocess(Chain([Support([0.0, None], [None, None]), Standardise(2)]))
    surjection = Dequantise([0.0, 0.0, 1.0]) if discrete else None
    flow = fresh(
        lambda: conditional(preprocess=preprocess, context_preprocess=context, surjection=surjection)
    )
    preprocess.transform.initialize(rows(100))
    context.transform.initialize(given(100))
    assert isinstance(flow, Flow)
    return flow


def rows(*batch: int) -> Tensor:
    u = torch.rand((*batch, 3), generator=seeded(4), dtype=torch.float64)
    return torch.stack([u[..., 0], 1e12 + 100 * u[..., 1], torch.floor(9 * u[..., 2]) + 0.5], -1)


def given(*batch: int) -> Tensor:
    u = torch.rand((*batch, 2), generator=seeded(5), dtype=torch.float64)
    return torch.stack([10 * u[..., 0], -1e9 + u[..., 1]], -1)


# --- contexts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_too", [False, True])
def test_draws_belong_to_their_contexts(base_too: bool) -> None:
    flow = conditional(base_too).double()
    context = contexts(flow, 2, 3)
    assert context is not None
    samples, log_prob = flow.sample_and_log_prob((5,), context, generator=seeded())
    noise = flow.base.sample((5,) if base_too else (5, 2, 3), context, generator=seeded())
    assert samples.shape == (5, 2, 3, 3)
    for i in range(5):
        for j in range(2):
            for k in range(3):
                c = context[j, k]
                torch.testing.assert_close(samples[i, j, k], flow.from_latent(noise[i, j, k], c))
                torch.testing.assert_close(log_prob[i, j, k], flow.log_prob(samples[i, j, k], c))
    assert not torch.allclose(flow.log_prob(samples[:, :1, :1], context), log_prob)


class Counting(nn.Linear):
    """Counts how often it is called, and on how many contexts."""

    calls = 0
    seen = 0

    def forward(self, context: Tensor) -> Tensor:
        self.calls, self.seen = self.calls + 1, self.seen + context[..., 0].numel()
        return super().forward(context)


def test_contexts_are_embedded_once_before_they_are_expanded() -> None:
    embedding = Counting(5, CONTEXT)
    flow = conditional(embedding=embedding, context_shape=(5,))
    context = torch.randn(4, 5, generator=seeded())
    assert flow.context_shape == (5,)
    for call in (
        lambda: flow.log_prob(torch.zeros(9, 1, 3), context),
        lambda: flow.sample((9,), context),
        lambda: flow.estimate_log_prob(torch.zeros(9, 1, 3), context),
        lambda: flow.from_latent(torch.zeros(9, 1, 3), context),
    ):
        embedding.calls = embedding.seen = 0
        call()
        assert (embedding.calls, embedding.seen) == (1, 4)
    discrete = table(discrete=True)
    discrete.embedding = embedding = Counting(2, CONTEXT)
    discrete.estimate_log_prob(rows(3), given(3), num_samples=5)
    assert (embedding.calls, embedding.seen) == (1, 3)
    inner, embedded = Flow(flow.transform, flow.base), flow.embed(context)
    assert torch.equal(flow.log_prob(torch.zeros(4, 3), context), inner.log_prob(torch.zeros(4, 3), embedded))


def test_parts_that_do_not_fit_are_refused() -> None:
    narrow, two = DiagonalNormal((2,)), Permutation([1, 0])
    for build, message in (
        (lambda: Flow(Permutation([0]), narrow), r"base must have the event shape .* \(1,\), got \(2,\)"),
        (
            lambda: Flow(two, narrow, preprocess=Preprocess(Standardise(3))),
            r"preprocess must give the shape .* \(2,\), got \(3,\)",
        ),
        (
            lambda: Flow(
                Coupling([True, False], Affine(), MLP(1, 2, context_features=3), context_features=3),
                DiagonalNormal((2,), context_features=2),
            ),
            r"one context shape, got \[\(2,\), \(3,\)\]",
        ),
        (
            lambda: conditional(embedding=nn.Linear(5, 2)),
            "context_shape is needed for an embedding .*, got None",
        ),
        (lambda: conditional(context_shape=(5,)), r"context_shape must be \(2,\), .* got \(5,\)"),
        (
            lambda: conditional(context_preprocess=Preprocess(Standardise(3))),
            r"context_preprocess must give the context shape .* \(2,\), got \(3,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build()


# --- preprocessing, temperature, initial values ---------------------------------------------------------------------


def test_the_density_is_in_the_units_of_the_data() -> None:
    flow = table(discrete=False).double()
    x, context = rows(6), given(6)
    at = x.clone().requires_grad_()
    latent = flow.to_latent(at, context)
    jacobian = torch.stack(
        [torch.autograd.grad(latent[:, i].sum(), at, retain_graph=True)[0] for i in range(3)], 1
    )
    assert flow.context_preprocess is not None
    embedded = flow.context_preprocess(context, torch.empty(0).double())[0]
    expected = flow.base.log_prob(latent, embedded) + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow.log_prob(x, context), expected, rtol=0, atol=1e-8)
    samples, log_prob = flow.sample_and_log_prob((2,), context, generator=seeded())
    # A sample near 1e12 is rounded to 1e-4.
    torch.testing.assert_close(log_prob, flow.log_prob(samples, context), rtol=0, atol=1e-2)
    single = table(discrete=False)
    torch.testing.assert_close(single.log_prob(x, context).double(), expected, rtol=0, atol=2e-4)
    assert single.log_prob(x.float().long(), context).shape == (6,), (
        "whole numbers are welcome where they are converted"
    )


def test_preprocessing_and_dequantisation_stay_in_double_precision() -> None:
    flow = table(discrete=True)
    kept = ("preprocess", "context_preprocess", "surjection")
    before = {k: v.clone() for k, v in flow.state_dict().items() if k.startswith(kept)}
    assert {v.dtype for v in before.values() if v.is_floating_point()} == {torch.float64}
    for cast in (flow.half(), flow.to(torch.bfloat16), flow.to(torch.float32)):
        state = cast.state_dict()
        assert all(torch.equal(state[k], v) and state[k].dtype == v.dtype for k, v in before.items())
    samples = flow.sample((5,), given(), generator=seeded())
    assert samples.dtype == torch.float64
    assert torch.equal(samples[:, 2], samples[:, 2].round())
    estimate = flow.estimate_log_prob(samples, given(), generator=seeded())
    assert estimate.value.dtype == torch.float32 and estimate.value.isfinite().all()
    other = table(discrete=True)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.sample((5,), given(), generator=seeded()), samples)


def test_preprocessing_stays_where_the_table_is() -> None:
    check_moves(
        Density(table(discrete=False)),
        rows(5),
        given(5),
        stays=("flow.preprocess", "flow.context_preprocess"),
    )


def test_outside_the_support_there_is_nothing_and_given_the_impossible_no_number() -> None:
    flow = table(discrete=False)
    x, context = rows(3), given(3)
    x[0, 0], x[1, 2] = 1.5, -1.0
    assert flow.log_prob(x, context).isneginf().tolist() == [True, True, False]
    context[2, 0] = -1.0
    assert flow.log_prob(x, context)[2].isnan() and flow.sample((2,), context)[:, 2].isnan().all()


def test_an_estimate_of_what_is_exact_is_exact() -> None:
    flow = conditional(base_too=False)
    x, context = torch.randn(4, 3, generator=seeded()), torch.zeros(2)
    estimate = flow.estimate_log_prob(x, context)
    assert estimate.kind == "exact" and torch.equal(estimate.value, flow.log_prob(x, context))
    assert (estimate.standard_error == 0).all()


def test_temperature_scales_the_base_or_is_refused() -> None:
    flow = conditional(base_too=False).double()
    context = contexts(flow)
    cold = flow.sample((5,), context, temperature=0.0)
    torch.testing.assert_close(cold, flow.from_latent(torch.zeros(5, 3).double(), context))
    noise = flow.base.sample((5,), generator=seeded())
    warm = flow.sample((5,), context, temperature=0.5, generator=seeded())
    torch.testing.assert_close(warm, flow.from_latent(0.5 * noise, context))
    with pytest.raises(ValueError, match=r"temperature must be 1, .*, got 0.5"):
        Flow(Permutation([0]), Uniform(torch.zeros(1), torch.ones(1))).sample((2,), temperature=0.5)


def test_initial_values_come_from_the_data_once_asked_for() -> None:
    flow = fresh(lambda: build_flow(GlowConfig(layers=2, hidden=(8,)), 3))
    assert isinstance(flow, Flow) and isinstance(flow.transform, Chain)
    x = 5 + 3 * torch.randn(500, 3, generator=seeded())
    flow.initialize(x)
    first = next(iter(flow.transform))(x)[0]
    torch.testing.assert_close(first.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(first.std(0, correction=0), torch.ones(3), rtol=1e-4, atol=0)
    latent = flow.to_latent(x)
    torch.testing.assert_close(latent.std(0, correction=0), torch.ones(3), rtol=0.2, atol=0)


def test_the_density_compiles_in_one_graph() -> None:
    flow = conditional(base_too=True).double()
    x, context = torch.randn(4, 3, generator=seeded()).double(), contexts(flow, 4)
    torch._dynamo.reset()
    compiled = torch.compile(flow.log_prob_preprocessed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, context), flow.log_prob(x, context), rtol=1e-12, atol=1e-12)
