"""Flows as estimators of scikit-learn: a density, an anomaly detector, and a regression that knows its uncertainty."""

from .anomaly import FlowAnomalyDetector
from .conditional import FlowConditional
from .density import FlowDensity

__all__ = ["FlowAnomalyDetector", "FlowConditional", "FlowDensity"]
