"""Pixels in reading order, each under parameters that depend on those before it in a window."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks import CausalPatchMLP
from ..networks.patches import pixel_context
from ..networks.stack import is_plain, serves
from .base import Transform
from .conditioned import along, conditioned
from .elementwise import ElementwiseMap, sum_event


class PixelAutoregressive(Transform):
    r"""An autoregressive flow of an image: with ``i`` the pixels in reading order,

    .. math:: y_i = f(x_i; g(x_{W(i)}, i, c)), \qquad \log|\det J| = \sum_i \log|f'(x_i)|,

    where :math:`W(i)` are the pixels of a window around ``i`` that come before it. The channels of one pixel do not see
    each other.

    Forward is one pass. The inverse goes over the image along slanted lines, since pixel ``(r, s)`` needs only those
    with smaller :math:`s + (R + 1) r`: :math:`W + (R + 1)(H - 1)` steps with few pixels each, and not :math:`H W`.

    Args:
        event_shape: ``(C, H, W)``.
        map: Any elementwise map, of ``C`` channels.
        network: Gives ``C * map.parameters_each`` channels.
        backwards: Go from the last pixel to the first.

    References:
        Papamakarios et al., Masked Autoregressive Flow, 2017, eq. 2-4; van den Oord et al., Pixel Recurrent Neural
        Networks, 2016, section 2; Ma et al., MaCow: Masked Convolutional Generative Flow, 2019, section 3.
        https://arxiv.org/abs/1902.04208

    Example:
        >>> from pushforward.networks import CausalPatchMLP
        >>> from pushforward.transforms import Affine
        >>> t = PixelAutoregressive((1, 4, 4), Affine(), CausalPatchMLP(1, 2, size=(4, 4)))
        >>> t(torch.zeros(3, 1, 4, 4))[1]
        tensor([0., 0., 0.], grad_fn=<SumBackward1>)
    """

    here: Tensor
    inside: Tensor
    before: Tensor

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        map: ElementwiseMap,
        network: CausalPatchMLP,
        *,
        backwards: bool = False,
    ) -> None:
        super().__init__(event_shape, context_shape=network.context_shape)
        self.map, self.network, self.backwards = map, network, backwards
        _, h, w = event_shape
        # Where the pixels of each step lie in an image with a margin above and on both sides.
        step = (torch.arange(w) + (network.radius + 1) * torch.arange(h)[:, None]).flatten()
        here, width = step.argsort(stable=True), w + 2 * network.radius
        self._sizes = step.unique(return_counts=True)[1].tolist()
        self.register_buffer("here", here, persistent=False)
        inside = (here // w + network.radius) * width + here % w + network.radius
        self.register_buffer("inside", inside, persistent=False)
        above = torch.arange(-network.radius, 0)[:, None] * width
        above = (above + torch.arange(-network.radius, network.radius + 1)).flatten()
        before = torch.cat([above, torch.arange(-network.radius, 0)])
        self.register_buffer("before", before, persistent=False)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self._turned(x)
        result = self._fused(x, context) if serves(x) else None
        if result is None:
            y, log_derivative = self.map.forward(
                x, self._map_parameters(self.network(x, context).to(x).movedim(-3, -1), x)
            )
            result = y, sum_event(log_derivative, 3)
        return self._turned(result[0]), result[1]

    def _fused(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Map all pixels in one call of a kernel, each a point of its own; None where it cannot be."""
        if not is_plain(self.network, CausalPatchMLP):
            return None
        rows, given = self.network.rows(x, context, x)
        places, seen = torch.arange(rows.shape[-1]), rows.shape[-1] - x.shape[-3]
        link = conditioned(
            rows, given, self.network.mlp, self.map, stay=places[:seen], move=places[seen:], inverse=False
        )
        if link is None:
            return None
        y, log_derivative = along(rows, [link])
        return y[..., seen:].movedim(-1, -3), log_derivative.sum((-2, -1))

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y = self._turned(y)
        batch, (channels, h, w) = y.shape[:-3], self.event_shape
        given = pixel_context(self.network, y, context)
        if given is not None:
            given = given.expand(*batch, h, w, given.shape[-1]).reshape(-1, h * w, given.shape[-1])
        pixels = y.movedim(-3, -1).reshape(-1, h * w, channels)
        radius, places = self.network.radius, self.network.places.reshape(h * w, 2)
        # With a margin of zeros above and on both sides, so that every window is whole.
        found = y.new_zeros(len(pixels), (h + radius) * (w + 2 * radius), channels)
        total = y.new_zeros(len(pixels))
        steps = zip(*(t.split(self._sizes) for t in (self.here, self.inside)), strict=True)
        for here, inside in steps:
            seen = found[:, inside[:, None] + self.before].flatten(-2)
            seen = torch.cat([seen, places[here].expand(len(pixels), -1, -1)], -1)
            # To the dtype of the points, should the network compute in a lower one.
            parameters = self.network.mlp(seen, None if given is None else given[:, here]).to(pixels)
            x, log_derivative = self.map.inverse(pixels[:, here], self._map_parameters(parameters, None))
            found = found.index_copy(1, inside, x)
            total = total + log_derivative.sum((-2, -1))
        x = found.unflatten(1, (h + radius, w + 2 * radius))[:, radius:, radius : radius + w]
        return self._turned(x.movedim(-1, -3).reshape(*batch, channels, h, w)), total.reshape(batch)

    def _map_parameters(self, output: Tensor, x: Tensor | None) -> Tensor:
        """Return parameters from what the network gives, channels last, laid out as the image or as pixels."""
        each: Tensor = output.unflatten(-1, (self.event_shape[0], self.map.parameters_each))
        return each if x is None else each.movedim(-2, -4)

    def _turned(self, x: Tensor) -> Tensor:
        return x.flip(-2, -1) if self.backwards else x
