"""Flow-based generative models: exact densities learned from data.

Names are imported when they are first used, so that ``import pushforward`` costs next to nothing.

Example:
    >>> import numpy as np, polars as pl
    >>> import pushforward
    >>> rng = np.random.default_rng(0)
    >>> frame = pl.DataFrame({"a": rng.normal(size=100), "b": rng.normal(size=100)})
    >>> fitted = pushforward.fit(frame, training=pushforward.TrainConfig(epochs=2, batch_size=64))
    >>> fitted.flow.sample((3,)).shape
    torch.Size([3, 2])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact import FittedFlow as FittedFlow
    from .artifact import load as load
    from .artifact import save as save
    from .configs import IMAGE_MODELS as IMAGE_MODELS
    from .configs import MODELS as MODELS
    from .configs import ColumnSchema as ColumnSchema
    from .configs import DataConfig as DataConfig
    from .configs import GlowConfig as GlowConfig
    from .configs import IAFConfig as IAFConfig
    from .configs import ImageGlowConfig as ImageGlowConfig
    from .configs import ImageRealNVPConfig as ImageRealNVPConfig
    from .configs import ImageSchema as ImageSchema
    from .configs import MADEConfig as MADEConfig
    from .configs import MAFConfig as MAFConfig
    from .configs import ModelConfig as ModelConfig
    from .configs import NICEConfig as NICEConfig
    from .configs import NSFConfig as NSFConfig
    from .configs import NSFCouplingConfig as NSFCouplingConfig
    from .configs import PixelNSFConfig as PixelNSFConfig
    from .configs import PlanarConfig as PlanarConfig
    from .configs import RadialConfig as RadialConfig
    from .configs import RealNVPConfig as RealNVPConfig
    from .configs import SylvesterConfig as SylvesterConfig
    from .configs import TableSchema as TableSchema
    from .configs import TrainConfig as TrainConfig
    from .configs import TrainingFacts as TrainingFacts
    from .data import read_images as read_images
    from .data import read_table as read_table
    from .estimators import FlowAnomalyDetector as FlowAnomalyDetector
    from .estimators import FlowConditional as FlowConditional
    from .estimators import FlowDensity as FlowDensity
    from .evaluate import Diagnosis as Diagnosis
    from .evaluate import Explanation as Explanation
    from .evaluate import alarm_threshold as alarm_threshold
    from .evaluate import anomaly_score as anomaly_score
    from .evaluate import conformal_p_values as conformal_p_values
    from .evaluate import diagnose as diagnose
    from .evaluate import explain as explain
    from .evaluate import score_ratio as score_ratio
    from .evaluate import typicality as typicality
    from .flows import Flow as Flow
    from .flows import bits_per_dim as bits_per_dim
    from .flows import build_flow as build_flow
    from .flows import image_flow as image_flow
    from .flows import score as score
    from .training import fit as fit
    from .training import fit_images as fit_images
    from .training import fit_streamed as fit_streamed

__version__ = "0.1.0"

_HOMES = {
    "artifact": ("FittedFlow", "load", "save"),
    "configs": (
        "IMAGE_MODELS",
        "MODELS",
        "ColumnSchema",
        "DataConfig",
        "GlowConfig",
        "IAFConfig",
        "ImageGlowConfig",
        "ImageRealNVPConfig",
        "ImageSchema",
        "MADEConfig",
        "MAFConfig",
        "ModelConfig",
        "NICEConfig",
        "NSFConfig",
        "NSFCouplingConfig",
        "PixelNSFConfig",
        "PlanarConfig",
        "RadialConfig",
        "RealNVPConfig",
        "SylvesterConfig",
        "TableSchema",
        "TrainConfig",
        "TrainingFacts",
    ),
    "data": ("read_images", "read_table"),
    "estimators": ("FlowAnomalyDetector", "FlowConditional", "FlowDensity"),
    "evaluate": (
        "Diagnosis",
        "Explanation",
        "alarm_threshold",
        "anomaly_score",
        "conformal_p_values",
        "diagnose",
        "explain",
        "score_ratio",
        "typicality",
    ),
    "flows": ("Flow", "bits_per_dim", "build_flow", "image_flow", "score"),
    "training": ("fit", "fit_images", "fit_streamed"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
