"""Checks of a flow: ``diagnose``. How it carries its base to the data, and how far two samples are apart."""

from .diagnostics import diagnose
from .trajectories import density_path, trajectories
from .two_samples import classifier_two_sample, sliced_wasserstein
from .verdict import Diagnosis

__all__ = [
    "Diagnosis",
    "classifier_two_sample",
    "density_path",
    "diagnose",
    "sliced_wasserstein",
    "trajectories",
]
