"""One step of training: its loss, and on how many threads it is computed."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from ..configs import TrainConfig
from ..flows import Flow
from ..objectives import MAXIMUM_LIKELIHOOD, Objective

# Below so many multiplications a step, a second thread gains a fifth on an idle machine, and loses a factor of ten on
# one that is shared, where each of the many small operations waits for the slower thread.
_ONE_THREAD_WORK = 1e8


class TrainStep(nn.Module):
    """A flow and an objective as one module whose ``forward`` is the loss, so that wrappers see all of it.

    Args:
        flow: The flow.
        objective: What is minimised.
        precision: As in ``TrainConfig``.
    """

    def __init__(
        self, flow: Flow, objective: Objective = MAXIMUM_LIKELIHOOD, *, precision: str = "float32"
    ) -> None:
        super().__init__()
        self.flow, self.objective, self.precision = flow, objective, precision

    def forward(self, z: Tensor, context: Tensor | None, weights: Tensor | None, seed: int = 0) -> Tensor:
        """Return the loss of a batch of preprocessed points; ``seed`` is that of its noise, if it has any."""
        generator = torch.Generator(z.device).manual_seed(seed) if self.objective.noisy else None
        if self.precision == "float32":
            return self.objective.loss(self.flow, z, context, weights, generator)
        with torch.autocast(z.device.type, torch.bfloat16):
            return self.objective.loss(self.flow, z, context, weights, generator)


def is_watched(flow: Flow) -> bool:
    """Return whether somebody follows gradients on their way to the parameters."""
    return any(p._backward_hooks or p._post_accumulate_grad_hooks for p in flow.parameters())


def threads_for(flow: Flow, config: TrainConfig) -> int:
    """Return on how many threads to train: on one where a second gains next to nothing, else on torch's number."""
    # The weights of an image's networks are used at every pixel.
    uses = config.batch_size * (prod(flow.event_shape[1:]) if len(flow.event_shape) > 1 else 1)
    small = sum(p.numel() for p in flow.parameters()) * uses < _ONE_THREAD_WORK
    return 1 if small else torch.get_num_threads()
