"""What holds for single transforms of images beyond the laws of all."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from case_parts import MAPS, seeded
from cases import randomise
from image_cases import in_reading_order, on_pixels, several_scales
from pushforward.configs import ImageGlowConfig, ImageSchema, PixelNSFConfig
from pushforward.flows import image_flow
from pushforward.training.drift import find_drift, with_constant_memory
from pushforward.transforms import (
    ActNorm,
    Cellwise,
    Chain,
    Elementwise,
    Equalise,
    Flatten,
    Inverse,
    LULinear,
    MultiScale,
    RationalQuadraticSpline,
    Sigmoid,
    Squeeze,
)
from pushforward.transforms.walk import named, walk


def test_a_checkerboard_on_the_pixels_is_a_mask_of_squeezed_channels() -> None:
    x = torch.arange(16.0).reshape(1, 4, 4)
    y, _ = Squeeze((1, 4, 4))(x)
    board = torch.tensor([[(r + c) % 2 == 0 for c in range(4)] for r in range(4)])
    assert set(y[[0, 3]].flatten().tolist()) == set(x[0][board].tolist())


@pytest.mark.parametrize(("shape", "block"), [((3, 6, 4), (2, 2)), ((1, 6, 5), (3, 1)), ((2, 2, 4), (1, 4))])
def test_squeeze_is_pixel_unshuffle(shape: tuple[int, int, int], block: tuple[int, int]) -> None:
    x = torch.randn((5, *shape), generator=seeded())
    y, _ = Squeeze(shape, block)(x)
    if block[0] == block[1]:
        assert torch.equal(y, F.pixel_unshuffle(x, block[0]))
    for c, i, j in itertools.product(range(shape[0]), range(block[0]), range(block[1])):
        channel = (c * block[0] + i) * block[1] + j
        assert torch.equal(y[:, channel], x[:, c, i :: block[0], j :: block[1]])


def test_the_1x1_convolution_is_one() -> None:
    t = LULinear(3, size=(4, 5)).double()
    randomise(t, 0.3, seeded())
    x = torch.randn((2, 3, 4, 5), generator=seeded(), dtype=torch.float64)
    weight = torch.stack(
        [
            t(torch.eye(3, dtype=torch.float64)[i][:, None, None].expand(3, 4, 5))[0][:, 0, 0]
            for i in range(3)
        ],
        1,
    )
    weight = weight - t.shift[:, None]
    y, log_abs_det = t(x)
    torch.testing.assert_close(y, F.conv2d(x, weight[..., None, None], t.shift))
    torch.testing.assert_close(log_abs_det, 20 * torch.linalg.slogdet(weight).logabsdet.expand(2))


def test_a_1x1_convolution_that_does_not_rotate_starts_as_a_permutation() -> None:
    x = torch.randn((7, 5, 2, 2), generator=seeded())
    y, log_abs_det = LULinear(5, size=(2, 2), rotate=False)(x)
    assert torch.equal(y.sort(1).values, x.sort(1).values) and not log_abs_det.any()


def test_actnorm_normalises_the_channels_of_images() -> None:
    x = 3.0 + torch.randn((64, 2, 3, 4), generator=seeded()) * torch.tensor([0.1, 50.0])[:, None, None]
    y = ActNorm(2, size=(3, 4)).initialize(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(2), rtol=1e-3, atol=0)


def test_several_scales_are_the_layers_that_walk_lists() -> None:
    t = several_scales(None).double()
    randomise(t, 0.3, seeded())
    x = torch.randn((9, *t.event_shape), generator=seeded(), dtype=torch.float64)
    y, total = x, torch.zeros(9, dtype=torch.float64)
    for _, layer in walk(t):
        y, log_abs_det = layer(y)
        total = total + log_abs_det
    for found, expected in zip((y, total), t(x), strict=True):
        torch.testing.assert_close(found, expected)
    names = [named(path, layer) for path, layer in walk(t)]
    assert names[1] == "transform.scales[0].transforms[0] (Squeeze)"


def test_scales_must_fit_each_other() -> None:
    with pytest.raises(
        ValueError, match="transform 1 must take half of what the one before gives, \\(2, 2, 2\\)"
    ):
        MultiScale([Squeeze((1, 4, 4)), Squeeze((4, 2, 2))])
    with pytest.raises(ValueError, match="even number of channels"):
        MultiScale([Squeeze((1, 4, 6), (1, 3)), Squeeze((1, 4, 2))])
    with pytest.raises(ValueError, match="at least one transform"):
        MultiScale([])
    with pytest.raises(ValueError, match="must divide the 3 x 4 pixels"):
        Squeeze((1, 3, 4))


def test_constant_memory_gives_the_gradients_of_several_scales() -> None:
    of = ImageSchema(height=8, width=8)
    flow = image_flow(ImageGlowConfig(scales=2, steps=3, hidden_channels=8, radius=1), of).double()
    randomise(flow, 0.1, seeded())
    frugal = with_constant_memory(flow)
    x = torch.randn((6, 1, 8, 8), generator=seeded(), dtype=torch.float64)
    parameters = list(flow.parameters())
    ordinary, again = (
        torch.autograd.grad(-f.log_prob_preprocessed(x).mean(), parameters) for f in (flow, frugal)
    )
    for a, b in zip(ordinary, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    assert find_drift(flow, x) is None


@pytest.mark.parametrize("backwards", [False, True])
def test_pixels_in_reading_order_are_a_plain_loop(backwards: bool) -> None:
    t = in_reading_order(MAPS["affine"], None, channels=2, backwards=backwards).double()
    randomise(t, 1.0, seeded())
    y = torch.randn((3, 2, 3, 4), generator=seeded(), dtype=torch.float64)
    # Each pixel, in order, from what those before it have become.
    x = torch.zeros_like(y)
    places = list(itertools.product(range(3), range(4)))
    for r, q in places[::-1] if backwards else places:
        trial = t(x)[0]
        one = x.clone()
        one[..., r, q] += 1.0
        slope = t(one)[0][..., r, q] - trial[..., r, q]
        x[..., r, q] += (y[..., r, q] - trial[..., r, q]) / slope
    found, log_abs_det = t.inverse(y)
    torch.testing.assert_close(found, x)
    torch.testing.assert_close(log_abs_det, -t(x)[1])


def test_no_point_leaves_its_cell() -> None:
    noise = Chain([Flatten((2, 2)), Elementwise(RationalQuadraticSpline(3, 1.0, "bounded"), (4,))])
    t = Cellwise(
        Chain([noise, Elementwise(RationalQuadraticSpline(3, 1.0, "bounded"), (4,))]).transforms[1], 256
    )
    randomise(t, 3.0, seeded())
    levels = torch.randint(0, 256, (1000, 4), generator=seeded()).float()
    x = levels + torch.rand((1000, 4), generator=seeded(1)).clamp(max=1 - 2**-15)
    for direction in (t.forward, t.inverse):
        y, _ = direction(x)
        assert torch.equal(y.floor(), levels) and (y - x).abs().max() > 0.1


def test_a_cellwise_map_takes_the_levels_as_its_context() -> None:
    with pytest.raises(ValueError, match="must take the levels as context"):
        Cellwise(Elementwise(RationalQuadraticSpline(3, 1.0, "bounded"), (4,), context_features=2), 4)


def test_equalised_pixels_are_normal_and_what_lies_outside_has_no_density() -> None:
    t = Equalise((3,), 4).double()
    x = (
        4 * torch.rand((4000, 3), generator=seeded(), dtype=torch.float64) ** torch.tensor([1.0, 3.0, 0.2])
    ).floor()
    y = t.initialize(x + torch.rand(x.shape, generator=seeded(1), dtype=torch.float64))
    assert y.mean(0).abs().max() < 0.06 and (y.std(0) - 1).abs().max() < 0.06
    outside = torch.tensor([[-0.1, 1.0, 1.0], [1.0, 4.1, 1.0], [1.0, 1.0, math.inf]], dtype=torch.float64)
    y, log_abs_det = t(outside)
    assert y.isfinite().all() and torch.equal(log_abs_det, torch.full((3,), -math.inf, dtype=torch.float64))
    assert t(torch.full((1, 3), math.nan, dtype=torch.float64))[0].isnan().all()
    far = torch.linspace(-30, 30, 301, dtype=torch.float64)[:, None].expand(-1, 3)
    back, _ = t.inverse(far)
    assert (back >= 0).all() and (back <= 4).all() and (back.diff(dim=0) >= 0).all()


def test_gradients_of_equalised_pixels_are_finite_up_to_the_ends_of_the_levels() -> None:
    for dtype in (torch.float32, torch.float64):
        t = Equalise((1,), 256)
        t.initialize(torch.randint(1, 255, (5000, 1), generator=seeded()).float())
        t = t.to(dtype)
        x = torch.tensor(
            [[1e-4], [1e-3], [0.5], [128.5], [255.5], [255.9999]], dtype=dtype, requires_grad=True
        )
        y, log_abs_det = t(x)
        for value in (y, log_abs_det):
            (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
            assert gradient.isfinite().all()


def test_the_logit_has_no_density_outside_of_its_interval() -> None:
    logit = Inverse(Elementwise(Sigmoid(), (1,)))
    y, log_abs_det = logit(torch.tensor([[-0.1], [0.5], [1.1], [math.nan]]))
    assert log_abs_det[0] == log_abs_det[2] == -math.inf and log_abs_det[3].isnan() and y[3].isnan()
    assert y[:3].isfinite().all()


def test_many_gradients_at_once_go_through_patches() -> None:
    coupling = on_pixels(MAPS["affine"], None, spread=3)
    randomise(coupling, 1.0, seeded())
    x = torch.randn((40, 4, 2, 2), generator=seeded())
    at_once = torch.autograd.functional.jacobian(lambda t: coupling(t)[1].sum(), x, vectorize=True)
    torch.testing.assert_close(at_once, torch.autograd.functional.jacobian(lambda t: coupling(t)[1].sum(), x))
    y = coupling(x.requires_grad_())[0]
    v = torch.randn((3, *y.shape), generator=seeded())
    (together,) = torch.autograd.grad(y, x, v, is_grads_batched=True, retain_graph=True)
    for i in range(3):
        torch.testing.assert_close(together[i], torch.autograd.grad(y, x, v[i], retain_graph=True)[0])


def test_a_window_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="radius must be at most the larger side of 4 x 6 pixels, got 9"):
        image_flow(PixelNSFConfig(radius=9), ImageSchema(height=4, width=6))
