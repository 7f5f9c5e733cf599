"""Coupling: one part of the elements moves, under parameters that depend on the part that stays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..kernels.chain import Link
from ..networks.stack import serves
from .base import Transform
from .conditioned import along, conditioned
from .elementwise import ElementwiseMap


class Coupling(Transform):
    r"""With ``A`` the elements that stay and ``B`` those that move,

    .. math:: y_A = x_A, \qquad y_B = f(x_B; g(x_A, c)), \qquad \log|\det J| = \sum_{i \in B} \log|f'(x_i)|.

    Both directions cost one pass of the network ``g``.

    Args:
        mask: True for each element that stays.
        map: Any elementwise map, for the elements that move.
        network: Any module ``(x_A, context) -> (..., len(B) * map.parameters_each)``.
        context_features: Width of the context that the network takes; 0: none.

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
        self, mask: Sequence[bool], map: ElementwiseMap, network: nn.Module, *, context_features: int = 0
    ) -> None:
        chosen = torch.as_tensor(list(mask), dtype=torch.bool)
        if bool(chosen.all()) or not bool(chosen.any()):
            raise ValueError(f"mask: some elements must stay and some must move, got {chosen.tolist()}")
        super().__init__((len(chosen),), context_shape=(context_features,) if context_features else None)
        self.map, self.network, self.reversible = map, network, map.reversible
        stay, move = chosen.nonzero().flatten(), (~chosen).nonzero().flatten()
        self.register_buffer("stay", stay)
        self.register_buffer("move", move)
        self.register_buffer("back", torch.argsort(torch.cat([stay, move])))

    def _map_parameters(self, fixed: Tensor, context: Tensor | None) -> Tensor:
        # To the dtype of the points, should the network compute in a lower one.
        output: Tensor = self.network(fixed, context).to(fixed)
        return output.reshape(*output.shape[:-1], len(self.move), self.map.parameters_each)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, inverse=False)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._move(y, context, inverse=True)

    def _move(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        link = self.link(x, context, inverse=inverse) if serves(x) else None
        if link is not None:
            return along(x, [link])
        fixed = x.index_select(-1, self.stay)
        direction = self.map.inverse if inverse else self.map.forward
        y, log_derivative = direction(x.index_select(-1, self.move), self._map_parameters(fixed, context))
        return torch.cat([fixed, y], -1).index_select(-1, self.back), log_derivative.sum(-1)

    def link(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> Link | None:
        """Return one direction as a link of a fused chain; None where it cannot be one."""
        if type(self) is not Coupling:
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

    def _recover(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        # The elements that stay are those of x: one pass of the network serves the inverse and the way forward again.
        x = y.detach().clone().requires_grad_()
        fixed = x.index_select(-1, self.stay)
        parameters = self._map_parameters(fixed, context)
        with torch.no_grad():
            moved = self.map.inverse(y.index_select(-1, self.move), parameters)[0]
            x.index_copy_(-1, self.move, moved)
        again, log_derivative = self.map.forward(x.index_select(-1, self.move), parameters)
        return x, torch.cat([fixed, again], -1).index_select(-1, self.back), log_derivative.sum(-1)
