"""Stochastic maps between discrete and continuous spaces."""

from .base import Surjection
from .dequantise import Dequantise, DequantisePixels

__all__ = ["Dequantise", "DequantisePixels", "Surjection"]
