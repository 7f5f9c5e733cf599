"""What holds for every transform, as functions that raise AssertionError where it does not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from pushforward.evaluate.jacobians import jacobian
from pushforward.transforms import Transform

Period = tuple[float, ...] | float


def distance(a: Tensor, b: Tensor, period: Period = 0.0) -> Tensor:
    """Largest difference of the elements of each event, ``(n,)``, of elements with a period the short way round."""
    difference = (a - b).double()
    p = torch.as_tensor(period, dtype=torch.float64)
    turns = torch.round(difference / torch.where(p > 0, p, 1.0))
    difference = torch.where(p > 0, difference - p * turns, difference)
    return difference.abs().reshape(len(a), -1).amax(-1)


def check_round_trip(
    transform: Transform,
    x: Tensor,
    context: Tensor | None,
    tolerance: float,
    stretch: tuple[Tensor, Tensor],
    *,
    period: Period = 0.0,
    latent_period: Period = 0.0,
) -> None:
    """Both ways, by how much the way back stretches a rounding of what it starts from."""
    to_data, to_latent = stretch
    with torch.no_grad():
        y = transform(x, context)[0]
        back = transform.inverse(y, context)[0]
        again = transform(back, context)[0]
    assert torch.isfinite(y).all() and torch.isfinite(back).all()
    assert (distance(back, x, period) <= tolerance * to_data).all(), "inverse(forward(x)) is not x"
    assert (distance(again, y, latent_period) <= tolerance * to_latent).all(), "forward(inverse(y)) is not y"


def check_log_det(transform: Transform, x: Tensor, context: Tensor | None, tolerance: float) -> None:
    """Both directions against the determinant of autograd's Jacobian."""
    y = transform(x, context)[0].detach()
    for name, direction, at in (("forward", transform.forward, x), ("inverse", transform.inverse, y)):
        matrix = jacobian(direction, at, context)
        expected = torch.linalg.slogdet(matrix).logabsdet
        with torch.no_grad():  # other ways may be taken where no gradient is asked for
            quiet = direction(at, context)[1]
        for got in (direction(at, context)[1].detach(), quiet):
            assert got.shape == expected.shape, f"{name}: log_abs_det has shape {tuple(got.shape)}"
            error = (got - expected).abs()
            assert (error <= tolerance).all(), f"{name}: log_abs_det is wrong by {error.max().item():.3g}"


def check_shapes(
    transform: Transform, draw: Callable[..., Tensor], contexts: Callable[..., Tensor | None]
) -> None:
    """Any batch shape, a context for each point, for rows of points or for all; log_abs_det has the batch shape."""
    for batch, context_batch in (
        ((), ()),
        ((5,), (5,)),
        ((5,), ()),
        ((2, 3), (3,)),
        ((2, 3), (2, 1)),
        ((0,), (0,)),
    ):
        x, context = draw(*batch), contexts(*context_batch)
        for direction, shape in (
            (transform.forward, transform.latent_shape),
            (transform.inverse, transform.event_shape),
        ):
            y, log_abs_det = direction(x, context)
            assert y.shape == (*batch, *shape), f"{batch}: {tuple(y.shape)}"
            assert log_abs_det.shape == batch, (
                f"log_abs_det has shape {tuple(log_abs_det.shape)}, not {batch}"
            )
            assert y.dtype == log_abs_det.dtype == x.dtype
            assert y.device == log_abs_det.device == x.device
            x = y


def check_batch_is_a_loop(
    transform: Transform, x: Tensor, context: Tensor | None, tolerance: float = 1e-9
) -> None:
    """Points ``(n, *event)`` under contexts ``(m, *context)``, all pairs at once and one pair at a time."""
    columns = 1 if context is None else len(context)
    for direction in (transform.forward, transform.inverse):
        grid = x[:, None].expand(len(x), columns, *x.shape[1:])
        y, log_abs_det = direction(grid, context)
        for i in range(len(x)):
            for j in range(columns):
                one, log_one = direction(x[i], None if context is None else context[j])
                # Products of matrices round differently for other batch sizes.
                torch.testing.assert_close(y[i, j], one, rtol=tolerance, atol=tolerance)
                torch.testing.assert_close(log_abs_det[i, j], log_one, rtol=tolerance, atol=tolerance)
        if context is not None:
            apart = (y[:, 0] - y[:, 1]).abs().reshape(len(x), -1).amax(-1)
            assert (apart > 1e-3).any(), "the context makes no difference"
        x = y[:, 0].detach()


def check_gradients(transform: Transform, x: Tensor, context: Tensor | None) -> None:
    """Every parameter and the point get a finite gradient that is not 0, in both directions."""
    y = transform(x, context)[0].detach()
    generator = torch.Generator().manual_seed(0)
    for name, direction, start in (("forward", transform.forward, x), ("inverse", transform.inverse, y)):
        at = start.detach().requires_grad_()
        value, log_abs_det = direction(at, context)
        weights = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        inputs = {"the point": at} | dict(transform.named_parameters())
        total = (weights * value).sum() + log_abs_det.sum()
        gradients = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
        for label, gradient in zip(inputs, gradients, strict=True):
            assert gradient is not None, f"{name}: no gradient reaches {label}"
            assert torch.isfinite(gradient).all(), f"{name}: the gradient of {label} is not finite"
            assert gradient.abs().max() > 0, f"{name}: the gradient of {label} is 0"


def check_same(transform: Transform, other: Transform, x: Tensor, context: Tensor | None) -> None:
    """Two transforms are one function, to the last bit."""
    y = transform(x, context)[0]
    for mine, its in ((transform.forward, other.forward), (transform.inverse, other.inverse)):
        for a, b in zip(mine(x, context), its(x, context), strict=True):
            assert torch.equal(a, b), "the copy computes something else"
        x = y


def check_moves(module: nn.Module, x: Tensor, context: Tensor | None, stays: tuple[str, ...] = ()) -> None:
    """On a device of its own no tensor is left behind; tensors whose names begin with ``stays`` remain on the CPU.

    The tensors are fakes, which have a device but no memory, so this needs no such device; they refuse to be mixed.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    devices = {k: "cpu" if stays and k.startswith(stays) else "meta" for k in tensors}
    place = "cpu" if stays else "meta"
    with FakeTensorMode(), torch.no_grad():
        fakes = {k: torch.empty(t.shape, dtype=t.dtype, device=devices[k]) for k, t in tensors.items()}
        inputs = [
            None if t is None else torch.empty(t.shape, dtype=t.dtype, device=place) for t in (x, context)
        ]
        try:
            outputs = torch.func.functional_call(module, fakes, tuple(inputs))
        except RuntimeError as error:
            raise AssertionError(f"tensors of two devices meet: {error}") from error
        for output in outputs if isinstance(outputs, tuple) else (outputs,):
            assert output.device.type == "meta", f"a result is on the {output.device.type}"


def check_compiles(transform: Transform, direction: str, x: Tensor, context: Tensor | None) -> None:
    """One graph, the same values and the same gradients as without it."""
    eager = getattr(transform, direction)
    torch._dynamo.reset()
    compiled = torch.compile(eager, backend="aot_eager", fullgraph=True)
    at = [x.detach().clone().requires_grad_() for _ in range(2)]
    results = [f(a, context) for f, a in zip((eager, compiled), at, strict=True)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)
    for y, log_abs_det in results:
        (y.sum() + log_abs_det.sum()).backward()
    torch.testing.assert_close(at[1].grad, at[0].grad, rtol=1e-9, atol=1e-12)
