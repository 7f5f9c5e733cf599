"""Numbers read off images by a regression, for attributes that no formula of the pixels gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from .attributes import check_images

MOST_TRAINED = 5_000
"""Of more images that many, by chance, train a regression."""

_COMPONENTS, _COST, _WIDTH = 50, 10.0, 0.05
_FEWEST = 10


@dataclass(frozen=True, slots=True)
class ImageRegression:
    """A support vector regression on the principal components of images; an attribute, as of ``attributes``.

    Attributes:
        pipeline: The scikit-learn pipeline, from pixels over ``levels - 1`` to standardised numbers.
        mean: Mean of the numbers.
        deviation: Their standard deviation.
    """

    pipeline: Any
    mean: float
    deviation: float

    def __call__(self, images: Tensor, levels: int = 256) -> Tensor:
        """Return numbers, float64 ``(n,)``; NaN for an image that is not finite."""
        flat = images.detach().double().cpu().flatten(1) / (levels - 1)
        finite = flat.isfinite().all(1)
        values = torch.full((len(flat),), torch.nan, dtype=torch.float64)
        if bool(finite.any()):
            found = torch.from_numpy(self.pipeline.predict(flat[finite].numpy())).double()
            values[finite] = self.mean + self.deviation * found
        return values

    def explained(self, images: Tensor, values: Tensor, levels: int = 256) -> float:
        """Return the share of the variance of numbers that it explains, of those that are finite."""
        found = self(images, levels)
        known = found.isfinite() & values.isfinite()
        spread = (values[known] - values[known].mean()).square().sum()
        return float(1.0 - (values[known] - found[known]).square().sum() / spread)


def fit_regression(images: Tensor, values: Tensor, *, levels: int = 256, seed: int = 0) -> ImageRegression:
    """Learn to read numbers off images.

    Args:
        images: Images, ``(n, channels, height, width)``.
        values: Their numbers ``(n,)``; NaN where one is not known.
        levels: Number of values of a pixel.
        seed: Seed of the choice among more than ``MOST_TRAINED`` images, and of the search for components.

    Returns:
        The regression.

    Raises:
        ValueError: Shapes that do not fit.
        DataError: Fewer than 10 images with a number, or one number for all.

    Example:
        >>> images = torch.arange(40.0).reshape(40, 1, 1, 1).expand(40, 1, 4, 4)
        >>> regression = fit_regression(images, 3 * torch.arange(40.0).double())
        >>> bool(abs(regression(images[20:21]) - 60) < 5)
        True
    """
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVR

    check_images("images", images)
    if values.shape != (len(images),):
        raise ValueError(f"values must have shape {(len(images),)}, got {tuple(values.shape)}")
    known = values.isfinite().nonzero().flatten()
    if len(known) < _FEWEST:
        raise DataError(f"a regression needs at least {_FEWEST} images with a number, got {len(known)}")
    chosen = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:MOST_TRAINED]]
    x = (images[chosen].detach().double().cpu().flatten(1) / (levels - 1)).numpy()
    y = values[chosen].double().cpu()
    mean, deviation = float(y.mean()), float(y.std(correction=0))
    if not deviation > 0:
        raise DataError(f"all {len(known)} numbers are {mean:g}, so there is nothing to learn")
    components = PCA(min(_COMPONENTS, *x.shape), random_state=seed)
    pipeline = make_pipeline(components, SVR(C=_COST, epsilon=_WIDTH))
    pipeline.fit(x, ((y - mean) / deviation).numpy())
    return ImageRegression(pipeline, mean, deviation)
