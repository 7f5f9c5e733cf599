"""Flows: a transform, a base, and one builder for each model of the literature."""

from .build import build_flow
from .compiling import compiles_well
from .continuous import ffjord, flow_matching
from .estimates import Estimate
from .flow import Flow
from .glow import glow
from .image import image_flow, multi_scale
from .maf import iaf, made, maf
from .mixed import Filled, MixedFlow
from .nice import nice
from .preprocess import Preprocess
from .realnvp import realnvp
from .residual import planar, radial, sylvester
from .scoring import SCORE_SAMPLES, bits_per_dim, chunk_rows, score, score_each
from .spline import nsf, nsf_coupling
from .table import table_flow
from .variants import with_solver, with_transform

__all__ = [
    "SCORE_SAMPLES",
    "Estimate",
    "Filled",
    "Flow",
    "MixedFlow",
    "Preprocess",
    "bits_per_dim",
    "build_flow",
    "chunk_rows",
    "compiles_well",
    "ffjord",
    "flow_matching",
    "glow",
    "iaf",
    "image_flow",
    "made",
    "maf",
    "multi_scale",
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
    "with_solver",
    "with_transform",
]
