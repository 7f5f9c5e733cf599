"""Time a continuous flow beside those of its peers, at one trained field and one tolerance, in one run.

    .venv-bench/bin/python -m benchmarks.continuous --rounds 5 --seconds 2 --output continuous.json
    .venv-bench/bin/python -m benchmarks.continuous --only zuko torchdiffeq flow_matching torchcfm

The field is a perceptron in the plane, trained by flow matching; the trace is exact, the solver is dopri5. Before
anything is timed, all log-densities must lie within 0.001 nats of those of a nearly exact solve in double precision.
The libraries take turns; a cell is the median over rounds ± half the distance between the quartiles, and in brackets
its ratio to the first library of the column, which is the median over rounds too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pushforward.data.densities import DENSITIES

from ..speed.environment import environment
from .libraries import LIBRARIES, Library
from .measure import CALLS, agreement, evaluations, fastest, rounds, ways
from .problem import Problem, problem

_NATS = 1e-3
_DISTRIBUTIONS = ("pushforward", "torch", "zuko", "torchdiffeq", "flow_matching", "torchcfm", "POT")


def main() -> None:
    given = _options()
    torch.set_num_threads(given.threads)
    facts = environment(given.threads) | {
        "versions": {name: metadata.version(name) for name in _DISTRIBUTIONS}
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n", flush=True)
    shared = problem(given.density, given.batch, given.steps, given.atol, given.rtol)
    print(f"{given.density}, NLL {-shared.log_prob.mean():.4f}, {given.batch} rows\n", flush=True)
    libraries = {name: LIBRARIES[name](shared) for name in given.only}
    close = _agreement(libraries, shared)
    chosen, tried, counts = {}, {}, {}
    for name, library in libraries.items():
        for call, some in ways(library, shared.x).items():
            chosen[call, name], tried[call, name] = fastest(some)
            counts[call, name] = evaluations(library, call, chosen[call, name].step)
            for way, seconds in tried[call, name].items():
                print(f"{name}: {CALLS[call]} by {way}: {1e3 * seconds:.0f} ms", flush=True)
    print("\nEvaluations of the field\n")
    _table(given.only, {key: "?" if count is None else f"{count:.0f}" for key, count in counts.items()})
    figures: list[dict[str, Any]] = []
    cells: dict[tuple[str, str], str] = {}
    for call in CALLS:
        steps = {name: chosen[call, name].step for name in given.only if (call, name) in chosen}
        times = rounds(steps, given.rounds, given.seconds) if steps else {}
        for name, values in times.items():
            ratio = statistics.median(a / b for a, b in zip(values, next(iter(times.values())), strict=True))
            low, high = _quartiles(values)
            cells[call, name] = (
                f"{1e3 * statistics.median(values):.3g} ± {1e3 * (high - low) / 2:.2g} ({ratio:.2f})"
            )
            figures.append(
                {
                    "library": name,
                    "call": call,
                    "way": chosen[call, name].name,
                    "unit": "ms",
                    "median": _short(1e3 * statistics.median(values)),
                    "quartiles": [_short(1e3 * low), _short(1e3 * high)],
                    "rounds": len(values),
                    "ratio_to_first": _short(ratio),
                    "evaluations": counts[call, name],
                    "other_ways": {way: _short(1e3 * s) for way, s in tried[call, name].items()},
                }
            )
    print(f"\nMilliseconds, median of {given.rounds} rounds (ratio to the column's first)\n")
    _table(given.only, cells)
    if given.output is not None:
        record = {
            "environment": facts,
            "settings": {key: value for key, value in vars(given).items() if key != "output"},
            "libraries": {n: {"defaults": x.defaults, "notes": x.notes} for n, x in libraries.items()},
            "off": close,
            "figures": figures,
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(record, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continuous",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), metavar="LIBRARY")
    parser.add_argument("--density", choices=DENSITIES, default="checkerboard", metavar="NAME")
    parser.add_argument("--steps", type=int, default=1500, help="of flow matching, which trains the field")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--atol", type=float, default=1e-6)
    parser.add_argument("--rtol", type=float, default=1e-6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a library in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="where to write the figures as JSON")
    return parser.parse_args()


def _agreement(libraries: dict[str, Library], shared: Problem) -> dict[str, Any]:
    """Print and return how far each library is from the truth; end here if one is too far."""
    print("Off the truth: log-densities in nats, gradients relative; own tolerances, unused")
    found: dict[str, Any] = {}
    for name, library in libraries.items():
        found[name] = agreement(library, shared)
        for what, by_way in found[name].items():
            for way, values in by_way.items():
                words = ", ".join(f"{key} {value:.1e}" for key, value in values.items())
                print(f"  {name}: {what}{f' by {way}' if way else ''}: {words}")
        print(f"  {name}: {library.defaults or 'as here'}; {library.notes or 'nothing else'}", flush=True)
    far = [n for n, off in found.items() if any(v["max"] > _NATS for v in off["log_prob"].values())]
    if far:
        sys.exit(f"log-densities of {', '.join(far)} are more than {_NATS} nats off: nothing to compare")
    print()
    return found


def _table(names: Iterable[str], cells: dict[tuple[str, str], str]) -> None:
    print(f"| library | {' | '.join(CALLS.values())} |\n|---|{'--:|' * len(CALLS)}")
    for name in names:
        print(f"| {name} | {' | '.join(cells.get((call, name), '-') for call in CALLS)} |")
    sys.stdout.flush()


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _short(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
