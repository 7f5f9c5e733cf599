"""Training: one loop for every flow."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from ..configs import TrainConfig
from ..errors import TerminatedError
from ..flows import Flow
from ..objectives import MAXIMUM_LIKELIHOOD, Objective
from .checkpoints import Checkpoints
from .points import Points, Refill
from .run import Run
from .step import threads_for


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch showed; losses are as of ``TrainResult``."""

    epoch: int
    epochs: int
    train_loss: float
    valid_loss: float
    best_epoch: int
    best_loss: float
    rows_per_second: float
    seconds: float
    seconds_left: float
    in_nats: bool = True


@dataclass(slots=True)
class TrainResult:
    """The course of a training run; the flow itself has the weights of ``best_epoch``.

    Losses are mean negative log-likelihoods in nats, in the units of the data, or mean squares for flow matching.

    Attributes:
        train_curve: Training loss of each epoch.
        valid_curve: Validation loss of each epoch.
        best_epoch: The epoch, from 1, whose weights the flow has; 0: interrupted before the first was done.
        stopped: Why it ended: ``"epochs"``, ``"patience"``, ``"time"``, ``"interrupt"``, ``"diverged"``, or
            ``"drift"`` where constant memory became too inexact.
        seconds: Wall time, of all parts of a run that was resumed.
        notes: What happened that should be known: steps skipped, batches cut.
    """

    train_curve: list[float] = field(default_factory=list)
    valid_curve: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "epochs"
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def train(
    flow: Flow,
    train_points: Points,
    valid_points: Points,
    config: TrainConfig,
    *,
    objective: Objective = MAXIMUM_LIKELIHOOD,
    checkpoints: Checkpoints | None = None,
    identity: Mapping[str, Any] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    accelerator: str = "auto",
    refill: Refill | None = None,
) -> TrainResult:
    r"""Fit a flow, by maximum likelihood or as ``objective`` says, and leave it with the best weights.

    These are those of the epoch with the best validation loss.

    AdamW under a linear warm-up and a cosine decay, with clipped gradients. The preprocess and data-dependent
    parameters are fitted to the training points first. A step whose loss or gradient is not finite is skipped, the
    transform and the row that it began with are named, and the learning rate is halved; after 12 of them training
    stops. A batch that does not fit into memory is computed in pieces. Small models train on one thread, whatever
    torch's number of threads, which is as it was afterwards.

    Args:
        flow: The flow; changed in place, and moved to the CPU at the end.
        train_points: Points that the weights are fitted to.
        valid_points: Points that choose the epoch.
        config: Settings.
        objective: What is minimised.
        checkpoints: Where to write the state of the run, and to go on from. A resumed run has the losses and weights
            of one that was never stopped, bit for bit, on the same machine and build. With it SIGTERM, in the main
            thread, writes a checkpoint and ends the run.
        identity: What a checkpoint to go on from must agree with, beside settings and data: the model, say.
        on_epoch: Called after every epoch.
        on_note: Called with what should be known as it happens, a warning by default; ``notes`` has it too.
        accelerator: What to compute on, as Fabric names it; ``"auto"`` takes an accelerator where there is one.
        refill: What gives the points of each epoch, counted from 1, where they are more than memory holds: as many in
            each, and the same whenever it is asked. ``train_points`` are then a sample, to fit the preprocess to.

    Returns:
        The curves, the best epoch and the reason for stopping. An interrupt (Ctrl-C) stops training as well, and the
        best weights so far are kept.

    Raises:
        TrainingError: No step, or no epoch, with a finite loss; not even one row fits into memory.
        ArtifactError: Checkpoints that are all damaged, or belong to another run.
        OutputError: The last checkpoint cannot be written.
        TerminatedError: SIGTERM came, and a checkpoint was written.

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019. https://arxiv.org/abs/1711.05101

    Example:
        >>> import torch
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = build_flow(MAFConfig(layers=1, hidden=(8,)), 2)
        >>> result = train(flow, Points(x[:200]), Points(x[200:]), TrainConfig(epochs=2))
        >>> result.stopped, len(result.valid_curve)
        ('epochs', 2)
    """
    with (
        _threads(threads_for(flow, config)),
        nullcontext() if checkpoints is None else checkpoints.held(),
        _termination(wanted=checkpoints is not None) as asked,
        ExitStack() as after,
    ):
        run = Run(
            flow,
            train_points,
            valid_points,
            config,
            objective=objective,
            accelerator=accelerator,
            on_note=on_note,
            refill=refill,
        )
        after.callback(run.release)
        whose = {} if checkpoints is None else {**(identity or {}), **run.identity()}
        found = None if checkpoints is None else checkpoints.newest(whose)
        if found is None:
            run.fit_pieces()
        else:
            run.restore(found)

        def save() -> None:
            if checkpoints is not None and checkpoints.due():
                checkpoints.write_if_possible(run.snapshot(), whose)

        try:
            while not run.progress.stopped:
                _epoch(run, on_epoch, save, asked)
            if checkpoints is not None and run.progress.best_epoch:
                checkpoints.write_if_possible(run.snapshot(), whose, finished=True)
            elif checkpoints is not None:
                checkpoints.discard()  # going on would end the same way
        except KeyboardInterrupt:
            run.progress.stopped = "interrupt"
        except _Asked:
            assert checkpoints is not None
            checkpoints.write(run.snapshot(), whose, finished=False)
            raise TerminatedError(
                f"stopped by SIGTERM in epoch {run.progress.epoch}. A checkpoint is in {checkpoints.folder}; "
                "the same command with --resume (in Python resume=True) goes on from there."
            ) from None
        run.finish()
        done = run.progress
        return TrainResult(
            done.train_curve,
            done.valid_curve,
            done.best_epoch,
            done.stopped,
            run.schedule.seconds(),
            done.notes,
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch compute on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _epoch(
    run: Run,
    on_epoch: Callable[[EpochRecord], None] | None,
    save: Callable[[], None],
    asked: Callable[[], None],
) -> None:
    """Go through the rest of an epoch."""
    began, before = time.monotonic(), run.schedule.steps
    for batch in run.batches():
        run.step(batch)
        asked()
        save()
    run.end_epoch(asked)
    if on_epoch is not None:
        rows, done = (run.schedule.steps - before) * run.rows_each, run.progress
        on_epoch(
            EpochRecord(
                done.epoch - 1, run.config.epochs, done.train_curve[-1], done.valid_curve[-1], done.best_epoch,
                done.best_loss, rows / max(time.monotonic() - began, 1e-9), run.schedule.seconds(),
                run.schedule.left(), run.objective.in_nats,
            )
        )  # fmt: skip


class _Asked(Exception):  # noqa: N818 (it is no error)
    """Somebody asked the run to stop, at a place where its state is whole."""


@contextmanager
def _termination(*, wanted: bool) -> Iterator[Callable[[], None]]:
    """Turn SIGTERM into an exception where the state is whole: give a function that raises it if the signal came."""
    came = threading.Event()

    def asked() -> None:
        if came.is_set():
            raise _Asked

    if not wanted or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    handled = True
    try:
        yield asked
        handled = False
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    if came.is_set() and not handled:
        signal.raise_signal(signal.SIGTERM)  # it came when there was nothing left to stop here
