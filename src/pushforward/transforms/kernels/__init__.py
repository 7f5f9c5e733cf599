"""Fused kernels in C, compiled on the user's machine where there is a compiler; everything works without them."""

from .spline import fused_spline

__all__ = ["fused_spline"]
