"""Invertible maps with exact log-determinants."""

from .actnorm import ActNorm
from .autoregressive import Autoregressive
from .base import Inverse, Transform
from .chain import Chain
from .columns import Standardise, Support
from .coupling import Coupling
from .elementwise import Additive, Affine, Elementwise, ElementwiseMap, Scale, Sigmoid, Softplus, Tanh
from .linear import LULinear, Orthogonal, Permutation
from .planar import Planar
from .radial import Radial
from .spline import RationalQuadraticSpline
from .sylvester import Sylvester
from .tails import CompressTails

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Chain",
    "CompressTails",
    "Coupling",
    "Elementwise",
    "ElementwiseMap",
    "Inverse",
    "LULinear",
    "Orthogonal",
    "Permutation",
    "Planar",
    "Radial",
    "RationalQuadraticSpline",
    "Scale",
    "Sigmoid",
    "Softplus",
    "Standardise",
    "Support",
    "Sylvester",
    "Tanh",
    "Transform",
]
