"""A training step as one compiled graph: loss, gradient, clipping, AdamW and the moving average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ..configs import TrainConfig
from ..flows import Flow, compiles_well
from ..objectives import MAXIMUM_LIKELIHOOD, Objective
from .average import Average
from .points import Batch
from .schedule import Schedule
from .step import TrainStep, is_watched

# Where a step is so small that most of its time goes into calls, compilation halves it; from nothing it takes some
# 20 s. A short beginning without shows at once that the training runs.
_LEAST_STEPS, _STEPS_BEFORE, _MOST_WORK = 20_000, 100, 2e7


def pays(flow: Flow, config: TrainConfig, rows: int, steps: int) -> bool:
    """Return whether so many steps on so many rows each take less time compiled, the compilation included.

    It depends on nothing that is measured, so that a run that is repeated decides the same. Large products are as
    fast without.
    """
    return (
        (config.memory, config.precision) == ("ordinary", "float32")
        and flow.base.device.type == "cpu"
        and steps >= _LEAST_STEPS
        and sum(p.numel() for p in flow.parameters()) * rows <= _MOST_WORK
        and compiles_well(flow.transform)
    )


class Compilation:
    """Whether the steps of a run are compiled, and the compiled step.

    Args:
        flow: The flow.
        vectors: Its trained parameters.
        optimiser: Their AdamW.
        average: Their moving average.
        config: Settings; ``compile`` says what is wanted.
        objective: What is minimised; steps of another than maximum likelihood are not compiled.
        note: Called where nothing can be compiled here.

    Attributes:
        begun: Whether steps are compiled now, which a checkpoint keeps.
    """

    def __init__(
        self,
        flow: Flow,
        vectors: Sequence[nn.Parameter],
        optimiser: torch.optim.Optimizer,
        average: Average,
        *,
        config: TrainConfig,
        objective: Objective,
        note: Callable[[str], None],
    ) -> None:
        self._flow, self._vectors, self._optimiser, self._average = flow, vectors, optimiser, average
        self._config, self._note = config, note
        self._wanted = (
            config.compile != "never"
            and objective.loss is MAXIMUM_LIKELIHOOD.loss
            and flow.transform.exact
            and not flow.transform.log_det_costs
            and len(vectors) == 1
            and not is_watched(flow)
        )
        self._step: CompiledStep | None = None

    @property
    def begun(self) -> bool:
        """Whether steps are compiled now."""
        return self._step is not None

    def begin(self) -> None:
        """Compile the steps from here on."""
        self._step = CompiledStep(
            TrainStep(self._flow, precision=self._config.precision),
            self._vectors[0],
            self._optimiser,
            self._average,
            self._config.clip_norm,
        )

    def move(self, batch: Batch, rate: float, schedule: Schedule) -> tuple[Tensor, Tensor] | None:
        """Move by one batch; return its loss and the gradient's norm, or None where steps are not compiled."""
        always = self._config.compile == "always"
        if self._step is None and self._wanted and (always or schedule.steps == _STEPS_BEFORE):
            self._wanted = always or pays(
                self._flow, self._config, len(batch), schedule.total - schedule.steps
            )
            if self._wanted:
                self.begin()
        if self._step is None:
            return None
        try:
            loss, norm = self._step(batch, rate)
        except RuntimeError as error:  # a compiler that is missing or fails shows at the first call
            self._step, self._wanted = None, False
            self._note(
                f"The steps could not be compiled: {' '.join(str(error).split())[:200]}. Training goes on without, "
                "more slowly; compile='never' does not try."
            )
            return None
        self._average.updates += bool(torch.isfinite(norm + loss))
        return loss, norm


class CompiledStep:
    r"""Loss, gradient, clipping, AdamW and moving average of one batch, compiled by ``torch.compile`` into one graph.

    A step whose loss or gradient is not finite leaves all as it was. The first call compiles, some 20 s for 8 small
    layers, a few where torch finds its cache on disk; all batches have one shape.

    Args:
        loss: A module ``(z, context, weights) -> loss``, whose trained parameters are those of one vector.
        vector: The vector.
        optimiser: AdamW of this vector; its state is carried on.
        average: The moving average of the vector.
        clip_norm: Largest norm of the gradient.

    Raises:
        RuntimeError: At the first call, where nothing can be compiled: no compiler, say.
    """

    def __init__(
        self,
        loss: nn.Module,
        vector: nn.Parameter,
        optimiser: torch.optim.Optimizer,
        average: Average,
        clip_norm: float,
    ) -> None:
        group, state = optimiser.param_groups[0], optimiser.state[vector]
        if not state:
            state |= {name: torch.zeros_like(vector.detach()) for name in ("exp_avg", "exp_avg_sq")}
            state["step"] = torch.zeros(())
        self._state = [vector.detach(), state["exp_avg"], state["exp_avg_sq"], state["step"]]
        self._average = average
        self._rate, self._forgets = torch.zeros(()), torch.zeros(())
        shapes = {name: p.shape for name, p in loss.named_parameters() if p.requires_grad}
        step = _make_step(loss, shapes, group, clip_norm)
        self._step = torch.compile(step, fullgraph=True, dynamic=False)

    def __call__(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """Move by one batch at a learning rate; return its loss and the norm of its gradient."""
        self._rate.fill_(rate)
        self._forgets.fill_(1.0 - self._average.next_decay())
        result: tuple[Tensor, Tensor] = self._step(
            self._state,
            self._average.values[0] if self._average.values else None,
            self._rate,
            self._forgets,
            (batch.z, batch.context, batch.weights),
        )
        return result


def _make_step(
    loss: nn.Module, shapes: dict[str, torch.Size], group: dict[str, Any], clip_norm: float
) -> Callable[..., tuple[Tensor, Tensor]]:
    sizes = [shape.numel() for shape in shapes.values()]
    beta1, beta2 = group["betas"]

    def loss_of(flat: Tensor, z: Tensor, context: Tensor | None, weights: Tensor | None) -> Tensor:
        views = {n: part.view(s) for part, (n, s) in zip(flat.split(sizes), shapes.items(), strict=True)}
        value: Tensor = torch.func.functional_call(loss, views, (z, context, weights))
        return value

    def step(
        state: list[Tensor],
        average: Tensor | None,
        rate: Tensor,
        forgets: Tensor,
        batch: tuple[Any, ...],
    ) -> tuple[Tensor, Tensor]:
        gradient, value = torch.func.grad_and_value(loss_of)(state[0], *batch)
        norm = torch.linalg.vector_norm(gradient)
        gradient = gradient * (clip_norm / (norm + 1e-6)).clamp(max=1.0)
        moved = [t.clone() for t in state]
        adamw(
            [moved[0]], [gradient], [moved[1]], [moved[2]], [], [moved[3]],
            foreach=False, capturable=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=rate,
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip
        if average is not None:
            state, moved = [*state, average], [*moved, torch.lerp(average, moved[0], forgets)]
        finite = torch.isfinite(norm + value)
        for old, new in zip(state, moved, strict=True):
            old.copy_(torch.where(finite, new, old))
        return value, norm

    return step
