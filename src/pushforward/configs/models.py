"""One frozen dataclass for each model of the literature: scalars and tuples, nothing else.

Sizes that come with the data (features, width of the context, circular columns) are arguments of the builders.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import Hidden, Model
from .continuous import AugmentedConfig, FFJORDConfig, FlowMatchingConfig, RNODEConfig
from .mixed import MixedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NICEConfig(Model):
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
class RealNVPConfig(Model):
    """Real NVP (Dinh et al., 2017): affine couplings."""

    layers: int = 8
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class GlowConfig(Model):
    """Glow (Kingma & Dhariwal, 2018) for vectors: steps of actnorm, LU-factored linear map and affine coupling."""

    layers: int = 8
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class MADEConfig(Model):
    """MADE with Gaussian conditionals (Germain et al., 2015)."""

    hidden: Hidden = (256, 256)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class MAFConfig(Model):
    """Masked autoregressive flow (Papamakarios et al., 2017): fast densities, sequential samples."""

    layers: int = 5
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class IAFConfig(Model):
    """Inverse autoregressive flow (Kingma et al., 2016): fast samples, sequential densities."""

    layers: int = 5
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class NSFCouplingConfig(Model):
    """Neural spline flow with coupling layers (Durkan et al., 2019): both directions in one pass each."""

    layers: int = 6
    bins: int = 8
    bound: float = 5.0
    hidden: Hidden = (128, 128)
    activation: str = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class NSFConfig(Model):
    """Neural spline flow with autoregressive layers (Durkan et al., 2019): the most expressive discrete flow here.

    With ``whiten`` a linear map to uncorrelated elements comes first, so that it begins as a Gaussian: for few rows.
    """

    layers: int = 2
    bins: int = 32
    bound: float = 5.0
    hidden: Hidden = (64, 64, 64)
    activation: str = "relu"
    whiten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanarConfig(Model):
    """Planar flow (Rezende & Mohamed, 2015), with an inverse."""

    layers: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RadialConfig(Model):
    """Radial flow (Rezende & Mohamed, 2015), with an inverse."""

    layers: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SylvesterConfig(Model):
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
    | FFJORDConfig
    | RNODEConfig
    | AugmentedConfig
    | FlowMatchingConfig
    | MixedConfig
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
    "ffjord": FFJORDConfig,
    "rnode": RNODEConfig,
    "augmented-ffjord": AugmentedConfig,
    "flow-matching": FlowMatchingConfig,
}
"""Models of vectors."""

TABLE_MODELS: dict[str, type[ModelConfig]] = {**MODELS, "mixed": MixedConfig}
"""Models of tables: those of vectors, and the one that also takes columns of other kinds."""
