"""What a flow of an ODE cannot do, and what one extra dimension changes.

Trajectories of an ODE do not cross. (a) In one dimension its map is therefore increasing: fitted to ``x -> -x`` on
[-1, 1] it can do no better than the constant 0. (b) In two dimensions what lies inside a ring stays inside: a disc and
the ring around it are separated by a linear classifier only as far as the field tears the ring open. (c) A density is
carried to a normal one, which has neither gaps nor holes. All with no and with one extra element, which is 0 at first
in (a) and (b), and noise in (c). Prints Markdown tables.

    python -m benchmarks.topology --figure docs/images/topology.png

Dupont, Doucet & Teh, Augmented Neural ODEs, 2019. https://arxiv.org/abs/1904.01681
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from torch import Tensor, nn
from torch.nn import functional as F

from pushforward.configs import AugmentedConfig, FFJORDConfig, TrainConfig
from pushforward.data.densities import density
from pushforward.flows import build_flow, score
from pushforward.networks import PerceptronField, VectorField
from pushforward.objectives import objective_of
from pushforward.ode import Adaptive
from pushforward.report.figures import LIGHT, cells, dress, new_figure, write_figure
from pushforward.training import Points, train
from pushforward.transforms import Continuous

RESULTS = Path(__file__).parent / "results" / "topology.json"
SETS = ("rings", "eight_gaussians")
EXTRAS = (0, 1)
INNER, RING = 0.5, (1.0, 1.5)
EACH = 20  # steps between two looks at the test points
COLOURS = {0: LIGHT.mark, 1: LIGHT.real}
LABELS = {0: "plain", 1: "one extra dimension"}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flow_of(features: int, extra: int, seed: int) -> Continuous:
    torch.manual_seed(seed)
    field = PerceptronField(features + extra, hidden=(32, 32))
    return Continuous(field, control=Adaptive(1e-3, 1e-3))


def lifted(x: Tensor, extra: int) -> Tensor:
    """Return points with extra elements of 0."""
    return torch.cat([x, x.new_zeros(len(x), extra)], 1)


def optimiser(
    modules: nn.Module, steps: int
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LRScheduler]:
    adam = torch.optim.Adam(modules.parameters(), lr=1e-2)
    return adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)


def precise(flow: Continuous, tolerance: float) -> Continuous:
    """Return the flow solved so exactly that its trajectories do not cross by the errors of a solver."""
    return Continuous(copy.deepcopy(flow.field).double(), control=Adaptive(tolerance, tolerance))


@torch.no_grad()
def evaluations(flow: Continuous, start: Tensor) -> float:
    """Return the mean number of evaluations of the field from latent to data."""
    return float(flow.solve(start, inverse=True).stats.evaluations.double().mean())


@torch.no_grad()
def paths(field: VectorField, start: Tensor, steps: int = 40) -> list[Any]:
    """Return where points are, at the start and after every second step, ``(steps / 2 + 1, n, d)``."""
    at, h = [start], 1.0 / steps
    for i in range(steps):
        x, t = at[-1], torch.full((len(start),), i * h)
        k1 = field(t, x)
        k2 = field(t + h / 2, x + h / 2 * k1)
        k3 = field(t + h / 2, x + h / 2 * k2)
        k4 = field(t + h, x + h * k3)
        at.append(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return [[[round(v, 3) for v in row] for row in moment] for moment in torch.stack(at[::2]).tolist()]


# --- (a) ------------------------------------------------------------------------------------------------------------


def inside_out(extra: int, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Fit the time-1 map to ``x -> -x``, by the gradient through the solve."""
    count = 64
    x = ((torch.arange(count) + 0.5) / count * 2 - 1)[:, None]
    flow = flow_of(1, extra, seed)
    adam, schedule = optimiser(flow, given.steps)
    for _ in range(given.steps):
        loss = F.mse_loss(flow.decode(lifted(x, extra))[:, :1], -x)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    true = x.double()
    with torch.no_grad():
        end = precise(flow, 1e-9).decode(lifted(true, extra))[:, :1]
    return {
        "extra": extra,
        "seed": seed,
        "error": float(F.mse_loss(end, -true)),
        # The best increasing map pools values that fall, all of them here, to their mean.
        "best_increasing": float(true.square().mean()),
        "increasing": bool((end.diff(dim=0) > 0).all()),
        "evaluations": evaluations(flow, lifted(x, extra)),
        "x": x[:, 0].tolist(),
        "end": end[:, 0].tolist(),
        "paths": [] if seed else paths(flow.field, lifted(torch.linspace(-1, 1, 13)[:, None], extra)),
    }


# --- (b) ------------------------------------------------------------------------------------------------------------


def nested(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw points of the disc, label 0, and of the ring, label 1, uniformly."""
    u, angle = torch.rand(2, count, generator=seeded(seed))
    labels = (torch.arange(count) % 2).float()
    low, high = (
        torch.where(labels == 1, torch.tensor(a), torch.tensor(b))
        for a, b in ((RING[0], 0.0), (RING[1], INNER))
    )
    radius = (low**2 + u * (high**2 - low**2)).sqrt()
    return torch.stack(
        [radius * (2 * math.pi * angle).cos(), radius * (2 * math.pi * angle).sin()], 1
    ), labels


def circles(extra: int, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Separate disc and ring by a flow and a linear classifier of where it leads."""
    flow = flow_of(2, extra, seed)
    line = nn.Linear(2 + extra, 1)
    adam, schedule = optimiser(nn.ModuleList([flow, line]), given.steps)
    test, truth = nested(2000, 10_000 + seed)
    curve = []

    @torch.no_grad()
    def look(step: int) -> None:
        said = line(flow.decode(lifted(test, extra)))[:, 0]
        loss = float(F.binary_cross_entropy_with_logits(said, truth))
        right = float(((said > 0) == (truth > 0.5)).double().mean())
        curve.append([step, loss, right, evaluations(flow, lifted(test, extra))])

    began = time.process_time()
    for step in range(given.steps):
        if step % EACH == 0:
            look(step)
        x, labels = nested(given.batch, 100_000 * (seed + 1) + step)
        loss = F.binary_cross_entropy_with_logits(line(flow.decode(lifted(x, extra)))[:, 0], labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    seconds = time.process_time() - began
    look(given.steps)
    many, whose = nested(20_000, 20_000 + seed)
    with torch.no_grad():
        said = line.double()(precise(flow, 1e-6).decode(lifted(many.double(), extra)))[:, 0]
    wrong = int(((said > 0) != (whose > 0.5)).sum())
    shown, shown_labels = nested(300, 5)
    return {
        "extra": extra,
        "seed": seed,
        "curve": curve,
        "wrong": wrong,
        "seconds": seconds,
        "labels": shown_labels.tolist(),
        "paths": [] if seed else paths(flow.field, lifted(shown, extra)),
    }


# --- (c) ------------------------------------------------------------------------------------------------------------


def likelihood(name: str, extra: int, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Fit a density and return its likelihood: with extra elements a bound from one draw, an estimate from many."""
    model: FFJORDConfig = FFJORDConfig(atol=1e-4, rtol=1e-4)
    if extra:
        model = AugmentedConfig(augment=extra, atol=1e-4, rtol=1e-4)
    x, valid, test = (
        density(name).sample(n, generator=seeded(10 * seed + k))
        for k, n in ((1, 25_600), (2, 512), (3, 2000))
    )
    torch.manual_seed(seed)
    flow = build_flow(model, 2)
    epochs = max(1, round(given.density_steps * given.batch / len(x)))
    settings = TrainConfig(
        epochs=epochs, patience=epochs, batch_size=given.batch, learning_rate=1e-2, ema=0.98, seed=seed
    )
    began, cpu = time.perf_counter(), time.process_time()
    train(flow, Points(x), Points(valid), settings, objective=objective_of(model), accelerator="cpu")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    many, one = (score(flow, test, num_samples=k) for k in (given.draws if extra else 1, 1))
    latent = flow.base.sample((1000,), generator=seeded(4))
    with torch.no_grad():
        stats = flow.transform.solve(latent, inverse=True).stats
    entropy = density(name).entropy
    return {
        "set": name,
        "extra": extra,
        "seed": seed,
        "gap": float(-many.value.double().mean()) - entropy,
        "error": float(many.value.double().std() / len(test) ** 0.5),
        "bound_gap": float(-one.value.double().mean()) - entropy,
        "kind": many.kind,
        "draws": given.draws if extra else 1,
        "evaluations": float(stats.evaluations.double().mean()),
        "parameters": sum(p.numel() for p in flow.parameters()),
        "steps": epochs * math.ceil(len(x) / given.batch),
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


# --- what is shown --------------------------------------------------------------------------------------------------


def tables(result: dict[str, Any]) -> str:
    """Return the results as Markdown, one row for each seed."""
    lines = [
        "",
        "(a) x -> -x on [-1, 1]: mean square error",
        "",
        "| extra | seed | error | best increasing map | learned map increases | evaluations |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['extra']} | {r['seed']} | {r['error']:.6f} | {r['best_increasing']:.6f} "
        f"| {'yes' if r['increasing'] else 'no'} | {r['evaluations']:.1f} |"
        for r in result["inside_out"]
    ]
    lines += [
        "",
        "(b) disc and ring: 2000 test points, and how many of 20,000 a precise solve puts on the wrong side",
        "",
        "| extra | seed | cross-entropy | wrong of 20,000 | evaluations | most on the way | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in result["circles"]:
        _, loss, _, count = r["curve"][-1]
        most = max(moment[3] for moment in r["curve"][1:])
        lines.append(
            f"| {r['extra']} | {r['seed']} | {loss:.5f} | {r['wrong']} | {count:.1f} "
            f"| {most:.1f} | {r['seconds']:.0f} |"
        )
    lines += [
        "",
        "(c) densities: NLL - entropy in nats of 2000 test rows, by an estimate from draws, and the bound from one",
        "",
        "| density | extra | seed | gap | standard error | kind | draws | bound | evaluations to sample | parameters "
        "| steps | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['set']} | {r['extra']} | {r['seed']} | {r['gap']:.3f} | {r['error']:.3f} | {r['kind']} | {r['draws']} "
        f"| {r['bound_gap']:.3f} | {r['evaluations']:.1f} | {r['parameters']} | {r['steps']} | {r['cpu_seconds']:.0f} |"
        for r in result["densities"]
    ]
    return "\n".join(lines)


def of(records: list[dict[str, Any]], extra: int) -> dict[str, Any]:
    """Return what is drawn: the first seed."""
    return next(r for r in records if r["extra"] == extra)


def draw_segment(axes: list[Axes], records: list[dict[str, Any]]) -> None:
    """Draw x against t, without and with the extra element, where that goes, and the maps."""
    for ax, extra in zip(axes, EXTRAS, strict=False):
        moved = torch.tensor(of(records, extra)["paths"])  # (times, n, d)
        t = torch.linspace(0, 1, len(moved))
        for i in range(moved.shape[1]):
            ax.plot(t, moved[:, i, 0], color=LIGHT.mark if moved[0, i, 0] < 0 else LIGHT.real, linewidth=1.1)
        dress(ax, LIGHT, title=f"x → −x: {LABELS[extra]}", x="t", y="x(t)")
        ax.set_ylim(-1.25, 1.25)
    moved = torch.tensor(of(records, 1)["paths"])
    for i in range(moved.shape[1]):
        colour = LIGHT.mark if moved[0, i, 0] < 0 else LIGHT.real
        axes[2].plot(moved[:, i, 0], moved[:, i, 1], color=colour, linewidth=1.1)
        axes[2].plot(*moved[-1, i], "o", color=colour, markersize=3.5)
        axes[2].plot(*moved[0, i], "o", color=colour, markersize=3.5, markerfacecolor=LIGHT.background)
    dress(axes[2], LIGHT, title="the same paths in the plane", x="x", y="extra element")
    last = axes[3]
    for extra in EXTRAS:
        own = of(records, extra)
        label = f"{LABELS[extra]}: error {own['error']:.2g}"
        last.plot(own["x"], own["end"], color=COLOURS[extra], linewidth=1.6, label=label)
    last.plot([-1, 1], [1, -1], color=LIGHT.ink, linewidth=0.9, linestyle="--", label="−x")
    dress(last, LIGHT, title="learned maps", x="x(0)", y="x(1)")
    last.set_ylim(-1.25, 1.9)
    last.legend(frameon=False, fontsize=7.5, loc="upper right", labelcolor=LIGHT.ink)


def draw_circles(axes: list[Any], records: list[dict[str, Any]]) -> None:
    """Draw where disc and ring are carried, and the course of both trainings."""
    for ax, extra in zip(axes, EXTRAS, strict=False):
        own = of(records, extra)
        moved, labels = torch.tensor(own["paths"]), torch.tensor(own["labels"])
        for label, colour in ((1, LIGHT.real), (0, LIGHT.mark)):
            part = moved[:, labels == label]
            for i in range(0, part.shape[1], 5):
                ax.plot(*part[:, i].T, color=colour, linewidth=0.6, alpha=0.45)
            if extra:
                ax.scatter(*part[-1].T, s=5, color=colour, depthshade=False)
            else:
                ax.scatter(*part[-1].T, s=5, color=colour)
        if extra:
            ax.set_title(f"nested circles: {LABELS[1]}", color=LIGHT.ink, fontsize=10, loc="left")
            ax.tick_params(colors=LIGHT.faint, labelsize=6, pad=-2)
            ax.set_zlabel("extra element", fontsize=8, labelpad=-4, color=LIGHT.ink)
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.zaxis.set_major_locator(MaxNLocator(4))
            ax.view_init(elev=10, azim=-65)
        else:
            dress(ax, LIGHT, title=f"nested circles: {LABELS[0]}", x="first element", y="second element")
            ax.set_aspect("equal", adjustable="datalim")
    for ax, column, title, y in (
        (axes[2], 1, "cross-entropy of test points", "nats"),
        (axes[3], 3, "evaluations of the field", "mean of test points"),
    ):
        for extra in EXTRAS:
            for k, own in enumerate(r for r in records if r["extra"] == extra):
                curve = torch.tensor(own["curve"])
                label = LABELS[extra] if k == 0 else None
                ax.plot(curve[:, 0], curve[:, column], color=COLOURS[extra], linewidth=1.4, label=label)
        dress(ax, LIGHT, title=title, x="steps of training", y=y)
        if column == 1:
            ax.set_yscale("log")
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.legend(frameon=False, fontsize=8, labelcolor=LIGHT.ink)


def picture(result: dict[str, Any]) -> Figure:
    """Return the segment turned inside out above, and the nested circles below."""
    figure = new_figure(13.2, 6.6)
    above = cells(figure, (0.65, 3.9, 12.3, 2.35), 1, 4, gap=0.75)
    below = cells(figure, (0.65, 0.6, 12.3, 2.35), 1, 4, gap=0.75)
    draw_segment([figure.add_subplot(above[0, j]) for j in range(4)], result["inside_out"])
    axes = [figure.add_subplot(below[0, j], projection="3d" if j == 1 else None) for j in range(4)]
    left, bottom, width, height = axes[1].get_position().bounds
    axes[1].set_position(
        (left - 0.035, bottom - 0.05, width + 0.02, height + 0.07)
    )  # its own margins are wide
    draw_circles(axes, result["circles"])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400, help="steps of (a) and (b)")
    parser.add_argument("--density-steps", type=int, default=1000, help="steps of (c), the same for both")
    parser.add_argument("--batch", type=int, default=256, help="rows of a step")
    parser.add_argument("--draws", type=int, default=16, help="draws of the extra element for a likelihood")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument(
        "--parts", default="abc", help="which of a, b and c; the others stay as --output has them"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result: dict[str, Any] = {"inside_out": [], "circles": [], "densities": []}
    if given.parts != "abc" and given.output.exists():
        result = json.loads(given.output.read_text())
    seeds = range(given.seeds)
    sets = given.sets.split(",")
    todo: dict[str, tuple[str, list[Callable[[], dict[str, Any]]]]] = {
        "a": ("inside_out", [partial(inside_out, e, given, s) for e in EXTRAS for s in seeds]),
        "b": ("circles", [partial(circles, e, given, s) for e in EXTRAS for s in seeds]),
        "c": (
            "densities",
            [partial(likelihood, n, e, given, s) for n in sets for e in EXTRAS for s in seeds],
        ),
    }
    for part, (name, measurements) in todo.items():
        if part in given.parts:
            result[name] = []
            for measurement in measurements:
                result[name].append(measurement())
                given.output.write_text(json.dumps(result) + "\n")  # after each, for they take long
    print(tables(result))
    if given.figure:
        write_figure(given.figure, lambda: picture(result))


if __name__ == "__main__":
    main()
