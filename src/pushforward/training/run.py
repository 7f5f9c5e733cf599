"""The state of a training run, and how one step and one epoch move it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..configs import TrainConfig
from ..errors import ArtifactError, TrainingError
from ..flows import Flow, MixedFlow, chunk_rows
from ..objectives import MAXIMUM_LIKELIHOOD, Objective
from .average import Average
from .blame import origin_in_words
from .checkpoints import Snapshot
from .compiled import Compilation
from .drift import find_drift, with_constant_memory
from .environment import library_versions
from .flat import FlatParameters, with_flat_weights
from .notes import tell
from .pieces import Pieces
from .points import Batch, Points, Refill, are_large, fit_preprocess, large_batches, preprocess
from .progress import Progress
from .schedule import Schedule
from .step import TrainStep

_MOST_SKIPPED_STEPS = 12
_STEPS_BETWEEN_DRIFTS = 100
_DRIFT_ROWS = 32
_ADVICE = "Try a smaller learning rate, or look for extreme values in the data."


class Run:
    """All that moves while a flow is trained. Between two steps, ``snapshot`` is the whole of it.

    It computes on torch's number of threads at the time, which a resumed run sets to what it was.

    Args:
        flow: The flow; its preprocess and data-dependent parameters are fitted here.
        train_points: Points that the weights are fitted to.
        valid_points: Points that choose the epoch.
        config: Settings.
        objective: What is minimised.
        accelerator: What to compute on, as Fabric names it.
        on_note: Called with what should be known; a warning by default.
        refill: What gives the points of each epoch where they are more than memory holds; ``train_points`` are then
            a sample, which preprocess and data-dependent parameters are fitted to.
    """

    def __init__(
        self,
        flow: Flow,
        train_points: Points,
        valid_points: Points,
        config: TrainConfig,
        *,
        objective: Objective = MAXIMUM_LIKELIHOOD,
        accelerator: str = "auto",
        on_note: Callable[[str], None] | None = None,
        refill: Refill | None = None,
    ) -> None:
        from lightning_fabric import Fabric

        if config.memory == "constant" and objective.noisy:
            raise ValueError(
                "TrainConfig: memory='constant' is for maximum likelihood without penalties, got another objective; a "
                "continuous flow keeps only the points between its steps as it is"
            )
        if config.noise and isinstance(flow, MixedFlow):
            raise ValueError(
                "TrainConfig: noise is for numbers, which a mixed density has among labels and gaps"
            )
        started = time.monotonic()
        self.flow, self.train_points, self.valid_points, self.config = (
            flow,
            train_points,
            valid_points,
            config,
        )
        self.objective, self._on_note = objective, on_note
        self._noise = math.hypot(objective.noise, config.noise)
        fabric = Fabric(accelerator=accelerator, devices=1)
        self._generator = torch.Generator().manual_seed(config.seed)
        fit_preprocess(flow, train_points, self._generator)
        self._refill, self._filled = refill, 0
        self._ready: Batch | None = None
        self._begin_epoch(1)
        flow.to(fabric.device)
        self._flat = FlatParameters(flow.parameters())
        self._optimiser = torch.optim.AdamW(
            self._flat.vectors,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=flow.base.device.type != "mps",
        )
        if config.memory == "constant":
            trained = with_constant_memory(flow)
        else:
            trained = with_flat_weights(flow, self._flat) or flow
        loss_of, self._stepper = fabric.setup(
            TrainStep(trained, objective, precision=config.precision), self._optimiser, move_to_device=False
        )
        self._average = Average(self._flat.vectors, config.ema)
        self._valid = self._preprocessed_valid()
        self._epoch_state = self._generator.get_state()
        self._best: dict[str, Tensor] | None = None
        self._loss_sum = torch.zeros((), device=flow.base.device)
        self.rows_each = min(config.batch_size, len(self.train_points))
        self._pieces = Pieces(loss_of, fabric.backward, rows=self.rows_each, note=self._note)
        self._steps_each = max(1, len(self.train_points) // config.batch_size)
        self.schedule = Schedule(config, self._steps_each * config.epochs, started)
        self.progress = Progress()
        self._last_skip = ""
        self._drift: str | None = None
        self.compilation = Compilation(
            flow,
            self._flat.vectors,
            self._optimiser,
            self._average,
            config=config,
            objective=objective,
            note=self._note,
        )

    # --- steps and epochs -----------------------------------------------------------------------------------------

    def _begin_epoch(self, epoch: int) -> None:
        """Take the points of an epoch, where they are not always the same."""
        if self._refill is not None and self._filled != epoch:
            self.train_points, self._ready = self._refill(epoch), None
            self._filled = epoch

    def batches(self) -> Iterator[Batch]:
        """Yield what is left of the epoch: one shuffle, then views; a last short batch waits for the next shuffle."""
        self._begin_epoch(self.progress.epoch)
        self._epoch_state = self._generator.get_state()
        large = are_large(self.flow)
        batch_of = (
            large_batches(self.flow, self.train_points, self._generator) if large else self._ready_batches()
        )
        size = self.config.batch_size
        while self.progress.batch < self._steps_each and not self._enough():
            batch = batch_of(slice(self.progress.batch * size, (self.progress.batch + 1) * size))
            if self._drifts(batch):
                break
            yield batch

    def _ready_batches(self) -> Callable[[slice], Batch]:
        """Preprocess all points, with fresh noise where there is any, and return what gives some of them, shuffled."""
        if self._ready is None or self.flow.surjection is not None or self.flow.augment is not None:
            self._ready = preprocess(self.flow, self.train_points, self._generator)
        order = torch.randperm(len(self.train_points), generator=self._generator)
        return self._ready.shuffled(order).__getitem__

    def step(self, batch: Batch) -> None:
        """Move the weights by one batch, or skip it where its loss or gradient is not finite."""
        rate = self.config.learning_rate * self.schedule.factor() * 0.5**self.progress.skipped
        if batch.weights is not None and not bool(batch.weights.any()):
            self.schedule.steps += 1
            self.progress.batch += 1
            return
        # Of the step alone, so that a resumed run draws the same noise.
        seed = (self.config.seed * 1_000_003 + self.schedule.steps * 4096) % 2**63
        if self._noise:
            batch = batch.with_noise(self._noise, seed)
        loss, norm = self._move(batch, rate, seed)
        if bool(torch.isfinite(norm + loss)):
            self._loss_sum += loss
            self.progress.shift_sum += batch.log_abs_det
            self.progress.counted += 1
        else:
            self._skip(batch, bool(torch.isfinite(loss)), rate / 2)
        self.schedule.steps += 1
        self.progress.batch += 1

    def _move(self, batch: Batch, rate: float, seed: int) -> tuple[Tensor, Tensor]:
        """Move the weights if loss and gradient are finite; return the loss and the gradient's norm."""
        compiled = self.compilation.move(batch, rate, self.schedule) if self._pieces.count == 1 else None
        if compiled is not None:
            return compiled
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        loss = self._pieces.gradient(batch, partial(self._stepper.zero_grad, set_to_none=False), seed)
        norm = nn.utils.clip_grad_norm_(self._flat.vectors, self.config.clip_norm)
        if bool(torch.isfinite(norm + loss)):
            self._stepper.step()
            self._average.update()
        return loss, norm

    def end_epoch(self, asked: Callable[[], None]) -> None:
        """Validate, keep the weights if they are the best, and decide whether to go on.

        Args:
            asked: Called between pieces of the work; what it raises leaves the state as at the end of the last step.
        """
        done = self.progress
        with self._average.applied():
            valid_loss = self._validate(asked)
            if valid_loss < done.best_loss and self.schedule.steps > done.skipped:
                best = deepcopy(self.flow.state_dict())
                self._best, done.best_loss, done.best_epoch = best, valid_loss, done.epoch
        count = done.counted
        shift = done.shift_sum if self.objective.in_nats else 0.0
        done.train_curve.append((float(self._loss_sum) - shift) / count if count else math.inf)
        done.valid_curve.append(valid_loss)
        if done.skipped > _MOST_SKIPPED_STEPS:
            done.stopped = "diverged"
            self._note(f"Training stopped after {done.skipped} such steps. {_ADVICE}")
        elif self._drift is not None:
            done.stopped = "drift"
            self._note(f"Training stopped after step {self.schedule.steps}. {self._drift}")
        elif self.schedule.over():
            done.stopped = "time"
        elif done.epoch - done.best_epoch >= self.config.patience:
            done.stopped = "patience"
        elif done.epoch == self.config.epochs:
            done.stopped = "epochs"
        done.epoch, done.batch, done.counted, done.shift_sum = done.epoch + 1, 0, 0, 0.0
        self._loss_sum = torch.zeros_like(self._loss_sum)

    def finish(self) -> None:
        """Give the flow the best weights and bring it to the CPU.

        Raises:
            TrainingError: There are none.
        """
        done = self.progress
        if self._best is not None:
            self.flow.load_state_dict(self._best)
        elif done.stopped == "diverged":
            raise TrainingError(
                f"training stopped in epoch {len(done.valid_curve)}, before any was done well: {done.skipped} steps "
                f"had a loss or gradient that is not finite. The last: {self._last_skip} {_ADVICE}"
            )
        elif done.stopped != "interrupt":
            raise TrainingError(
                f"no epoch of {len(done.valid_curve)} had a finite validation loss. Try a smaller learning rate, "
                "or look for validation rows far from all training rows."
            )
        self.flow.to("cpu")

    def release(self) -> None:
        """Leave the flow as one that is not trained."""
        self._flat.release()

    def _drifts(self, batch: Batch) -> bool:
        """Say whether, with constant memory, some layer no longer gives its input back."""
        if self.config.memory == "constant" and self.schedule.steps % _STEPS_BETWEEN_DRIFTS == 0:
            rows = batch[:_DRIFT_ROWS]
            self._drift = find_drift(self.flow, rows.z, rows.context)
            if self._drift is not None and self.schedule.steps == 0:
                raise TrainingError(self._drift)
        return self._drift is not None

    def _enough(self) -> bool:
        return self.progress.skipped > _MOST_SKIPPED_STEPS or self.schedule.over()

    def fit_pieces(self) -> None:
        """Cut the batches if their gradients would not fit into the memory that there is."""
        self._pieces.fit(
            preprocess(self.flow, self.train_points.first(128), torch.Generator().manual_seed(0))
        )

    def _skip(self, batch: Batch, loss_is_finite: bool, rate: float) -> None:
        """Say why a step is skipped."""
        done = self.progress
        done.skipped += 1
        pieces = (piece for piece, _ in batch.pieces(self._pieces.count))
        origin = origin_in_words(self.flow, pieces, self.train_points)
        self._last_skip = (
            f"Epoch {done.epoch}, step {done.batch + 1}: the {'gradient' if loss_is_finite else 'loss'} is not "
            f"finite. {origin}. The step is skipped, the learning rate halved to {rate:.2g}."
        )
        self._note(self._last_skip)

    def _validate(self, asked: Callable[[], None]) -> float:
        """Return the mean loss, in the units of the data if it has any; infinite where it is not a number."""
        total, weight, points = 0.0, 0.0, self._valid
        most = chunk_rows(self.flow)
        with torch.no_grad():
            for start in range(0, len(points), most):
                asked()
                part = points[start : start + most]
                share = float(len(part)) if part.weights is None else float(part.weights.sum())
                if share == 0:
                    continue
                if self.objective.smoothed:
                    part = part.with_noise(self.objective.noise, start)
                noise = torch.Generator(part.z.device).manual_seed(start)
                loss = self.objective.validation(self.flow, part.z, part.context, part.weights, noise)
                total += share * float(loss)
                weight += share
        mean = total / weight - (self._valid.log_abs_det if self.objective.in_nats else 0.0)
        return mean if math.isfinite(mean) else math.inf

    def _preprocessed_valid(self) -> Batch:
        return preprocess(self.flow, self.valid_points, torch.Generator().manual_seed(self.config.seed))

    def _note(self, text: str) -> None:
        self.progress.notes.append(text)
        tell(text, self._on_note)

    # --- the state as a whole -------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with: the settings and the data."""
        return {
            "training": asdict(self.config),
            "data": {"training": self.train_points.digest(), "validation": self.valid_points.digest()},
        }

    def snapshot(self) -> Snapshot:
        """Return the state between two steps, or between the last step of an epoch and its end."""
        tensors = {f"flow/{name}": t for name, t in self.flow.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in (self._best or {}).items()}
        tensors |= {f"average/{i}": t for i, t in enumerate(self._average.values)}
        for i, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{i}/{name}": t for name, t in state.items()}
        tensors |= {"generator": self._epoch_state, "loss_sum": self._loss_sum}
        progress = asdict(self.progress) | {
            "steps": self.schedule.steps,
            "seconds": self.schedule.seconds(),
            "pieces": self._pieces.count,
            "compiled": self.compilation.begun,
            "threads": torch.get_num_threads(),
            "averaged": self._average.updates,
        }
        return Snapshot(tensors, progress, self._environment())

    def restore(self, found: Snapshot) -> None:
        """Go on from a state that ``snapshot`` returned.

        Raises:
            ArtifactError: A state of another flow.
        """
        tensors, p = found.tensors, found.progress
        try:
            torch.set_num_threads(p["threads"])
            self.flow.load_state_dict(_under(tensors, "flow/"))
            self._best = _under(tensors, "best/") or None
            states: dict[int, dict[str, Tensor]] = {}
            for name, t in _under(tensors, "optimiser/").items():
                place, _, key = name.partition("/")
                states.setdefault(int(place), {})[key] = t
            self._optimiser.load_state_dict(
                {"state": states, "param_groups": self._optimiser.state_dict()["param_groups"]}
            )
            averages = _under(tensors, "average/")
            for i, value in enumerate(self._average.values):
                value.copy_(averages[str(i)])
            self._loss_sum.copy_(tensors["loss_sum"])
            self._epoch_state = tensors["generator"]
            self._generator.set_state(self._epoch_state)
            self.schedule.resume(p["steps"], p["seconds"])
            self._pieces.count, self._average.updates = p["pieces"], p["averaged"]
            self.progress = Progress.of(p)
            if p["compiled"]:
                self.compilation.begin()
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"the checkpoint does not fit the flow that it is for: {error}. Give the same as before, or start anew "
                "(--no-resume; in Python remove the folder)."
            ) from error
        # With the preprocess that the run began with, should this process have fitted another by a rounding.
        self._valid = self._preprocessed_valid()
        here = self._environment()
        for name, begun in found.environment.items():
            if here.get(name) != begun:
                self._note(
                    f"Resumed with {name} {here.get(name)}, begun with {begun}: the result may differ in rounding "
                    "from that of a run that was never stopped."
                )

    def _environment(self) -> dict[str, str]:
        return library_versions() | {"device": self.flow.base.device.type}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
