"""The fused kernel of the spline: the formula's values and gradients, and what happens where it cannot serve."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pushforward.kernels import build, fused_spline
from pushforward.kernels import spline as kernel
from pushforward.transforms import RationalQuadraticSpline

KINDS = {
    "linear": {"bins": 8},
    "two bins": {"bins": 2},
    "many bins": {"bins": 16, "bound": 3.0},
    "bounded": {"tails": "bounded", "bound": 2.0},
    "circular": {"tails": "circular", "bound": 3.0},
    "mixed": {"tails": ["linear", "bounded", "circular"], "bound": [1.0, 2.0, 3.0]},
}


def points(spline: RationalQuadraticSpline, rows: int = 1001, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x = 2.0 * torch.randn(rows, 3, generator=generator)
    parameters = scale * torch.randn(rows, 3, spline.parameters_each, generator=generator)
    return x.requires_grad_(), parameters.requires_grad_()


def with_gradients(spline: RationalQuadraticSpline, direction: str, *inputs: Tensor) -> list[Tensor]:
    value, log_derivative = getattr(spline, direction)(*inputs)
    weights = torch.linspace(0.5, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)
    gradients = torch.autograd.grad((weights * value + weights.flip(0) * log_derivative).sum(), inputs)
    return [value, log_derivative, *gradients]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls that reach the kernel."""
    counted: list[int] = []
    apply = kernel._Spline.apply
    monkeypatch.setattr(kernel._Spline, "apply", lambda *a: (counted.append(a[0].numel()), apply(*a))[1])
    return counted


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_agrees_with_the_formula_in_float64(kind: str, direction: str, calls: list[int]) -> None:
    spline = RationalQuadraticSpline(**KINDS[kind])  # type: ignore[arg-type]
    exact = RationalQuadraticSpline(**KINDS[kind]).double()  # type: ignore[arg-type]
    x, parameters = points(spline)
    found = with_gradients(spline, direction, x, parameters)
    assert calls == [x.numel()]
    wanted = with_gradients(
        exact, direction, *(t.detach().double().requires_grad_() for t in (x, parameters))
    )
    assert len(calls) == 1
    for a, b in zip(found, wanted, strict=True):
        error = ((a - b).abs() / (1 + b.abs())).flatten()
        # A point at a knot may fall into the bin beside it, where the gradient differs.
        assert torch.quantile(error, 0.998) < 1e-3
        assert error.median() < 1e-5


def test_every_shape_and_stride_of_the_parameters_gives_the_same(calls: list[int]) -> None:
    spline = RationalQuadraticSpline(8)
    x, parameters = (t.detach() for t in points(spline, 300))
    value, log_derivative = spline(x, parameters)
    one = parameters[:, 0].T.contiguous().T
    assert not one.is_contiguous()
    for got, want in zip(spline(x[:, 0], one), (value[:, 0], log_derivative[:, 0]), strict=True):
        assert torch.equal(got, want)
    single = [t.detach().requires_grad_() for t in (x[:, :1], parameters[:, :1].transpose(0, 2).contiguous())]
    apart = spline(single[0], single[1].transpose(0, 2))
    assert torch.equal(apart[0][:, 0], value[:, 0])
    got = torch.autograd.grad(apart[0].sum() + apart[1].sum(), single)
    plain = [t.detach().requires_grad_() for t in (x, parameters)]
    both = spline(*plain)
    want = torch.autograd.grad(both[0][:, 0].sum() + both[1][:, 0].sum(), plain)
    torch.testing.assert_close(got[0], want[0][:, :1])
    torch.testing.assert_close(got[1].transpose(0, 2), want[1][:, :1])
    shared = spline(x, parameters[7])
    for row in (0, 299):
        for got, want in zip(shared, spline(x[row].expand(300, 3), parameters[7]), strict=True):
            assert torch.equal(got[row], want[0])
    assert len(calls) == 7


def test_outside_and_not_a_number(calls: list[int]) -> None:
    spline = RationalQuadraticSpline(8, bound=3.0)
    x, parameters = points(spline, 300)
    with torch.no_grad():
        x[0], x[1], parameters[2, 1, 4] = 1e9, torch.nan, torch.nan
        x[2] = 0.5
    value, log_derivative, g_x, g_parameters = with_gradients(spline, "forward", x, parameters)
    assert torch.equal(value[0], x[0]) and (log_derivative[0] == 0).all() and (g_parameters[0] == 0).all()
    assert value[1].isnan().all()
    assert value[2, 1].isnan() and log_derivative[2, 1].isnan()
    for finite in (value[3:], log_derivative[3:], g_x[3:], g_parameters[3:]):
        assert finite.isfinite().all()
    assert calls


def test_the_gradient_has_a_gradient(calls: list[int]) -> None:
    spline, exact = RationalQuadraticSpline(4), RationalQuadraticSpline(4).double()
    results = []
    for fitted, dtype in ((spline, torch.float32), (exact, torch.float64)):
        x, parameters = (t.detach().to(dtype).requires_grad_() for t in points(fitted, 100, 1.0))
        _, log_derivative = fitted(x, parameters)
        (slope,) = torch.autograd.grad(log_derivative.sum(), x, create_graph=True)
        results.append(torch.autograd.grad(slope.square().sum(), parameters)[0])
    assert calls
    error = (results[0] - results[1]).abs() / (1 + results[1].abs())
    assert torch.quantile(error.flatten(), 0.99) < 1e-3


def test_function_transforms_and_forward_mode_take_the_formula(calls: list[int]) -> None:
    spline = RationalQuadraticSpline(8)
    x, parameters = (t.detach() for t in points(spline, 200))
    by_row = torch.vmap(spline.forward)(x, parameters)
    _, tangent = torch.func.jvp(lambda x: spline(x, parameters)[0], (x,), (torch.ones_like(x),))
    assert not calls
    value, log_derivative = spline(x, parameters)
    assert calls
    torch.testing.assert_close(by_row[0], value, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tangent, log_derivative.exp(), atol=1e-3, rtol=1e-3)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Start as a new process with an empty cache would."""
    monkeypatch.setenv("PUSHFORWARD_CACHE", str(tmp_path))
    build._warned.clear()
    for cached in (build.library, build._compiler, kernel._kernel):
        cached.cache_clear()
    yield tmp_path
    for cached in (build.library, build._compiler, kernel._kernel):
        cached.cache_clear()


def test_it_is_compiled_once_and_kept(fresh: Path) -> None:
    spline = RationalQuadraticSpline(5)
    spline(*points(spline, 200))
    (built,) = fresh.iterdir()
    before = built.stat().st_mtime_ns
    build.library.cache_clear()
    kernel._kernel.cache_clear()
    spline(*points(spline, 200))
    assert [p.stat().st_mtime_ns for p in fresh.iterdir()] == [before]


@pytest.mark.parametrize(
    ("compiler", "why"), [("no-such-compiler", "no C compiler was found"), ("false", "did not compile")]
)
def test_without_a_compiler_there_is_one_warning(
    compiler: str, why: str, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    spline = RationalQuadraticSpline(5)
    x, parameters = points(spline, 200)
    with pytest.warns(RuntimeWarning, match=why):
        value, _ = spline(x, parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, _ = spline(x, parameters)
        RationalQuadraticSpline(6)(x, torch.zeros(200, 3, 17))
    assert torch.equal(value, again)
    assert list(fresh.iterdir()) == []


def test_it_can_be_switched_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFORWARD_KERNELS", "0")
    spline = RationalQuadraticSpline(5)
    x, parameters = points(spline, 200)
    got = fused_spline(
        x, parameters, spline.tail, bins=5, minimum=1e-3, offset=0.5, inverse=False, formula=spline._formula
    )
    assert got is None
    assert list(fresh.iterdir()) == []
