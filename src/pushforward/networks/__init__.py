"""Conditioners: networks that give the parameters of transforms."""

from .masked import MaskedLinear, MaskedMLP
from .mlp import ACTIVATIONS, MLP
from .periodic import CircularFeatures
from .source import ParameterSource

__all__ = ["ACTIVATIONS", "MLP", "CircularFeatures", "MaskedLinear", "MaskedMLP", "ParameterSource"]
