"""A fitted flow as one file that cannot lie about what it is."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .configs import MODELS, ModelConfig, TableSchema, TrainingFacts, model_name
from .data.writers import atomic_path
from .errors import ArtifactError, DataError
from .flows import Flow, table_flow

FORMAT = 1
_NO_DIGEST = "0" * 64


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
    from safetensors.torch import save as to_bytes

    metadata = {
        "format": FORMAT,
        "model": {"name": model_name(fitted.model), **asdict(fitted.model)},
        "schema": asdict(fitted.schema),
        "facts": asdict(fitted.facts),
        "sha256": _NO_DIGEST,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in fitted.flow.state_dict().items()}
    blob = to_bytes(tensors, metadata={"pushforward": json.dumps(metadata, allow_nan=True)})
    place = blob.index(_NO_DIGEST.encode())
    digest = hashlib.sha256(blob).hexdigest().encode()
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(blob[:place] + digest + blob[place + len(digest) :])


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
    if not path.is_file():
        raise DataError("there is no such file", source=path, remedy="Give the path of a saved flow.")
    blob = path.read_bytes()
    metadata = _verified_metadata(blob, path)
    from safetensors.torch import load as from_bytes

    try:
        fitted = _rebuild(metadata)
        fitted.flow.load_state_dict(from_bytes(blob))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{path}: the saved flow does not fit its own description: {error}") from error
    return fitted


def _verified_metadata(blob: bytes, path: Path) -> dict[str, Any]:
    """Return the metadata of a file that is whole and unchanged."""
    if len(blob) < 8:
        raise ArtifactError(f"{path}: not a saved flow, or cut short: it has {len(blob)} bytes")
    (length,) = struct.unpack("<Q", blob[:8])
    if length > len(blob) - 8:
        raise ArtifactError(
            f"{path}: not a saved flow, or cut short: its header should have {length} bytes, {len(blob) - 8} are there"
        )
    try:
        metadata: dict[str, Any] = json.loads(json.loads(blob[8 : 8 + length])["__metadata__"]["pushforward"])
        version, digest = metadata["format"], str(metadata["sha256"]).encode()
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a saved flow: its header cannot be read") from error
    if not isinstance(version, int) or version > FORMAT:
        raise ArtifactError(
            f"{path}: has format {version}, this version of pushforward reads up to {FORMAT}; install a later one"
        )
    place = blob.find(digest)
    zeroed = blob[:place] + _NO_DIGEST.encode() + blob[place + len(digest) :]
    if len(digest) != len(_NO_DIGEST) or hashlib.sha256(zeroed).hexdigest().encode() != digest:
        raise ArtifactError(
            f"{path}: the checksum does not match: the file was cut short or changed; fetch it again"
        )
    return metadata


def _rebuild(metadata: Mapping[str, Any]) -> FittedFlow:
    """Build the flow that the metadata describe, with weights still to be loaded."""
    from pydantic import TypeAdapter

    fields = dict(metadata["model"])
    model: ModelConfig = TypeAdapter(MODELS[fields.pop("name")]).validate_python(fields)
    schema = TypeAdapter(TableSchema).validate_python(metadata["schema"])
    facts = TypeAdapter(TrainingFacts).validate_python(metadata["facts"])
    with torch.random.fork_rng(devices=[]):
        return FittedFlow(table_flow(model, schema), model, schema, facts)
