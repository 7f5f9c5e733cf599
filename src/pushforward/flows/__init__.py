"""Flows: a transform, a base, and one builder for each model of the literature."""

from .build import build_flow
from .compiling import compiles_well
from .flow import Estimate, Flow
from .glow import glow
from .maf import iaf, made, maf
from .nice import nice
from .preprocess import Preprocess
from .realnvp import realnvp
from .residual import planar, radial, sylvester
from .scoring import chunk_rows, score, score_each
from .spline import nsf, nsf_coupling
from .table import table_flow

__all__ = [
    "Estimate",
    "Flow",
    "Preprocess",
    "build_flow",
    "chunk_rows",
    "compiles_well",
    "glow",
    "iaf",
    "made",
    "maf",
    "nice",
    "nsf",
    "nsf_coupling",
    "planar",
    "radial",
    "realnvp",
    "score",
    "score_each",
    "sylvester",
    "table_flow",
]
