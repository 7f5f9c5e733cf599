"""Fused transforms that are laid out once, for many steps of a training or for many densities and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..kernels.chain import Link
from ..kernels.flat import FixedChain, FlatChain
from ..networks.masked import MaskedLinear
from ..networks.stack import serves
from .base import Transform
from .walk import walk

_MANY = 256  # points, enough for a kernel


def links_of(transform: Transform, *, inverse: bool = False) -> list[Link] | None:
    """Return the links of a transform that is one fused chain, those of a context under zeros; None where it is not.

    Example:
        >>> from pushforward.transforms import Permutation
        >>> links_of(Permutation.reverse(2))
    """
    parts = [part for _, part in walk(transform)]
    x, links = torch.zeros(_MANY, *transform.event_shape), []
    if not serves(x):
        return None
    for part in parts[::-1] if inverse else parts:
        context = None if part.context_shape is None else torch.zeros(part.context_shape)
        link = part.link(x, context, inverse=inverse)
        if link is None:
            return None
        links.append(link)
    return links


class Flat(Transform):
    """The same map, whose gradient goes to one vector that its weights are views of.

    Where it serves, a pass costs what the kernel does and little more: neither autograd nor Python goes over layers. It
    has the layers of ``transform`` as they are in the first pass, and no parameters of its own. It is ``transform``
    where that is not one fused chain, or has a weight twice. Gradients of gradients are not there.

    Args:
        transform: The map, which takes no context.
        vector: The vector.
        starts: Where in it each weight begins.
    """

    def __init__(self, transform: Transform, vector: Tensor, starts: Mapping[Tensor, int]) -> None:
        super().__init__(transform.event_shape, latent_shape=transform.latent_shape)
        self.transform = transform
        self._vector, self._starts = vector, starts
        self._laid_out: tuple[FlatChain | None] | None = None

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() and x.ndim == 2 and serves(x):
            if self._laid_out is None:
                self._laid_out = (self._lay_out(),)
            chain = self._laid_out[0]
            if chain is not None:
                return chain(x)
        return self.transform._forward(x, context)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._inverse(y, context)

    def _lay_out(self) -> FlatChain | None:
        links = _lasting(links_of(self.transform))
        weights = [] if links is None else _weights(links)
        if links is None or len({id(t) for t in weights}) < len(weights):
            return None  # the kernel writes a gradient in one place only
        return FlatChain(links, self._vector, self._starts, self.event_shape[0])


def _weights(links: list[Link]) -> list[Tensor]:
    return [t for link in links for layer in link.layers for t in (layer.weight, layer.bias)]


def _lasting(links: list[Link] | None) -> list[Link] | None:
    """Return the links if the kernel reads their weights where they are: a copy would not follow them."""
    return links if links is None or all(t.is_contiguous() for t in _weights(links)) else None


class Fixed(Transform):
    """The same map, each direction of which is laid out once where it is one fused chain and no gradient is asked for.

    Weights may change, and they and masks are looked up again where they were replaced; layers, and what hooks them,
    are taken as they are in the first pass. Elsewhere it is ``transform``, which it shares all with.

    Args:
        transform: The map, which takes no context.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__(transform.event_shape, latent_shape=transform.latent_shape)
        self.transform = transform
        self._places: list[tuple[dict[str, Any], str]] = []
        self._masked: list[MaskedLinear] = []
        self._facts: list[int] = []
        self._chains: dict[bool, FixedChain | None] = {}

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        chain = self._chain(x, inverse=False)
        return self.transform._forward(x, context) if chain is None else chain(x)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        chain = self._chain(y, inverse=True)
        return self.transform._inverse(y, context) if chain is None else chain(y)

    def _chain(self, x: Tensor, *, inverse: bool) -> FixedChain | None:
        if x.ndim != 2 or torch.is_grad_enabled() or not serves(x):
            return None
        chains = self._chains  # this one, should another thread begin anew
        if self._look() != self._facts or not chains:
            modules = list(self.transform.modules())
            self._masked = [module for module in modules if isinstance(module, MaskedLinear)]
            tables = [module._parameters for module in modules]
            self._places = [(own, name) for own in tables for name, p in own.items() if p is not None]
            self._facts = self._look()
            self._chains = chains = {}
        if inverse not in chains:
            with torch.inference_mode(False), torch.no_grad():  # what is made here outlives the mode
                links = _lasting(links_of(self.transform, inverse=inverse))
                chains[inverse] = None if links is None else FixedChain(links, self.event_shape[0])
        return chains[inverse]

    def _look(self) -> list[int]:
        """Return what tells whether weights were replaced, or masks: these are made anew where an order is loaded."""
        weights = [parameters[name].data_ptr() for parameters, name in self._places]
        return weights + [id(layer.stairs) for layer in self._masked]
