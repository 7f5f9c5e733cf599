"""Invertible maps with exact log-determinants."""

from .actnorm import ActNorm
from .autoregressive import Autoregressive
from .base import Inverse, Transform
from .chain import Chain
from .columns import Standardise, Support
from .continuous import Continuous
from .coupling import Coupling
from .elementwise import Additive, Affine, Elementwise, ElementwiseMap, Scale, Sigmoid, Softplus, Tanh
from .linear import LULinear, Orthogonal, Permutation
from .pixels import Cellwise, Equalise, Rescale
from .planar import Planar
from .radial import Radial
from .spatial import Flatten, MultiScale, Squeeze
from .spline import RationalQuadraticSpline
from .sylvester import Sylvester
from .tails import CompressTails
from .windowed import PixelAutoregressive

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Cellwise",
    "Chain",
    "CompressTails",
    "Continuous",
    "Coupling",
    "Elementwise",
    "ElementwiseMap",
    "Equalise",
    "Flatten",
    "Inverse",
    "LULinear",
    "MultiScale",
    "Orthogonal",
    "Permutation",
    "PixelAutoregressive",
    "Planar",
    "Radial",
    "RationalQuadraticSpline",
    "Rescale",
    "Scale",
    "Sigmoid",
    "Softplus",
    "Squeeze",
    "Standardise",
    "Support",
    "Sylvester",
    "Tanh",
    "Transform",
]
