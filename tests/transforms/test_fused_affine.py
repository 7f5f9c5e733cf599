"""The fused kernel of the affine map: the formula's values, gradients and gradients of gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pushforward.kernels import affine as kernel
from pushforward.transforms import Affine


def inputs(rows: int, scale: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x = 3.0 * torch.randn(rows, 3, generator=generator)
    return x.requires_grad_(), (scale * torch.randn(rows, 3, 2, generator=generator)).requires_grad_()


def everything(direction: str, x: Tensor, parameters: Tensor) -> list[Tensor]:
    value, log_derivative = getattr(Affine(4.0), direction)(x, parameters)
    weights = torch.linspace(0.5, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)
    loss = (weights * value + weights.flip(0) * log_derivative).sum()
    plain = torch.autograd.grad(loss, (x, parameters), retain_graph=True)
    first = torch.autograd.grad(loss, (x, parameters), create_graph=True)
    second = torch.autograd.grad(sum((g * g).sum() for g in first), (x, parameters))
    return [value, log_derivative, *first, *second, *plain]


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_kernel_agrees_with_the_formula_in_float64(
    scale: float, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, parameters = inputs(501, scale)
    reached = []
    apply = kernel._Affine.apply
    monkeypatch.setattr(kernel._Affine, "apply", lambda *a: (reached.append(1), apply(*a))[1])
    found = everything(direction, x, parameters)
    assert reached == [1]
    wanted = everything(direction, *(t.detach().double().requires_grad_() for t in (x, parameters)))
    assert reached == [1]
    for a, b in zip(found, wanted, strict=True):
        assert float(((a - b).abs() / (1 + b.abs())).detach().max()) < 1e-3


def test_shared_parameters_and_what_is_not_a_number() -> None:
    x, parameters = (t.detach() for t in inputs(200, 1.0))
    for direction in ("forward", "inverse"):
        shared = getattr(Affine(), direction)(x, parameters[7])
        alone = getattr(Affine(), direction)(x, parameters[7].expand(200, 3, 2).contiguous())
        assert all(torch.equal(a, b) for a, b in zip(shared, alone, strict=True))
        column = getattr(Affine(), direction)(x[:, 0], parameters[:, 0])
        assert torch.equal(column[0], getattr(Affine(), direction)(x, parameters)[0][:, 0])
    x[0, 0], parameters[1, 1, 1], parameters[2, 2, 0] = torch.nan, torch.nan, torch.inf
    value, log_derivative = Affine()(x, parameters)
    assert value[0, 0].isnan() and log_derivative[0, 0].isfinite()
    assert value[1, 1].isnan() and log_derivative[1, 1].isnan()
    assert value[2, 2] == torch.inf
    assert torch.isfinite(value).sum() == value.numel() - 3


def test_a_bound_that_may_overflow_is_left_to_torch() -> None:
    x, parameters = torch.ones(200, 1), torch.tensor([[0.0, 1e4]])
    assert Affine(200.0)(x, parameters)[0].isinf().all()
