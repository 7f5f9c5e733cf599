"""A saved flow whose checksum is right and whose description is not: refused in words, and never believed first."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pushforward import sealed
from pushforward.artifact import FORMAT, FittedFlow, load, save
from pushforward.configs import (
    MODELS,
    ColumnSchema,
    ModelConfig,
    NSFConfig,
    TableSchema,
    TrainConfig,
    TrainingFacts,
)
from pushforward.errors import ArtifactError
from pushforward.flows import table_flow

KIND = "pushforward"
FACTS = TrainingFacts(
    source="made by hand",
    train_rows=2,
    valid_rows=2,
    test_rows=2,
    train_log_prob=0.0,
    valid_log_prob=0.0,
    test_log_prob=0.0,
    kind="exact",
    train_curve=(1.0,),
    valid_curve=(1.0,),
    best_epoch=1,
    stopped="epochs",
    seconds=1.0,
    config=TrainConfig(),
    versions={},
)
SMALL = {"layers": 2, "hidden": (4,), "rank": 2, "bins": 4}


def small(name: str) -> ModelConfig:
    config: Any = MODELS[name]()
    return replace(config, **{k: v for k, v in SMALL.items() if hasattr(config, k)})  # type: ignore[no-any-return]


def saved(config: ModelConfig, path: Path, columns: int = 3) -> Path:
    schema = TableSchema(
        columns=tuple(ColumnSchema(name=f"x{i}", low=0.0) for i in range(columns)),
        context=(ColumnSchema(name="c"),),
    )
    save(FittedFlow(table_flow(config, schema), config, schema, FACTS), path)
    return path


Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


def changed(path: Path, change: Change, to: Path) -> Path:
    """Write the file anew, sealed as it should be, with other metadata or tensors."""
    file = sealed.read(path, kind=KIND, latest=FORMAT)
    metadata, tensors = copy.deepcopy(file.metadata), file.load()
    change(metadata, tensors)
    sealed.write(to, tensors, metadata, kind=KIND)
    return to


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(NSFConfig(layers=2, hidden=(4,), bins=4), tmp_path_factory.mktemp("lies") / "a.flow")


def put(*keys: Any, value: Any) -> Change:
    def change(metadata: dict[str, Any], _: dict[str, Tensor]) -> None:
        inner: Any = metadata
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def drop(*keys: Any) -> Change:
    def change(metadata: dict[str, Any], _: dict[str, Tensor]) -> None:
        inner: Any = metadata
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("modell", value=1), "unknown field 'modell'"),
        (put("model", "laayers", value=1), r"model\.laayers: Unexpected"),
        (put("schema", "colour", value=1), r"schema\.colour: Unexpected"),
        (put("schema", "columns", 1, "colour", value=1), r"schema\.columns\.1\.colour: Unexpected"),
        (put("facts", "colour", value=1), r"facts\.colour: Unexpected"),
        (put("facts", "config", "colour", value=1), r"facts\.config\.colour: Unexpected"),
        (drop("model"), "'model'"),
        (drop("model", "name"), "'name'"),
        (drop("schema", "columns", 0, "name"), r"schema\.columns\.0\.name: Field required"),
        (drop("facts", "seconds"), r"facts\.seconds: Field required"),
        (put("model", value="nsf"), "does not fit"),
        (put("model", value=None), "does not fit"),
        (put("model", "name", value=["nsf"]), "does not fit"),
        (put("model", "name", value="__import__('os')"), "there is no model"),
        (put("model", "activation", value="__import__"), "activation must be one of"),
        (put("model", "layers", value="many"), r"model\.layers"),
        (put("model", "layers", value=-1), "layers must be at least 1"),
        (put("model", "layers", value=1.5), r"model\.layers"),
        (put("model", "hidden", value=[]), "hidden must hold"),
        (put("model", "bound", value=float("nan")), "bound must be positive"),
        (put("schema", "columns", value=[]), "at least one column"),
        (put("schema", "columns", 0, "name", value="x1"), "twice: x1"),
        (put("schema", "columns", 0, "low", value=float("nan")), "low must be finite"),
        (put("schema", "columns", 0, "periodic", value=True), "needs low and high"),
        (put("schema", "columns", 0, "step", value=1.0), "surjection"),
        (put("schema", "context", value=[]), "tensor 'context_preprocess"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    path: Path, tmp_path: Path, change: Change, words: str
) -> None:
    changed(path, change, tmp_path / "b.flow")
    with pytest.raises(ArtifactError, match=rf"(?s)b\.flow: .*{words}"):
        load(tmp_path / "b.flow")


WEIGHT = "transform.transforms.0.network.last.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _, t: t.update({WEIGHT: t[WEIGHT].T}), "expected shape .* got shape"),
        (lambda _, t: t.update({WEIGHT: t[WEIGHT][:-1]}), "expected shape .* got shape"),
        (lambda _, t: t.update({WEIGHT: t[WEIGHT].double()}), ".*float32, got .*float64"),
        (lambda _, t: t.update({WEIGHT: t[WEIGHT].int()}), ".*float32, got .*int32"),
        (lambda _, t: t.pop(WEIGHT), "expected shape .* got none"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(path: Path, tmp_path: Path, change: Change, words: str) -> None:
    changed(path, change, tmp_path / "b.flow")
    with pytest.raises(ArtifactError, match=rf"b\.flow: .*tensor '{WEIGHT}': {words}"):
        load(tmp_path / "b.flow")


def test_a_tensor_too_many_is_named(path: Path, tmp_path: Path) -> None:
    changed(path, lambda _, tensors: tensors.update(more=torch.zeros(2)), tmp_path / "b.flow")
    with pytest.raises(ArtifactError, match="tensor 'more': expected none, got shape"):
        load(tmp_path / "b.flow")


def test_weights_that_are_no_numbers_are_loaded_as_they_are(path: Path, tmp_path: Path) -> None:
    """A file is loaded for what it is; whether the flow in it is sound is another question."""
    changed(path, lambda _, tensors: tensors[WEIGHT].fill_(float("nan")), tmp_path / "b.flow")
    flow = load(tmp_path / "b.flow").flow
    assert flow.state_dict()[WEIGHT].isnan().all()


def test_fields_with_a_default_may_be_absent(path: Path, tmp_path: Path) -> None:
    """Files of an earlier version do not have the fields that came later."""

    def change(metadata: dict[str, Any], _: dict[str, Tensor]) -> None:
        for name in ("low", "high", "step", "periodic"):
            for column in metadata["schema"]["context"]:
                del column[name]

    changed(path, change, tmp_path / "b.flow")
    assert load(tmp_path / "b.flow").schema == load(path).schema


LIMITED = """
import json, resource, sys, time
from pathlib import Path
from pushforward.artifact import load
from pushforward.errors import ArtifactError
paths = [Path(line) for line in sys.stdin.read().splitlines()]
load(paths[0])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 300_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
outcomes = {}
for path in paths[1:]:
    start = time.monotonic()
    try:
        load(path)
        outcomes[path.name] = ["loaded"]
    except ArtifactError as error:
        outcomes[path.name] = [str(error)]
    outcomes[path.name].append(time.monotonic() - start)
print(json.dumps(outcomes))
"""


def test_a_description_of_a_giant_costs_neither_memory_nor_time(tmp_path: Path) -> None:
    """Every size of every model and the number of columns, beyond what the file holds, within 300 MB and seconds."""
    made = [saved(small("nsf"), tmp_path / "honest.flow")]
    decoy = {"decoy": torch.zeros(3_000_000, dtype=torch.bool)}
    columns = [{"name": f"x{i}"} for i in range(100_000)]
    for name in MODELS:
        plain = saved(small(name), tmp_path / f"{name}.flow")
        wide = [("wide", put("schema", "columns", value=columns), decoy)]
        changes = wide if name in ("nsf", "planar") else []
        for field in fields(MODELS[name]):
            if field.name not in SMALL:
                continue
            values: list[Any] = [10**5, 10**9, 10**30]
            if field.name == "hidden":
                values = [[10**9], [10**30], [10**5, 10**5], [10**6, 10**6], [4] * 10**5]
            changes += [
                (f"{field.name}-{i}", put("model", field.name, value=v), {}) for i, v in enumerate(values)
            ]
            changes.append((f"{field.name}-decoy", put("model", field.name, value=values[-2]), decoy))
        for label, change, more in changes:

            def both(metadata: Any, tensors: Any, change: Change = change, more: Any = more) -> None:
                change(metadata, tensors)
                tensors.update(more)

            made.append(changed(plain, both, tmp_path / f"{name}-{label}.flow"))
    result = subprocess.run(
        [sys.executable, "-c", LIMITED],
        input="\n".join(map(str, made)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outcomes: dict[str, tuple[str, float]] = json.loads(result.stdout)
    assert len(outcomes) == len(made) - 1
    assert not [name for name, (text, _) in outcomes.items() if text == "loaded"]
    assert not [(name, *rest) for name, rest in outcomes.items() if rest[1] > 10]


AUDITED = """
import os
import sys
from pushforward.artifact import load
load(sys.argv[1])
events = []
watching = True
def watch(event, args):
    if watching:
        events.append((event, args))
sys.addaudithook(watch)
for path in sys.argv[2:]:
    try:
        load(path)
    except ValueError:
        pass
watching = False
for event, args in events:
    if event == "open" and args[0] in sys.argv and args[1] == "r" and not args[2] & (os.O_WRONLY | os.O_RDWR):
        continue
    if event != "mmap.__new__":
        print(event, args)
"""


def test_loading_runs_no_code_of_the_file(path: Path, tmp_path: Path) -> None:
    """Nothing is imported, compiled, run or written while files are read that ask for it wherever they can."""
    code = "__import__('os').system('touch pwned')"
    made = [
        changed(path, put(*keys, value=code), tmp_path / f"{i}.flow")
        for i, keys in enumerate(
            [
                ("facts", "source"),
                ("facts", "stopped"),
                ("model", "name"),
                ("model", "activation"),
                ("model", "layers"),
                ("schema", "columns", 0, "name"),
                ("schema", "columns", 0, "low"),
            ]
        )
    ]
    made.append(changed(path, lambda _, t: t.update({code: torch.zeros(1)}), tmp_path / "t.flow"))
    torch.save({"a": torch.zeros(2)}, tmp_path / "torch.flow")
    (tmp_path / "pickle.flow").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR." * 20)
    made += [tmp_path / "torch.flow", tmp_path / "pickle.flow"]
    command = [sys.executable, "-c", AUDITED, str(path), *map(str, made)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("", "")
    assert not (tmp_path / "pwned").exists()
