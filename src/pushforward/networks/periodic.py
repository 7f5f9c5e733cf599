"""Angles as inputs of a conditioner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class CircularFeatures(nn.Module):
    r"""Show a network the angles among its inputs as :math:`(\cos x, \sin x)`, so that it is continuous on the circle.

    The cosine stands in the angle's own place, the sines follow after the last input: the network must take
    ``in_features + len(angles)`` inputs.

    Args:
        network: The network, called as ``network(features, context)``.
        in_features: Width of the point.
        angles: Which elements are angles, in radians.

    Example:
        >>> from pushforward.networks import MLP
        >>> net = CircularFeatures(MLP(3, 4), 2, [1])
        >>> net(torch.zeros(5, 2)).shape
        torch.Size([5, 4])
    """

    angles: Tensor
    circular: Tensor

    def __init__(self, network: nn.Module, in_features: int, angles: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        chosen = set(angles)
        self.encodings = (
            *("cos" if i in chosen else "value" for i in range(in_features)),
            *("sin" for _ in angles),
        )
        index = torch.as_tensor(list(angles), dtype=torch.long)
        self.register_buffer("angles", index, persistent=False)
        self.register_buffer(
            "circular",
            torch.zeros(in_features, dtype=torch.bool).index_fill(0, index, True),
            persistent=False,
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Encode the angles of ``x`` and call the network."""
        features = torch.cat(
            [torch.where(self.circular, x.cos(), x), x.index_select(-1, self.angles).sin()], -1
        )
        output: Tensor = self.network(features, context)
        return output
