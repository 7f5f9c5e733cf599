"""The flow of a table: a model between the columns' own units and the latent space."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs import ColumnSchema, ModelConfig, TableSchema
from ..surjections import Dequantise
from ..transforms import Chain, CompressTails, Standardise, Support
from .build import build_flow
from .flow import Flow
from .preprocess import Preprocess


def table_flow(model: ModelConfig, schema: TableSchema) -> Flow:
    """Build the flow of a table, with fresh weights and a preprocess that still has to be fitted.

    Discrete columns are dequantised, bounded columns mapped onto the line and periodic ones onto the circle; heavy
    tails are drawn in and all but angles standardised. The columns conditioned on get the same maps.

    Args:
        model: The model between preprocessed columns and latent.
        schema: The columns.

    Returns:
        A flow whose points are rows of the modelled columns and whose contexts are rows of the others.

    Raises:
        ValueError: A model that cannot be had for such columns.

    Example:
        >>> from pushforward.configs import NSFConfig
        >>> schema = TableSchema(columns=(ColumnSchema(name="a"), ColumnSchema(name="n", step=1.0)))
        >>> table_flow(NSFConfig(layers=1, hidden=(8,)), schema).event_shape
        (2,)
    """
    columns, context = schema.columns, schema.context
    periodic = [i for i, c in enumerate(columns) if c.periodic]
    inner = build_flow(model, len(columns), len(context), periodic)
    steps = [c.step or 0.0 for c in columns]
    return Flow(
        inner.transform,
        inner.base,
        preprocess=_preprocess(columns),
        context_preprocess=_preprocess(context) if context else None,
        surjection=Dequantise(steps) if any(steps) else None,
        augment=inner.augment,
    )


def _preprocess(columns: Sequence[ColumnSchema]) -> Preprocess:
    angles = [i for i, c in enumerate(columns) if c.periodic]
    compress, standardise = CompressTails(len(columns), keep=angles), Standardise(len(columns), keep=angles)
    if not any(c.bounded for c in columns):
        return Preprocess(Chain([compress, standardise]))
    # A discrete value stands for the cell above it, so its support ends one step above the highest value.
    high = [None if c.high is None else c.high + (c.step or 0.0) for c in columns]
    support = Support([c.low for c in columns], high, [c.periodic for c in columns])
    return Preprocess(Chain([support, compress, standardise]))
