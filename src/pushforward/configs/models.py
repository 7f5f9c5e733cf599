"""One frozen dataclass for each model of the literature: scalars and tuples, nothing else.

Sizes that come with the data (features, width of the context, circular columns) are arguments of the builders.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

Hidden = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What all configurations share: values that no model can have are refused."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    _may_be_zero: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        name = type(self).__name__
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "hidden":
                if not value or any(not isinstance(h, int) or h < 1 for h in value):
                    raise ValueError(f"{name}: hidden must hold widths of at least 1, got {value}")
            elif isinstance(value, int) and value < (least := int(field.name not in self._may_be_zero)):
                raise ValueError(f"{name}: {field.name} must be at least {least}, got {value}")
            elif isinstance(value, float) and not 0 < value < float("inf"):
                raise ValueError(f"{name}: {field.name} must be positive and finite, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NICEConfig(_Model):
    """NICE (Dinh et al., 2014): additive couplings and a diagonal scaling, under a logistic or normal prior."""

    layers: int = 6
    hidden: Hidden = (128, 128)
    activation: str = "relu"
    prior: str = "logistic"

    def __post_init__(self) -> None:
        self._check()
        if self.prior not in ("logistic", "normal"):
            raise ValueError(f"NICEConfig: prior must be 'logistic' or 'normal', got {self.prior!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealNVPConfig(_Model):
    """Real NVP (Dinh et al., 2017): affine couplings."""

    layers: int = 8
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class GlowConfig(_Model):
    """Glow (Kingma & Dhariwal, 2018) for vectors: steps of actnorm, LU-factored linear map and affine coupling."""

    layers: int = 8
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class MADEConfig(_Model):
    """MADE with Gaussian conditionals (Germain et al., 2015)."""

    hidden: Hidden = (256, 256)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class MAFConfig(_Model):
    """Masked autoregressive flow (Papamakarios et al., 2017): fast densities, sequential samples."""

    layers: int = 5
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class IAFConfig(_Model):
    """Inverse autoregressive flow (Kingma et al., 2016): fast samples, sequential densities."""

    layers: int = 5
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class NSFCouplingConfig(_Model):
    """Neural spline flow with coupling layers (Durkan et al., 2019): both directions in one pass each."""

    layers: int = 6
    bins: int = 8
    bound: float = 5.0
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class NSFConfig(_Model):
    """Neural spline flow with autoregressive layers (Durkan et al., 2019): the most expressive discrete flow here."""

    layers: int = 2
    bins: int = 32
    bound: float = 5.0
    hidden: Hidden = (64, 64, 64)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanarConfig(_Model):
    """Planar flow (Rezende & Mohamed, 2015), with an inverse."""

    layers: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RadialConfig(_Model):
    """Radial flow (Rezende & Mohamed, 2015), with an inverse."""

    layers: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SylvesterConfig(_Model):
    """Sylvester flow (van den Berg et al., 2018), with an inverse; the rank is at most the number of features."""

    layers: int = 16
    rank: int = 8


ModelConfig = (
    NICEConfig
    | RealNVPConfig
    | GlowConfig
    | MADEConfig
    | MAFConfig
    | IAFConfig
    | NSFCouplingConfig
    | NSFConfig
    | PlanarConfig
    | RadialConfig
    | SylvesterConfig
)

MODELS: dict[str, type[ModelConfig]] = {
    "nice": NICEConfig,
    "realnvp": RealNVPConfig,
    "glow": GlowConfig,
    "made": MADEConfig,
    "maf": MAFConfig,
    "iaf": IAFConfig,
    "nsf-coupling": NSFCouplingConfig,
    "nsf": NSFConfig,
    "planar": PlanarConfig,
    "radial": RadialConfig,
    "sylvester": SylvesterConfig,
}
