"""Some elements of a point move under parameters that a perceptron makes of others: a link of a fused chain."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..kernels.chain import Link, Move, chain
from ..networks import MLP, MaskedMLP
from ..networks.stack import in_rows, is_plain
from .elementwise import ElementwiseMap


def conditioned(
    x: Tensor,
    context: Tensor | None,
    network: nn.Module,
    map: ElementwiseMap,
    *,
    stay: Tensor | None = None,
    move: Tensor | None = None,
    inverse: bool = False,
) -> Link | None:
    """Return the move of some elements as a link for points that kernels serve; None where it cannot be one.

    Args:
        x: Points, ``(*batch, D)``.
        context: What the network is given beside.
        network: From the elements that stay to ``map.parameters_each`` numbers for each that moves.
        map: How these move.
        stay: Numbers of the elements that the network is given; None: all.
        move: Numbers of those that move; None: all.
        inverse: Move back.
    """
    if not (type(network) is MLP or type(network) is MaskedMLP) or not is_plain(network, type(network)):
        return None
    fused = map.kernel(inverse=inverse)
    if fused is None:
        return None
    shape = x.shape
    stack = network.stack(shape if stay is None else (*shape[:-1], stay.numel()), context)
    if stack is None:
        return None
    layers, seen = stack
    if layers[-1].bias.numel() != (shape[-1] if move is None else move.numel()) * map.parameters_each:
        return None
    formula = map.inverse if inverse else map.forward
    moved = Move(fused, formula, map.parameters_each, stay, move, inverse)
    return Link(layers, in_rows(seen, shape[:-1]), moved)


def along(x: Tensor, links: Sequence[Link]) -> tuple[Tensor, Tensor]:
    """Take points ``(*batch, D)`` through links; return them and their log-determinants."""
    batch, features = x.shape[:-1], x.shape[-1]
    y, log_abs_det = chain(x.reshape(-1, features), links)
    assert log_abs_det is not None
    return y.reshape(*batch, features), log_abs_det.reshape(batch)
