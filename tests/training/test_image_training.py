"""Flows of images are trained batch by batch, and a run that goes on is the run that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden.make_format_2 import pictures
from pushforward.artifact import FittedFlow, load, save
from pushforward.configs import ImageGlowConfig, ImageModelConfig, NICEConfig, PixelNSFConfig, TrainConfig
from pushforward.data import Images, ImageSet
from pushforward.errors import DataError
from pushforward.flows import bits_per_dim
from pushforward.training import fit_images, points_of, split_images
from pushforward.training.images import condition_of_pixels
from pushforward.training.run import Run

CONFIG = TrainConfig(epochs=3, batch_size=16, learning_rate=1e-2, ema=0.9)
GLOW = ImageGlowConfig(scales=1, steps=1, hidden_channels=4)


def fitted(model: ImageModelConfig = GLOW, config: TrainConfig = CONFIG, **options: Any) -> FittedFlow:
    return fit_images(pictures(), model=model, training=config, **options)


def states(flow: FittedFlow) -> dict[str, torch.Tensor]:
    return dict(flow.flow.state_dict())


def test_a_run_killed_in_an_epoch_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted()
    plain, left = Run.step, [8]

    def step(self: Run, batch: Any) -> None:
        if left[0] == 0:
            raise OSError("killed")
        left[0] -= 1
        plain(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", step)
        patch.setattr("pushforward.training.checkpoints.Checkpoints.due", lambda self: True)
        with pytest.raises(OSError, match="killed"):
            fitted(checkpoint=tmp_path / "run")
    resumed = fitted(checkpoint=tmp_path / "run", resume=True)
    assert resumed.facts.train_curve == whole.facts.train_curve
    assert resumed.facts.valid_curve == whole.facts.valid_curve
    for name, tensor in states(whole).items():
        assert torch.equal(tensor, states(resumed)[name]), name


@pytest.mark.parametrize(
    "model",
    [GLOW, PixelNSFConfig(layers=1, radius=1, bins=4, hidden=(8,)), NICEConfig(layers=2, hidden=(16,))],
)
def test_bars_are_learned(model: ImageModelConfig) -> None:
    """Beyond what pixels tell that do not see each other, which is where training starts."""
    config = TrainConfig(epochs=30, batch_size=16, learning_rate=1e-2)
    facts = fitted(model, config, given="class").facts
    assert facts.kind == "bound"
    bits = [
        float(bits_per_dim(torch.tensor(-v), 24))
        for v in (facts.valid_curve[0], facts.valid_curve[facts.best_epoch - 1])
    ]
    assert bits[1] < bits[0] - 0.1


def test_a_saved_flow_is_the_same(tmp_path: Path) -> None:
    flow = fitted(given="top")
    save(flow, tmp_path / "a.flow")
    again = load(tmp_path / "a.flow")
    assert again.images == flow.images and again.model == flow.model and again.facts == flow.facts
    x = torch.zeros((2, 1, 3, 4)).double()
    draws = [f.flow.sample((3,), x, generator=torch.Generator().manual_seed(0)) for f in (flow, again)]
    assert torch.equal(*draws)
    with pytest.raises(ValueError, match="flow of images, which has no columns"):
        _ = again.table


def test_splits_use_the_official_test_images_and_are_disjoint() -> None:
    train = Images(np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1) * np.ones((1, 1, 4, 4), np.uint8))
    test = Images(np.full((7, 1, 4, 4), 200, np.uint8))
    split = split_images(ImageSet(train, test, "numbered"))
    assert len(split.test) == 7 and (split.test.x == 200).all()
    assert len(split.train) == 54 and len(split.valid) == 6
    rows = torch.cat([split.train.rows, split.valid.rows])  # type: ignore[list-item]
    assert sorted(rows.tolist()) == list(range(1, 61))
    assert torch.equal(split.train.x[:, 0, 0, 0], (split.train.rows - 1).byte())  # type: ignore[operator]


@pytest.mark.parametrize(("given", "shape"), [("top", (1, 3, 4)), ("left", (1, 6, 2)), ("bottom", (1, 3, 4))])
def test_a_half_and_the_rest_are_the_image(given: str, shape: tuple[int, ...]) -> None:
    images = pictures().train
    split = split_images(pictures(), given=given)
    points = points_of(images, split.schema)
    assert points.context is not None and points.context.shape[1:] == shape == split.schema.context_shape
    whole = np.zeros(images.pixels.shape)
    whole[:, :, *split.schema.event_box] = points.x
    box = split.schema.given_box
    assert box is not None
    whole[:, :, *box] += points.context.numpy()
    assert (whole == images.pixels).all()


def test_a_small_picture_is_the_rounded_mean() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 4)).astype(np.uint8)
    schema = split_images(ImageSet(Images(pixels), None, "noise"), given="small").schema
    small = condition_of_pixels(torch.from_numpy(pixels), schema)
    assert small.shape == (30, 1, 2, 1)
    expected = np.round(pixels.reshape(30, 1, 2, 4, 1, 4).mean((3, 5)))
    assert np.abs(small.numpy() - expected).max() <= 1  # halves may be rounded either way


def test_what_cannot_be_fitted_is_refused() -> None:
    unlabelled = ImageSet(Images(pictures().train.pixels, levels=5), None, "bars")
    with pytest.raises(ValueError, match="given='class' needs at least 2 classes, got 0"):
        split_images(unlabelled, given="class")
    with pytest.raises(ValueError, match="given='small' needs height and width that 4 divides, got 6 and 4"):
        split_images(pictures(), given="small")
    with pytest.raises(DataError, match="at least 20 are needed"):
        split_images(ImageSet(pictures().train.take(slice(5)), None, "few"))
    with pytest.raises(DataError, match=r"a batch of 500 images is more than the 96 training images"):
        fitted(config=TrainConfig(batch_size=500))
    with pytest.raises(ValueError, match="resume: needs checkpoint"):
        fitted(resume=True)
