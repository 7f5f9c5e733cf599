"""A fitted flow as one file that cannot lie about what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from . import sealed
from .configs import MODELS, ModelConfig, TableSchema, TrainingFacts, model_name
from .errors import ArtifactError
from .flows import Flow, table_flow

FORMAT = 1
_KIND = "pushforward"


@dataclass(frozen=True, slots=True)
class FittedFlow:
    """A flow with all that is needed to use it on a table.

    Attributes:
        flow: The density, in the units of the table.
        model: The configuration that it was built from.
        schema: The columns, in the order of the flow's elements.
        facts: How it was trained.
    """

    flow: Flow
    model: ModelConfig
    schema: TableSchema
    facts: TrainingFacts


def save(fitted: FittedFlow, path: str | Path) -> None:
    """Write a fitted flow as one safetensors file, replacing an existing one in one step or not at all.

    The metadata hold, as JSON under the key ``pushforward``: the format version, model, schema, training facts, and a
    SHA-256 over the whole file with the digest's own digits set to zero.

    Args:
        fitted: What to write.
        path: Where to.

    Raises:
        OutputError: A place that cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "model": {"name": model_name(fitted.model), **asdict(fitted.model)},
        "schema": asdict(fitted.schema),
        "facts": asdict(fitted.facts),
    }
    sealed.write(Path(path), fitted.flow.state_dict(), metadata, kind=_KIND)


def load(path: str | Path) -> FittedFlow:
    """Read a fitted flow; no code in the file is run.

    Args:
        path: A file written by ``save``.

    Returns:
        The fitted flow, on the CPU.

    Raises:
        DataError: No such file.
        ArtifactError: Not a saved flow, cut short, changed, or of a later format.
    """
    path = Path(path)
    file = sealed.read(path, kind=_KIND, latest=FORMAT)
    try:
        fitted = _rebuild(file.metadata)
        fitted.flow.load_state_dict(file.load())
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{path}: the saved flow does not fit its own description: {error}") from error
    return fitted


def _rebuild(metadata: Mapping[str, Any]) -> FittedFlow:
    """Build the flow that the metadata describe, with weights still to be loaded."""
    from pydantic import TypeAdapter

    fields = dict(metadata["model"])
    model: ModelConfig = TypeAdapter(MODELS[fields.pop("name")]).validate_python(fields)
    schema = TypeAdapter(TableSchema).validate_python(metadata["schema"])
    facts = TypeAdapter(TrainingFacts).validate_python(metadata["facts"])
    with torch.random.fork_rng(devices=[]):
        return FittedFlow(table_flow(model, schema), model, schema, facts)
