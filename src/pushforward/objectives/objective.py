"""What a training minimises, chosen by the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..configs import FFJORDConfig, FlowMatchingConfig, ImageFlowMatchingConfig, ImageModelConfig, ModelConfig
from ..flows import Flow
from ..transforms import Continuous
from ..transforms.solution import PENALTIES
from .flow_matching import flow_matching_loss, reflow_pairs
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
        noise: Standard deviation of the normal noise that a training adds to points before the loss sees them, anew in
            each step.
        smoothed: Whether points of validation get that noise too, as where the density of points with noise is wanted.
        bounded: Whether the loss has a lower bound also where a value repeats, at which a density can grow.
    """

    loss: Loss
    validation: Loss
    in_nats: bool = True
    noisy: bool = False
    noise: float = 0.0
    smoothed: bool = False
    bounded: bool = False


MAXIMUM_LIKELIHOOD = Objective(negative_log_likelihood, negative_log_likelihood)


def flow_matching_objective(
    *,
    path: str = "linear",
    pairing: str = "exact",
    drop: float = 0.0,
    late: float = 1.0,
    source: Tensor | None = None,
) -> Objective:
    """Return the objective of flow matching, for a flow whose transform is ``Continuous``.

    Args:
        path: A name in ``PATHS``.
        pairing: As of ``flow_matching_loss``.
        drop: Share of the rows that are trained without their context, for guidance, where there is one.
        late: As of ``flow_matching_loss``.
        source: What the paths begin at, ``(m, *event)`` in the model's units; None: draws of the flow's base. With a
            sample here the flow carries one sample to another.

    Example:
        >>> flow_matching_objective().in_nats
        False
    """

    def loss(
        flow: Flow,
        z: Tensor,
        context: Tensor | None,
        weights: Tensor | None,
        generator: torch.Generator | None,
        *,
        dropped: float = drop,
    ) -> Tensor:
        if source is None:
            start = flow.base.sample((len(z),), generator=generator).to(z)
        else:
            places = torch.randint(len(source), (len(z),), generator=generator, device=z.device)
            start = source.to(z)[places]
        return flow_matching_loss(
            continuous(flow).field,
            z,
            start,
            flow.embed(context),
            weights,
            path=path,
            pairing=pairing,
            drop=0.0 if context is None else dropped,
            late=late,
            generator=generator,
        )

    return Objective(loss, partial(loss, dropped=0.0), in_nats=False, noisy=True)


def reflow_objective(
    teacher: Flow,
    context: Tensor | None = None,
    *,
    rows: int = 2**15,
    generator: torch.Generator | None = None,
) -> Objective:
    """Return the objective of a rectified flow: flow matching on the pairs that a trained flow makes.

    Trained by it a flow has the law of its teacher and straighter paths, which fewer steps follow. It learns from the
    teacher alone: the points of a batch are not used.

    Args:
        teacher: A continuous flow that was trained.
        context: Contexts to make pairs for, ``(m, *context)`` as the transform takes them, for a conditional flow.
        rows: Number of pairs.
        generator: Source of the pairs.

    References:
        Liu et al., Flow Straight and Fast, 2023, algorithm 1. https://arxiv.org/abs/2209.03003

    Example:
        >>> from pushforward.configs import FlowMatchingConfig
        >>> from pushforward.flows import build_flow
        >>> reflow_objective(build_flow(FlowMatchingConfig(hidden=(8, 8)), 2), rows=10).noisy
        True
    """
    if context is not None:
        places = torch.randint(len(context), (rows,), generator=generator, device=context.device)
        context = context[places]
    start = teacher.base.sample((rows,), generator=generator)
    start, end = reflow_pairs(continuous(teacher).decode, start, context)

    def loss(
        flow: Flow,
        z: Tensor,
        _: Tensor | None,
        weights: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        some = torch.randint(rows, (len(z),), generator=generator, device=z.device).to(start.device)
        given = None if context is None else context[some].to(z)
        return flow_matching_loss(
            continuous(flow).field,
            end[some].to(z),
            start[some].to(z),
            given,
            pairing="given",
            generator=generator,
        )

    return Objective(loss, loss, in_nats=False, noisy=True)


def continuous(flow: Flow) -> Continuous:
    """Return the transform of a continuous flow.

    Raises:
        ValueError: It is another.
    """
    if not isinstance(flow.transform, Continuous):
        raise ValueError(
            f"flow matching trains a flow whose transform is Continuous, got {type(flow.transform).__name__}"
        )
    return flow.transform


def objective_of(model: ModelConfig | ImageModelConfig) -> Objective:
    """Return what a model is trained by.

    Example:
        >>> from pushforward.configs import NSFConfig
        >>> objective_of(NSFConfig()) is MAXIMUM_LIKELIHOOD
        True
    """
    if isinstance(model, FlowMatchingConfig | ImageFlowMatchingConfig):
        return flow_matching_objective(
            path=model.path, pairing=model.pairing, drop=model.drop, late=model.late
        )
    if isinstance(model, FFJORDConfig):
        penalties = {name: getattr(model, name) for name in PENALTIES}
        used = {name: weight for name, weight in penalties.items() if weight > 0}
        if used or model.divergence != "exact":
            penalised = partial(negative_log_likelihood, penalties=used)
            return Objective(penalised, negative_log_likelihood, noisy=True)
    return MAXIMUM_LIKELIHOOD
