"""Inverses of many elements by a fixed point are those of element after element, to which they give way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pushforward.kernels.sweep import available
from pushforward.networks import MaskedMLP
from pushforward.transforms import Affine, Autoregressive, RationalQuadraticSpline
from pushforward.transforms import autoregressive as module
from pushforward.transforms.fixed_point import fixed_point

D = 150
ORDER = torch.randperm(D, generator=torch.Generator().manual_seed(4)).tolist()


def made(kind: str, size: float, activation: str = "tanh") -> Autoregressive:
    each: Affine | RationalQuadraticSpline = (
        RationalQuadraticSpline(4, bound=3.0) if kind == "spline" else Affine()
    )
    network = MaskedMLP(
        D,
        each.parameters_each,
        context_features=3 if "context" in kind else 0,
        hidden=(160,),
        order=ORDER,
        activation=activation,
    )
    transform = Autoregressive(each, network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in transform.parameters():
            p.copy_(size * torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
    return transform


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each fixed point was found."""
    found: list[bool] = []

    def watched(*args: object) -> object:
        result = fixed_point(*args)  # type: ignore[arg-type]
        found.append(result is not None)
        return result

    monkeypatch.setattr(module, "fixed_point", watched)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["affine", "affine, context", "spline"])
@pytest.mark.parametrize("weak", [True, False])
def test_both_ways_agree(
    kind: str, dtype: torch.dtype, ends: list[bool], monkeypatch: pytest.MonkeyPatch, *, weak: bool
) -> None:
    size = (0.2 if dtype == torch.float32 else 0.05) if weak else 2.5
    transform = made(kind, size).to(dtype)
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(2, 20, D, generator=generator, dtype=dtype)
    context = [torch.randn(20, 3, generator=generator, dtype=dtype)] if "context" in kind else []
    monkeypatch.setattr(module, "pays", lambda _: True)
    with torch.no_grad():
        x, log_abs_det = transform.inverse(y, *context)
        assert ends == [weak]
        monkeypatch.setattr(module, "pays", lambda _: False)
        steps, log_of_steps = transform.inverse(y, *context)
        again, _ = transform(x, *context)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    if weak:
        torch.testing.assert_close(x, steps, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(log_abs_det, log_of_steps, atol=D * tolerance, rtol=tolerance)
        torch.testing.assert_close(again, y, atol=tolerance, rtol=tolerance)
    else:
        assert steps.isfinite().all()
        assert torch.equal(x, steps)
        assert torch.equal(log_abs_det, log_of_steps)


def test_none_is_tried_where_it_does_not_pay(ends: list[bool]) -> None:
    y = torch.randn(10, D)
    with torch.no_grad():
        made("affine", 0.2).double().inverse(y.double())
        assert not ends
        made("affine", 0.2, "relu").inverse(y)
        assert ends == [] if available() else [True]


def test_a_point_that_is_no_number_spoils_itself_alone(ends: list[bool]) -> None:
    transform, y = made("affine", 0.5), torch.randn(10, D)
    with torch.no_grad():
        clean = transform.inverse(y)[0]
        y[4, 70] = torch.nan
        x = transform.inverse(y)[0]
    assert ends == [True, False]
    assert x[4].isnan().any()
    others = torch.arange(10) != 4
    torch.testing.assert_close(x[others], clean[others], atol=1e-5, rtol=1e-5)


def test_after_k_sweeps_the_first_k_elements_are_exact() -> None:
    transform = made("affine", 2.0).double()
    y = torch.randn(5, D, dtype=torch.float64)
    with torch.no_grad():
        exact = transform.inverse(y)[0]
        x, order = 100 * torch.randn_like(y), torch.tensor(ORDER).argsort()
        for k in range(1, 30):
            x = transform.map.inverse(y, transform.network(x))[0]
            found, wanted = x[:, order[:k]], exact[:, order[:k]]
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_a_fixed_point_is_given_up_where_the_pace_promises_no_end() -> None:
    calls = []

    def slow(x: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return 0.9 * x, x

    assert fixed_point(slow, torch.ones(3)) is None
    assert len(calls) == 3
    assert fixed_point(lambda x: (2 * x, x), torch.ones(3)) is None
    found = fixed_point(lambda x: (x / 100, x), torch.ones(3))
    assert found is not None
    assert found[0].abs().max() < 1e-6
