"""The divergence of a velocity: exact, and estimated without bias."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cases import CONTEXT, fresh, randomise, seeded
from continuous_cases import PictureField
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow
from pushforward.networks import ConcatSquashField, PerceptronField, VectorField
from pushforward.ode import Adaptive, Fixed
from pushforward.transforms import Continuous
from pushforward.transforms.divergence import Divergence, Exact, Hutchinson, HutchPlusPlus, draw_probes

FIELDS = {
    "one-layer": lambda: PerceptronField(4, hidden=(6,), activation="silu"),
    "two-layers": lambda: PerceptronField(4, context_features=CONTEXT, hidden=(6, 7)),
    "two-layers-softplus": lambda: PerceptronField(4, hidden=(7, 6), activation="softplus"),
    "three-layers": lambda: PerceptronField(4, context_features=CONTEXT, hidden=(6, 5, 7)),
    "squashed": lambda: ConcatSquashField(4, context_features=CONTEXT, hidden=(6, 5)),
    "picture": lambda: PictureField((2, 3), channels=2),
}
NOISES = ("rademacher", "gaussian")
ESTIMATES = [Hutchinson(n, k) for n in NOISES for k in (1, 4)] + [HutchPlusPlus(n, 3) for n in NOISES]


def made(name: str) -> VectorField:
    field = fresh(FIELDS[name]).double()
    assert isinstance(field, VectorField)
    randomise(field, 1.0, seeded(1))
    return field


def drawn(field: VectorField, n: int = 5) -> tuple[Tensor, Tensor, Tensor | None]:
    g = seeded(2)
    t = torch.rand(n, generator=g, dtype=torch.float64)
    x = torch.randn(n, *field.event_shape, generator=g, dtype=torch.float64)
    shape = field.context_shape
    return t, x, None if shape is None else torch.randn(n, *shape, generator=g, dtype=torch.float64)


def trace(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    def one(i: int) -> Tensor:
        c = None if context is None else context[i : i + 1]
        matrix = torch.autograd.functional.jacobian(lambda at: field(t[i : i + 1], at[None], c)[0], x[i])
        return matrix.reshape(x[i].numel(), -1).trace()

    return torch.stack([one(i) for i in range(len(x))])


class ByCopies(VectorField):
    """A field whose structure is not known."""

    def __init__(self, field: VectorField) -> None:
        super().__init__()
        self.field, self.event_shape, self.context_shape = field, field.event_shape, field.context_shape

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        v: Tensor = self.field(t, x, context)
        return v


class Linear(VectorField):
    """A velocity ``A x``."""

    context_shape = None

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.event_shape = (len(matrix),)
        self.matrix = nn.Parameter(matrix)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x @ self.matrix.T


@pytest.mark.parametrize("name", FIELDS)
def test_the_exact_one_is_the_trace_of_the_jacobian(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = made(name)
    at = drawn(field)
    expected = trace(field, *at)
    for of in (field, ByCopies(field)):
        v, found = Exact()(of, *at, None)
        torch.testing.assert_close(v, field(*at), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    # So many copies that they are made in pieces.
    monkeypatch.setattr("pushforward.transforms.divergence._MOST_COPIES", 12)
    torch.testing.assert_close(Exact()(ByCopies(field), *at, None)[1], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["two-layers", "picture"])
@pytest.mark.parametrize("rule", ESTIMATES, ids=str)
def test_the_others_are_without_bias(rule: Divergence, name: str) -> None:
    field = made(name)
    t, x, context = drawn(field, 2)
    expected, n = trace(field, t, x, context), 2000
    many = [None if a is None else a.repeat_interleave(n, 0) for a in (t, x, context)]
    noise = draw_probes(rule, many[1], seeded(3), shared=False, extra=False)
    with torch.no_grad():
        v, found = rule(field, *many, noise)
    torch.testing.assert_close(v[::n], field(t, x, context), rtol=1e-12, atol=1e-12)
    each = found.reshape(2, n)
    error = (each.mean(1) - expected).abs()
    assert (error < 4 * each.std(1) / n**0.5 + 1e-12).all()
    assert (each.std(1) > 1e-3).all()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", ["two-layers", "picture"])
def test_hutch_plus_plus_is_exact_with_three_products_for_each_element(name: str, noise: str) -> None:
    field = made(name)
    at = drawn(field)
    rule = HutchPlusPlus("gaussian", 3 * at[1][0].numel())
    probes = draw_probes(rule, at[1], seeded(4), shared=False, extra=False)
    torch.testing.assert_close(rule(field, *at, probes)[1], trace(field, *at), rtol=1e-9, atol=1e-9)


def test_hutch_plus_plus_varies_less_where_few_directions_are_large() -> None:
    d, n = 20, 2000
    q = torch.linalg.qr(torch.randn(d, d, generator=seeded(), dtype=torch.float64)).Q
    size = torch.full((d,), 0.01, dtype=torch.float64)
    size[:2] = 10.0
    field = Linear(q @ torch.diag(size) @ q.T)
    t, x = torch.zeros(n, dtype=torch.float64), torch.zeros(n, d, dtype=torch.float64)
    spread = []
    for rule in (Hutchinson(probes=9), HutchPlusPlus(probes=9)):
        probes = draw_probes(rule, x, seeded(5), shared=False, extra=False)
        with torch.no_grad():
            spread.append(rule(field, t, x, None, probes)[1].std())
    assert spread[1] < 0.1 * spread[0]


# --- noise ------------------------------------------------------------------------------------------------------


def flow_with(rule: Divergence, name: str = "two-layers", **more: object) -> Continuous:
    return Continuous(made(name), divergence=rule, control=Adaptive(1e-6, 1e-6), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ESTIMATES, ids=str)
def test_noise_is_that_of_the_generator_and_held_during_a_solve(rule: Divergence) -> None:
    transform = flow_with(rule)
    _, x, context = drawn(transform.field, 6)

    def log_det(seed: int, shared: bool = False, order: Tensor | slice = slice(None)) -> Tensor:
        given = None if context is None else context[order]
        solved = transform.solve(x[order], given, generator=seeded(seed), shared=shared)
        return solved.log_abs_det.detach()

    assert torch.equal(log_det(0), log_det(0))
    assert not torch.allclose(log_det(0), log_det(1))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    whole = log_det(0, shared=True)
    torch.testing.assert_close(log_det(0, True, order), whole[order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det(0, True, slice(2, 4)), whole[2:4], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", [Hutchinson(), HutchPlusPlus("gaussian")], ids=str)
def test_an_estimate_is_the_integral_with_one_probe_for_the_whole_path(rule: Divergence) -> None:
    """With fresh noise at each stage no method would keep its order."""
    values = []
    for steps in (8, 16, 64):
        transform = Continuous(made("two-layers"), method="rk4", control=Fixed(steps), divergence=rule)
        _, x, context = drawn(transform.field, 4)
        values.append(transform.solve(x, context, generator=seeded(7)).log_abs_det.detach())
    assert (values[1] - values[2]).abs().max() < 0.3 * (values[0] - values[2]).abs().max() + 1e-9


@pytest.mark.parametrize("noise", NOISES)
def test_probes(noise: str) -> None:
    x = torch.zeros(1000, 2, 3, dtype=torch.float64)
    assert draw_probes(Exact(), x, None, shared=False, extra=False) is None
    for rule, shared, count in ((Hutchinson(noise, 2), False, 2), (HutchPlusPlus(noise, 6), True, 4)):
        probes = draw_probes(rule, x, seeded(), shared=shared, extra=True)
        assert probes is not None and probes.shape == (1000, count, 6) and probes.dtype == x.dtype
        assert torch.equal(probes[0], probes[1]) == shared
        assert ((probes.abs() == 1).all()) == (noise == "rademacher")
        if not shared:
            assert probes.mean().abs() < 0.05 and (probes.square().mean() - 1).abs() < 0.05
    extra = draw_probes(Exact(), x, seeded(), shared=False, extra=True)
    assert extra is not None and extra.shape == (1000, 1, 6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Hutchinson("uniform"), "noise must be one of rademacher, gaussian, got 'uniform'"),
        (lambda: Hutchinson(probes=0), "probes must be a positive multiple of 1, got 0"),
        (lambda: HutchPlusPlus(probes=4), "probes must be a positive multiple of 3, got 4"),
    ],
)
def test_impossible_rules_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


# --- modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("rule", [Exact(), Hutchinson(), HutchPlusPlus()], ids=lambda r: type(r).__name__)
def test_modes_change_no_value(rule: Divergence, name: str) -> None:
    transform = flow_with(rule, name)
    _, x, context = drawn(transform.field, 3)

    def value() -> Tensor:
        return transform.solve(x, context, generator=seeded(), penalties=("jacobian",)).log_abs_det

    plain = value().detach()
    with torch.no_grad():
        torch.testing.assert_close(value(), plain, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            transform.eval().solve(x, context, generator=seeded()).y,
            transform.encode(x, context),
            rtol=1e-4,
            atol=1e-4,
        )
    torch.testing.assert_close(value().detach(), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("rule", [Exact(), Hutchinson(), HutchPlusPlus()], ids=lambda r: type(r).__name__)
def test_inference_mode_changes_no_value(rule: Divergence, name: str) -> None:
    transform = flow_with(rule, name)
    _, x, context = drawn(transform.field, 3)

    def value() -> Tensor:
        return transform.solve(x, context, generator=seeded(), penalties=("jacobian",)).log_abs_det

    plain = value().detach()
    with torch.inference_mode():
        torch.testing.assert_close(value(), plain, rtol=1e-12, atol=1e-12)
        # Points that themselves are of inference mode.
        again = transform.solve(x + 0, None if context is None else context + 0, generator=seeded())
    torch.testing.assert_close(again.log_abs_det, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", ["checkpointed", "backprop", "adjoint"])
@pytest.mark.parametrize("name", ["two-layers", "three-layers", "picture"])
def test_scores_are_right_in_evaluation_mode_with_frozen_parameters(name: str, gradient: str) -> None:
    field = made(name).eval().requires_grad_(False)
    transform = Continuous(field, control=Adaptive(1e-9, 1e-9), gradient=gradient)
    flow = Flow(transform, DiagonalNormal(field.event_shape).double()).eval().requires_grad_(False)
    _, x, context = drawn(field, 3)
    towards = torch.randn(x.shape, generator=seeded(9), dtype=torch.float64)
    at = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(flow.log_prob(at, context).sum(), at)
    slope = (flow.log_prob(x + 1e-4 * towards, context) - flow.log_prob(x - 1e-4 * towards, context)) / 2e-4
    torch.testing.assert_close((score * towards).flatten(1).sum(1), slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["two-layers", "three-layers"])
def test_the_score_itself_can_be_differentiated_by_backprop(name: str) -> None:
    field = made(name)
    flow = Flow(
        Continuous(field, control=Adaptive(1e-8, 1e-8), gradient="backprop"),
        DiagonalNormal(field.event_shape).double(),
    )
    _, x, context = drawn(field, 2)
    towards = torch.randn(x.shape, generator=seeded(9), dtype=torch.float64)

    def square(at: Tensor) -> Tensor:
        (score,) = torch.autograd.grad(flow.log_prob(at, context).sum(), at, create_graph=True)
        return score.square().sum()

    at = x.clone().requires_grad_()
    (second,) = torch.autograd.grad(square(at), at)
    ahead, behind = (square((x + s * 1e-4 * towards).requires_grad_()).detach() for s in (1, -1))
    torch.testing.assert_close((second * towards).sum(), (ahead - behind) / 2e-4, rtol=1e-3, atol=1e-3)
    flow.transform.gradient = "checkpointed"  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="gradient='backprop'"):
        second_order = square(x.clone().requires_grad_())
        second_order.backward()
