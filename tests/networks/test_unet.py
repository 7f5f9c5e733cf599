"""The velocity of a flow of images: its shapes, its derivatives, what it depends on and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from case_parts import seeded
from pushforward.networks.unet import UNetField, _Norm

SIZES = [(1, 8, 8), (3, 7, 7), (2, 5, 7), (1, 1, 8), (1, 1, 1), (1, 14, 3)]


def field(shape: tuple[int, int, int], **options: object) -> UNetField:
    return randomised(UNetField(shape, **{"width": 8, **options})).double()  # type: ignore[arg-type]


def randomised(net: UNetField) -> UNetField:
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=seeded(i)))
    return net


def points(shape: tuple[int, ...], n: int = 3) -> tuple[Tensor, Tensor]:
    t = torch.rand(n, generator=seeded(1), dtype=torch.float64)
    return t, torch.randn((n, *shape), generator=seeded(2), dtype=torch.float64)


@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize("shape", SIZES)
def test_a_velocity_has_the_shape_of_the_image_and_is_zero_at_first(
    shape: tuple[int, int, int], levels: int
) -> None:
    t, x = points(shape)
    for dtype in (torch.float32, torch.float64):
        fresh = UNetField(shape, width=8, levels=levels).to(dtype)
        velocity = fresh(t.to(dtype), x.to(dtype))
        assert velocity.shape == x.shape and velocity.dtype == dtype and not velocity.any()
    assert field(shape, levels=levels)(t, x).abs().min() > 0
    assert field(shape, levels=levels)(t[:0], x[:0]).shape == (0, *shape)


@pytest.mark.parametrize("context_shape", [None, (4,), (2, 5, 7)])
def test_a_row_knows_nothing_of_the_others(context_shape: tuple[int, ...] | None) -> None:
    net = field((2, 5, 7), context_shape=context_shape, blocks=2)
    t, x = points((2, 5, 7))
    context = None if context_shape is None else points(context_shape)[1]
    together = net(t, x, context)
    for i in range(len(t)):
        alone = net(t[i : i + 1], x[i : i + 1], None if context is None else context[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_all_that_it_is_given_counts_everywhere() -> None:
    t, x = points((1, 6, 6))
    net = field((1, 6, 6), context_shape=(4,))
    classes = torch.eye(4, dtype=torch.float64)[:3]
    base = net(t, x, classes)
    changed = [
        net(t + 0.1, x, classes),
        net(t, x + 0.1, classes),
        net(t, x, classes.roll(1, 0)),
        net(t, x, torch.zeros_like(classes)),
    ]
    for other in changed:
        assert (other - base).abs().min() > 0


def test_a_picture_counts_at_its_place() -> None:
    # Without smaller sizes only the norms carry news farther than the convolutions reach.
    t, x = points((1, 16, 16))
    net = field((1, 16, 16), context_shape=(32, 16, 16), levels=0)
    picture = points((32, 16, 16))[1]
    nudged = picture.clone()
    nudged[:, :, 0, 0] += 1.0
    difference = (net(t, x, nudged) - net(t, x, picture)).abs()[:, 0]
    assert difference[:, :3, :3].mean() > 3 * difference[:, 8:, 8:].mean() > 0


@pytest.mark.parametrize("context_shape", [None, (4,), (2, 5, 7)])
def test_gradients_reach_every_parameter(context_shape: tuple[int, ...] | None) -> None:
    net = field((2, 5, 7), context_shape=context_shape)
    context = None if context_shape is None else points(context_shape)[1]
    net(*points((2, 5, 7)), context).square().sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_its_norm_is_that_of_torch() -> None:
    for size in ((1, 1), (1, 2), (3, 4)):
        ours, theirs = _Norm(24).double(), nn.GroupNorm(6, 24).double()
        with torch.no_grad():
            theirs.weight.copy_(ours.weight.normal_(generator=seeded(1)))
            theirs.bias.copy_(ours.bias.normal_(generator=seeded(2)))
        x = 3.0 + torch.randn((5, 24, *size), generator=seeded(3), dtype=torch.float64)
        gradient = torch.randn(x.shape, generator=seeded(4), dtype=x.dtype)
        layouts = [
            x,
            x.contiguous(memory_format=torch.channels_last),
            x.mT.contiguous().mT,
            x[:1].expand(5, -1, -1, -1),
        ]
        for given in layouts:
            expected = torch.autograd.functional.vjp(theirs, given, gradient)
            for wanted in (gradient, gradient.contiguous(memory_format=torch.channels_last)):
                torch.testing.assert_close(torch.autograd.functional.vjp(ours, given, wanted), expected)
            torch.testing.assert_close(torch.func.vjp(ours, given)[1](gradient)[0], expected[1])
        again = x.clone().requires_grad_()
        parameters = [*ours.parameters(), *theirs.parameters()]
        (ours(again) * gradient).sum().backward()
        (theirs(again) * gradient).sum().backward()
        torch.testing.assert_close(
            *(torch.stack([p.grad for p in half]) for half in (parameters[:2], parameters[2:]))
        )  # type: ignore[misc]


def test_it_is_smooth_enough_to_be_differentiated_twice() -> None:
    net = field((1, 3, 4), context_shape=(2,))
    t, x = points((1, 3, 4), 2)
    classes = torch.eye(2, dtype=torch.float64)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        result: Tensor = net(t, x, classes)
        return result

    t.requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(velocity, (t, x))
    assert torch.autograd.gradgradcheck(velocity, (t, x))


def test_gradients_of_a_divergence_are_those_of_the_formula() -> None:
    net = field((1, 4, 4))
    t, x = points((1, 4, 4))
    x.requires_grad_()
    probe = torch.randn(x.shape, generator=seeded(3), dtype=x.dtype)
    (pulled,) = torch.autograd.grad(net(t, x), x, probe, create_graph=True)
    parameters = dict(net.named_parameters())
    found = torch.autograd.grad(
        (pulled * probe).sum(), list(parameters.values()), allow_unused=True, materialize_grads=True
    )

    def divergence(parameters: dict[str, Tensor]) -> Tensor:
        def velocity(x: Tensor) -> Tensor:
            result: Tensor = torch.func.functional_call(net, parameters, (t, x))
            return result

        return (torch.func.jvp(velocity, (x.detach(),), (probe,))[1] * probe).sum()

    expected = torch.func.grad(divergence)({name: p.detach() for name, p in parameters.items()})
    for (name, p), gradient in zip(parameters.items(), found, strict=True):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-9)
        assert p.ndim == 1 or gradient.any(), name


def test_divergences_of_torch_func_are_those_of_autograd() -> None:
    net = field((1, 3, 5))
    t, x = points((1, 3, 5))

    def one(t: Tensor, x: Tensor) -> Tensor:
        velocity: Tensor = net(t[None], x[None])[0]
        return velocity

    directions = torch.eye(15, dtype=x.dtype).reshape(15, 1, 1, 3, 5).expand(15, *x.shape)
    jacobians = torch.func.vmap(torch.func.jacrev(one, 1))(t, x).reshape(3, 15, 15)
    whole = torch.autograd.functional.jacobian(lambda x: net(t, x), x)
    rows = torch.stack([whole[i, :, :, :, i].reshape(15, 15) for i in range(3)])
    torch.testing.assert_close(jacobians, rows, rtol=1e-9, atol=1e-9)
    x.requires_grad_()
    (many,) = torch.autograd.grad(net(t, x), x, directions, is_grads_batched=True, create_graph=True)
    torch.testing.assert_close(many.flatten(2).movedim(0, 1), rows, rtol=1e-9, atol=1e-9)
    assert many.requires_grad
    x = x.detach()
    pushed = torch.func.vmap(lambda d: torch.func.jvp(lambda x: net(t, x), (x,), (d,))[1])(directions)
    torch.testing.assert_close(pushed.flatten(2).movedim(0, -1), rows, rtol=1e-9, atol=1e-9)


def test_evaluation_is_as_training() -> None:
    net = field((1, 4, 4))
    t, x = points((1, 4, 4))
    before = net(t, x)
    assert torch.equal(net.eval()(t, x), before)
    assert not [m for m in net.modules() if isinstance(m, nn.Dropout | nn.modules.batchnorm._BatchNorm)]


def test_sizes_are_remembered_and_a_field_without_context_ignores_one() -> None:
    net = field([1, 4, 4], context_shape=[3])  # type: ignore[arg-type]
    assert (net.event_shape, net.context_shape) == ((1, 4, 4), (3,))
    plain = field((1, 4, 4))
    t, x = points((1, 4, 4))
    assert plain.context_shape is None and torch.equal(plain(t, x, torch.ones(3, 3)), plain(t, x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"event_shape": (4, 4)}, r"event_shape must be \(channels, height, width\).*got \(4, 4\)"),
        ({"event_shape": (1, 0, 4)}, r"event_shape must be .*got \(1, 0, 4\)"),
        ({"context_shape": (3, 4, 5)}, r"context_shape must be \(E,\) or \(E, 4, 4\).*got \(3, 4, 5\)"),
        ({"context_shape": (0,)}, r"context_shape must be .*got \(0,\)"),
        ({"context_shape": ()}, r"context_shape must be .*got \(\)"),
        ({"width": 12}, "width must be a positive multiple of 8, got 12"),
        ({"width": 0}, "width must be a positive multiple of 8, got 0"),
        ({"levels": -1}, "levels must be at least 0, got -1"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetField(**{"event_shape": (1, 4, 4), **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("t", "x", "context", "message"),
    [
        ((3,), (3, 1, 4, 5), (3, 2), r"x must have shape \(..., 1, 4, 4\), got \(3, 1, 4, 5\)"),
        ((3,), (1, 4, 4), (3, 2), r"x must have one batch dimension, got shape \(1, 4, 4\)"),
        ((2,), (3, 1, 4, 4), (3, 2), r"t must have shape \(3,\), got \(2,\)"),
        ((), (3, 1, 4, 4), (3, 2), r"t must have shape \(3,\), got \(\)"),
        ((3,), (3, 1, 4, 4), None, r"context of shape \(..., 2\) is needed, got None"),
        ((3,), (3, 1, 4, 4), (3, 3), r"context must have shape \(..., 2\), got \(3, 3\)"),
        ((3,), (3, 1, 4, 4), (2, 2), r"context must have the batch shape \(3,\), got shape \(2, 2\)"),
        ((3,), (3, 1, 4, 4), (2,), r"context must have the batch shape \(3,\), got shape \(2,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    t: tuple[int, ...], x: tuple[int, ...], context: tuple[int, ...] | None, message: str
) -> None:
    net = UNetField((1, 4, 4), context_shape=(2,), width=8)
    with pytest.raises(ValueError, match=f"UNetField: {message}"):
        net(torch.zeros(t), torch.zeros(x), None if context is None else torch.zeros(context))


def test_another_dtype_is_refused() -> None:
    net = UNetField((1, 4, 4), context_shape=(2,), width=8)
    t, x, context = torch.zeros(3), torch.zeros(3, 1, 4, 4), torch.zeros(3, 2)
    with pytest.raises(
        ValueError, match=r"t must have the dtype torch.float32, that of x, got torch.float64"
    ):
        net(t.double(), x, context)
    with pytest.raises(ValueError, match=r"context must have the dtype torch.float32"):
        net(t, x, context.double())
