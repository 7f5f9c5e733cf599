"""The weights of a model side by side in one vector, for all that a step does to each number alike."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import torch
from torch import Tensor, nn

from ..flows import Flow, with_transform
from ..transforms.flat import Flat, links_of
from .step import is_watched

# Parameters above which their gradient a second time is no small thing, and layers cost no time in Python.
_LARGE = 2**22


class FlatParameters:
    """Parameters, and their gradients, as views of one vector for each dtype, as a rule of one.

    Clipping, the optimiser and the moving average then are a few operations on vectors, and not some on each of many
    small tensors. Gradients are added up in place: they are set to zero before a step, and never to None.

    Args:
        parameters: What to lay side by side; those without gradient stay where they are.

    Attributes:
        vectors: The vectors, with their gradients.
        starts: Where in its vector each parameter begins.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> flat = FlatParameters(layer.parameters())
        >>> layer(torch.ones(2)).sum().backward()
        >>> [v.grad.tolist() for v in flat.vectors]
        [[1.0, 1.0, 1.0]]
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        kinds: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
        for p in parameters:
            if p.requires_grad:
                kinds.setdefault((p.dtype, p.device), []).append(p)
        self.starts: dict[Tensor, int] = {}
        self.vectors: list[nn.Parameter] = []
        for kind in kinds.values():
            vector = nn.Parameter(torch.cat([p.detach().flatten() for p in kind]))
            vector.grad = torch.zeros_like(vector)
            for p, value, gradient in zip(
                kind, _views(vector.detach(), kind), _views(vector.grad, kind), strict=True
            ):
                p.data, p.grad = value, gradient
            self.vectors.append(vector)
            ends = accumulate((p.numel() for p in kind), initial=0)
            self.starts |= dict(zip(kind, ends, strict=False))

    def release(self) -> None:
        """Give every parameter memory of its own again, and no gradient."""
        for p in self.starts:
            p.data, p.grad = p.detach().clone(), None


def _views(vector: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    parts = vector.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


def with_flat_weights(flow: Flow, flat: FlatParameters) -> Flow | None:
    """Return the same flow, whose gradient goes to the vector at once; None where it is not one fused chain.

    Nor is there one where somebody follows gradients on their way to the parameters, or has made a flow of another
    kind, or where the model is large.

    Args:
        flow: The flow, without changes to its layers from its first pass on.
        flat: All its parameters.
    """
    if type(flow) is not Flow or is_watched(flow) or flow.transform.context_shape is not None:
        return None
    if len(flat.vectors) != 1 or flat.vectors[0].numel() > _LARGE or links_of(flow.transform) is None:
        return None
    return with_transform(flow, Flat(flow.transform, flat.vectors[0], flat.starts))
