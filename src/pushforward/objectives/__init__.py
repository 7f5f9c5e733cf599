"""Objectives: functions of a flow, in preprocessed space."""

from .maximum_likelihood import negative_log_likelihood
from .objective import MAXIMUM_LIKELIHOOD, Objective, flow_matching, objective_of

__all__ = ["MAXIMUM_LIKELIHOOD", "Objective", "flow_matching", "negative_log_likelihood", "objective_of"]
