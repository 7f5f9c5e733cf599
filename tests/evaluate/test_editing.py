"""Edits do what they are asked, and no more, where that is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward import Flow
from pushforward.distributions import DiagonalNormal, Distribution, Logistic
from pushforward.errors import DataError
from pushforward.evaluate.attributes import Attribute
from pushforward.evaluate.editing import edit, fit_direction, measure_edit
from pushforward.flows.preprocess import Preprocess
from pushforward.surjections import Dequantise
from pushforward.transforms import Affine, Chain, Elementwise, Transform

SHAPE = (1, 6, 6)
PIXELS = 36
TEMPLATE = 128.0


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PATTERNS = torch.linalg.qr(normal(PIXELS, PIXELS, seed=1))[0].mT


class Mix(Transform):
    """A dense affine map of images to flat latents, float64 unless cast."""

    def __init__(self, miss: float = 0.0) -> None:
        super().__init__(SHAPE, latent_shape=(PIXELS,))
        matrix = torch.eye(PIXELS, dtype=torch.float64) + 0.3 * normal(PIXELS, PIXELS, seed=2)
        self.matrix = torch.nn.Parameter(0.1 * matrix)
        self.back = torch.nn.Parameter(torch.linalg.inv(self.matrix.detach()))
        self.miss = miss

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_det = torch.linalg.slogdet(self.matrix)[1]
        return (x - TEMPLATE).flatten(-3) @ self.matrix, log_det.expand(x.shape[:-3])

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_det = -torch.linalg.slogdet(self.matrix)[1]
        return (y @ self.back).unflatten(-1, SHAPE) + TEMPLATE + self.miss, log_det.expand(y.shape[:-1])


class Logarithm(Transform):
    """The logarithm of pixels, whose inverse overflows."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.log(), -x.log().flatten(-3).sum(-1)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return y.exp(), y.flatten(-3).sum(-1)


def strength_of(number: int) -> Attribute:
    """Return the attribute: how much of a pattern is in an image."""
    return lambda x, levels: (x.double() - TEMPLATE).flatten(1) @ PATTERNS[number]


KNOWN = {"first": strength_of(0), "second": strength_of(1)}


def toy(rows: int = 700, correlation: float = 0.8, miss: float = 0.0) -> tuple[Flow, Tensor, Tensor, Tensor]:
    """Return an affine flow and images, template + a first pattern + b second pattern + noise in all others."""
    a, other = normal(2, rows, seed=3)
    b = correlation * a + math.sqrt(1 - correlation**2) * other
    weights = torch.cat([torch.stack([20 * a, 10 * b], 1), normal(rows, PIXELS - 2, seed=4)], 1)
    images = TEMPLATE + (weights @ PATTERNS).unflatten(-1, SHAPE)
    return Flow(Mix(miss), DiagonalNormal((PIXELS,)).double()), images, weights[:, 0], weights[:, 1]


def dequantised(base: Distribution) -> tuple[Flow, Tensor]:
    """Return a float32 flow of whole levels, and images of these."""
    flow = Flow(
        Chain([Elementwise(Affine(), SHAPE), Mix()]),
        base,
        preprocess=Preprocess(Elementwise(Affine(), SHAPE)),
        surjection=Dequantise([1.0] * 6),
    ).to(torch.float32)
    images = torch.randint(0, 256, (600, *SHAPE), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    return flow, images


def test_the_joint_direction_is_the_pattern_and_moves_nothing_else() -> None:
    flow, images, a, _ = toy()
    direction = fit_direction(flow, images[:400], "first", held=["second"], attributes=KNOWN)
    pattern = flow.from_latent(direction.vector[None])[0].flatten() - TEMPLATE
    torch.testing.assert_close(pattern[None] @ PATTERNS[:2].mT, torch.tensor([[1.0, 0.0]]).double())
    assert pattern @ PATTERNS[0] / pattern.norm() > 0.99  # what is left is the noise of 400 images
    report = measure_edit(flow, images[400:], direction, KNOWN, (-1.5, 0.0, 1.0))
    assert direction.scale == pytest.approx(a[:400].std(correction=0).item())
    assert report.asked == pytest.approx([-1.5 * direction.scale, 0.0, direction.scale])
    assert report.changes["first"] == pytest.approx(report.asked, abs=1e-9)
    assert report.leakage["second"] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)
    own = a[400:].std(correction=0).item()
    assert report.standardised("first")[2] == pytest.approx(direction.scale / own)
    assert report.held == ("second",)
    assert report.clipped == report.not_finite == (0.0, 0.0, 0.0)
    assert report.returned == 1.0


def test_the_marginal_direction_leaks_as_much_as_the_attributes_go_together() -> None:
    flow, images, a, b = toy()
    direction = fit_direction(flow, images, "first", held=(), attributes=KNOWN)
    report = measure_edit(flow, images, direction, KNOWN, (1.0, -2.0))
    correlation = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert report.standardised("first") == pytest.approx([1.0, -2.0])
    assert report.leakage["second"] == pytest.approx([correlation, -2 * correlation])
    assert report.ratios["second"] == pytest.approx([correlation, correlation])
    assert correlation > 0.7


def test_numbers_may_be_given_and_mean_the_same_as_attributes_of_pixels() -> None:
    flow, images, a, b = toy()
    named = fit_direction(flow, images, "first", held=["second"], attributes=KNOWN)
    given = fit_direction(flow, images, a, name="first", held={"second": b})
    torch.testing.assert_close(given.vector, named.vector)
    assert (given.name, given.held) == (named.name, named.held)
    twice = fit_direction(flow, images, a, held={"b": b, "again": 3 * b - 1, "constant": torch.ones(700)})
    torch.testing.assert_close(twice.vector, named.vector)


def test_other_attributes_of_the_pixels_are_held_by_default() -> None:
    flow, images, *_ = toy()
    assert fit_direction(flow, images, "slant").held == ("thickness", "width", "height")
    assert fit_direction(flow, images, "brightness").held == ("thickness", "slant", "width", "height")


def test_the_direction_of_a_yes_or_no_is_the_difference_of_the_means() -> None:
    flow, images, a, _ = toy()
    for label in (a > 5, (a > 5).long()):
        direction = fit_direction(flow, images, label, name="much")
        z = flow.to_latent(images)
        torch.testing.assert_close(direction.vector, z[a > 5].mean(0) - z[a <= 5].mean(0))
        assert direction.scale == 1.0


def test_images_without_the_attribute_do_not_count() -> None:
    flow, images, a, b = toy()
    numbers = a.clone()
    numbers[::3] = torch.nan
    direction = fit_direction(flow, images, numbers, held={"second": b})
    rest = numbers.isfinite()
    expected = fit_direction(flow, images[rest], a[rest], held={"second": b[rest]})
    torch.testing.assert_close(direction.vector, expected.vector)
    assert direction.rows == int(rest.sum())


@pytest.mark.parametrize("base", [DiagonalNormal, Logistic])
def test_strength_zero_gives_every_pixel_back(base: type[Distribution]) -> None:
    flow, images = dequantised(base((PIXELS,)))
    direction = fit_direction(flow, images, "brightness", held=())
    with torch.no_grad():
        z = flow.to_latent(images.double(), generator=torch.Generator().manual_seed(0))
        assert (flow.from_latent(z) != images).any()  # rounding alone would miss some
    assert torch.equal(edit(flow, images, direction, 0.0), images.double())
    assert not torch.equal(edit(flow, images, direction, 1.0), images.double())
    report = measure_edit(flow, images, direction, strengths=(0.0,))
    assert all(change == (0.0,) for change in report.changes.values())
    assert 0.99 < report.returned < 1.0


def test_the_noise_is_the_same_unless_another_is_given() -> None:
    flow, images = dequantised(DiagonalNormal((PIXELS,)))
    direction = fit_direction(flow, images, "brightness", held=())
    first, again = (edit(flow, images, direction, 0.5) for _ in range(2))
    assert torch.equal(first, again)
    other = edit(flow, images, direction, 0.5, generator=torch.Generator().manual_seed(9))
    assert not torch.equal(first, other)


def test_a_flow_that_does_not_invert_is_not_covered_up() -> None:
    flow, images, *_ = toy(miss=3.0)
    direction = fit_direction(flow, images, "first", held=(), attributes=KNOWN)
    torch.testing.assert_close(edit(flow, images, direction, 0.0), images + 3.0)
    assert measure_edit(flow, images, direction, KNOWN, (0.0,)).returned == 0.0


def test_opposite_strengths_move_latents_to_opposite_sides() -> None:
    flow, images, *_ = toy(300)
    direction = fit_direction(flow, images, "first", held=("second",), attributes=KNOWN)
    z = flow.to_latent(images)
    up, down = (flow.to_latent(edit(flow, images, direction, s)) - z for s in (1.3, -1.3))
    torch.testing.assert_close(up, -down, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        up, (1.3 * direction.scale * direction.vector).expand_as(up), rtol=0, atol=1e-9
    )


def test_pixels_out_of_range_are_clipped_and_counted() -> None:
    flow, images, *_ = toy()
    direction = fit_direction(flow, images, "first", held=(), attributes=KNOWN)
    edited = edit(flow, images, direction, 40.0)
    assert edited.min() == 0.0
    assert edited.max() == 255.0
    report = measure_edit(flow, images, direction, KNOWN, (0.0, 40.0))
    outside = ((edited == 0.0) | (edited == 255.0)).double().mean().item()
    assert report.clipped[0] == 0.0
    assert report.clipped[1] == pytest.approx(outside, abs=0.01)


def test_what_is_not_finite_is_counted_and_stays_so() -> None:
    images = (
        torch.rand((20, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 200 + 1
    )
    flow = Flow(Logarithm(SHAPE), DiagonalNormal(SHAPE).double())
    direction = fit_direction(flow, images, "brightness", held=())
    assert edit(flow, images, direction, 1e6).isnan().any()
    report = measure_edit(
        flow, images, direction, strengths=(0.0, 1e6), classifier=lambda x: x[:, 0, 0, 0] > 9
    )
    assert report.not_finite == (0.0, 1.0)
    assert report.kept is not None and report.kept[0] == 1.0 and math.isnan(report.kept[1])
    assert math.isnan(report.changes["brightness"][1])
    assert " - " in report.text() or report.text().count("-") > 1
    with pytest.raises(DataError, match="latents of 1 of 20 images are not finite"):
        fit_direction(flow, images.index_fill(0, torch.tensor(3), 0.0), "brightness", held=())


def test_a_classifier_says_how_many_keep_their_class() -> None:
    flow, images, a, _ = toy()
    direction = fit_direction(flow, images, "first", held=("second",), attributes=KNOWN)
    report = measure_edit(
        flow, images, direction, KNOWN, (0.0, 1.0), classifier=lambda x: KNOWN["first"](x, 256) > 0
    )
    stay = ((a > 0) == (a + direction.scale > 0)).double().mean().item()
    assert report.kept == (1.0, pytest.approx(stay))
    assert "images that keep their class" in report.text()
    assert "first, standard deviations" in report.text()


def test_latents_are_taken_and_decoded_under_the_context_of_each_image() -> None:
    torch.manual_seed(0)
    transform = Elementwise(Affine(), SHAPE, context_features=2, hidden=(8,))
    for parameter in transform.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    flow = Flow(transform, DiagonalNormal(SHAPE)).double()
    _, images, *_ = toy(300)
    context = normal(300, 2)
    direction = fit_direction(flow, images, "first", held=(), attributes=KNOWN, context=context)
    edited = edit(flow, images, direction, 0.7, context)
    with torch.no_grad():
        expected = flow.from_latent(
            flow.to_latent(images, context) + 0.7 * direction.scale * direction.vector, context
        )
    torch.testing.assert_close(edited, expected.clamp(0, 255))
    one = edit(flow, images, direction, 0.7, context[0])
    torch.testing.assert_close(one[0], edited[0])
    with pytest.raises(
        ValueError, match=r"context must have shape \(300, 2\), one for each image, got \(7, 2\)"
    ):
        edit(flow, images, direction, 0.7, context[:7])


def test_what_cannot_be_is_refused() -> None:
    flow, images, a, b = toy(50)
    direction = fit_direction(flow, images, "first", held=(), attributes=KNOWN)
    with pytest.raises(
        ValueError, match=r"target must have shape \(50,\), one number for each image, got \(49,\)"
    ):
        fit_direction(flow, images, a[:49])
    with pytest.raises(ValueError, match=r"held\['b'\] must have shape \(50,\)"):
        fit_direction(flow, images, a, held={"b": b[:3]})
    with pytest.raises(DataError, match="'much' is 4 in all 50 images"):
        fit_direction(flow, images, torch.full((50,), 4.0), name="much")
    with pytest.raises(DataError, match="needs at least 2 images that have them all, got 1"):
        fit_direction(flow, images[:1], a[:1])
    with pytest.raises(DataError, match="1 attributes held fixed needs at least 3 images"):
        fit_direction(flow, images[:2], a[:2], held={"b": b[:2]})
    with pytest.raises(
        DataError, match="unknown attribute 'curl'; those known are brightness, height, slant"
    ):
        fit_direction(flow, images, "curl")
    with pytest.raises(DataError, match="unknown attribute 'curl'"):
        fit_direction(flow, images, "slant", held=["curl"])
    with pytest.raises(DataError, match="unknown attribute 'first'; those known are brightness"):
        measure_edit(flow, images, direction)
    with pytest.raises(DataError, match="cannot change while double are held fixed"):
        fit_direction(flow, images, a, held={"double": 2 * a})
    with pytest.raises(DataError, match="cannot be edited and held fixed at once"):
        fit_direction(flow, images, "slant", held=["slant"])
    with pytest.raises(ValueError, match="held must be a sequence of names"):
        fit_direction(flow, images, "slant", held="width")
    with pytest.raises(ValueError, match="strengths must be finite, and at least one"):
        edit(flow, images, direction, math.nan)
    with pytest.raises(ValueError, match="strengths must be finite, and at least one"):
        measure_edit(flow, images, direction, KNOWN, ())
    with pytest.raises(DataError, match="at least 2 images, got 1"):
        measure_edit(flow, images[:1], direction, KNOWN)
    with pytest.raises(ValueError, match="images must have shape"):
        edit(flow, images[0], direction, 1.0)
    with pytest.raises(
        ValueError, match=r"direction must be one of this flow's latents, \(1, 6, 6\), got \(36,\)"
    ):
        edit(Flow(Elementwise(Affine(), SHAPE), DiagonalNormal(SHAPE)), images, direction, 1.0)
