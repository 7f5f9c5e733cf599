"""Continuous flows: trained by likelihood, or by flow matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Hidden, Model

ACTIVATIONS = ("tanh", "silu", "softplus")
DIVERGENCES = ("exact", "hutchinson", "hutch++")
FIELDS = ("perceptron", "concatsquash")
PATHS = ("linear", "variance-preserving", "trigonometric")
PAIRINGS = ("independent", "exact", "sinkhorn")
GRADIENTS = ("checkpointed", "backprop", "adjoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class FFJORDConfig(Model):
    """FFJORD (Grathwohl et al., 2019): a continuous flow trained by its likelihood.

    ``field`` is ``"perceptron"``, whose divergence is exact at little cost with at most two hidden layers, or
    ``"concatsquash"``, as in the paper. ``divergence`` is ``"exact"``, ``"hutchinson"`` or ``"hutch++"``. ``kinetic``,
    ``jacobian`` and ``acceleration`` weigh penalties (RNODE, Finlay et al., 2020) and ``augment`` counts extra elements
    (Dupont et al., 2019). ``atol`` and ``rtol`` are the tolerances of the solver, ``max_steps`` its limit.
    """

    _may_be_zero: ClassVar[tuple[str, ...]] = ("kinetic", "jacobian", "acceleration", "augment")
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "activation": ACTIVATIONS,
        "field": FIELDS,
        "divergence": DIVERGENCES,
        "gradient": GRADIENTS,
    }

    hidden: Hidden = (64, 64)
    activation: str = "tanh"
    field: str = "perceptron"
    augment: int = 0
    divergence: str = "exact"
    gradient: str = "checkpointed"
    kinetic: float = 0.0
    jacobian: float = 0.0
    acceleration: float = 0.0
    atol: float = 1e-5
    rtol: float = 1e-5
    max_steps: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RNODEConfig(FFJORDConfig):
    """RNODE (Finlay et al., 2020): FFJORD whose paths are short and straight, so that they take few steps."""

    kinetic: float = 0.01
    jacobian: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentedConfig(FFJORDConfig):
    """FFJORD with extra elements (Dupont et al., 2019; Huang et al., 2020), which paths can go round by."""

    augment: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMatchingConfig(Model):
    """Flow matching (Lipman et al., 2023): a continuous flow trained without solving it.

    ``path`` is ``"linear"``, ``"variance-preserving"`` or ``"trigonometric"``; ``pairing`` of noise and data in a batch
    is ``"independent"``, or by optimal transport ``"exact"`` or ``"sinkhorn"``; ``drop`` is the share of rows that are
    trained without their context, for guidance; ``late`` of more than 1 trains more at times near the data.
    """

    _may_be_zero: ClassVar[tuple[str, ...]] = ("drop",)
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "activation": ACTIVATIONS,
        "path": PATHS,
        "pairing": PAIRINGS,
    }

    hidden: Hidden = (128, 128)
    activation: str = "tanh"
    path: str = "linear"
    pairing: str = "independent"
    drop: float = 0.0
    late: float = 2.0
    atol: float = 1e-5
    rtol: float = 1e-5
    max_steps: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFlowMatchingConfig(Model):
    """Flow matching for images, with a small U-Net; the rest as ``FlowMatchingConfig``.

    ``width`` counts the channels at full size, ``levels`` how often the sides are halved, 0 both: by the size of the
    images; ``blocks`` is that of the network.
    """

    _may_be_zero: ClassVar[tuple[str, ...]] = ("drop", "width", "levels")
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {"path": PATHS, "pairing": PAIRINGS}

    width: int = 0
    levels: int = 0
    blocks: int = 1
    path: str = "linear"
    pairing: str = "independent"
    drop: float = 0.1
    late: float = 1.0
    atol: float = 1e-4
    rtol: float = 1e-4
    max_steps: int = 1000
