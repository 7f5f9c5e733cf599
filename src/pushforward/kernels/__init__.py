"""Fused kernels in C, compiled on the user's machine where there is a compiler; everything works without them."""

from .affine import fused_affine
from .spline import fused_spline

__all__ = ["fused_affine", "fused_spline"]
