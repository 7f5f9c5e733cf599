"""Fuzz saved flows: ``python fuzz/model_file.py SECONDS``.

The first byte of an input says whether the others are a file as it stands; a file that is sealed anew, so that a
checksum that is right lets it past, to the description and the tensors; or only the description, put upon tensors.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import atheris
import torch

with atheris.instrument_imports(include=["pushforward", "json"]):
    from pushforward.artifact import FittedFlow, load, save
    from pushforward.configs import (
        ColumnSchema,
        MADEConfig,
        NSFConfig,
        PlanarConfig,
        TableSchema,
        TrainConfig,
        TrainingFacts,
    )

from harness import run

from pushforward.errors import ArtifactError
from pushforward.flows import table_flow

_ZEROS = b"0" * 64
_RAW, _SEALED, _DESCRIPTION = b"\0", b"\1", b"\2"


def seeds() -> dict[str, bytes]:
    """Saved flows of a few kinds, once as they stand and once with a blank digest."""
    columns = (
        ColumnSchema(name="a"),
        ColumnSchema(name="n", step=1.0),
        ColumnSchema(name="b", low=0.0, high=1.0),
    )
    schema = TableSchema(columns=columns, context=(ColumnSchema(name="c"),))
    facts = TrainingFacts(
        source="t",
        train_rows=2,
        valid_rows=2,
        test_rows=2,
        train_log_prob=0.0,
        valid_log_prob=0.0,
        test_log_prob=0.0,
        kind="estimate",
        train_curve=(1.0,),
        valid_curve=(1.0,),
        best_epoch=1,
        stopped="epochs",
        seconds=1.0,
        config=TrainConfig(),
        versions={},
    )
    found = {}
    for model in (MADEConfig(hidden=(4,)), NSFConfig(layers=1, bins=2, hidden=(4,)), PlanarConfig(layers=1)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.flow"
            save(FittedFlow(table_flow(model, schema), model, schema, facts), path)
            blob = path.read_bytes()
        place = blob.index(b'\\"sha256\\": \\"') + 14
        name = type(model).__name__
        blank = blob[:place] + _ZEROS + blob[place + 64 :]
        found[f"{name}-raw"] = _RAW + blob
        found[f"{name}-sealed"] = _SEALED + blank
        header, _ = _parts(blank)
        found[f"{name}-description"] = _DESCRIPTION + header["__metadata__"]["pushforward"].encode()
    return found


def _parts(blob: bytes) -> tuple[dict[str, Any], bytes]:
    length = 8 + int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:length]), blob[length:]


_HEADER, _TENSORS = _parts(seeds()["NSFConfig-sealed"][1:])


def _upon_tensors(text: bytes) -> bytes:
    header = {**_HEADER, "__metadata__": {"pushforward": text.decode(errors="replace")}}
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + _TENSORS


def check(data: bytes, folder: Path) -> None:
    """Load a file: a flow, or words."""
    mode, blob = data[:1], data[1:]
    if mode == _DESCRIPTION:
        blob = _upon_tensors(blob)
    if mode != _RAW:
        blob = blob.replace(_ZEROS, hashlib.sha256(blob).hexdigest().encode(), 1)
    path = folder / "a.flow"
    path.write_bytes(blob)
    try:
        fitted = load(path)
    except ArtifactError as error:
        if "a.flow" not in str(error):
            raise
        return
    sum(t.numel() for t in fitted.flow.state_dict().values())


if __name__ == "__main__":
    torch.set_num_threads(1)
    run("model_file", seeds(), check)
