"""What holds for flows of images as a whole: every model, under every condition."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from case_parts import seeded
from cases import randomise
from pushforward.configs import (
    IMAGE_MODELS,
    ImageGlowConfig,
    ImageModelConfig,
    ImageSchema,
    PixelNSFConfig,
)
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow, Preprocess, bits_per_dim, image_flow, score
from pushforward.surjections import DequantisePixels
from pushforward.transforms import Equalise

SMALL: dict[str, dict[str, object]] = {
    "glow": {"scales": 2, "steps": 2, "hidden_channels": 8},
    "realnvp": {"scales": 2, "blocks": 1, "hidden_channels": 4},
    "pixel-nsf": {"layers": 2, "radius": 1, "bins": 4, "hidden": (8,)},
    "nice": {"layers": 2, "hidden": (8,)},
    "flow-matching": {"width": 8, "levels": 1, "atol": 1e-6, "rtol": 1e-6},
}
VARIANTS: dict[str, ImageModelConfig] = {
    name: cls(**SMALL.get(name, {"layers": 2, "hidden": (8,)}))  # type: ignore[arg-type]
    for name, cls in IMAGE_MODELS.items()
} | {
    "glow-additive": ImageGlowConfig(**SMALL["glow"], coupling="additive"),  # type: ignore[arg-type]
    "glow-spline": ImageGlowConfig(**SMALL["glow"], coupling="spline", bins=4),  # type: ignore[arg-type]
    "glow-variational": ImageGlowConfig(**SMALL["glow"], dequantise="variational"),  # type: ignore[arg-type]
    "glow-pixels": ImageGlowConfig(**SMALL["glow"], radius=1),  # type: ignore[arg-type]
}
GIVEN = ("", "class", "top", "right", "small")
N = 24


def schema(given: str = "", channels: int = 1, pixels: str = "equalise") -> ImageSchema:
    return ImageSchema(
        height=8, width=8, channels=channels, levels=5, classes=("a", "b", "c"), given=given, pixels=pixels
    )


def images(of: ImageSchema, n: int = N) -> torch.Tensor:
    dark = torch.rand((n, *of.event_shape), generator=seeded(1), dtype=torch.float64) ** 3
    return (of.levels * dark).floor()


def contexts(of: ImageSchema, n: int = N) -> torch.Tensor | None:
    if of.context_shape is None:
        return None
    if of.given == "class":
        return torch.eye(3)[torch.arange(n) % 3]
    return (of.levels * torch.rand((n, *of.context_shape), generator=seeded(2))).floor()


def drawn(model: ImageModelConfig, of: ImageSchema, strength: float = 0.1) -> Flow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = image_flow(model, of)
    assert flow.preprocess is not None and flow.surjection is not None
    noisy = flow.surjection.encode(images(of, 200), generator=seeded(3))[0]
    flow.preprocess.transform.initialize(noisy)
    given = contexts(of, 200)
    if given is not None and flow.context_preprocess is not None:
        given = flow.context_preprocess(given, flow.like)[0]
    flow.initialize(flow.preprocess(noisy, flow.like)[0], given)
    randomise(flow, strength, seeded(4))
    return flow


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", VARIANTS)
def test_latents_are_whole_and_give_the_images_back(name: str, given: str) -> None:
    of = schema(given)
    flow, x, context = drawn(VARIANTS[name], of), images(of), contexts(of)
    latent = flow.to_latent(x, context, generator=seeded())
    assert latent[0].numel() == x[0].numel()
    with torch.no_grad():
        assert torch.equal(flow.from_latent(latent, context), x)
        again = flow.to_latent(x, context, generator=seeded())
    # Without a gradient some of it is computed otherwise.
    torch.testing.assert_close(again, latent, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", GIVEN[1:])
@pytest.mark.parametrize("name", ["glow", "realnvp", "pixel-nsf", "nice", "maf", "flow-matching"])
def test_the_condition_matters_and_samples_have_its_batch(name: str, given: str) -> None:
    of = schema(given)
    flow, x, context = drawn(VARIANTS[name], of, 0.3), images(of), contexts(of)
    assert context is not None
    with torch.no_grad():
        here = flow.estimate_log_prob(x, context, generator=seeded(), num_samples=1).value
        there = flow.estimate_log_prob(x, context.roll(1, 0), generator=seeded(), num_samples=1).value
        assert (here - there).abs().max() > 1e-3
        # All pairs at once are the pairs one by one.
        grid = flow.estimate_log_prob(x[:3, None], context[:2], generator=seeded(), num_samples=1).value
        assert grid.shape == (3, 2)
        one = flow.estimate_log_prob(x[2], context[1], generator=seeded(), num_samples=1).value
        torch.testing.assert_close(grid[2, 1], one, rtol=1e-4, atol=1e-3)
        samples = flow.sample((2,), context[:3], generator=seeded())
    assert samples.shape == (2, 3, *of.event_shape)
    assert torch.equal(samples, samples.round().clamp(0, of.levels - 1))


@pytest.mark.parametrize("pixels", ["equalise", "logit", "scale"])
@pytest.mark.parametrize("name", ["glow", "glow-variational", "pixel-nsf"])
def test_the_probabilities_of_all_images_add_up_to_one(name: str, pixels: str) -> None:
    """Over the 16 pictures of 2 x 2 black or white pixels; a logit leaves some density beyond the levels."""
    of = ImageSchema(height=2, width=2, levels=2, pixels=pixels)
    # Normal scores have no density at the ends of the levels, where far from them a flow may put too much to count.
    flow = drawn(VARIANTS[name], of, 0.05 if pixels == "equalise" else 0.3)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).reshape(
        -1, 1, 2, 2
    )
    noise = torch.rand((2000, *every.shape), generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        z, log_abs_det = flow._enter_points((every + noise).reshape(-1, 1, 2, 2))
        found = (flow.log_prob_preprocessed(z) + log_abs_det).double().exp().mean() * len(every)
        inside = 1.0
        if pixels != "equalise":
            # What lies beyond the first and the last level has a density, but is no image.
            assert flow.preprocess is not None
            latent = flow.base.sample((20_000,), generator=seeded(5))
            x = flow.preprocess.inverse(flow.transform.inverse(latent)[0])[0]
            inside = float(((x >= 0) & (x < 2)).flatten(1).all(1).double().mean())
    assert abs(float(found) - inside) < 0.04


def test_equalised_pixels_alone_have_the_entropy_of_their_histograms() -> None:
    of = schema()
    x = images(of, 400)
    scores = Equalise(of.event_shape, of.levels)
    flow = Flow(scores, DiagonalNormal(of.event_shape), preprocess=None, surjection=None).double()
    scores.initialize(x + 0.5)
    pixel = torch.arange(64)
    expected = scores.frequencies[pixel, x.flatten(1).long()].log().sum(1)
    noise = torch.rand(x.shape, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x + noise), expected, rtol=1e-9, atol=1e-9)


def test_more_draws_of_the_noise_bring_the_bound_up_to_the_likelihood() -> None:
    of = schema()
    flow, x = drawn(VARIANTS["glow-spline"], of, 0.3), images(of)
    means = [float(score(flow, x, num_samples=n).value.mean()) for n in (1, 8, 64)]
    assert means[0] < means[1] < means[2]


@pytest.mark.parametrize("name", VARIANTS)
def test_colours(name: str) -> None:
    of = schema(channels=3)
    flow, x = drawn(VARIANTS[name], of), images(of)
    with torch.no_grad():
        assert torch.equal(flow.from_latent(flow.to_latent(x, generator=seeded())), x)


@pytest.mark.parametrize(("height", "width"), [(6, 5), (5, 6), (12, 4), (7, 2)])
def test_sides_of_any_size_one_of_which_is_even(height: int, width: int) -> None:
    of = ImageSchema(height=height, width=width, levels=5)
    flow, x = drawn(VARIANTS["glow"], of), images(of)
    with torch.no_grad():
        assert torch.equal(flow.from_latent(flow.to_latent(x, generator=seeded())), x)


def test_odd_sides_are_refused_by_models_of_several_scales_alone() -> None:
    of = ImageSchema(height=7, width=5, levels=5)
    with pytest.raises(ValueError, match="one of them must be even, got 7 x 5"):
        image_flow(ImageGlowConfig(), of)
    image_flow(PixelNSFConfig(layers=1), of)


def test_bits_per_dim_is_that_of_the_papers() -> None:
    uniform = torch.full((3,), -784 * math.log(256.0))
    torch.testing.assert_close(bits_per_dim(uniform, 784), torch.full((3,), 8.0))
    assert round(float(bits_per_dim(torch.tensor(1980.5), 784, unit=1 / 256)), 2) == 4.36


def test_pixels_are_decoded_into_their_levels() -> None:
    surjection = DequantisePixels((1, 2, 2), 4)
    x = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(1, 2, 2)
    for dtype in (torch.float32, torch.float64):
        z, weight = surjection.encode(x.to(dtype).expand(500, 1, 2, 2), generator=seeded())
        assert torch.equal(surjection.decode(z), x.to(dtype).expand(500, 1, 2, 2)) and not weight.any()
    assert surjection.decode(torch.tensor([-0.5, 4.0, 9.0, 3.999]).reshape(1, 2, 2)).flatten().tolist() == [
        0,
        3,
        3,
        3,
    ]


def test_preprocessing_is_exact_beside_a_float32_model() -> None:
    of = schema()
    flow = drawn(VARIANTS["glow"], of)
    assert isinstance(flow.preprocess, Preprocess)
    assert flow.preprocess.inverse(torch.zeros(of.event_shape))[0].dtype == torch.float64
