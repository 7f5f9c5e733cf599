"""Maximum-likelihood training: one loop for every flow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..configs import TrainConfig
from ..errors import TrainingError
from ..flows import Flow
from ..objectives import negative_log_likelihood
from .points import Points, Preprocessed, fit_preprocess, preprocess

_MOST_SKIPPED_STEPS = 20
_VALIDATION_ROWS = 8192
# Below so many multiplications a step, a second thread gains a fifth on an idle machine, and loses a factor of ten on
# one that is shared, where each of the many small operations waits for the slower thread.
_ONE_THREAD_WORK = 1e8


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch showed; losses are mean negative log-likelihoods in nats, in the units of the data."""

    epoch: int
    epochs: int
    train_loss: float
    valid_loss: float
    best_epoch: int
    best_loss: float
    rows_per_second: float
    seconds: float
    seconds_left: float


@dataclass(slots=True)
class TrainResult:
    """The course of a training run; the flow itself has the weights of ``best_epoch``."""

    train_curve: list[float] = field(default_factory=list)
    valid_curve: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "epochs"
    seconds: float = 0.0


class TrainStep(nn.Module):
    """A flow and an objective as one module whose ``forward`` is the loss, so that wrappers see all of it."""

    def __init__(self, flow: Flow, objective: Callable[..., Tensor] = negative_log_likelihood) -> None:
        super().__init__()
        self.flow, self.objective = flow, objective

    def forward(self, z: Tensor, context: Tensor | None, weights: Tensor | None) -> Tensor:
        """Return the loss of a batch of preprocessed points."""
        return self.objective(self.flow, z, context, weights)


def train(
    flow: Flow,
    train_points: Points,
    valid_points: Points,
    config: TrainConfig,
    *,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    accelerator: str = "auto",
) -> TrainResult:
    r"""Fit a flow by maximum likelihood and leave it with the weights of the epoch with the best validation loss.

    AdamW under a linear warm-up and a cosine decay, with clipped gradients. The preprocess and data-dependent
    parameters are fitted to the training points first. A step whose loss or gradient is not finite is skipped. Small
    models train on one thread, whatever torch's number of threads, which is as it was afterwards.

    Args:
        flow: The flow; changed in place, and moved to the CPU at the end.
        train_points: Points that the weights are fitted to.
        valid_points: Points that choose the epoch.
        config: Settings.
        on_epoch: Called after every epoch.
        accelerator: What to compute on, as Fabric names it; ``"auto"`` takes an accelerator where there is one.

    Returns:
        The curves, the best epoch and the reason for stopping. An interrupt (Ctrl-C) stops training as well, and the
        best weights so far are kept.

    Raises:
        TrainingError: Too many steps in a row without a finite loss and gradient, or no epoch with a finite
            validation loss.

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019. https://arxiv.org/abs/1711.05101

    Example:
        >>> from pushforward.configs import MAFConfig
        >>> from pushforward.flows import build_flow
        >>> x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = build_flow(MAFConfig(layers=1, hidden=(8,)), 2)
        >>> result = train(flow, Points(x[:200]), Points(x[200:]), TrainConfig(epochs=2))
        >>> result.stopped, len(result.valid_curve)
        ('epochs', 2)
    """
    from lightning_fabric import Fabric

    started = time.monotonic()
    fabric = Fabric(accelerator=accelerator, devices=1)
    generator = torch.Generator().manual_seed(config.seed)
    fit_preprocess(flow, train_points, generator)
    flow.to(fabric.device)
    parameters = list(flow.parameters())
    optimiser = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=flow.base.device.type != "mps",
    )
    step, optimiser = fabric.setup(TrainStep(flow), optimiser, move_to_device=False)
    averaged = _Average(parameters, config.ema)
    valid = preprocess(flow, valid_points, torch.Generator().manual_seed(config.seed))
    steps_each = max(1, len(train_points) // config.batch_size)
    clock = _Clock(started, config, steps_each * config.epochs)
    result, best_loss, best = TrainResult(), math.inf, deepcopy(flow.state_dict())
    skipped, ready = 0, None
    threads = torch.get_num_threads()
    if sum(p.numel() for p in parameters) * config.batch_size < _ONE_THREAD_WORK:
        torch.set_num_threads(1)
    try:
        for epoch in range(1, config.epochs + 1):
            epoch_start = time.monotonic()
            if ready is None or flow.surjection is not None:
                ready = preprocess(flow, train_points, generator)
            losses = torch.zeros((), device=flow.base.device)
            count = 0
            for batch in _batches(ready, config.batch_size, steps_each, generator):
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * clock.factor()
                optimiser.zero_grad()
                loss = step(*batch)
                fabric.backward(loss)
                norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
                clock.steps += 1
                if not bool(torch.isfinite(norm + loss.detach())):
                    skipped += 1
                    if skipped > _MOST_SKIPPED_STEPS:
                        raise TrainingError(
                            f"training stopped in epoch {epoch}: {skipped} steps in a row had a loss or gradient that "
                            "is not finite. Try a smaller learning rate, or look for extreme values in the data."
                        )
                    continue
                skipped = 0
                optimiser.step()
                averaged.update()
                losses += loss.detach()
                count += 1
                if clock.over():
                    break
            with averaged.applied():
                valid_loss = _loss(flow, valid)
                if valid_loss < best_loss:
                    best_loss, result.best_epoch, best = valid_loss, epoch, deepcopy(flow.state_dict())
            result.train_curve.append(float(losses) / max(count, 1) - ready.log_abs_det)
            result.valid_curve.append(valid_loss)
            if on_epoch is not None:
                now = time.monotonic()
                rows = count * min(config.batch_size, len(train_points))
                on_epoch(
                    EpochRecord(
                        epoch, config.epochs, result.train_curve[-1], valid_loss, result.best_epoch, best_loss,
                        rows / max(now - epoch_start, 1e-9), now - started, clock.left(),
                    )
                )  # fmt: skip
            if clock.over():
                result.stopped = "time"
                break
            if epoch - result.best_epoch >= config.patience:
                result.stopped = "patience"
                break
    except KeyboardInterrupt:
        result.stopped = "interrupt"
        if result.best_epoch == 0:
            best = deepcopy(flow.state_dict())
    finally:
        torch.set_num_threads(threads)
    if result.best_epoch == 0 and result.stopped != "interrupt":
        raise TrainingError(
            f"no epoch of {len(result.valid_curve)} had a finite validation loss. Try a smaller learning rate, "
            "or look for validation rows far from all training rows."
        )
    flow.load_state_dict(best)
    flow.to("cpu")
    result.seconds = time.monotonic() - started
    return result


def _batches(
    ready: Preprocessed, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
    """Yield the batches of one epoch: one shuffle, then views; a last short batch waits for the next shuffle."""
    order = torch.randperm(len(ready.z), generator=generator).to(ready.z.device)
    z = ready.z[order]
    context = None if ready.context is None else ready.context[order]
    weights = None if ready.weights is None else ready.weights[order]
    for i in range(steps):
        rows = slice(i * batch_size, (i + 1) * batch_size)
        yield z[rows], None if context is None else context[rows], None if weights is None else weights[rows]


def _loss(flow: Flow, points: Preprocessed) -> float:
    """Return the mean negative log-likelihood in the units of the data; infinite where it is not a number."""
    total, weight = 0.0, 0.0
    with torch.no_grad():
        for start in range(0, len(points.z), _VALIDATION_ROWS):
            rows = slice(start, start + _VALIDATION_ROWS)
            z, context, weights = (
                None if t is None else t[rows] for t in (points.z, points.context, points.weights)
            )
            assert z is not None
            share = float(len(z)) if weights is None else float(weights.sum())
            total += share * float(negative_log_likelihood(flow, z, context, weights))
            weight += share
    loss = total / weight - points.log_abs_det
    return loss if math.isfinite(loss) else math.inf


class _Clock:
    """The learning-rate schedule and the time budget, driven by whichever of steps and time is further on."""

    def __init__(self, started: float, config: TrainConfig, total: int) -> None:
        self.started, self.budget, self.warmup, self.total = started, config.max_seconds, config.warmup, total
        self.steps = 0
        self.first_step = time.monotonic()

    def progress(self) -> float:
        """Return how much of the run is behind us, from 0 to 1."""
        done = self.steps / self.total
        if self.budget is not None:
            done = max(done, (time.monotonic() - self.started) / self.budget)
        return min(done, 1.0)

    def factor(self) -> float:
        """Return the factor of the learning rate: linear warm-up, then a cosine to 0."""
        done = self.progress()
        if done < self.warmup:
            return (done + 1 / self.total) / (self.warmup + 1 / self.total)
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))

    def over(self) -> bool:
        """Return whether the time budget is spent."""
        return self.budget is not None and time.monotonic() - self.started >= self.budget

    def left(self) -> float:
        """Return the seconds that the run may still take."""
        elapsed = time.monotonic() - self.first_step
        by_steps = elapsed / max(self.steps, 1) * (self.total - self.steps)
        if self.budget is None:
            return by_steps
        return max(0.0, min(by_steps, self.budget - (time.monotonic() - self.started)))


class _Average:
    """An exponential moving average of parameters, put in their place while it is applied."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters] if decay else []
        self.updates = 0

    def update(self) -> None:
        """Move the average towards the parameters; young averages forget faster, so that the start leaves no trace."""
        if self.values:
            self.updates += 1
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the parameters the averaged values for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for p, value in zip(self.parameters, self.values, strict=bool(self.values)):
                held = p.detach().clone()
                p.copy_(value)
                value.copy_(held)
