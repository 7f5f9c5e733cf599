"""How few steps a trained field can be followed in: sample quality against evaluations of the field.

Protocol: for each 2-D density and seed one field is trained by flow matching for each pairing of noise and data, all
with the same sizes, steps and seed; ``reflow`` goes on from the independent one for as many steps again, on the pairs
of noise and of where that one carries it. All samples begin at the same base points. They are compared with a true
sample of the same size by sliced Wasserstein distance and by the accuracy of a classifier; the floor is what two true
samples show. Prints Markdown tables.

    python -m benchmarks.flow_matching_curve --figure docs/images/flow-matching-steps.png
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple, cast

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from torch import Tensor

from pushforward.configs import FlowMatchingConfig, TrainConfig
from pushforward.data.densities import density
from pushforward.evaluate.two_samples import classifier_two_sample, sliced_wasserstein
from pushforward.flows import Flow, build_flow, score
from pushforward.networks import VectorField
from pushforward.objectives import Objective, objective_of
from pushforward.objectives.flow_matching import flow_matching_loss, reflow_pairs
from pushforward.ode import METHODS, Adaptive, Fixed
from pushforward.report.figures import LIGHT, cells, dress, new_figure, write_figure
from pushforward.training import Points, train
from pushforward.transforms import Continuous

RESULTS = Path(__file__).parent / "results" / "flow-matching-curve.json"
SETS = ("checkerboard", "eight_gaussians")
PAIRINGS = ("independent", "exact", "reflow")
LABELS = {
    "independent": "independent pairs",
    "exact": "optimal transport",
    "reflow": "independent, then reflow",
}
SOLVERS = ("euler", "midpoint", "heun", "rk4")
EVALUATIONS = (1, 2, 4, 8, 16, 32, 64)
ADAPTIVE = "dopri5"
FLOOR = "two true samples"
SHORT = {"distance": "sliced Wasserstein", "accuracy": "classifier accuracy"}
CRITERIA = {"distance": "sliced Wasserstein distance", "accuracy": "classifier accuracy"}


class Key(NamedTuple):
    """What was measured: one row of a table, of one seed."""

    set: str
    pairing: str
    solver: str
    evaluations: int


@dataclass(frozen=True)
class Measured:
    """How far a sample is from a true one, and after how many evaluations of the field."""

    evaluations: float
    distance: float
    accuracy: float


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(name: str, count: int, seed: int) -> Tensor:
    return density(name).sample(count, generator=seeded(seed))


def fit(
    flow: Flow, points: tuple[Points, Points], given: argparse.Namespace, seed: int, how: Objective
) -> float:
    """Train a flow and return in what CPU time."""
    began = time.process_time()
    epochs = max(1, round(given.steps * given.batch / len(points[0])))
    settings = TrainConfig(
        epochs=epochs, patience=epochs, batch_size=given.batch, learning_rate=given.rate, ema=0.99, seed=seed
    )
    train(flow, *points, settings, objective=how, accelerator="cpu")
    return time.process_time() - began


def on_pairs(
    flow: Flow, z: Tensor, start: Tensor | None, weights: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """Return the loss of pairs whose base points stand where the context does."""
    assert start is not None
    field = cast(Continuous, flow.transform).field
    return flow_matching_loss(field, z, start, weights=weights, pairing="given", generator=generator)


def again(flow: Flow, given: argparse.Namespace, seed: int) -> tuple[Flow, float]:
    """Return the flow after reflow, and in what time."""
    began = time.process_time()
    start = torch.randn(given.rows + given.valid, 2, generator=seeded(7_000 + seed))
    x0, x1 = reflow_pairs(flow.transform.decode, start)
    x0, x1 = x0[x1.isfinite().all(1)], x1[x1.isfinite().all(1)]
    straight = copy.deepcopy(flow)
    cut = len(x1) - given.valid
    objective = Objective(on_pairs, on_pairs, in_nats=False, noisy=True)
    fit(straight, (Points(x1[:cut], x0[:cut]), Points(x1[cut:], x0[cut:])), given, seed, objective)
    return straight, time.process_time() - began


def flows(name: str, given: argparse.Namespace, seed: int) -> dict[str, tuple[Flow, float]]:
    """Return the flow of each pairing, and in what time it was trained."""
    points = Points(rows(name, given.rows, 10 * seed + 1)), Points(rows(name, given.valid, 10 * seed + 2))
    trained = {}
    for pairing in ("independent", "exact"):
        model = FlowMatchingConfig(pairing=pairing)
        torch.manual_seed(seed)
        flow = build_flow(model, 2)
        trained[pairing] = flow, fit(flow, points, given, seed, objective_of(model))
    straight, seconds = again(trained["independent"][0], given, seed)
    return trained | {"reflow": (straight, trained["independent"][1] + seconds)}


def solvers() -> list[tuple[str, int, Fixed | Adaptive]]:
    """Return name, evaluations and control of each way to follow a field; 0 evaluations where they adapt."""
    fixed: list[tuple[str, int, Fixed | Adaptive]] = []
    for name in SOLVERS:
        each = len(METHODS[name].b)
        fixed += [(name, n, Fixed(n // each)) for n in EVALUATIONS if n % each == 0]
    return [*fixed, (ADAPTIVE, 0, Adaptive())]


@torch.no_grad()
def draw(field: VectorField, method: str, control: Fixed | Adaptive, start: Tensor) -> tuple[Tensor, float]:
    """Return where a field carries base points, and the mean number of evaluations."""
    flow = Continuous(field, method=method, control=control)
    if isinstance(control, Fixed):
        return flow.decode(start), control.steps * len(flow.method.b)
    solution = flow.solve(start, inverse=True)  # tolerances are then about the log-determinant too
    return solution.y, float(solution.stats.evaluations.double().mean())


def compare(x: Tensor, true: Tensor, evaluations: float, seed: int) -> Measured:
    finite = x[x.isfinite().all(1)]
    distance = sliced_wasserstein(finite, true, generator=seeded(5))
    return Measured(evaluations, distance, classifier_two_sample(finite, true, seed=seed)[0])


def measure(
    name: str, given: argparse.Namespace, seed: int
) -> tuple[dict[Key, Measured], list[dict[str, Any]]]:
    """Return what all samples of a density and seed show, and the likelihoods."""
    true, other = (rows(name, given.samples, 10 * seed + k) for k in (3, 4))
    test, entropy = rows(name, given.samples, 10 * seed + 5), density(name).entropy
    found = {Key(name, FLOOR, "", 0): compare(other, true, 0, seed)}
    likelihoods = []
    start = torch.randn(given.samples, 2, generator=seeded(10 * seed + 6))
    for pairing, (flow, seconds) in flows(name, given, seed).items():
        field = cast(Continuous, flow.transform).field
        for solver, evaluations, control in solvers():
            sample, count = draw(field, solver, control, start)
            found[Key(name, pairing, solver, evaluations)] = compare(sample, true, count, seed)
        nll = -score(flow, test).value.double()
        gap, error = float(nll.mean()) - entropy, float(nll.std() / len(nll) ** 0.5)
        own = {"set": name, "pairing": pairing, "seed": seed, "gap": gap, "error": error}
        likelihoods.append(own | {"cpu_seconds": seconds})
        print(f"# {name}, {pairing}, seed {seed}: gap {gap:.3f}, {seconds:.0f} CPU seconds", flush=True)
    return found, likelihoods


def spread(values: list[float], digits: int = 3) -> str:
    """Return a mean, with the standard deviation over seeds where there are some; nothing of nothing."""
    if not values:
        return ""
    text = f"{mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {stdev(values):.{digits}f}"


def tables(records: list[dict[str, Any]], likelihoods: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""

    def cell(name: str, pairing: str, solver: str, n: int, what: str) -> str:
        values = [
            r[what]
            for r in records
            if (r["set"], r["pairing"], r["solver"], r["budget"]) == (name, pairing, solver, n)
        ]
        return spread(values)

    lines = []
    names = list(dict.fromkeys(r["set"] for r in records))
    for what, title in CRITERIA.items():
        for name in names:
            lines += [
                "",
                f"{name}: {title} (floor {cell(name, FLOOR, '', 0, what)})",
                "",
                f"| pairing | solver | {' | '.join(map(str, EVALUATIONS))} | {ADAPTIVE} |",
                "|---|---|" + "---|" * (len(EVALUATIONS) + 1),
            ]
            for pairing in PAIRINGS:
                for solver in SOLVERS:
                    values = [cell(name, pairing, solver, n, what) for n in EVALUATIONS]
                    last = cell(name, pairing, ADAPTIVE, 0, what) if solver == SOLVERS[0] else ""
                    lines.append(f"| {LABELS[pairing]} | {solver} | {' | '.join(values)} | {last} |")
    lines += [
        "",
        f"| density | pairing | NLL - entropy, nats | {ADAPTIVE} evaluations | training, CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        for pairing in PAIRINGS:
            own = [r for r in likelihoods if (r["set"], r["pairing"]) == (name, pairing)]
            gap, seconds = (
                spread([r["gap"] for r in own]),
                spread([r["cpu_seconds"] for r in own if "cpu_seconds" in r], 0),
            )
            evaluations = cell(name, pairing, ADAPTIVE, 0, "evaluations")
            lines.append(f"| {name} | {LABELS[pairing]} | {gap} | {evaluations} | {seconds} |")
    return "\n".join(lines)


COLOURS = {"euler": "#0b6fb8", "midpoint": "#3a8f3a", "heun": "#d9730d", "rk4": "#7a4fb5"}


def picture(records: list[dict[str, Any]]) -> Figure:
    """Return the curves: a row for each density and criterion, a column for each pairing."""
    names = list(dict.fromkeys(r["set"] for r in records))
    panels = [(what, name) for name in names for what in CRITERIA]
    height = 2.05
    figure = new_figure(9.6, 1.15 + height * len(panels))
    box = (0.75, 0.6, 8.7, height * len(panels) - 0.15)
    grid = cells(figure, box, len(panels), len(PAIRINGS), gap=0.34)
    for i, (what, name) in enumerate(panels):
        own = [r for r in records if r["set"] == name]
        axes = [figure.add_subplot(grid[i, j]) for j in range(len(PAIRINGS))]
        for ax, pairing in zip(axes, PAIRINGS, strict=True):
            for solver, colour in COLOURS.items():
                curve = [r for r in own if (r["pairing"], r["solver"]) == (pairing, solver)]
                budgets = sorted({r["budget"] for r in curve})
                values = [mean(r[what] for r in curve if r["budget"] == n) for n in budgets]
                ax.plot(budgets, values, color=colour, marker="o", markersize=3, linewidth=1.4, label=solver)
            adapted = [r for r in own if (r["pairing"], r["solver"]) == (pairing, ADAPTIVE)]
            ax.plot(
                [mean(r["evaluations"] for r in adapted)],
                [mean(r[what] for r in adapted)],
                "*", color=LIGHT.ink, markersize=9, linestyle="none", label=f"{ADAPTIVE}, adaptive",
            )  # fmt: skip
            floor = mean(r[what] for r in own if r["pairing"] == FLOOR)
            ax.axhline(floor, color=LIGHT.faint, linewidth=1, linestyle="--", label=FLOOR)
            dress(ax, LIGHT)
            ax.set_xscale("log", base=2)
            ax.set_xticks((*EVALUATIONS, 128), [str(n) for n in (*EVALUATIONS, 128)])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_xlim(0.85, 190)
            if what == "distance":
                ax.set_yscale("log")
                ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                ax.yaxis.set_minor_locator(NullLocator())
            ax.grid(visible=True, axis="y", color=LIGHT.faint, alpha=0.15)
            if i == 0:
                ax.set_title(LABELS[pairing], color=LIGHT.ink, fontsize=10, loc="left")
            if i == len(panels) - 1:
                ax.set_xlabel("evaluations of the field", color=LIGHT.ink, fontsize=9)
        lowest, highest = (pick(ax.get_ylim()[k] for ax in axes) for k, pick in ((0, min), (1, max)))
        for j, ax in enumerate(axes):
            ax.set_ylim(lowest, highest)
            if j:
                ax.tick_params(labelleft=False, which="both")
        shown = name.replace("_", " ")
        axes[0].set_ylabel(
            f"{shown}\n{CRITERIA[what].replace(' distance', '')}", color=LIGHT.ink, fontsize=8.5
        )
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper center",
        ncols=len(handles),
        frameon=False,
        fontsize=8.5,
        labelcolor=LIGHT.ink,
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training, the same for all")
    parser.add_argument("--batch", type=int, default=256, help="rows of a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--rows", type=int, default=51_200, help="training rows")
    parser.add_argument("--valid", type=int, default=2048, help="validation rows")
    parser.add_argument("--samples", type=int, default=4000, help="rows of each sample that is compared")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--draw", action="store_true", help="train nothing: show what --output has")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if not given.draw:
        records: list[dict[str, Any]] = []
        likelihoods: list[dict[str, Any]] = []
        for seed, name in product(range(given.seeds), given.sets.split(",")):
            found, more = measure(name, given, seed)
            likelihoods += more
            records += [
                {"seed": seed, "set": key.set, "pairing": key.pairing, "solver": key.solver,
                 "budget": key.evaluations, "evaluations": m.evaluations, "distance": m.distance,
                 "accuracy": m.accuracy}
                for key, m in found.items()
            ]  # fmt: skip
            settings = {k: v for k, v in vars(given).items() if not isinstance(v, Path | bool)}
            settings |= {"torch": torch.__version__, "machine": platform.machine(), "seeds": seed + 1}
            whole = {"settings": settings, "samples": records, "likelihoods": likelihoods}
            given.output.write_text(json.dumps(whole, indent=1) + "\n")  # after each, for they take long
    result = json.loads(given.output.read_text())
    print(result["settings"])
    print(tables(result["samples"], result["likelihoods"]))
    if given.figure:
        write_figure(given.figure, lambda: picture(result["samples"]))


if __name__ == "__main__":
    main()
