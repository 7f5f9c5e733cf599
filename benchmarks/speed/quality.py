"""Time from the start of a process until a flow is within some nats of the entropy of a density.

    python -m benchmarks.speed.quality THREADS LIBRARY STARTED FILE TASK TARGET

The file holds training and held-out points. Every library trains the same architecture with Adam at the same batch,
number of epochs and peak learning rate, which falls as a cosine: pushforward by its own trainer, FlowJAX by its own fit
loop, zuko, which has none, in a plain loop. All keep a tenth of the points for validation after every epoch, and stop
when the mean there is near enough. zuko's clock stands still meanwhile; in the other two loops validation counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figures import NATS, SECONDS, Figure
from .processes import FailedError, Setting, as_text, from_text, run, settle
from .tasks import Task

TASK = Task("checkerboard", "spline-autoregressive", 2, 5, (64, 64))
_NEAR = 0.04  # nats above the entropy
_ROWS = 100_000
_BATCH, _RATE, _EPOCHS = 1024, 2e-3, 60
_VALID = 0.1
_LIMIT = 400.0
Points = NDArray[np.float32]
Outcome = tuple[float, Callable[[Points], float]]


def time_to_quality(
    libraries: Sequence[str], setting: Setting, quick: bool, say: Callable[[str], None]
) -> Iterator[Figure]:
    """Yield the seconds that each library takes, and how near the entropy held-out points then are."""
    import torch

    from pushforward.data.densities import density

    target, rows = density("checkerboard"), 5000 if quick else _ROWS
    goal = target.entropy + (10.0 if quick else _NEAR)
    title = f"time to {goal - target.entropy:.2f} nats above the entropy of the checkerboard"
    points = {
        name: target.sample(rows, generator=torch.Generator().manual_seed(seed)).numpy()
        for seed, name in enumerate(("train", "held"))
    }
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "points.npz")
        np.savez(path, **points)
        for name in libraries:
            if name not in _LOOPS:
                continue
            say(f"{title}: {name}")
            arguments = [repr(time.time()), path, as_text(TASK), repr(goal)]
            try:
                found = json.loads(run(setting.command(name, "quality", *arguments), setting, limit=_LIMIT))
            except FailedError as why:
                yield Figure(title, name, "time", reason=str(why))
                continue
            if found["seconds"]:
                yield Figure(title, name, "time", SECONDS, [found["seconds"]])
            else:
                yield Figure(title, name, "time", reason=f"not in {_EPOCHS} epochs")
            yield Figure(title, name, "held out, above", NATS, [found["loss"] - target.entropy])


def ours(task: Task, points: Points, target: float, started: float) -> Outcome:
    """Train by ``pushforward.training.train``; an interrupt, as by Ctrl-C, ends it with the best weights."""
    import torch

    from pushforward.configs import TrainConfig
    from pushforward.flows import score
    from pushforward.training import EpochRecord, train
    from pushforward.training import Points as TrainPoints

    from .libraries.ours_flows import make

    torch.manual_seed(0)
    flow, x, reached = make(task), torch.from_numpy(points), [0.0]

    def watch(record: EpochRecord) -> None:
        if record.valid_loss <= target:
            reached[0] = time.time() - started
            raise KeyboardInterrupt

    config = TrainConfig(epochs=_EPOCHS, batch_size=_BATCH, learning_rate=_RATE, patience=_EPOCHS)
    valid = round(len(x) * _VALID)
    train(flow, TrainPoints(x[valid:]), TrainPoints(x[:valid]), config, on_epoch=watch)
    return reached[0], lambda held: -float(score(flow, torch.from_numpy(held)).value.double().mean())


def zuko(task: Task, points: Points, target: float, started: float) -> Outcome:
    """Train in the plain loop of its documentation."""
    import torch

    from .libraries.torch_model import adam
    from .libraries.zuko_flows import make

    torch.manual_seed(0)
    flow, x = make(task), torch.from_numpy(points)
    valid = round(len(x) * _VALID)
    optimiser = adam(flow.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _steps(len(x)))

    @torch.no_grad()
    def loss(rows: torch.Tensor) -> float:
        return -float(torch.cat([flow().log_prob(part) for part in rows.split(8192)]).double().mean())

    paused = reached = 0.0
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(x) - valid).split(_BATCH):
            if len(rows) == _BATCH:
                optimiser.zero_grad()
                (-flow().log_prob(x[valid + rows]).mean()).backward()
                optimiser.step()
                schedule.step()
        now = time.time()
        if loss(x[:valid]) <= target:
            reached = now - started - paused
            break
        paused += time.time() - now
    return reached, lambda held: loss(torch.from_numpy(held))


def flowjax(task: Task, points: Points, target: float, started: float) -> Outcome:
    """Train by ``flowjax.train.fit_to_data``, watched through its progress bar."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax
    from flowjax.train import fit_to_data, loops

    from .libraries.flowjax_flows import make

    epochs: list[float] = []

    class Watch:
        """Stands for the progress bar: is told the losses after every epoch, and ends the loop."""

        def __init__(self, epochs: range, disable: bool) -> None:
            self._epochs = epochs

        def __iter__(self) -> Iterator[int]:
            for epoch in self._epochs:
                if epochs and epochs[-1] <= target:
                    return
                yield epoch

        def set_postfix(self, losses: dict[str, float]) -> None:
            epochs.append(losses["val"])

    loops.tqdm = Watch
    flow, _ = fit_to_data(
        jax.random.key(1),
        make(task),
        jnp.asarray(points),
        optimizer=optax.adam(optax.cosine_decay_schedule(_RATE, _steps(len(points)))),
        max_epochs=_EPOCHS,
        max_patience=_EPOCHS,
        batch_size=_BATCH,
        val_prop=_VALID,
        show_progress=False,
    )
    reached = time.time() - started if epochs[-1] <= target else 0.0
    density = eqx.filter_jit(flow.log_prob)
    return reached, lambda held: -float(np.mean([density(part).mean() for part in np.split(held, 10)]))


def _steps(rows: int) -> int:
    """Return the steps of all epochs; what is left of a batch is dropped."""
    return (rows - round(rows * _VALID)) // _BATCH * _EPOCHS


_LOOPS: dict[str, Any] = {"ours": ours, "zuko": zuko, "flowjax": flowjax}


def main() -> None:
    """Train, and print seconds (0: not reached) and the held-out loss."""
    threads, library, started, path, text, target = sys.argv[1:]
    settle(int(threads), library)
    with np.load(path) as file:
        train, held = file["train"], file["held"]
    seconds, loss = _LOOPS[library](from_text(text), train, float(target), float(started))
    print(json.dumps({"seconds": seconds, "loss": loss(held)}))


if __name__ == "__main__":
    main()
