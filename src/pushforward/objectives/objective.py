"""What a training minimises, chosen by the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..configs import FFJORDConfig, FlowMatchingConfig, ImageFlowMatchingConfig, ImageModelConfig, ModelConfig
from ..flows import Flow
from ..transforms import Continuous
from .flow_matching import flow_matching_loss
from .maximum_likelihood import negative_log_likelihood

Loss = Callable[[Flow, Tensor, Tensor | None, Tensor | None, torch.Generator | None], Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss of a batch: called with flow, preprocessed points, contexts, weights and a source of noise.

    Attributes:
        loss: What is minimised.
        validation: What chooses the best epoch.
        in_nats: Whether they are negative log-likelihoods, of which that of preprocessing can be subtracted.
        noisy: Whether the loss draws noise.
    """

    loss: Loss
    validation: Loss
    in_nats: bool = True
    noisy: bool = False


def _likelihood(penalties: Mapping[str, float]) -> Loss:
    def loss(
        flow: Flow,
        z: Tensor,
        context: Tensor | None,
        weights: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        return negative_log_likelihood(flow, z, context, weights, generator=generator, penalties=penalties)

    return loss


MAXIMUM_LIKELIHOOD = Objective(_likelihood({}), _likelihood({}))


def flow_matching(*, path: str = "linear", pairing: str = "exact", drop: float = 0.0) -> Objective:
    """Return the objective of flow matching, for a flow whose transform is ``Continuous``.

    Args:
        path: A name in ``PATHS``.
        pairing: As of ``flow_matching_loss``.
        drop: Share of the rows that are trained without their context, for guidance.

    Example:
        >>> flow_matching().in_nats
        False
    """

    def loss_with(drop: float) -> Loss:
        def loss(
            flow: Flow,
            z: Tensor,
            context: Tensor | None,
            weights: Tensor | None,
            generator: torch.Generator | None,
        ) -> Tensor:
            transform = flow.transform
            if not isinstance(transform, Continuous):
                raise ValueError(
                    f"flow matching trains a flow whose transform is Continuous, got {type(transform).__name__}"
                )
            start = flow.base.sample((len(z),), generator=generator).to(z)
            return flow_matching_loss(
                transform.field,
                z,
                start,
                flow.embed(context),
                weights,
                path=path,
                pairing=pairing,
                drop=drop,
                generator=generator,
            )

        return loss

    return Objective(loss_with(drop), loss_with(0.0), in_nats=False, noisy=True)


def objective_of(model: ModelConfig | ImageModelConfig) -> Objective:
    """Return what a model is trained by.

    Example:
        >>> from pushforward.configs import NSFConfig
        >>> objective_of(NSFConfig()) is MAXIMUM_LIKELIHOOD
        True
    """
    if isinstance(model, FlowMatchingConfig | ImageFlowMatchingConfig):
        return flow_matching(path=model.path, pairing=model.pairing, drop=getattr(model, "drop", 0.0))
    if isinstance(model, FFJORDConfig):
        penalties = {name: getattr(model, name) for name in ("kinetic", "jacobian", "acceleration")}
        used = {name: weight for name, weight in penalties.items() if weight > 0}
        if used or model.divergence != "exact":
            return Objective(_likelihood(used), _likelihood({}), noisy=True)
    return MAXIMUM_LIKELIHOOD
