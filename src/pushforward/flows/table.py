"""The flow of a table: a model between the columns' own units and the latent space."""

from __future__ import annotations

from ..configs import MixedConfig, ModelConfig, TableSchema, model_name
from ..surjections import Dequantise
from .build import build_flow
from .flow import Flow
from .mixed import MixedFlow
from .preprocess import column_preprocess


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
        >>> from pushforward.configs import ColumnSchema, NSFConfig
        >>> schema = TableSchema(columns=(ColumnSchema(name="a"), ColumnSchema(name="n", step=1.0)))
        >>> table_flow(NSFConfig(layers=1, hidden=(8,)), schema).event_shape
        (2,)
    """
    if isinstance(model, MixedConfig):
        return MixedFlow(model, schema)
    columns, context = schema.columns, schema.context
    for column in (*columns, *context):
        if column.mixed:
            held = column.kind if column.labelled else "gaps" if column.missing else "point masses"
            raise ValueError(
                f"{model_name(model)} takes numbers alone, and column {column.name!r} has {held}; "
                "the model mixed takes it"
            )
    periodic = [i for i, c in enumerate(columns) if c.periodic]
    inner = build_flow(model, len(columns), len(context), periodic)
    steps = [c.step or 0.0 for c in columns]
    return Flow(
        inner.transform,
        inner.base,
        preprocess=column_preprocess(columns),
        context_preprocess=column_preprocess(context) if context else None,
        surjection=Dequantise(steps) if any(steps) else None,
        augment=inner.augment,
    )
