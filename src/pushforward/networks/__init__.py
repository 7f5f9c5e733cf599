"""Conditioners: networks that give the parameters of transforms."""

from .fields import ConcatSquashField, Guided, PerceptronField, VectorField
from .masked import MaskedLinear, MaskedMLP
from .mlp import ACTIVATIONS, MLP
from .patches import CausalPatchMLP, PatchMLP, PictureEmbedding, ResidualConvNet
from .periodic import CircularFeatures
from .source import ParameterSource
from .unet import Enlarge, UNetField

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "CausalPatchMLP",
    "CircularFeatures",
    "ConcatSquashField",
    "Enlarge",
    "Guided",
    "MaskedLinear",
    "MaskedMLP",
    "ParameterSource",
    "PatchMLP",
    "PerceptronField",
    "PictureEmbedding",
    "ResidualConvNet",
    "UNetField",
    "VectorField",
]
