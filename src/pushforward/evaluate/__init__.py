"""Uses and checks of a flow: anomaly scores with the reasons for them, ``diagnose``, how far two samples are apart."""

from .anomaly import alarm_threshold, anomaly_score, conformal_p_values, score_ratio, typicality
from .anomaly_reasons import Explanation, explain
from .diagnostics import diagnose
from .trajectories import density_path, trajectories
from .two_samples import classifier_two_sample, sliced_wasserstein
from .verdict import Diagnosis

__all__ = [
    "Diagnosis",
    "Explanation",
    "alarm_threshold",
    "anomaly_score",
    "classifier_two_sample",
    "conformal_p_values",
    "density_path",
    "diagnose",
    "explain",
    "score_ratio",
    "sliced_wasserstein",
    "trajectories",
    "typicality",
]
