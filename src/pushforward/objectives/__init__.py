"""Objectives: functions of a flow, in preprocessed space."""

from .flow_matching import flow_matching_loss, reflow_pairs
from .maximum_likelihood import negative_log_likelihood
from .objective import (
    MAXIMUM_LIKELIHOOD,
    Objective,
    flow_matching_objective,
    objective_of,
    reflow_objective,
)
from .pairing import PAIRINGS, pair
from .paths import PATHS, Path
from .smoothed import smoothed_likelihood_objective

__all__ = [
    "MAXIMUM_LIKELIHOOD",
    "PAIRINGS",
    "PATHS",
    "Objective",
    "Path",
    "flow_matching_loss",
    "flow_matching_objective",
    "negative_log_likelihood",
    "objective_of",
    "pair",
    "reflow_objective",
    "reflow_pairs",
    "smoothed_likelihood_objective",
]
