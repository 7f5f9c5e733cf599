"""Frozen dataclasses that describe models, training runs and tables; no torch."""

from .continuous import (
    AugmentedConfig,
    FFJORDConfig,
    FlowMatchingConfig,
    ImageFlowMatchingConfig,
    RNODEConfig,
)
from .data import DataConfig
from .defaults import (
    default_image_model,
    default_image_training,
    default_model,
    default_table_model,
    default_training,
)
from .facts import TrainingFacts
from .images import (
    IMAGE_MODELS,
    SMALL,
    ImageGlowConfig,
    ImageModelConfig,
    ImageRealNVPConfig,
    ImageSchema,
    PixelNSFConfig,
    model_name,
)
from .mixed import MixedConfig
from .models import (
    MODELS,
    TABLE_MODELS,
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
)
from .schema import KINDS, ColumnSchema, TableSchema
from .training import TrainConfig

__all__ = [
    "IMAGE_MODELS",
    "KINDS",
    "MODELS",
    "SMALL",
    "TABLE_MODELS",
    "AugmentedConfig",
    "ColumnSchema",
    "DataConfig",
    "FFJORDConfig",
    "FlowMatchingConfig",
    "GlowConfig",
    "IAFConfig",
    "ImageFlowMatchingConfig",
    "ImageGlowConfig",
    "ImageModelConfig",
    "ImageRealNVPConfig",
    "ImageSchema",
    "MADEConfig",
    "MAFConfig",
    "MixedConfig",
    "ModelConfig",
    "NICEConfig",
    "NSFConfig",
    "NSFCouplingConfig",
    "PixelNSFConfig",
    "PlanarConfig",
    "RNODEConfig",
    "RadialConfig",
    "RealNVPConfig",
    "SylvesterConfig",
    "TableSchema",
    "TrainConfig",
    "TrainingFacts",
    "default_image_model",
    "default_image_training",
    "default_model",
    "default_table_model",
    "default_training",
    "model_name",
]
