"""What is timed. Standard library only: every environment reads it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

CALLS = ("train", "log_prob", "sample")


@dataclass(frozen=True)
class Task:
    """One architecture, its batch and the calls to time; float32 throughout.

    Attributes:
        name: As in the tables.
        family: maf, iaf, realnvp, spline-coupling or spline-autoregressive; another name is one of our models in its
            default configuration.
        calls: Among ``CALLS``.
    """

    name: str
    family: str
    features: int
    layers: int = 0
    hidden: tuple[int, ...] = ()
    batch: int = 1024
    bins: int = 8
    calls: tuple[str, ...] = CALLS

    @property
    def autoregressive(self) -> bool:
        return self.family in ("maf", "iaf", "spline-autoregressive")

    @property
    def spline(self) -> bool:
        return self.family.startswith("spline")

    @property
    def parameters_each(self) -> int:
        """Outputs of the network for each element that moves."""
        return 3 * self.bins - 1 if self.spline else 2

    @property
    def describe(self) -> str:
        hidden = "x".join(map(str, self.hidden)) or "default sizes"
        layers = f", {self.layers} layers" if self.layers else ""
        bins = f", {self.bins} bins" if self.spline else ""
        return f"{self.family}, D={self.features}{layers}{bins}, {hidden}, batch {self.batch}"

    def dense(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the dense layers of one layer's network."""
        known = self.features if self.autoregressive else self.features // 2
        moving = self.features if self.autoregressive else self.features - known
        widths = [known, *self.hidden, moving * self.parameters_each]
        return list(itertools.pairwise(widths))


_MAIN = [
    Task("maf", "maf", 43, 5, (256, 256)),
    Task("realnvp", "realnvp", 43, 8, (256, 256)),
    Task("spline-coupling", "spline-coupling", 16, 6, (128, 128)),
    Task("spline-autoregressive", "spline-autoregressive", 16, 5, (128, 128)),
    Task("toy", "realnvp", 2, 8, (64, 64), batch=256),
]
_WIDE = [
    Task(f"maf-sample-{d}", "maf", d, 5, (512, 512), batch=256, calls=("log_prob", "sample"))
    for d in (16, 64, 256, 784)
]
_IAF = [Task("iaf-density-64", "iaf", 64, 5, (512, 512), batch=256, calls=("log_prob", "sample"))]
# The models in their default configurations; the three that zuko has too with the sizes of ours.
_SIZES = {
    "realnvp": Task("model-realnvp", "realnvp", 8, 8, (128, 128)),
    "maf": Task("model-maf", "maf", 8, 5, (128, 128)),
    "nsf": Task("model-nsf", "spline-autoregressive", 8, 2, (64, 64, 64), bins=32),
}
_OTHERS = ("nice", "glow", "made", "iaf", "nsf-coupling", "planar", "radial", "sylvester")
_MODELS = [*_SIZES.values(), *(Task(f"model-{name}", f"our {name}", 8) for name in _OTHERS)]

GROUPS: dict[str, list[Task]] = {"steps": _MAIN, "sampling": [*_WIDE, *_IAF], "models": _MODELS}
TASKS: dict[str, Task] = {task.name: task for group in GROUPS.values() for task in group}
DEFAULT_TASKS = [task.name for task in (*_MAIN, *_WIDE, *_IAF)]


def deep(layers: int) -> Task:
    """Return the flow whose training memory is measured against its depth."""
    return Task(f"depth-{layers}", "realnvp", 256, layers, (512, 512), batch=512, calls=("train",))


def quick(task: Task) -> Task:
    """Return a task of the same kind that takes a moment, for trying the harness."""
    return replace(
        task,
        features=min(task.features, 4),
        layers=min(task.layers, 2),
        hidden=tuple(min(width, 16) for width in task.hidden),
        batch=min(task.batch, 32),
    )
