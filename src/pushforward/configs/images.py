"""What a fitted flow knows of its images, and the models for images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Model
from .continuous import ImageFlowMatchingConfig
from .models import (
    TABLE_MODELS,
    IAFConfig,
    MAFConfig,
    ModelConfig,
    NICEConfig,
    NSFConfig,
    NSFCouplingConfig,
    RealNVPConfig,
)

GIVEN = ("", "class", "top", "bottom", "left", "right", "small")
PIXELS = ("equalise", "logit", "scale")
SMALL = 4
"""How many times smaller the picture is that a model of detail is given."""

Shape3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSchema:
    """Images of one size, and what their density is conditioned on.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        channels: 1 for grey images, 3 for coloured ones.
        levels: Number of values of a pixel, which are 0 to ``levels - 1``.
        classes: Names of the labels 0, 1, ...; none where the images have no labels.
        given: What is given, so that the density is that of the rest: ``"class"``, a half (``"top"``, ``"bottom"``,
            ``"left"``, ``"right"``), ``"small"``, the image at a quarter of its height and width, or ``""``: nothing.
        pixels: How pixels come to the line: ``"equalise"`` by the normal scores of their own histograms, ``"logit"``,
            or ``"scale"`` for no more than a linear map.

    Raises:
        ValueError: Values that no images have.

    Example:
        >>> schema = ImageSchema(height=28, width=28, channels=1, given="top")
        >>> schema.event_shape, schema.context_shape
        ((1, 14, 28), (1, 14, 28))
    """

    height: int
    width: int
    channels: int = 1
    levels: int = 256
    classes: tuple[str, ...] = ()
    given: str = ""
    pixels: str = "equalise"

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"images: height and width must be at least 1, got {self.height} and {self.width}"
            )
        if self.channels not in (1, 3):
            raise ValueError(f"images: channels must be 1 or 3, got {self.channels}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"images: levels must lie in 2..256, got {self.levels}")
        if self.given not in GIVEN:
            raise ValueError(f"images: given must be one of {', '.join(GIVEN[1:])}, got {self.given!r}")
        if self.pixels not in PIXELS:
            raise ValueError(f"images: pixels must be one of {', '.join(PIXELS)}, got {self.pixels!r}")
        if self.given == "class" and len(self.classes) < 2:
            raise ValueError(f"images: given='class' needs at least 2 classes, got {len(self.classes)}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"images: each class may stand once, got {', '.join(self.classes)}")
        if self.given == "small" and (self.height % SMALL or self.width % SMALL):
            raise ValueError(
                f"images: given='small' needs height and width that {SMALL} divides, got {self.height} and {self.width}"
            )
        if (self.given in ("top", "bottom") and self.height < 2) or (
            self.given in ("left", "right") and self.width < 2
        ):
            raise ValueError(f"images: half of {self.height} x {self.width} pixels cannot be given")

    @property
    def image_shape(self) -> Shape3:
        """Shape of a whole image, ``(channels, height, width)``."""
        return self.channels, self.height, self.width

    @property
    def given_box(self) -> tuple[slice, slice] | None:
        """Rows and columns of the half that is given, or None."""
        rows, columns = self.height // 2, self.width // 2
        everything = slice(None)
        return {
            "top": (slice(0, rows), everything),
            "bottom": (slice(self.height - rows, None), everything),
            "left": (everything, slice(0, columns)),
            "right": (everything, slice(self.width - columns, None)),
        }.get(self.given)

    @property
    def event_box(self) -> tuple[slice, slice]:
        """Rows and columns whose density is modelled."""
        rows, columns = self.height // 2, self.width // 2
        everything = slice(None)
        return {
            "top": (slice(rows, None), everything),
            "bottom": (slice(0, self.height - rows), everything),
            "left": (everything, slice(columns, None)),
            "right": (everything, slice(0, self.width - columns)),
        }.get(self.given, (everything, everything))

    @property
    def event_shape(self) -> Shape3:
        """Shape of what is modelled, ``(channels, rows, columns)``."""
        rows, columns = self.event_box
        return self.channels, len(range(self.height)[rows]), len(range(self.width)[columns])

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """Shape of what is given: one number for each class, or a picture; None: nothing."""
        if self.given == "class":
            return (len(self.classes),)
        if self.given == "small":
            return self.channels, self.height // SMALL, self.width // SMALL
        if self.given_box is None:
            return None
        rows, columns = self.given_box
        return self.channels, len(range(self.height)[rows]), len(range(self.width)[columns])


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRealNVPConfig(Model):
    """Real NVP for images (Dinh et al., 2017): checkerboard and channel masks, residual networks, several scales."""

    scales: int = 3
    blocks: int = 2
    hidden_channels: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGlowConfig(Model):
    """Glow (Kingma & Dhariwal, 2018): actnorm, invertible 1x1 convolution and coupling, on several scales.

    ``coupling`` is ``"affine"``, ``"additive"`` or ``"spline"``; ``dequantise`` is ``"uniform"`` or ``"variational"``;
    ``radius`` above 0 puts a layer before it all that goes over the pixels in reading order, as ``PixelNSFConfig``;
    ``minimum`` is that of its splines and of those of the couplings.
    """

    _may_be_zero: ClassVar[tuple[str, ...]] = ("radius",)

    scales: int = 3
    steps: int = 8
    radius: int = 0
    hidden_channels: int = 64
    coupling: str = "affine"
    bins: int = 8
    bound: float = 5.0
    minimum: float = 0.01
    dequantise: str = "uniform"

    def __post_init__(self) -> None:
        self._check()
        if self.coupling not in ("affine", "additive", "spline"):
            raise ValueError(
                f"ImageGlowConfig: coupling must be 'affine', 'additive' or 'spline', got {self.coupling!r}"
            )
        if self.dequantise not in ("uniform", "variational"):
            raise ValueError(
                f"ImageGlowConfig: dequantise must be 'uniform' or 'variational', got {self.dequantise!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelNSFConfig(Model):
    """Neural spline flow over the pixels in reading order (as in MaCow, Ma et al., 2019), each seeing a window.

    ``minimum`` is the least width, height and slope of the splines, which bounds by how much the inverse stretches.
    """

    layers: int = 2
    radius: int = 4
    bins: int = 16
    bound: float = 5.0
    minimum: float = 0.01
    hidden: tuple[int, ...] = (64, 64)


ImageModelConfig = (
    PixelNSFConfig
    | ImageRealNVPConfig
    | ImageGlowConfig
    | ImageFlowMatchingConfig
    | NICEConfig
    | RealNVPConfig
    | MAFConfig
    | IAFConfig
    | NSFConfig
    | NSFCouplingConfig
)

IMAGE_MODELS: dict[str, type[ImageModelConfig]] = {
    "glow": ImageGlowConfig,
    "realnvp": ImageRealNVPConfig,
    "pixel-nsf": PixelNSFConfig,
    "flow-matching": ImageFlowMatchingConfig,
    "nice": NICEConfig,
    "flat-realnvp": RealNVPConfig,
    "maf": MAFConfig,
    "iaf": IAFConfig,
    "nsf": NSFConfig,
    "nsf-coupling": NSFCouplingConfig,
}
"""Models of images by name; those of vectors take the pixels of an image as one vector."""


def model_name(config: ModelConfig | ImageModelConfig | type[ModelConfig] | type[ImageModelConfig]) -> str:
    """Return the name that a configuration, or its class, has in a saved flow.

    It is the one in ``TABLE_MODELS``, also where ``IMAGE_MODELS`` calls it another; of a model for images alone it
    begins with ``image-``.

    Example:
        >>> model_name(MAFConfig()), model_name(ImageGlowConfig)
        ('maf', 'image-glow')
    """
    kind: type = config if isinstance(config, type) else type(config)
    names: dict[type, str] = {cls: f"image-{name}" for name, cls in IMAGE_MODELS.items()}
    names |= {cls: name for name, cls in TABLE_MODELS.items()}
    return names[kind]
