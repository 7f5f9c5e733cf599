"""Stochastic maps between discrete and continuous spaces."""

from .base import Surjection
from .dequantise import Dequantise

__all__ = ["Dequantise", "Surjection"]
