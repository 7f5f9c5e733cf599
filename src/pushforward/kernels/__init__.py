"""Fused kernels in C, compiled on the user's machine where there is a compiler; everything works without them."""

from .affine import affine_kernel, fused_affine
from .chain import Map
from .spline import fused_spline, spline_kernel

__all__ = ["Map", "affine_kernel", "fused_affine", "fused_spline", "spline_kernel"]
