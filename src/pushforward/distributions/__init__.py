"""Distributions with an exact density and seeded samples: the bases of flows."""

from .base import Distribution
from .logistic import Logistic
from .mixture import GaussianMixture
from .normal import DiagonalNormal
from .product import Product
from .student import StudentT
from .uniform import Uniform
from .vonmises import VonMises

__all__ = [
    "DiagonalNormal",
    "Distribution",
    "GaussianMixture",
    "Logistic",
    "Product",
    "StudentT",
    "Uniform",
    "VonMises",
]
