"""Planar, radial and Sylvester maps: the laws of a transform, over parameters of every size."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev, vmap

from pushforward.transforms.base import Inverse, Transform
from pushforward.transforms.planar import MIN_SLOPE, Planar, bound_product, solve_tanh, tanh_slope
from pushforward.transforms.radial import Radial, _solve_radius
from pushforward.transforms.sylvester import Sylvester, _reflect

BUILD: dict[str, Callable[..., Transform]] = {
    "planar": lambda d, c=0: Planar(d, context_features=c, hidden=(16,)),
    "radial": lambda d, c=0: Radial(d, context_features=c, hidden=(16,)),
    "sylvester": lambda d, c=0: Sylvester(d, (d + 1) // 2, context_features=c, hidden=(16,)),
    "full sylvester": lambda d, c=0: Sylvester(d, d, context_features=c, hidden=(16,)),
}
kinds = pytest.mark.parametrize("kind", BUILD)
random_map = given(
    features=st.integers(1, 5),
    scale=st.sampled_from([0.3, 1.0, 3.0, 10.0, 100.0]),
    seed=st.integers(0, 10**6),
)


def make(
    kind: str, features: int, scale: float, *, context: int = 0, dtype: torch.dtype = torch.float64
) -> Transform:
    """Return a map whose parameters are drawn at the given scale, also those of its network."""
    t = BUILD[kind](features, context).to(dtype)
    with torch.no_grad():
        for name, p in t.named_parameters():
            p.copy_(torch.randn_like(p) * (scale if name == "source.value" else p.shape[-1] ** -0.5))
    return t


def points(t: Transform, scale: float, n: int = 8) -> Tensor:
    """Return points at all distances from where the map bends."""
    value = next(t.parameters()).detach()
    x = torch.randn(n, *t.event_shape, dtype=value.dtype)
    x[n // 2 :] /= max(scale, 1)
    if isinstance(t, Radial):
        x[n // 2 :] += value[: t.event_shape[0]]
    return x


def jacobians(f: Callable[..., tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None) -> Tensor:
    if context is None:
        return vmap(jacrev(lambda v: f(v)[0]))(x)
    return vmap(jacrev(lambda v, c: f(v, c)[0]))(x, context)


def assert_laws(t: Transform, x: Tensor, context: Tensor | None = None) -> None:
    """Assert round trips and log-determinants, scaled by the Lipschitz constant of what amplifies the rounding."""
    double = x.dtype == torch.float64
    for f, g in ((t.forward, t.inverse), (t.inverse, t.forward)):
        y, log_abs_det = f(x, context)
        back, inverse_log_abs_det = g(y, context)
        jacobian = jacobians(f, x, context)
        assert log_abs_det.shape == inverse_log_abs_det.shape == x.shape[:-1]
        stretch = torch.linalg.svdvals(jacobian)
        lipschitz = (1 / stretch[..., -1]).clamp(min=1)
        assert ((back - x).abs().amax(-1) <= (1e-9 if double else 1e-4) * lipschitz).all()
        if double:
            sign, expected = torch.linalg.slogdet(jacobian)
            assert (sign > 0).all()
            inverse_lipschitz = (lipschitz if f == t.forward else stretch[..., 0]).clamp(min=1)
            assert ((log_abs_det - expected).abs() <= 1e-8 * inverse_lipschitz).all()
            assert ((log_abs_det + inverse_log_abs_det).abs() <= 1e-8 * inverse_lipschitz).all()


@kinds
@settings(max_examples=15, deadline=None, derandomize=True)
@random_map
def test_round_trips_and_log_determinants(kind: str, features: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    t = make(kind, features, scale)
    assert_laws(t, points(t, scale))


@kinds
def test_the_laws_are_not_tested_near_the_identity(kind: str) -> None:
    torch.manual_seed(0)
    largest = []
    for _ in range(50):
        t = make(kind, 3, 3.0)
        largest.append(t(points(t, 3.0))[1].abs().max().item())
    assert sorted(largest)[25] >= 1


@kinds
@settings(max_examples=10, deadline=None, derandomize=True)
@given(features=st.integers(1, 5), scale=st.sampled_from([0.3, 1.0, 3.0]), seed=st.integers(0, 10**6))
def test_round_trips_in_float32(kind: str, features: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    t = make(kind, features, scale, dtype=torch.float32)
    assert_laws(t, points(t, scale))


@kinds
@pytest.mark.parametrize(
    "damage",
    [
        lambda y, x, log_abs_det: (x, -log_abs_det),
        lambda y, x, log_abs_det: (2 * y - x, log_abs_det),
        lambda y, x, log_abs_det: (x.detach() + 0 * y, log_abs_det),
        lambda y, x, log_abs_det: (x * (1 + 1e-6), log_abs_det),
    ],
    ids=["sign of the log-determinant", "sign of the shift", "gradient", "digits"],
)
def test_a_broken_inverse_fails_the_laws(kind: str, damage: Callable[..., tuple[Tensor, Tensor]]) -> None:
    torch.manual_seed(0)
    t = make(kind, 3, 1.0)
    x, right = points(t, 1.0), t._inverse
    assert_laws(t, x)
    t._inverse = lambda y, c: damage(y, *right(y, c))  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        assert_laws(t, x)


@kinds
def test_contexts_far_apart_equal_single_calls(kind: str) -> None:
    torch.manual_seed(1)
    t = make(kind, 3, 1.0, context=2)
    x, context = points(t, 1.0, 6), 5 * torch.randn(6, 2, dtype=torch.float64)
    assert_laws(t, x, context)
    for f in (t.forward, t.inverse):
        whole = f(x, context)
        assert (f(x, context.flip(0))[0] - whole[0]).abs().max() > 0.1
        for i in range(6):
            for together, alone in zip(whole, f(x[i], context[i]), strict=True):
                torch.testing.assert_close(together[i], alone, rtol=1e-11, atol=1e-11)


@kinds
@pytest.mark.parametrize("context_batch", [(), (1,), (3,), (4, 1), (1, 3), (4, 3)])
def test_contexts_broadcast_to_the_batch(kind: str, context_batch: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    t = make(kind, 3, 1.0, context=2)
    x = points(t, 1.0, 12).reshape(4, 3, 3)
    context = torch.randn(*context_batch, 2, dtype=torch.float64)
    for f in (t.forward, t.inverse):
        for got, full in zip(f(x, context), f(x, context.expand(4, 3, 2)), strict=True):
            torch.testing.assert_close(got, full, rtol=1e-11, atol=1e-11)


@kinds
def test_a_batch_equals_a_loop(kind: str) -> None:
    torch.manual_seed(3)
    t = make(kind, 4, 1.0)
    x = points(t, 1.0, 6).reshape(2, 3, 4)
    for f in (t.forward, t.inverse):
        y, log_abs_det = f(x)
        assert log_abs_det.shape == (2, 3)
        for i in range(2):
            for j in range(3):
                one, its = f(x[i, j])
                torch.testing.assert_close(y[i, j], one, rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(log_abs_det[i, j], its, rtol=1e-12, atol=1e-12)
        empty = f(x[:0])
        assert empty[0].shape == (0, 3, 4) and empty[1].shape == (0, 3)


@kinds
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("fresh", [True, False])
def test_gradients_reach_every_parameter(kind: str, context: int, direction: str, fresh: bool) -> None:
    torch.manual_seed(4)
    t = BUILD[kind](4, context).double() if fresh else make(kind, 4, 1.0, context=context)
    x = points(t, 1.0).requires_grad_()
    c = torch.randn(8, context, dtype=torch.float64) if context else None
    y, log_abs_det = getattr(t, direction)(x, c)
    (y * torch.randn_like(y)).sum().add(log_abs_det.sum()).backward()
    assert x.grad is not None and x.grad.isfinite().all() and (x.grad != 0).all()
    for name, p in t.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        if name == "source.value":
            assert (p.grad != 0).all(), name
        elif not fresh or "rest" in name:  # a last layer of zeros hides the layers before it
            assert (p.grad != 0).any(), name


@kinds
@pytest.mark.parametrize("turn", [lambda t: t, Inverse], ids=["forward", "inverse"])
def test_gradients_against_finite_differences(kind: str, turn: Callable[[Transform], Transform]) -> None:
    torch.manual_seed(5)
    t = make(kind, 2, 1.0)
    module = turn(t)
    ((name, value),) = module.named_parameters()
    x = points(t, 1.0, 3).requires_grad_()

    def call(x: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(module, {name: value}, (x,))

    inputs = (x, value.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@kinds
def test_function_transforms_over_parameters_and_second_derivatives(kind: str) -> None:
    torch.manual_seed(6)
    t = make(kind, 3, 1.0)
    x = points(t, 1.0)
    values = torch.randn(5, *next(t.parameters()).shape, dtype=torch.float64)
    for module, prefix in ((t, ""), (Inverse(t), "transform.")):
        many = vmap(lambda v, m=module, k=prefix: functional_call(m, {f"{k}source.value": v}, (x,)))(values)
        one = functional_call(module, {f"{prefix}source.value": values[3]}, (x,))
        torch.testing.assert_close(many[0][3], one[0], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(many[1][3], one[1], rtol=1e-11, atol=1e-11)
        curvature = vmap(hessian(lambda v, m=module: m(v)[1]))(x)
        assert curvature.isfinite().all()
        torch.testing.assert_close(curvature, curvature.mT, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "build", [lambda: Planar(3), lambda: Radial(3), lambda: Sylvester(3, 1, context_features=1)]
)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_compiles_into_one_graph(build: Callable[[], Transform], direction: str) -> None:
    torch.manual_seed(7)
    t = build()
    x, context = torch.randn(4, 3), torch.randn(4, 1)
    eager = getattr(t, direction)
    compiled = torch.compile(eager, backend="aot_eager", fullgraph=True)
    for got, expected in zip(compiled(x, context), eager(x, context), strict=True):
        torch.testing.assert_close(got, expected)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [10.0, 100.0, 1e4])
def test_invertible_whatever_the_parameters(kind: str, dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(8)
    for _ in range(20):
        t = make(kind, 4, scale, dtype=dtype)
        factors = {"planar": 1, "radial": 4, "sylvester": 2, "full sylvester": 4}[kind]
        for x in (points(t, scale), points(t, 1.0)):
            y, log_abs_det = t(x)
            assert log_abs_det.isfinite().all() and y.isfinite().all()
            assert (log_abs_det >= factors * math.log(MIN_SLOPE) - 1e-3).all()
            assert all(part.isfinite().all() for part in t.inverse(y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_planar_at_the_edge_of_its_constraint(dtype: torch.dtype, size: float, sign: float) -> None:
    torch.manual_seed(9)
    w = size * torch.nn.functional.normalize(torch.randn(3, dtype=dtype), dim=0)
    t = Planar(3).to(dtype)
    with torch.no_grad():
        t.source.value.copy_(torch.cat([sign * 1e3 * w, w, w.new_tensor([0.3])]))
    along = torch.cat([torch.logspace(-6, 1, 30, dtype=dtype), -torch.logspace(-6, 1, 30, dtype=dtype)])
    x = along[:, None] * w / size**2 + torch.randn(60, 3, dtype=dtype) / size
    y, log_abs_det = t(x)
    back, inverse_log_abs_det = t.inverse(y)
    # What rounding y to its dtype alone does to x, a few times over.
    lipschitz = 1 / torch.linalg.svdvals(jacobians(t.forward, x, None).double())[:, -1].clamp(max=1)
    unit = torch.finfo(dtype).eps * (y.norm(dim=-1) + x.norm(dim=-1))
    assert ((back - x).norm(dim=-1) <= 8 * unit * lipschitz).all()
    # Its slope in s is 2 at most where it falls, and s = w.x + b.
    assert ((log_abs_det + inverse_log_abs_det).abs() <= 1e-6 + 40 * size * unit * lipschitz).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scalar_equation_is_solved_to_rounding(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    slope = torch.cat([torch.logspace(-3, 16, 77, dtype=dtype), 1 + torch.logspace(-7, -1, 7, dtype=dtype)])
    size = torch.logspace(-12, 17, 117, dtype=dtype)
    target = torch.cat([-size, size.new_zeros(1), size])[:, None]
    s = solve_tanh(target, slope)
    wide, m = s.double(), slope.double()
    terms = torch.stack(
        [wide.expand(s.shape), ((m - 1) * torch.tanh(wide)), -target.double().expand(s.shape)]
    )
    allowed = eps * (terms.abs().sum(0) + tanh_slope(wide, m) * wide.abs())
    assert (terms.sum(0).abs() <= 4 * allowed).all()


def test_a_large_slope_keeps_its_digits_in_the_tail() -> None:
    s = torch.linspace(-30, 30, 121)
    for slope in (1e-3, 1.0, 1e6, 1e20):
        expected = 1 + (slope - 1) / torch.cosh(s.double()) ** 2
        got = tanh_slope(s, torch.tensor(slope))
        torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_bounded_smoothly_and_onto(dtype: torch.dtype) -> None:
    p = torch.cat([-torch.logspace(-9, 9, 90), torch.zeros(1), torch.logspace(-9, 9, 90)]).to(dtype)
    p = p.sort().values.requires_grad_()
    scale, slope = bound_product(p)
    assert (slope >= MIN_SLOPE).all() and (scale > 0).all() and (scale <= 1).all()
    assert slope[0] < MIN_SLOPE * 1.001 and slope[-1] > 1e8
    torch.testing.assert_close(scale * p, slope - 1, rtol=1e-5, atol=1e-6)
    (rise,) = torch.autograd.grad(slope.sum(), p)
    assert (rise[p > -1e4] > 0).all() and rise.isfinite().all()
    assert slope[p == 0] == 1 and rise[p == 0] == 0.5


def test_the_radius_is_smooth_where_its_formula_changes() -> None:
    alpha, slope = torch.tensor([[0.5, 2.0], [3.0, 0.25]], dtype=torch.float64)
    inputs = tuple(v.clone().requires_grad_() for v in (alpha * slope, alpha, slope))
    assert torch.autograd.gradcheck(_solve_radius, inputs)


@kinds
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_nothing_is_lost_where_a_vector_vanishes(kind: str, direction: str) -> None:
    t = BUILD[kind](3).double()
    value = next(t.parameters())
    nn.init.zeros_(value)
    nn.init.ones_(value[-1:])  # planar, Sylvester: a shift, u = w = 0; radial: a slope, at the centre itself
    x = torch.zeros(3, dtype=torch.float64)
    call = getattr(t, direction)
    for jacobian in (jacrev(lambda v: call(v)[0])(x), jacrev(jacrev(lambda v: call(v)[1]))(x)):
        assert jacobian.isfinite().all()
    y, log_abs_det = call(x)
    (slopes,) = torch.autograd.grad((y.sum() + log_abs_det), value)
    assert slopes.isfinite().all() and (slopes != 0).any()
    torch.testing.assert_close(y, x)


def test_planar_and_radial_are_those_of_the_paper() -> None:
    torch.manual_seed(10)
    planar, x = make("planar", 3, 1.0), torch.randn(7, 3, dtype=torch.float64)
    u, w, b = planar.source().split([3, 3, 1])
    u_hat = u * bound_product(w @ u)[0]
    torch.testing.assert_close(planar(x)[0], x + u_hat * torch.tanh(x @ w + b)[:, None])
    torch.testing.assert_close(planar(x)[1], torch.log1p((w @ u_hat) / torch.cosh(x @ w + b) ** 2))
    radial = make("radial", 3, 1.0)
    centre, raw_alpha, raw_slope = radial.source().split([3, 1, 1])
    alpha = torch.exp(torch.asinh(raw_alpha))
    beta = alpha * (1 - MIN_SLOPE) * torch.expm1(torch.asinh(raw_slope))
    offset = x - centre
    r = offset.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(radial(x)[0], x + beta * offset / (alpha + r))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_reflections(scale: float) -> None:
    torch.manual_seed(11)
    v = scale * torch.randn(2, 6, 4, dtype=torch.float64).tril(-1) + torch.eye(6, 4, dtype=torch.float64)
    expected = torch.eye(6, dtype=torch.float64).repeat(2, 1, 1)
    for column in v.unbind(-1):
        outer = column[:, :, None] * column[:, None, :]
        expected = expected @ (torch.eye(6) - 2 * outer / column.square().sum(-1)[:, None, None])
    torch.testing.assert_close(_reflect(v), expected[..., :4], rtol=0, atol=1e-13)


def test_sylvester_moves_its_directions_only() -> None:
    torch.manual_seed(12)
    t = make("sylvester", 5, 1.0)
    x = torch.randn(50, 5, dtype=torch.float64)
    for f in (t.forward, t.inverse):
        moved = torch.linalg.svdvals(f(x)[0] - x)
        assert (moved[:3] > 0.1).all() and (moved[3:] < 1e-13).all()


def test_impossible_sizes_are_refused() -> None:
    for build in (Planar, Radial):
        with pytest.raises(ValueError, match="features must be at least 1, got 0"):
            build(0)
    for rank in (0, 4):
        with pytest.raises(ValueError, match=rf"rank must be in 1..features, 1..3, got {rank}"):
            Sylvester(3, rank)
