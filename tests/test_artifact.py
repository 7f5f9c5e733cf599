"""A saved flow is what it was, or it is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pushforward.artifact import FittedFlow, load, save
from pushforward.configs import MODELS, DataConfig, ModelConfig, NSFConfig, TrainConfig
from pushforward.errors import ArtifactError, DataError, OutputError
from pushforward.flows import score
from pushforward.training import fit


def frame(rows: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "a": rng.normal(size=rows) * 1e6,
            "b": rng.uniform(size=rows),
            "n": rng.poisson(3.0, size=rows),
            "c": rng.normal(size=rows),
        }
    )


def fitted_flow(model: ModelConfig | None = None, condition: tuple[str, ...] = ("c",)) -> FittedFlow:
    return fit(
        frame(),
        model=model or NSFConfig(layers=1, hidden=(4,), bins=4),
        training=TrainConfig(epochs=1, batch_size=16),
        data=DataConfig(condition=condition, bounds={"b": (0.0, 1.0)}),
    )


@pytest.fixture(scope="module")
def fitted() -> FittedFlow:
    return fitted_flow()


@pytest.fixture(scope="module")
def blob(fitted: FittedFlow, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("flow") / "a.flow"
    save(fitted, path)
    return path.read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_a_reloaded_flow_gives_equal_samples_and_densities(name: str, tmp_path: Path) -> None:
    config = MODELS[name]()
    small = {"layers": 2, "hidden": (8,), "rank": 2, "bins": 4}
    before = fitted_flow(replace(config, **{k: v for k, v in small.items() if hasattr(config, k)}))  # type: ignore[arg-type]
    save(before, tmp_path / "a.flow")
    after = load(tmp_path / "a.flow")
    assert (after.model, after.schema, after.facts) == (before.model, before.schema, before.facts)
    context = torch.tensor([[0.5], [-2.0]], dtype=torch.float64)
    samples = [
        f.flow.sample((5,), context, generator=torch.Generator().manual_seed(1)) for f in (before, after)
    ]
    assert torch.equal(*samples)
    values = [score(f.flow, samples[0][:, 0], context[:1]).value for f in (before, after)]
    assert torch.equal(*values)
    states = before.flow.state_dict(), after.flow.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(t, states[1][k]) and t.dtype == states[1][k].dtype for k, t in states[0].items())


def test_loading_leaves_the_global_generator_alone(blob: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.flow").write_bytes(blob)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    load(tmp_path / "a.flow")
    assert torch.equal(torch.rand(2), expected)


def test_equal_flows_give_equal_files(fitted: FittedFlow, blob: bytes, tmp_path: Path) -> None:
    save(fitted, tmp_path / "again.flow")
    assert (tmp_path / "again.flow").read_bytes() == blob


def test_any_changed_byte_is_refused(blob: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.flow"
    rng = np.random.default_rng(0)
    header = 8 + struct.unpack("<Q", blob[:8])[0]
    places = {*range(8), *rng.integers(8, header, 60), *rng.integers(header, len(blob), 60), len(blob) - 1}
    for place in places:
        changed = bytearray(blob)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"a\.flow"):
            load(path)


def test_any_missing_end_is_refused(blob: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.flow"
    for length in (0, 1, 7, 8, 9, 100, len(blob) // 2, len(blob) - 1):
        path.write_bytes(blob[:length])
        with pytest.raises(ArtifactError, match=r"cut short|checksum"):
            load(path)
    path.write_bytes(blob + b"\0")
    with pytest.raises(ArtifactError, match="checksum"):
        load(path)


def rewritten(blob: bytes, change: dict[str, Any]) -> bytes:
    """Return the file with other metadata and a checksum that is right."""
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["pushforward"])
    metadata.update(change, sha256="0" * 64)
    header["__metadata__"]["pushforward"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + blob[8 + length :]
    digest = hashlib.sha256(whole).hexdigest().encode()
    return whole.replace(b"0" * 64, digest, 1)


def test_the_checksum_can_be_made_right(blob: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.flow").write_bytes(rewritten(blob, {}))
    load(tmp_path / "a.flow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99.*reads up to 3.*later"),
        ({"model": {"name": "nsf", "laayers": 3}}, "laayers"),
        ({"model": {"name": "os.system"}}, "os.system"),
        ({"model": {"name": "nsf", "layers": 2, "hidden": [4], "bins": 4}}, "does not fit"),
        ({"model": {"name": "nsf", "layers": 1, "hidden": [5], "bins": 4}}, "does not fit"),
        ({"schema": {"columns": []}}, "does not fit"),
        ({"facts": {}}, "does not fit"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    blob: bytes, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.flow").write_bytes(rewritten(blob, change))
    with pytest.raises(ArtifactError, match=message):
        load(tmp_path / "a.flow")


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="not a saved flow"):
        load(tmp_path / "other.safetensors")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n" * 50)
    with pytest.raises(ArtifactError, match="not a saved flow"):
        load(tmp_path / "t.csv")
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none.flow")


def test_a_failed_save_leaves_the_old_file(
    fitted: FittedFlow, blob: bytes, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "a.flow"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OutputError, match="disk full"):
        save(fitted, path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.flow"]
