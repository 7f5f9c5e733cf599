"""A batch that does not fit is cut, with the gradient of the whole."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cases import small_config
from pushforward.configs import MAFConfig, NSFConfig, TrainConfig
from pushforward.errors import TrainingError
from pushforward.flows import build_flow
from pushforward.training import Points, TrainResult, TrainStep, memory, train
from pushforward.training.memory import bytes_per_row, is_out_of_memory, pieces_that_fit

CONFIG = TrainConfig(epochs=2, batch_size=64, learning_rate=1e-2, seed=3)


def fitted(most_rows: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> tuple[TrainResult, int]:
    """Train where batches of more rows than these are refused; return the largest that was not."""
    plain, largest = TrainStep.forward, [0]

    def forward(
        self: TrainStep, z: Tensor, context: Tensor | None, weights: Tensor | None, seed: int = 0
    ) -> Tensor:
        if len(z) > most_rows:
            raise error
        largest[0] = max(largest[0], len(z))
        return plain(self, z, context, weights, seed)

    torch.manual_seed(0)
    flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "forward", forward)
        result = train(
            flow.double(), Points(x, weights=weights), Points(x[:50]), CONFIG, on_note=lambda _: None
        )
    return result, largest[0]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
    ],
)
def test_a_batch_that_is_refused_is_cut_and_gives_the_same_result(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = fitted(64, monkeypatch, error)
    cut, largest = fitted(20, monkeypatch, error)
    assert largest == 16
    assert whole.notes == [] and len(cut.notes) == 2
    assert "A batch of 64 rows does not fit into memory: it is computed in 4 pieces" in cut.notes[-1]
    assert "A batch size of 16 or a smaller model would fit at once" in cut.notes[-1]
    assert cut.valid_curve == pytest.approx(whole.valid_curve, abs=1e-9)


def test_one_row_too_many_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"not even one row.*smaller model"):
        fitted(0, monkeypatch, MemoryError())


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        fitted(20, monkeypatch, RuntimeError("shapes differ"))


def test_what_a_row_needs_grows_with_the_model_and_not_with_its_weights() -> None:
    def needed(layers: int, width: int) -> float:
        flow = build_flow(MAFConfig(layers=layers, hidden=(width, width)), 4)
        return bytes_per_row(TrainStep(flow), torch.randn(64, 4), None, None)

    # Two hidden layers of a network keep at least their activations, and not much more than a few times these.
    for width in (64, 512):
        assert 2 * width * 4 <= needed(1, width) <= 8 * width * 4
    assert needed(6, 64) == pytest.approx(3 * needed(2, 64), rel=0.1)


@pytest.mark.parametrize("name", ["realnvp", "glow", "nsf-coupling", "maf", "nsf"])
def test_what_a_row_needs_is_not_less_than_what_it_takes_in_a_large_batch(name: str) -> None:
    flow = build_flow(small_config(name), 8)

    def kept(rows: int) -> int:
        storages: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = flow.log_prob(torch.randn(rows, 8)).mean()
        assert loss.requires_grad
        return sum(storages.values())

    needed = bytes_per_row(TrainStep(flow), torch.randn(64, 8), None, None)
    taken = (kept(1024) - kept(512)) / 512
    # Small batches may go other ways, which need more; not much more, or batches would be cut for nothing.
    assert 0.95 * taken <= needed <= 4 * taken


def test_batches_are_cut_beforehand_where_they_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = build_flow(NSFConfig(layers=1, bins=4, hidden=(8,)), 2)
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    needed = 64 * bytes_per_row(TrainStep(flow), x, None, None)
    for share, pieces in ((100.0, 1), (1.0, 2), (0.5, 4)):
        monkeypatch.setattr(
            "pushforward.training.pieces.available_bytes", lambda _, share=share: share * needed
        )
        notes: list[str] = []
        train(flow, Points(x), Points(x[:20]), replace(CONFIG, epochs=1), on_note=notes.append)
        assert [f"{pieces} pieces" in note for note in notes] == ([] if pieces == 1 else [True])
    assert pieces_that_fit(1.0, None) == 1


def test_a_search_for_the_origin_that_does_not_fit_costs_the_explanation_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("pushforward.training.blame.find_nonfinite", refuse)
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    x[7] = 1e30
    notes: list[str] = []
    flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
    train(flow, Points(x), Points(x[50:]), replace(CONFIG, epochs=8), on_note=notes.append)
    assert notes and all("could not be looked for, for lack of memory" in note for note in notes)


def test_a_measured_lack_of_memory_cuts_and_never_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushforward.training.pieces.available_bytes", lambda _: 0.0)
    x, notes = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)), []
    flow = build_flow(MAFConfig(layers=2, hidden=(8,)), 2)
    train(flow, Points(x), Points(x[:20]), replace(CONFIG, epochs=1), on_note=notes.append)
    assert len(notes) == 1 and "64 pieces" in notes[0]


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_containers_are_seen_and_files_that_were_read_do_not_count(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        1: (
            "3:memory:/a/b",
            "memory/a",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
        2: ("0::/a/b", "a", "memory.max", "memory.current", "inactive_file"),
    }
    line, place, most, used, cached = names[version]
    group = tmp_path / "sys" / place
    (group / "b").mkdir(parents=True)
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/x\n{line}\n")
    (group / most).write_text("1000\n")
    (group / used).write_text("900\n")
    (group / "memory.stat").write_text(f"anon 300\n{cached} 600\n")
    plain = Path

    def moved(path: str) -> Path:
        return plain(
            str(path).replace("/proc/self", str(tmp_path)).replace("/sys/fs/cgroup", str(tmp_path / "sys"))
        )

    monkeypatch.setattr(memory, "Path", moved)
    assert memory._cgroup() == 700.0


_LIMITED = """
import resource, sys, torch
torch.set_num_threads(1)
from pushforward.configs import MAFConfig, TrainConfig
from pushforward.flows import build_flow
from pushforward.training import Points, train
import lightning_fabric
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 400_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
flow = build_flow(MAFConfig(layers=4, hidden=(256, 256)), 2)
x = torch.randn(40_000, 2)
config = TrainConfig(epochs=1, batch_size=40_000)
result = train(flow, Points(x), Points(x[:100]), config, on_note=print)
print(result.stopped, len(result.notes) > 0)
"""


def test_a_process_with_little_memory_finishes_a_fit_of_a_large_batch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "does not fit into memory" in done.stdout and done.stdout.endswith("epochs True\n")
