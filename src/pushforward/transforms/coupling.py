"""Coupling: one part of the elements moves, under parameters that depend on the part that stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.chain import Link
from ..networks import PatchMLP
from ..networks.stack import is_plain, serves
from .base import Shape, Transform
from .conditioned import along, conditioned
from .elementwise import ElementwiseMap, sum_event


class Coupling(Transform):
    r"""With ``A`` the elements that stay and ``B`` those that move,

    .. math:: y_A = x_A, \qquad y_B = f(x_B; g(x_A, c)), \qquad \log|\det J| = \sum_{i \in B} \log|f'(x_i)|.

    Both directions cost one pass of the network ``g``. Of an image the elements are its channels; after ``Squeeze`` a
    mask of channels is a checkerboard on the pixels.

    Args:
        mask: True for each element, or channel, that stays.
        map: Any elementwise map, for the elements that move.
        network: Any module ``(x_A, context) -> (..., len(B) * map.parameters_each)``; with a ``size`` ``(..., len(B) *
            map.parameters_each, *size)``.
        context_features: Width of the context that the network takes; 0: none.
        context_shape: Shape of the context, where it is no vector.
        size: Rows and columns of an image; (): points are vectors.

    Raises:
        ValueError: A mask under which nothing stays or nothing moves.

    References:
        Dinh et al., NICE, 2014, section 3.2; Density estimation using Real NVP, 2017, eq. 4-8.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> from pushforward.networks import MLP
        >>> from pushforward.transforms import Affine
        >>> t = Coupling([True, False, False], Affine(), MLP(1, 2 * 2))
        >>> y, log_abs_det = t(torch.randn(5, 3))
        >>> y.shape, log_abs_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    stay: Tensor
    move: Tensor
    back: Tensor

    def __init__(
        self,
        mask: Sequence[bool],
        map: ElementwiseMap,
        network: nn.Module,
        *,
        context_features: int = 0,
        context_shape: Shape | None = None,
        size: Shape = (),
    ) -> None:
        chosen = torch.as_tensor(list(mask), dtype=torch.bool)
        if bool(chosen.all()) or not bool(chosen.any()):
            raise ValueError(f"mask: some elements must stay and some must move, got {chosen.tolist()}")
        super().__init__(
            (len(chosen), *size), context_shape=(context_features,) if context_features else context_shape
        )
        self.map, self.network, self.reversible = map, network, map.reversible
        stay, move = chosen.nonzero().flatten(), (~chosen).nonzero().flatten()
        self.register_buffer("stay", stay)
        self.register_buffer("move", move)
        self.register_buffer("back", torch.argsort(torch.cat([stay, move])))

    def _map_parameters(self, fixed: Tensor, context: Tensor | None) -> Tensor:
        # To the dtype of the points, should the network compute in a lower one.
        output: Tensor = self.network(fixed, context).to(fixed)
        dim = self._dim
        parameters: Tensor = output.unflatten(dim, (len(self.move), self.map.parameters_each))
        return parameters.movedim(dim, -1)

    @property
    def _dim(self) -> int:
        return -len(self.event_shape)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, inverse=False)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._move(y, context, inverse=True)

    def _move(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if serves(x):
            link = self.link(x, context, inverse=inverse)
            fused = self._at_pixels(x, context, inverse=inverse) if link is None else along(x, [link])
            if fused is not None:
                return fused
        dim = self._dim
        fixed = x.index_select(dim, self.stay)
        direction = self.map.inverse if inverse else self.map.forward
        y, log_derivative = direction(x.index_select(dim, self.move), self._map_parameters(fixed, context))
        return self._joined(fixed, y), sum_event(log_derivative, -dim)

    def _joined(self, fixed: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([fixed, moved], self._dim).index_select(self._dim, self.back)

    def link(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> Link | None:
        """Return one direction as a link of a fused chain; None where it cannot be one."""
        if type(self) is not Coupling or len(self.event_shape) != 1:
            return None
        modules, buffers = self.__dict__["_modules"], self.__dict__["_buffers"]  # attributes are slow
        return conditioned(
            x,
            context,
            modules["network"],
            modules["map"],
            stay=buffers["stay"],
            move=buffers["move"],
            inverse=inverse,
        )

    def _at_pixels(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor] | None:
        """Move the channels of all pixels in one call of a kernel, each a point of its own; None where it cannot be."""
        network: Any = self.network
        if not (type(self) is Coupling and is_plain(network, PatchMLP) and network.spread == 1):
            return None
        fixed = x.index_select(-3, self.stay)
        rows, given = network.rows(fixed, context, x.index_select(-3, self.move))
        places, seen = torch.arange(rows.shape[-1]), rows.shape[-1] - len(self.move)
        stay, move = places[:seen], places[seen:]
        link = conditioned(rows, given, network.mlp, self.map, stay=stay, move=move, inverse=inverse)
        if link is None:
            return None
        y, log_derivative = along(rows, [link])
        return self._joined(fixed, y[..., seen:].movedim(-1, -3)), log_derivative.sum((-2, -1))

    def _recover(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # The elements that stay are those of x: one pass of the network serves the inverse and the way forward again.
        x, dim = y.detach().clone().requires_grad_(), self._dim
        fixed = x.index_select(dim, self.stay)
        parameters = self._map_parameters(fixed, context)
        with torch.no_grad():
            moved = self.map.inverse(y.index_select(dim, self.move), parameters)[0]
            x.index_copy_(dim, self.move, moved)
        again, log_derivative = self.map.forward(x.index_select(dim, self.move), parameters)
        return x, self._joined(fixed, again), sum_event(log_derivative, -dim)
