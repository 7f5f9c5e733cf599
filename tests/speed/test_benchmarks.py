"""The benchmark harness, without the peers: our side of every task, the rounds, and what is made of the figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.speed.__main__ import as_json
from benchmarks.speed.chart import chart
from benchmarks.speed.figures import Figure, ratio
from benchmarks.speed.libraries import LIBRARIES, Cannot, build
from benchmarks.speed.processes import as_text, from_text
from benchmarks.speed.table import number, table
from benchmarks.speed.tasks import CALLS, GROUPS, TASKS, Task, deep, quick
from benchmarks.speed.timing import Effort, time_task
from benchmarks.speed.worker import Answers
from hypothesis import given
from hypothesis import strategies as st

SIZED = [task for task in (*TASKS.values(), deep(3)) if task.layers]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_call_of_every_task_runs_in_our_library(task: Task) -> None:
    small = quick(task)
    calls = build("ours", small).calls(small.batch)
    assert set(small.calls) <= set(calls) == set(CALLS)
    before = calls["log_prob"]()
    calls["train"]()
    after, drawn = calls["log_prob"](), calls["sample"]()
    assert isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor)
    assert before.shape == (small.batch,) and bool(after.isfinite().all())
    assert not torch.equal(before, after), "a step moves the density"
    assert isinstance(drawn, torch.Tensor) and drawn.shape == (small.batch, small.features)


@pytest.mark.parametrize("task", SIZED, ids=lambda task: task.name)
def test_our_flow_has_the_weights_that_the_task_says(task: Task) -> None:
    small = quick(task)
    dense = small.dense() * small.layers
    assert build("ours", small).parameters == sum(i * o + o for i, o in dense)
    assert build("floor", small).parameters == sum(i * o for i, o in dense)


@pytest.mark.parametrize("task", [t for t in SIZED if t.autoregressive], ids=lambda task: task.name)
def test_the_floor_of_an_inverse_has_its_calls(task: Task) -> None:
    small = quick(task)
    for name in ("floor", "floor_once"):
        model = build(name, small)
        for call, function in model.calls(small.batch).items():
            assert call in small.calls or call == "train"
            assert call not in model.cannot
            assert function() is not None


def test_what_the_floor_has_not_is_said() -> None:
    with pytest.raises(Cannot, match="autoregressive"):
        build("floor_once", TASKS["realnvp"])
    with pytest.raises(Cannot, match="sizes"):
        build("floor", TASKS["model-glow"])


def test_constant_memory_trains_the_same_flow() -> None:
    task = quick(deep(3))
    steps = [build(name, task).calls(8)["train"] for name in ("ours", "ours_constant")]
    for _ in range(3):
        torch.testing.assert_close(*[step() for step in steps])
    with pytest.raises(Cannot, match="depth"):
        build("ours_constant", TASKS["maf"])


def test_the_deep_flow_differs_in_depth_only() -> None:
    assert replace(deep(8), name="", layers=0) == replace(deep(128), name="", layers=0)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_task_survives_the_way_to_another_process(task: Task) -> None:
    assert from_text(as_text(task)) == task


def test_a_worker_builds_and_times() -> None:
    known = Answers("ours")
    built = known.build(json.loads(json.dumps(asdict(quick(TASKS["toy"])))))
    assert built["cannot"] == {} and not built["compiled"] and built["parameters"] > 0
    assert known.time("log_prob", 2)["seconds"] > 0
    assert set(known.versions()) == {"pushforward", "torch"}
    assert Answers("ours").build(asdict(quick(TASKS["model-glow"])))["compiled"]
    assert "autoregressive" in Answers("floor_once").build(asdict(TASKS["toy"]))["cannot_any"]


@given(st.integers(1, 30), st.floats(0.01, 20), st.floats(1e-6, 100))
def test_a_cell_keeps_to_its_budget(rounds: int, budget: float, seconds: float) -> None:
    found, times = Effort(rounds, budget).bursts(seconds)
    assert 1 <= found <= rounds
    assert found == 1 or found * times * seconds <= budget * (1 + 1e-9)


@dataclass
class Fake:
    """A worker whose every call takes what a list says, the last entry for ever."""

    library: str
    seconds: list[float]
    log: list[str]
    compiled: bool = False
    cannot: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        if do == "build":
            return {"parameters": 7, "note": "", "compiled": self.compiled, "cannot": self.cannot}
        self.log.append(self.library)
        self.asked += 1
        return {"seconds": self.seconds[min(self.asked, len(self.seconds)) - 1]}


def timed(effort: Effort, *workers: Fake) -> dict[str, Figure]:
    figures, _ = time_task(TASKS["iaf-density-64"], workers, effort, lambda text: None)  # type: ignore[arg-type]
    return {f.library: f for f in figures if f.call == "log_prob"}


def test_rounds_are_interleaved_and_what_is_cold_is_not_counted() -> None:
    log: list[str] = []
    workers = [Fake(name, [9.0, 8.0, 0.5], log, compiled=True) for name in ("zuko", "flowjax", "bijx")]
    workers.append(Fake("nflows", [], log, cannot=dict.fromkeys(CALLS, "no inverse")))
    figures = timed(Effort(4, 100.0), *workers)
    assert figures["zuko"].values == [500.0] * 4
    assert figures["nflows"].reason == "no inverse" and not figures["nflows"].values
    rounds = [log[6:18][start : start + 3] for start in range(0, 12, 3)]
    assert [sorted(names) for names in rounds] == [["bijx", "flowjax", "zuko"]] * 4
    assert [names[0] for names in rounds] == ["zuko", "flowjax", "bijx", "zuko"]


def test_a_slow_call_is_made_once_and_once_more_where_it_was_compiled() -> None:
    log: list[str] = []
    eager, compiled = Fake("zuko", [30.0, 31.0], log), Fake("flowjax", [25.0, 20.0], log, compiled=True)
    figures = timed(Effort(15, 6.0), eager, compiled)
    assert figures["zuko"].values == [30e3] and figures["flowjax"].values == [20e3]


FIGURES = [
    Figure("maf", "floor", "train", values=[5.0]),
    Figure("maf", "ours", "train", values=[8.0, 10.0, 9.0]),
    Figure("maf", "zuko", "train", values=[12.0, 10.0, 11.0], note="as ours"),
    Figure("maf", "nflows", "train", values=[44.0]),
    Figure("maf", "freia", "train", reason="couplings only"),
    Figure("toy", "bijx", "train", values=[1.0]),
]


def test_ratios_are_to_the_fastest_peer_of_the_same_cell() -> None:
    ratios = [ratio(f, FIGURES) for f in FIGURES]
    assert ratios == [5 / 11, 9 / 11, 1.0, 4.0, None, 1.0]


def test_the_table_has_every_library_and_says_cannot() -> None:
    lines = table([f for f in FIGURES if f.task == "maf"]).split("\n")
    assert lines[0] == "| library | train, ms | notes |"
    assert lines[2:] == [
        "| pushforward | 9.00 ± 0.50 (0.82) |  |",
        "| zuko | 11.0 ± 0.5 (1.00) | as ours |",
        "| nflows | 44.0 (4.00) |  |",
        "| FrEIA | cannot | couplings only |",
        "| matrix products | 5.00 (0.45) |  |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0123, "0.012"), (1.234, "1.23"), (45.67, "45.7"), (1234.5, "1,234")]
)
def test_numbers_show_the_digits_that_matter(value: float, shown: str) -> None:
    assert number(value) == shown


def test_the_record_is_json_with_a_figure_a_line() -> None:
    text = as_json({"environment": {"threads": 2}, "figures": [f.record(FIGURES) for f in FIGURES]})
    record = json.loads(text)
    assert record["environment"] == {"threads": 2}
    assert len(record["figures"]) == len(FIGURES)
    assert record["figures"][1] == {
        "task": "maf", "library": "ours", "call": "train", "unit": "ms", "median": 9.0,
        "quartiles": [8.5, 9.5], "least": 8.0, "rounds": 3, "to_fastest_peer": 0.8182,
    }  # fmt: skip
    assert record["figures"][4]["cannot"] == "couplings only"
    assert sum('"task"' in line for line in text.split("\n")) == len(FIGURES)


def test_the_chart_is_a_small_picture(tmp_path: Path) -> None:
    spread: Callable[[int], list[float]] = lambda place: [1.0 + place]  # noqa: E731
    figures = [
        Figure(task.name, name, call, values=spread(place))
        for task in GROUPS["steps"]
        for call in task.calls
        for place, name in enumerate(LIBRARIES)
    ]
    path = tmp_path / "images" / "speed.png"
    chart(figures, path, "a title")
    assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size < 150_000
