"""Settings chosen from the size of the data, for those who do not wish to tune."""

from __future__ import annotations

from .continuous import FFJORDConfig, FlowMatchingConfig, ImageFlowMatchingConfig
from .images import ImageGlowConfig, ImageModelConfig
from .mixed import MixedConfig
from .models import ModelConfig, NSFConfig
from .schema import TableSchema
from .training import TrainConfig

_MANY_COLUMNS, _FEW_ROWS_EACH = 12, 100


def default_model(rows: int, columns: int, *, mixed: bool = False, angles: bool = False) -> ModelConfig:
    """Return the model for a table: an autoregressive neural spline flow, narrower where rows are few.

    For columns of other kinds than numbers it is an autoregressive distribution of column factors.

    Args:
        rows: Training rows.
        columns: Columns of the table, those conditioned on among them; a masked layer with fewer units than these
            could not let every column see all before it.
        mixed: Whether some columns have labels, gaps or atoms.
        angles: Whether some columns are circles.

    Example:
        >>> default_model(50_000, 8).hidden
        (128, 128, 128)
    """
    width = 32 if rows < 1_000 else 64 if rows < 10_000 else 128
    width = max(width, columns)
    if mixed:
        return MixedConfig(hidden=(2 * width, 2 * width))
    return NSFConfig(bins=16, hidden=(width, width, width), whiten=not angles and _is_sparse(rows, columns))


def _is_sparse(rows: int, columns: int) -> bool:
    """Return whether rows are few for their columns: a flow then begins as a Gaussian and is smoothed."""
    return columns >= _MANY_COLUMNS and rows < _FEW_ROWS_EACH * columns


def default_table_model(rows: int, schema: TableSchema) -> ModelConfig:
    """Return the model for a table with these columns, see ``default_model``.

    Args:
        rows: Training rows.
        schema: The columns.

    Example:
        >>> from pushforward.configs import ColumnSchema
        >>> default_table_model(50_000, TableSchema(columns=(ColumnSchema(name="a", missing=True),))).hidden
        (256, 256)
    """
    columns = (*schema.columns, *schema.context)
    angles = any(column.periodic for column in schema.columns)
    return default_model(rows, len(columns), mixed=schema.mixed, angles=angles)


def default_training(rows: int, seed: int = 0, model: ModelConfig | None = None) -> TrainConfig:
    """Return the training settings for a number of rows: about 6,000 steps, and early stopping.

    Flow matching, whose steps are short and noisy, has 20,000 of them and averages the weights; FFJORD and its kin
    learn faster and have 3,000.

    Args:
        rows: Training rows.
        seed: Seed of the run.
        model: The model.

    Example:
        >>> default_training(100_000).batch_size
        512
    """
    batch = min(rows, 64) if rows < 1_000 else 256 if rows < 10_000 else 512
    steps, rate, ema = 6_000, 2e-3, 0.0
    if isinstance(model, FlowMatchingConfig):
        steps, rate, ema = 20_000, 5e-3, 0.999
    elif isinstance(model, FFJORDConfig):
        steps, rate, ema = 3_000, 5e-3, 0.99
    steps_each = max(1, rows // batch)
    epochs = min(500, max(20, steps // steps_each))
    return TrainConfig(
        epochs=epochs,
        batch_size=batch,
        learning_rate=rate,
        ema=ema,
        noise=0.1 if isinstance(model, NSFConfig) and model.whiten else 0.0,
        patience=max(10, epochs // 5),
        seed=seed,
    )


def default_image_model(images: int) -> ImageModelConfig:
    """Return the model for images: a Glow with spline couplings after a layer in reading order, narrower for few.

    Of those compared in docs/images.md it has the fewest bits after half an hour on a CPU.

    Args:
        images: Training images.

    Example:
        >>> default_image_model(50_000).coupling
        'spline'
    """
    width = 32 if images < 10_000 else 64
    return ImageGlowConfig(coupling="spline", steps=4, radius=4, hidden_channels=width)


def default_image_training(images: int, seed: int = 0, model: ImageModelConfig | None = None) -> TrainConfig:
    """Return the training settings for a number of images: half an hour at most, and early stopping.

    Args:
        images: Training images.
        seed: Seed of the run.
        model: The model.

    Example:
        >>> default_image_training(50_000).max_seconds
        1800.0
    """
    batch = min(images, 32) if images < 2_000 else 64
    steps, rate, ema = 30_000, 2e-3, 0.99
    if isinstance(model, ImageFlowMatchingConfig):
        batch, steps, rate, ema = min(images, 64), 4_000 if images < 2_000 else 10_000, 2e-3, 0.999
    epochs = min(200, max(10, steps // max(1, images // batch)))
    return TrainConfig(
        epochs=epochs,
        batch_size=batch,
        learning_rate=rate,
        patience=max(10, epochs // 5),
        ema=ema,
        max_seconds=1800.0,
        seed=seed,
    )
