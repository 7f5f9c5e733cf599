"""Attributes of drawn shapes are what they were drawn with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pushforward.evaluate import attributes as module
from pushforward.evaluate.attributes import ATTRIBUTES, brightness, height, measure, slant, thickness, width

SIDE, FINE = 28, 8
SHAPE = [name for name in ATTRIBUTES if name != "brightness"]


def drawn(inside: np.ndarray) -> Tensor:
    """Return an image of a shape, each pixel as bright as it is covered."""
    side = len(inside) // FINE
    covered = inside.reshape(side, FINE, side, FINE).mean((1, 3))
    return torch.from_numpy(255.0 * covered)[None, None]


def grid(side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    places = (np.arange(side * FINE) + 0.5) / FINE - side / 2
    x, y = np.meshgrid(places, places)
    return x, y


def bar(thick: float, angle: float = 0.0, length: float = 18.0, at: float = 0.0, side: int = SIDE) -> Tensor:
    x, y = grid(side)
    x, y = x - at, y - 0.7 * at
    across, along = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return drawn((abs(across) < thick / 2) & (abs(along) < length / 2))


def ring(thick: float, radius: float = 8.0) -> Tensor:
    return drawn(abs(np.hypot(*grid()) - radius) < thick / 2)


def sheared(shear: float, thick: float = 3.0) -> Tensor:
    """Return an upright bar whose top is moved to the right by ``shear`` columns a row."""
    x, y = grid()
    return drawn((abs(x + shear * y) < thick / 2) & (abs(y) < 9))


@pytest.mark.parametrize("thick", [2.0, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 4, 1.1, math.pi / 2])
@pytest.mark.parametrize("at", [0.0, 0.4])
def test_the_thickness_of_a_bar_is_that_which_it_was_drawn_with(
    thick: float, angle: float, at: float
) -> None:
    assert thickness(bar(thick, angle, at=at)).item() == pytest.approx(thick, rel=0.08)


@pytest.mark.parametrize("thick", [2.0, 3.0, 5.0])
def test_loops_and_several_strokes_are_as_thick_as_one(thick: float) -> None:
    two = bar(thick, length=20.0, at=-6.0) + bar(thick, length=14.0, at=6.0)
    eight = torch.maximum(ring(thick, 9.0), bar(thick, length=18.0))
    for image in (ring(thick), two, eight):
        assert thickness(image).item() == pytest.approx(thick, rel=0.08)


def test_thicker_strokes_measure_thicker_on_small_images_too() -> None:
    for side, length in ((28, 18.0), (8, 6.0)):
        bars = torch.cat([bar(t, 0.2, length, 0.3, side) for t in (1.0, 1.5, 2.0, 2.5, 3.0)])
        assert (thickness(bars).diff() > 0.1).all()


@pytest.mark.parametrize("shear", [-0.8, -0.3, 0.0, 0.3, 0.8])
def test_slant_is_the_shear_and_positive_where_the_top_leans_to_the_right(shear: float) -> None:
    image = sheared(shear)
    assert slant(image).item() == pytest.approx(shear, abs=0.01)
    assert slant(image.flip(3)).item() == pytest.approx(-slant(image).item(), abs=1e-9)


def test_extents_of_a_box_are_its_sides() -> None:
    x, y = grid()
    box = drawn((abs(x - 0.3) < 5.25) & (abs(y + 1) < 9.5))
    # The ink of a pixel that is covered in part is spread over all of it.
    assert width(box).item() == pytest.approx(0.95 * 10.5, abs=0.3)
    assert height(box).item() == pytest.approx(0.95 * 19, abs=0.3)
    speck = box.clone()
    speck[..., 0, 0] = 255.0
    assert width(speck).item() == pytest.approx(width(box).item(), abs=0.1)


@pytest.mark.parametrize("name", SHAPE)
def test_shape_does_not_change_when_ink_is_moved_or_darker(name: str) -> None:
    image = torch.cat([sheared(0.3), ring(3.0, 7.0), bar(2.5, 1.0)])
    expected = ATTRIBUTES[name](image, 256)
    for other in (image.roll((2, -3), (2, 3)), 0.25 * image, image.expand(-1, 3, -1, -1)):
        torch.testing.assert_close(ATTRIBUTES[name](other, 256), expected)


def test_brightness_is_a_share_of_the_largest_value() -> None:
    image = torch.full((2, 3, 4, 4), 8, dtype=torch.uint8)
    image[0, 0] = 16
    torch.testing.assert_close(brightness(image, 17), torch.tensor([2 / 3, 0.5], dtype=torch.float64))


def test_what_an_image_does_not_have_is_nan_and_leaves_others_alone() -> None:
    images = torch.cat([torch.zeros(1, 1, SIDE, SIDE), bar(3.0), bar(3.0), bar(3.0)])
    images[2, 0, 3, 3], images[3, 0, 3, 3] = torch.nan, torch.inf
    for name, values in measure(images).items():
        assert values.shape == (4,)
        assert values[1] == ATTRIBUTES[name](bar(3.0), 256)[0]
        assert not values[2:].isfinite().any()
        assert values[0].isnan() == (name in SHAPE)
    row = torch.zeros(1, 1, 8, 8)
    row[..., 3, 2:5] = 1.0
    assert slant(row).isnan()


def test_whole_numbers_and_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.cat([bar(t) for t in (2.0, 3.0, 4.0)]).round()
    expected = measure(images)
    monkeypatch.setattr(module, "_ROWS", 2)
    for name, values in measure(images.to(torch.uint8)).items():
        assert values.dtype == torch.float64
        torch.testing.assert_close(values, expected[name], rtol=0, atol=0)
    assert all(values.shape == (0,) for values in measure(images[:0]).values())


def test_other_shapes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"pixels must have shape \(n, channels, height, width\), got \(28, 28\)"
    ):
        measure(torch.zeros(28, 28))
    with pytest.raises(ValueError, match="pixels must have shape"):
        thickness(torch.zeros(3, 28, 28))
    with pytest.raises(ValueError, match=r"'whole' must give one number for each image, \(2,\), got \(1,\)"):
        measure(torch.zeros(2, 1, 4, 4), attributes={"whole": lambda x, levels: x.mean().reshape(1)})
