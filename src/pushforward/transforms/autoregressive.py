"""Autoregressive transforms: each element moves under parameters that depend on the elements before it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.calls import plain
from ..kernels.chain import Link
from ..kernels.sweep import available, sweep
from ..kernels.tracing import traced
from ..networks import MaskedMLP
from ..networks.periodic import CircularFeatures
from ..networks.stack import serves
from .base import Transform
from .conditioned import along, conditioned
from .elementwise import ElementwiseMap
from .fixed_point import fixed_point, pays
from .precision import full_precision
from .root import Root, Steps


class Autoregressive(Transform):
    r"""With elements in the network's order,

    .. math:: y_i = f(x_i; g_i(x_{<i}, c)), \qquad \log|\det J| = \sum_i \log|f'(x_i)|.

    ``forward`` is one pass of the masked network. ``inverse`` finds the elements one after the other and computes each
    hidden unit once, as soon as all that it sees is known: ``D`` small steps with the arithmetic of one pass, and with
    its time where a fused kernel takes them all. Elsewhere a fixed point of many elements at once is tried first, which
    takes a few passes where they depend weakly. The gradient is that of the implicit function and takes as many steps
    back. ``Inverse`` of it (IAF) exchanges the two costs. Under ``torch.compile`` and the transforms of ``torch.func``
    every step is a pass over all that is known.

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
        return self._masked.order

    @property
    def _masked(self) -> MaskedMLP:
        masked = self.network if isinstance(self.network, MaskedMLP) else self.network.network
        assert isinstance(masked, MaskedMLP)
        return masked

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        link = self.link(x, context, inverse=False) if serves(x) else None
        if link is not None:
            return along(x, [link])
        # To the dtype of the points, should the network compute in a lower one.
        y, log_derivative = self.map.forward(x, self.network(x, context).to(x))
        return y, log_derivative.sum(-1)

    def link(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> Link | None:
        """Return the way forward as a link of a fused chain; None where it cannot be one."""
        if inverse or type(self) is not Autoregressive:
            return None
        return conditioned(x, context, self.network, self.map)

    @full_precision
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        wanted = torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (y, context, *self.parameters())
        )
        found = None if traced() else self._swept(y, context)
        if found is None and not wanted and not traced() and pays(y):
            found = self._fixed_point(y, context)
        if found is not None and not wanted:
            return found
        masked = self._masked
        batch = y.shape[:-1]
        encodings = self.network.encodings if isinstance(self.network, CircularFeatures) else ()
        plan = masked.plan(encodings)
        layers = masked.sorted_layers(context, batch)
        flat = [tensor for layer in layers for tensor in layer]
        rows = masked.by_position(y.reshape(-1, y.shape[-1]))
        steps = Steps(self.map, plan, self.order.argsort())
        if traced():
            x, log_derivative = steps.repeat(rows, flat)
        elif wanted:
            known = None if found is None else masked.by_position(found[0].reshape(rows.shape))
            root: Tensor = Root.apply(steps, known, rows, *flat)  # type: ignore[no-untyped-call]
            x = masked.by_element(root).reshape(y.shape)
            return x, -self._forward(x, context)[1]
        else:
            x, log_derivative = steps.sweep(rows, flat)
        return masked.by_element(x).reshape(y.shape), log_derivative.sum(-1).reshape(batch)

    def _swept(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return the inverse by the fused kernel, without its gradient; None where that does not serve."""
        turns = self._masked.turns
        # The kernel maps element by element, in the network's order: all must be mapped alike.
        alike = self.map.select(self.order) is self.map
        if turns is None or not alike or not y.numel() or not plain(y) or not available():
            return None
        with torch.no_grad():
            link = conditioned(y, context, self.network, self.map, inverse=True)
            if link is None:
                return None
            x, log_abs_det = sweep(y.reshape(-1, y.shape[-1]), link, turns)
        return x.reshape(y.shape), log_abs_det.reshape(y.shape[:-1])

    def _fixed_point(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor] | None:
        found = fixed_point(lambda x: self.map.inverse(y, self.network(x, context).to(y)), y)
        return None if found is None else (found[0], found[1].sum(-1))
