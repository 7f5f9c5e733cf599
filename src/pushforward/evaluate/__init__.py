"""Checks of a flow: ``diagnose``."""

from .diagnostics import diagnose
from .verdict import Diagnosis

__all__ = ["Diagnosis", "diagnose"]
