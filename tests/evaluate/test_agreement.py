"""Samples that agree with what was given measure so, and those that do not, not."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from pushforward.configs.images import ImageSchema
from pushforward.errors import DataError
from pushforward.evaluate import classifier as module
from pushforward.evaluate.agreement import class_agreement, diversity, seam_agreement, small_agreement
from pushforward.evaluate.classifier import fit_classifier


def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).reshape(-1, 1, 8, 8), torch.from_numpy(labels)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 255


def test_real_digits_agree_with_their_labels_and_others_do_not() -> None:
    images, labels = digits()
    real, other = slice(0, 1200), slice(1200, None)
    agreement = class_agreement(images[real], labels[real], images[other], labels[other])
    assert agreement.real > 0.97
    assert agreement.sampled > 0.94  # digits of other writers
    assert agreement.labels == tuple(range(10))
    assert agreement.trained + agreement.held_out == 1200
    wrong = class_agreement(images[real], labels[real], images[other], (labels[other] + 1) % 10)
    assert wrong.real == agreement.real
    assert wrong.sampled < 0.05
    assert max(wrong.sampled_by_label) < 0.3
    assert "all" in agreement.text()
    assert f"{100 * agreement.sampled:.1f} %" in agreement.text()


def test_samples_that_are_not_finite_agree_with_nothing() -> None:
    images, labels = digits()
    samples = images[:100].clone()
    samples[:50, 0, 3, 3] = torch.nan
    agreement = class_agreement(images, labels, samples, labels[:100])
    assert agreement.not_finite == 50
    assert agreement.sampled <= 0.5
    assert "50 samples are not finite" in agreement.text()


def test_larger_images_are_learned_with_their_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits()
    large = images[:600].repeat_interleave(2, 2).repeat_interleave(2, 3).to(torch.uint8)
    train, moved = (large[:400], labels[:400]), large[400:].roll(1, 3)

    def accuracy(test: Tensor) -> float:
        return (fit_classifier(*train)(test) == labels[400:600]).double().mean().item()

    still, shifted = accuracy(large[400:]), accuracy(moved)
    monkeypatch.setattr(module, "_SHIFTED_FROM", 100)
    assert still > 0.9
    assert shifted > accuracy(moved)
    assert fit_classifier(*train)(large[:0]).shape == (0,)


def test_labels_that_cannot_be_are_refused() -> None:
    images, labels = digits()
    images, labels = images[:100], labels[:100]
    with pytest.raises(
        ValueError, match=r"real_labels must be whole numbers of shape \(100,\), one for each image"
    ):
        class_agreement(images, labels[:99], images, labels)
    with pytest.raises(ValueError, match="sampled_labels must be whole numbers"):
        class_agreement(images, labels, images, labels.double())
    with pytest.raises(ValueError, match=r"sampled_images must have shape \('m', 1, 8, 8\)"):
        class_agreement(images, labels, images[..., :4], labels)
    with pytest.raises(DataError, match="label 10 is that of no real image"):
        class_agreement(images, labels, images, labels + 1)
    with pytest.raises(DataError, match="label 77 has 1 real images, at least 5"):
        class_agreement(images, labels.index_fill(0, torch.tensor(0), 77), images, labels)
    with pytest.raises(DataError, match="at least 2 classes, got 1"):
        class_agreement(images, torch.zeros_like(labels), images, torch.zeros_like(labels))


def test_small_pictures_are_compared_in_levels() -> None:
    large = random(4, 5, 3, 8, 12)
    small = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 4).unflatten(0, (4, 5))
    same = small_agreement(large, small, 4)
    assert same.error == pytest.approx(0.0, abs=1e-12)
    assert same.psnr > 200
    assert same.samples == 20
    off = small_agreement(large + 3.0, small, 4, levels=256)
    assert off.error == pytest.approx(3.0)
    assert off.psnr == pytest.approx(20 * math.log10(255 / 3))
    for_all = small_agreement(large, small[0], 4)
    assert for_all.error == pytest.approx((small - small[0]).abs().mean().item())
    assert small_agreement(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 1, 1), 4).psnr == math.inf
    assert math.isnan(small_agreement(large * torch.nan, small, 4).error)
    assert "4 times smaller differ" in off.text()
    assert "3 levels" in off.text()
    with pytest.raises(ValueError, match="given_small must have shape"):
        small_agreement(large, small[..., :2], 4)
    with pytest.raises(ValueError, match="factor, 5, divides"):
        small_agreement(large, small, 5)


@pytest.mark.parametrize("given", ["top", "bottom", "left", "right"])
def test_the_seam_is_where_the_halves_meet(given: str) -> None:
    schema = ImageSchema(height=7, width=9, given=given)
    # The step from row to row is 3 and from column to column 5, wherever the seam is.
    ramp = 3.0 * torch.arange(7.0)[:, None] + 5.0 * torch.arange(9.0)
    real = ramp + random(40, 1, 1, 1)
    box = schema.given_box
    assert box is not None
    known, rest = real[..., box[0], box[1]], real[..., schema.event_box[0], schema.event_box[1]]
    step = 3.0 if given in ("top", "bottom") else 5.0
    agreement = seam_agreement(rest, known, schema, real=real)
    assert agreement.sampled == pytest.approx(step)
    assert agreement.real == pytest.approx(step)
    assert agreement.exchanged is not None
    assert agreement.exchanged > 5 * step
    exchanged = seam_agreement(rest.roll(1, 0), known, schema)
    assert exchanged.sampled == pytest.approx(agreement.exchanged)
    assert exchanged.real is None
    several = seam_agreement(rest.expand(3, -1, -1, -1, -1), known, schema)
    assert several.sampled == pytest.approx(step)
    assert several.samples == 120
    assert "Across the seam 40 samples" in agreement.text()
    with pytest.raises(ValueError, match="given must have shape"):
        seam_agreement(rest, known[:3], schema)
    with pytest.raises(ValueError, match="real must have shape"):
        seam_agreement(rest, known, schema, real=real[:1])


def test_a_seam_needs_a_half_that_is_given() -> None:
    schema = ImageSchema(height=8, width=8, given="small")
    with pytest.raises(ValueError, match="schema must give a half of each image, got given='small'"):
        seam_agreement(random(2, 1, 8, 8), random(2, 1, 2, 2), schema)


def test_diversity_is_the_mean_distance_within_a_condition() -> None:
    samples, real = random(3, 4, 1, 5, 5), random(2, 6, 1, 5, 5, seed=1)
    pairs = [(g, i, j) for g in range(3) for i in range(4) for j in range(i)]
    expected = sum((samples[g, i] - samples[g, j]).square().mean().sqrt().item() for g, i, j in pairs) / len(
        pairs
    )
    result = diversity(samples, list(real))
    assert result.sampled == pytest.approx(expected)
    assert result.real == pytest.approx(diversity(real).sampled)
    assert result.ratio == pytest.approx(result.sampled / diversity(real).sampled)
    assert (result.groups, result.samples) == (3, 12)
    collapsed = diversity(samples[:, :1].expand(-1, 4, -1, -1, -1), real)
    assert collapsed.ratio == 0.0
    shifted = diversity(samples + 50.0 * torch.arange(3.0).reshape(3, 1, 1, 1, 1), real)
    assert shifted.sampled == pytest.approx(result.sampled)  # what differs between conditions does not count
    assert diversity([samples[0], samples[1, :2]]).samples == 6
    assert diversity(samples).ratio is None
    assert math.isnan(diversity(samples * torch.nan).sampled)
    assert "a ratio of" in result.text()
    with pytest.raises(ValueError, match="m of at least 2"):
        diversity(samples[:, :1])
    with pytest.raises(ValueError, match="at least one condition"):
        diversity([])
