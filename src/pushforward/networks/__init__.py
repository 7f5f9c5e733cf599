"""Conditioners: networks that give the parameters of transforms."""

from .fields import ConcatSquashField, Guided, PerceptronField, VectorField
from .growing import Growing
from .masked import MaskedLinear, MaskedMLP, MaskedPerceptron
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
    "Growing",
    "Guided",
    "MaskedLinear",
    "MaskedMLP",
    "MaskedPerceptron",
    "ParameterSource",
    "PatchMLP",
    "PerceptronField",
    "PictureEmbedding",
    "ResidualConvNet",
    "UNetField",
    "VectorField",
]
