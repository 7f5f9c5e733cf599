"""Objectives: functions of a flow, in preprocessed space."""

from .maximum_likelihood import negative_log_likelihood

__all__ = ["negative_log_likelihood"]
