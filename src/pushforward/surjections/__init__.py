"""Stochastic maps that are a function in one direction only."""

from .augment import Augment
from .base import Surjection
from .dequantise import Dequantise, DequantisePixels

__all__ = ["Augment", "Dequantise", "DequantisePixels", "Surjection"]
