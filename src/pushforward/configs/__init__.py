"""Frozen dataclasses that describe models, training runs and tables; no torch."""

from .models import (
    MODELS,
    GlowConfig,
    IAFConfig,
    MADEConfig,
    MAFConfig,
    ModelConfig,
    NICEConfig,
    NSFConfig,
    NSFCouplingConfig,
    PlanarConfig,
    RadialConfig,
    RealNVPConfig,
    SylvesterConfig,
    model_name,
)
from .schema import ColumnSchema, TableSchema
from .training import TrainConfig

__all__ = [
    "MODELS",
    "ColumnSchema",
    "GlowConfig",
    "IAFConfig",
    "MADEConfig",
    "MAFConfig",
    "ModelConfig",
    "NICEConfig",
    "NSFConfig",
    "NSFCouplingConfig",
    "PlanarConfig",
    "RadialConfig",
    "RealNVPConfig",
    "SylvesterConfig",
    "TableSchema",
    "TrainConfig",
    "model_name",
]
