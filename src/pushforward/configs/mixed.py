"""The model of tables with columns of several kinds."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Hidden, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedConfig(Model):
    """An autoregressive distribution of column factors: splines, cells, categories, atoms and gaps.

    Attributes:
        orders: Number of orders of the columns, each with a network of its own, whose densities are averaged: first as
            they stand, then reversed, then shuffled.
        bins: Bins of the splines.
        bound: Half the width of the interval that the splines bend, in standard deviations.
        hidden: Widths of the hidden layers.
        activation: Between the layers.
    """

    orders: int = 1
    bins: int = 16
    bound: float = 5.0
    hidden: Hidden = (128, 128)
    activation: str = "relu"
