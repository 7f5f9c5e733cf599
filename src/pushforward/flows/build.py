"""One way from a configuration to its flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..configs import (
    AugmentedConfig,
    FFJORDConfig,
    FlowMatchingConfig,
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
    RNODEConfig,
    SylvesterConfig,
)
from .continuous import ffjord, flow_matching
from .flow import Flow
from .glow import glow
from .maf import iaf, made, maf
from .nice import nice
from .realnvp import realnvp
from .residual import planar, radial, sylvester
from .spline import nsf, nsf_coupling

BUILDERS: dict[type[ModelConfig], Callable[[Any, int, int, Sequence[int]], Flow]] = {
    NICEConfig: nice,
    RealNVPConfig: realnvp,
    GlowConfig: glow,
    MADEConfig: made,
    MAFConfig: maf,
    IAFConfig: iaf,
    NSFCouplingConfig: nsf_coupling,
    NSFConfig: nsf,
    PlanarConfig: planar,
    RadialConfig: radial,
    SylvesterConfig: sylvester,
    FFJORDConfig: ffjord,
    RNODEConfig: ffjord,
    AugmentedConfig: ffjord,
    FlowMatchingConfig: flow_matching,
}


def build_flow(
    config: ModelConfig, features: int, context_features: int = 0, periodic: Sequence[int] = ()
) -> Flow:
    """Build the flow that a configuration describes, with fresh weights from torch's global generator.

    Args:
        config: One of the classes in ``pushforward.configs.MODELS``.
        features: Number of elements of a point.
        context_features: Width of the context; 0: none.
        periodic: Which elements are angles, each named once.

    Returns:
        A flow on vectors, without preprocessing.

    Raises:
        ValueError: A model that cannot be had for such data; the text says why.

    Example:
        >>> build_flow(NSFConfig(layers=2), features=2).event_shape
        (2,)
    """
    if features < 1:
        raise ValueError(f"features must be at least 1, got {features}")
    if len(set(periodic)) != len(periodic) or not set(periodic) <= set(range(features)):
        raise ValueError(
            f"periodic must name elements among 0..{features - 1}, each once, got {list(periodic)}"
        )
    return BUILDERS[type(config)](config, features, context_features, periodic)
