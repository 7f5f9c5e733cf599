"""Frozen dataclasses that describe models, training runs and tables; no torch."""

from .data import DataConfig
from .defaults import default_model, default_training
from .facts import TrainingFacts
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
    "DataConfig",
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
    "TrainingFacts",
    "default_model",
    "default_training",
    "model_name",
]
