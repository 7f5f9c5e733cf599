"""Conditioners: networks that give the parameters of transforms."""

from .masked import MaskedLinear, MaskedMLP
from .mlp import ACTIVATIONS, MLP
from .patches import CausalPatchMLP, PatchMLP, PictureEmbedding, ResidualConvNet
from .periodic import CircularFeatures
from .source import ParameterSource

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "CausalPatchMLP",
    "CircularFeatures",
    "MaskedLinear",
    "MaskedMLP",
    "ParameterSource",
    "PatchMLP",
    "PictureEmbedding",
    "ResidualConvNet",
]
