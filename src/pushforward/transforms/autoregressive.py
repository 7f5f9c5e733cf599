"""Autoregressive transforms: each element moves under parameters that depend on the elements before it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks import MaskedMLP
from ..networks.periodic import CircularFeatures
from .base import Transform
from .elementwise import ElementwiseMap


class Autoregressive(Transform):
    r"""With elements in the network's order,

    .. math:: y_i = f(x_i; g_i(x_{<i}, c)), \qquad \log|\det J| = \sum_i \log|f'(x_i)|.

    ``forward`` is one pass of the masked network, ``inverse`` fills in the elements one after the other. ``Inverse``
    of it (IAF) exchanges the two costs.

    Args:
        map: Any elementwise map.
        network: A masked network with ``map.parameters_each`` outputs for each element.

    Raises:
        ValueError: A network whose number of parameters is not that of the map.

    References:
        Papamakarios et al., Masked Autoregressive Flow, 2017, eq. 3-6. https://arxiv.org/abs/1705.07057

    Example:
        >>> from pushforward.transforms import Affine
        >>> t = Autoregressive(Affine(), MaskedMLP(3, 2))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(t.inverse(t(x)[0])[0], x, atol=1e-5)
        True
    """

    def __init__(self, map: ElementwiseMap, network: MaskedMLP | CircularFeatures) -> None:
        masked = network if isinstance(network, MaskedMLP) else network.network
        if not isinstance(masked, MaskedMLP):
            raise ValueError(f"network must be a MaskedMLP, got {type(masked).__name__}")
        if masked.parameters_each != map.parameters_each:
            raise ValueError(
                f"network must give {map.parameters_each} parameters for each element, as {type(map).__name__} needs, "
                f"got {masked.parameters_each}"
            )
        context = masked.context_features
        super().__init__((masked.features,), context_shape=(context,) if context else None)
        self.map, self.network = map, network

    @property
    def order(self) -> Tensor:
        """Position of each element in the order."""
        masked = self.network if isinstance(self.network, MaskedMLP) else self.network.network
        assert isinstance(masked, MaskedMLP)
        return masked.order

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_derivative = self.map.forward(x, self.network(x, context))
        return y, log_derivative.sum(-1)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # Elements not yet known stand as 0, so that no overflow among them can reach a masked product.
        x, log_derivative = torch.zeros_like(y), torch.zeros_like(y)
        for position in range(self.event_shape[0]):
            now = self.order == position
            x_all, log_derivative_all = self.map.inverse(y, self.network(x, context))
            x = torch.where(now, x_all, x)
            log_derivative = torch.where(now, log_derivative_all, log_derivative)
        return x, log_derivative.sum(-1)
