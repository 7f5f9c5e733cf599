"""A flow from one sample to another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..configs import FlowMatchingConfig, TrainConfig, default_training
from ..data import split_rows
from ..flows import build_flow
from ..objectives import flow_matching_objective
from ..transforms import Chain, Inverse, Standardise
from .loop import EpochRecord, train
from .points import Points
from .seeded import seeded


def fit_transport(
    source: Tensor,
    target: Tensor,
    *,
    model: FlowMatchingConfig | None = None,
    training: TrainConfig | None = None,
    seed: int = 0,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Chain:
    r"""Fit a continuous flow that carries one sample to another, neither of which need be normal.

    With pairs by optimal transport in each batch its paths are near those of the map that moves mass least. The
    result's ``decode`` takes points of the source to the target, and ``encode`` back.

    Args:
        source: Sample to carry, ``(m, D)``.
        target: Sample to arrive at, ``(n, D)``.
        model: The field and how it is solved; with pairs by optimal transport by default.
        training: Settings of the training.
        seed: Seed of the split and, by default, of the training.
        on_epoch: Called after every epoch.

    Returns:
        A transform, in the units of the samples and in float32.

    Raises:
        ValueError: Samples of other shapes, or not finite.

    References:
        Tong et al., Improving and generalizing flow-based generative models with minibatch optimal transport, 2024.
        https://arxiv.org/abs/2302.00482

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> a = torch.randn(200, 2, generator=generator)
        >>> carried = fit_transport(
        ...     a, a + 3.0, training=TrainConfig(epochs=1), model=FlowMatchingConfig(hidden=(8, 8))
        ... )
        >>> carried.decode(a).shape
        torch.Size([200, 2])
    """
    for name, sample in (("source", source), ("target", target)):
        if sample.ndim != 2 or sample.shape[1:] != target.shape[1:]:
            raise ValueError(
                f"{name} must have shape (n, {target.shape[-1]}), as target, got {tuple(sample.shape)}"
            )
        if not bool(sample.isfinite().all()):
            raise ValueError(f"{name} must be finite")
    model = model or FlowMatchingConfig(pairing="exact")
    features = target.shape[1]
    units = Standardise(features).to(torch.float64)
    units.initialize(torch.cat([source, target]).double())
    start, end = (units(sample.double())[0].float() for sample in (source, target))
    rows, valid, _ = split_rows(len(end), seed=seed, fractions=(0.9, 0.1, 0.0))
    training = training or default_training(len(rows), seed, model)
    with seeded(training.seed):
        flow = build_flow(model, features)
    objective = flow_matching_objective(path=model.path, pairing=model.pairing, late=model.late, source=start)
    train(
        flow,
        Points(end[torch.from_numpy(rows)]),
        Points(end[torch.from_numpy(valid)]),
        training,
        objective=objective,
        on_epoch=on_epoch,
    )
    units = units.float()
    return Chain([units, flow.transform, Inverse(units)])
