"""Words and numbers for the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..configs import IMAGE_MODELS, TABLE_MODELS, ColumnSchema, ImageModelConfig, ModelConfig

if TYPE_CHECKING:
    from rich.console import Console

    from ..flows import Flow

_WIDTH_OF_FILES = 120


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints names as they are: no markup, no guessing of colours."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_OF_FILES
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def clock(seconds: float) -> str:
    """Return a duration in at most two units.

    Example:
        >>> [clock(s) for s in (0.25, 7.4, 75, 3700)]
        ['0.2s', '7s', '1m 15s', '1h 01m']
    """
    if seconds < 5:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"


def finite(value: Any) -> Any:
    """Replace the floats that JSON does not have by their names.

    Example:
        >>> finite({"a": [1.0, float("nan")]})
        {'a': [1.0, 'nan']}
    """
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def size(count: int) -> str:
    """Return a number of bytes in a unit that keeps it short.

    Example:
        >>> size(1_234_567)
        '1.2 MB'
    """
    if count < 1000:
        return f"{count} bytes"
    for unit, power in (("kB", 3), ("MB", 6)):
        if count < 10 ** (power + 3):
            return f"{count / 10**power:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def counted(count: int, what: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "row"), counted(1200, "row")
        ('1 row', '1,200 rows')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def support(column: ColumnSchema) -> str:
    """Return where the values of a column lie.

    Example:
        >>> support(ColumnSchema(name="a", low=0.0)), support(ColumnSchema(name="n", step=1.0, high=9.0))
        ('(0, inf)', 'whole numbers up to 9')
        >>> support(ColumnSchema(name="c", kind="boolean", missing=True))
        '2 labels: false, true; gaps'
    """
    special = ["gaps"] if column.missing else []
    special += [f"{atom:g} by itself" for atom in column.atoms]
    return _numbers(column) + (f"; {listing(special, 6)}" if special else "")


def _numbers(column: ColumnSchema) -> str:
    if column.labelled:
        return f"{counted(len(column.labels), 'label')}: {listing(column.labels, 6)}"
    low, high = column.low, column.high
    if column.kind != "number" and not column.bounded:
        return column.kind + (f" ({column.timezone})" if column.timezone else "")
    if column.periodic:
        return f"circle [{low:g}, {high:g})"
    if column.step is None:
        lower = "(-inf" if low is None else f"({low:g}"
        upper = "inf)" if high is None else f"{high:g})"
        return f"{lower}, {upper}" if column.bounded else "real numbers"
    grid = "whole numbers" if column.step == 1 else f"multiples of {column.step:g}"
    lower = "" if low is None else f" from {low:g}"
    upper = "" if high is None else f" {'to' if lower else 'up to'} {high:g}"
    return f"{grid}{lower}{upper}"


def model_line(model: ModelConfig | ImageModelConfig, *, images: bool = False) -> str:
    """Return a model's name, which is another one where it is a model of images, and its fields.

    Example:
        >>> from pushforward.configs import PlanarConfig
        >>> model_line(PlanarConfig())
        'planar (layers 32)'
    """
    known: Mapping[str, type] = IMAGE_MODELS if images else TABLE_MODELS
    name = next(name for name, kind in known.items() if kind is type(model))
    return f"{name} ({', '.join(f'{field} {value}' for field, value in model_fields(model))})"


def model_fields(
    model: ModelConfig | ImageModelConfig | type[ModelConfig | ImageModelConfig],
) -> list[tuple[str, str]]:
    """Return the fields of a model's configuration, or of a class their defaults, as text."""
    config = model() if isinstance(model, type) else model
    texts = []
    for field in fields(config):
        value = getattr(config, field.name)
        texts.append((field.name, "x".join(map(str, value)) if isinstance(value, tuple) else str(value)))
    return texts


def why_estimate(flow: Flow) -> str:
    """Return why the log-density of a flow is an estimate, in words."""
    reasons = (
        (flow.surjection is not None, "dequantised columns"),
        (flow.augment is not None, "added elements"),
        (not flow.transform.exact, "estimated log-determinants"),
    )
    return " and ".join(words for holds, words in reasons if holds)


def listing(names: Sequence[str], most: int = 12) -> str:
    """Return names with commas between, the first few of many.

    Example:
        >>> listing(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
