"""Round trips of images, stretches, interpolations and regressions, where the truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward import Flow
from pushforward.configs import ImageGlowConfig, ImageSchema
from pushforward.distributions import DiagonalNormal, Logistic
from pushforward.errors import DataError
from pushforward.evaluate.interpolation import interpolate
from pushforward.evaluate.jacobians import Direction, strongest
from pushforward.evaluate.regression import fit_regression
from pushforward.evaluate.round_trips import image_round_trips, round_trip
from pushforward.flows import Preprocess, image_flow
from pushforward.surjections import DequantisePixels
from pushforward.transforms import LULinear, Rescale, Transform

SHAPE = (1, 4, 4)


class Shrink(Transform):
    """Images made so small that single precision forgets them, or an inverse that is infinite beyond some value."""

    def __init__(self, shift: float = 0.0, end: float = math.inf) -> None:
        super().__init__(SHAPE)
        self.shift, self.end = shift, end

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x + self.shift, x.new_zeros(x.shape[:-3])

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = y - self.shift
        return x.where(x < self.end, torch.inf), y.new_zeros(y.shape[:-3])


def pixels(n: int = 20, shape: tuple[int, ...] = SHAPE, levels: int = 256) -> Tensor:
    return torch.randint(levels, (n, *shape), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def toy(transform: Transform) -> Flow:
    """Return a flow of levels, which are scaled to 0 to 1."""
    return Flow(
        transform,
        DiagonalNormal(SHAPE),
        preprocess=Preprocess(Rescale(SHAPE, 1 / 256)),
        surjection=DequantisePixels(SHAPE, 256),
    )


@pytest.mark.parametrize("given", ["", "class", "top", "small"])
def test_flows_that_work_give_back_what_they_take(given: str) -> None:
    schema = ImageSchema(height=8, width=8, classes=("a", "b"), given=given)
    torch.manual_seed(0)
    flow = image_flow(ImageGlowConfig(scales=2, steps=1, hidden_channels=8), schema)
    images = pixels(10, schema.event_shape)
    context = None if schema.context_shape is None else torch.rand(10, *schema.context_shape)
    report = image_round_trips(flow, images, context, points=1)
    assert [trip.where for trip in report.trips] == ["data", "samples", "noise", "black", "white", "board"]
    assert report.dtype == "float32" and report.warnings == ()
    for trip in report.trips:
        assert 0 < trip.maximum < 1e-5 and trip.median <= trip.high <= trip.maximum
        assert trip.exact is not None and trip.exact >= trip.images - 2
    assert report.trip("samples").latent is not None
    assert image_round_trips(flow, images, context, points=1) == report
    assert "same when rounded" in report.text() and "warning" not in report.text()


def test_errors_are_shares_of_the_range_and_the_worst_image_is_named() -> None:
    images = pixels()
    images[7] = 255
    flow = toy(Shrink(shift=1000.0))  # of a share of 1 no more than 2**-14 is left
    report = image_round_trips(flow, images, points=0)
    trip = report.trip("data")
    assert trip.maximum == pytest.approx(2**-15, rel=0.1)  # half of the last digit
    before, after = round_trip(flow, images)
    assert before.floor().equal(images.double())
    assert ((after - before).abs().flatten(1).amax(1) / 256).max() < 2**-14
    assert trip.exact is not None and trip.exact < 20
    assert report.stretches == () and "stretch" not in report.text()


def test_an_inverse_that_explodes_is_said() -> None:
    far = image_round_trips(toy(Shrink(shift=1e5)), pixels(), points=0)
    assert (
        far.trip("data").explodes
        and "'data' the inverse explodes: they come back with errors up to" in far.text()
    )
    images = pixels() // 2
    images[4, 0, 0, 0] = 255
    lost = image_round_trips(toy(Shrink(end=0.9)), images, points=0)
    assert (lost.trip("data").not_finite, lost.trip("data").worst) == (1, 4)
    assert lost.trip("white").not_finite == lost.trip("white").images
    assert math.isnan(lost.trip("white").maximum) and lost.trip("white").exact == 0
    assert lost.trip("black").not_finite == 0
    assert "1 of 20 do not come back finite" in lost.text() and "'all white'" in lost.text()


def test_what_is_not_a_number_stays_so_in_a_flow_of_images() -> None:
    """Weights that are lost must not become pictures, nor an error without words."""
    flow = image_flow(ImageGlowConfig(scales=1, steps=1, hidden_channels=4), ImageSchema(height=4, width=4))
    with torch.no_grad():
        for parameter in flow.transform.parameters():
            parameter.fill_(torch.nan)
    report = image_round_trips(flow, pixels(), points=1)
    assert [trip.not_finite for trip in report.trips] == [trip.images for trip in report.trips]
    assert len(report.warnings) == 6 and all(math.isnan(s.to_data) for s in report.stretches)


def test_contexts_are_needed_where_the_flow_takes_them() -> None:
    schema = ImageSchema(height=8, width=8, given="top")
    flow = image_flow(ImageGlowConfig(scales=1, steps=1, hidden_channels=4), schema)
    with pytest.raises(ValueError, match=r"context must have shape \(3, 1, 4, 8\).*got None"):
        image_round_trips(flow, pixels(3, (1, 4, 8)))
    with pytest.raises(ValueError, match="images must have shape"):
        image_round_trips(flow, pixels(0, (1, 4, 8)), torch.zeros(0, 1, 4, 8))


def test_stretches_are_bounds_from_below_that_reach_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    linear = LULinear(6).double()
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        matrix = linear(torch.eye(6).double())[0] - linear(torch.zeros(6).double())[0]
    exact = torch.linalg.svdvals(matrix.double())
    x = torch.randn(3, 6).double()

    def largest(direction: Direction, iterations: int) -> Tensor:
        return strongest(
            direction, x, None, iterations=iterations, generator=torch.Generator().manual_seed(0)
        )[0]

    found = [largest(linear.forward, n) for n in (1, 5, 200)]
    assert bool((found[0] <= found[1]).all()) and bool((found[1] <= exact[0] + 1e-6).all())
    torch.testing.assert_close(found[2], exact[0].expand(3), rtol=1e-6, atol=1e-8)
    back = largest(linear.inverse, 200)
    torch.testing.assert_close(back, (1 / exact[-1]).expand(3), rtol=1e-5, atol=1e-8)


class Turn(Transform):
    """Images as vectors, turned."""

    def __init__(self) -> None:
        super().__init__(SHAPE, latent_shape=(16,))
        noise = torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.register_buffer("turn", torch.linalg.qr(noise)[0])

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.flatten(-3) @ self.turn, x.new_zeros(x.shape[:-3])

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (y @ self.turn.mT).unflatten(-1, SHAPE), y.new_zeros(y.shape[:-1])


def test_the_ends_of_an_interpolation_are_the_pictures_themselves() -> None:
    first, second = pixels(8).split(4)
    torch.manual_seed(0)
    schema = ImageSchema(height=4, width=4)
    for flow in (
        image_flow(ImageGlowConfig(scales=1, steps=2, hidden_channels=8), schema),
        toy(Shrink(shift=1e5)),  # gives back nothing, and that is said
    ):
        for linear in (False, True):
            result = interpolate(flow, first, second, 5, linear=linear)
            assert result.images.shape == (4, 5, *SHAPE)
            assert result.images[:, 0].equal(first.double()) and result.images[:, -1].equal(second.double())
            assert result.arc is not linear
    assert result.returned < 0.5
    again = interpolate(flow, first, second, 2)
    assert again.images.equal(torch.stack([first, second], 1).double())


def test_arcs_keep_the_norm_and_lines_do_not() -> None:
    flow = Flow(Turn(), DiagonalNormal((16,)).double())
    first, second = torch.randn(2, 6, *SHAPE, generator=torch.Generator().manual_seed(2)).double()
    sizes = first.flatten(1).norm(dim=1), second.flatten(1).norm(dim=1)
    arc = interpolate(flow, first, second, 5).images.flatten(2)
    t = torch.linspace(0, 1, 5).double()
    torch.testing.assert_close(arc.norm(dim=2), sizes[0][:, None] * (1 - t) + sizes[1][:, None] * t)
    # Equal angles from step to step.
    unit = torch.nn.functional.normalize(arc, dim=2)
    angles = (unit[:, :-1] * unit[:, 1:]).sum(2).acos()
    torch.testing.assert_close(angles, angles[:, :1].expand_as(angles))
    line = interpolate(flow, first, second, 5, linear=True).images.flatten(2)
    torch.testing.assert_close(line, torch.lerp(line[:, :1], line[:, -1:], t[:, None]))
    assert bool((line[:, 2].norm(dim=1) < arc[:, 2].norm(dim=1)).all())


def test_where_there_is_no_one_arc_it_is_a_line() -> None:
    flow = Flow(Turn(), DiagonalNormal((16,)).double())
    first = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2)).double()
    for second in (first, -first, torch.zeros_like(first), 2 * first):
        images = interpolate(flow, first, second, 3).images
        torch.testing.assert_close(images[:, 1], (first + second) / 2)
    other = Flow(Turn(), Logistic((16,)).double())
    assert not interpolate(other, first, first + 1, 3).arc


def test_each_row_is_drawn_under_its_own_context() -> None:
    schema = ImageSchema(height=4, width=4, classes=("a", "b"), given="class")
    torch.manual_seed(0)
    flow = image_flow(ImageGlowConfig(scales=1, steps=2, hidden_channels=8), schema)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    first, second = pixels(4).split(2)
    both = interpolate(flow, first, second, 3, context=torch.eye(2))
    assert both.returned > 0.9
    ends = torch.stack([first, second], 1).double()
    z = flow.to_latent(ends, torch.eye(2)[:, None], generator=torch.Generator().manual_seed(0))
    alone, other = (flow.from_latent(z[1], context) for context in torch.eye(2).flip(0))
    assert (alone - ends[1]).abs().max() < 2 < (other - ends[1]).abs().max()


def test_interpolations_that_cannot_be() -> None:
    flow = Flow(Turn(), DiagonalNormal((16,)).double())
    x = torch.zeros(2, *SHAPE).double()
    with pytest.raises(ValueError, match="steps must be at least 2"):
        interpolate(flow, x, x, 1)
    with pytest.raises(ValueError, match="the same as first"):
        interpolate(flow, x, x[:1], 3)


def test_numbers_are_read_off_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (300, *SHAPE), generator=generator).to(torch.uint8)
    numbers = 3.0 + 0.01 * images.double()[:, 0, :2].sum((1, 2))
    numbers[5] = torch.nan
    regression = fit_regression(images[:200], numbers[:200])
    assert regression.explained(images[200:], numbers[200:]) > 0.9
    some = images[:3].double()
    some[1, 0, 0, 0] = torch.nan
    assert regression(some).isnan().tolist() == [False, True, False]
    with pytest.raises(DataError, match="at least 10 images with a number, got 4"):
        fit_regression(images[1:6], numbers[1:6])
    with pytest.raises(DataError, match="are 2, so there is nothing to learn"):
        fit_regression(images, torch.full((300,), 2.0))
    with pytest.raises(ValueError, match="values must have shape"):
        fit_regression(images, numbers[:5])
