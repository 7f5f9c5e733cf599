"""The contract of every invertible map, and its inverse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..kernels.chain import Link, reverse
from ..networks.shapes import Shape, anchor, check_arguments
from ..networks.stack import serves
from .solution import PENALTIES, Request, Solution, Stats

__all__ = ["Inverse", "Shape", "Transform", "check_arguments", "merge_context_shapes"]


class Transform(nn.Module, ABC):
    r"""A bijection :math:`y = f(x; c)` with the logarithm of its volume change.

    This docstring is the contract. For an event of ``event_shape`` with any batch shape in front,

    - ``forward(x, context) -> (y, log_abs_det)`` maps data towards the latent space, always;
      :math:`\text{log\_abs\_det} = \log |\det \partial f / \partial x|` has the batch shape, also for constants;
    - ``inverse(y, context) -> (x, log_abs_det)`` is its inverse, with the inverse's own log-determinant, which
      is minus that of ``forward`` at ``x``;
    - ``context`` has shape ``(*context_batch, *context_shape)``, its batch shape broadcasting to that of ``x``; a
      transform with ``context_shape`` None ignores it;
    - dtype and device are those of the input, which must be those of the parameters;
    - the public methods check shapes and dtypes, never values, and call ``_forward`` and ``_inverse``.

    ``Inverse(t)`` is the only way to turn a transform round.

    Args:
        event_shape: Shape of one ``x``.
        latent_shape: Shape of one ``y``; that of ``x`` by default.
        context_shape: Shape of one context, or None.

    Attributes:
        reversible: Whether ``inverse`` recovers ``x`` from ``y`` to about rounding for the price of one ``forward``.
            Training with constant memory then need not keep ``x``.
        exact: Whether ``forward`` and ``inverse`` give their log-determinants exactly, or to the tolerance of a solver.
            Else these two refuse, and ``solve`` gives an unbiased estimate.
        log_det_costs: Whether the log-determinant takes much longer than the map; ``encode`` and ``decode`` are
            without it.
    """

    reversible: bool = False
    exact: bool = True
    log_det_costs: bool = False
    event_shape: Shape
    latent_shape: Shape
    context_shape: Shape | None

    def __init__(
        self, event_shape: Shape, *, latent_shape: Shape | None = None, context_shape: Shape | None = None
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.latent_shape = self.event_shape if latent_shape is None else tuple(latent_shape)
        self.context_shape = None if context_shape is None else tuple(context_shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to latent.

        Args:
            x: Points, ``(*batch, *event_shape)``.
            context: Contexts, ``(*context_batch, *context_shape)``.

        Returns:
            ``y`` of shape ``(*batch, *latent_shape)`` and ``log_abs_det`` of shape ``batch``, in nats.

        Raises:
            ValueError: A shape or dtype that does not fit, or a context that is missing.
        """
        return self._forward(x, self._check("x", x, self.event_shape, context))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latent to data; shapes and errors as in ``forward``."""
        return self._inverse(y, self._check("y", y, self.latent_shape, context))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to latent, without the log-determinant; arguments and errors as in ``forward``."""
        return self._encode(x, self._check("x", x, self.event_shape, context))

    def decode(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latent to data, without the log-determinant; arguments and errors as in ``forward``."""
        return self._decode(y, self._check("y", y, self.latent_shape, context))

    def solve(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        inverse: bool = False,
        generator: torch.Generator | None = None,
        shared: bool = False,
        penalties: Sequence[str] = (),
    ) -> Solution:
        """Map one way and say what it took: ``forward`` and ``inverse`` are views of it.

        Args:
            x: Points of the side that is mapped from.
            context: As in ``forward``.
            inverse: Map latent to data.
            generator: Source of the noise where the log-determinant is estimated.
            shared: Whether all rows have the same noise, so that a row's estimate does not depend on the others.
            penalties: Which integrals along the path are wanted: ``"kinetic"``, ``"jacobian"``, ``"acceleration"``;
                maps in closed form have no path.
        """
        if not set(penalties) <= set(PENALTIES):
            raise ValueError(f"penalties must be among {', '.join(PENALTIES)}, got {sorted(penalties)}")
        name, shape = ("y", self.latent_shape) if inverse else ("x", self.event_shape)
        context = self._check(name, x, shape, context)
        return self._solve(x, context, Request(inverse, generator, shared, tuple(penalties)))

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._forward(x, context)[0]

    def _decode(self, y: Tensor, context: Tensor | None) -> Tensor:
        return self._inverse(y, context)[0]

    def _solve(self, x: Tensor, context: Tensor | None, request: Request) -> Solution:
        y, log_abs_det = self._inverse(x, context) if request.inverse else self._forward(x, context)
        return Solution(y, log_abs_det, Stats.none(log_abs_det))

    def _check(self, name: str, x: Tensor, event_shape: Shape, context: Tensor | None) -> Tensor | None:
        """Check one call; return the context, None where it is ignored."""
        context = check_arguments(self, name, x, event_shape, context)
        parameter = anchor(self)
        if parameter is not None and parameter.dtype != x.dtype:
            raise ValueError(
                f"{type(self).__name__}: {name} must have the dtype of the parameters, {parameter.dtype}, "
                f"got {x.dtype}; convert one of them with .to(dtype)"
            )
        return context

    @abstractmethod
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]: ...

    def link(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> Link | None:
        """Return one direction, for points that kernels serve, as a link of a fused chain; None where it cannot be one.

        A chain takes links that follow each other in one call, and others by ``_forward`` and ``_inverse``.
        """
        return None

    def _reverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Recover ``x`` from ``y``, and return it as a leaf with what ``forward`` makes of it."""
        fused = self._reverse_link(y, context)
        return self._recover(y, context) if fused is None else fused

    def _recover(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same by torch's calls."""
        with torch.no_grad():
            x = self._inverse(y, context)[0]
        x = x.detach().requires_grad_()
        return x, *self._forward(x, context)

    def _reverse_link(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the same in one pass of a network, where both directions are links; None where they are not."""
        if y.ndim != 2 or not serves(y):
            return None
        with torch.no_grad():
            back = self.link(y, context, inverse=True)
        there = None if back is None else self.link(y, context, inverse=False)
        return None if back is None or there is None else reverse(y, there, back)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Set data-dependent parameters from a batch and return the batch mapped by them.

        The trainer calls this once before the first step; a transform without such parameters only maps.

        Args:
            x: A batch of training points, ``(n, *event_shape)``.
            context: Their contexts, ``(n, *context_shape)``.

        Returns:
            ``y``, ``(n, *latent_shape)``.
        """
        with torch.no_grad():
            return self.encode(x, context)


def merge_context_shapes(parts: Sequence[Transform], owner: str) -> Shape | None:
    """Return the one context shape that all parts with a context share."""
    shapes = {p.context_shape for p in parts if p.context_shape is not None}
    if len(shapes) > 1:
        raise ValueError(f"{owner}: all parts must take the same context shape, got {sorted(shapes)}")
    return shapes.pop() if shapes else None


class Inverse(Transform):
    r"""The inverse of a transform: forward is its inverse, and the other way round.

    Args:
        transform: The transform to turn round.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Elementwise, Inverse, Sigmoid
        >>> logit = Inverse(Elementwise(Sigmoid(), (1,)))
        >>> y, log_abs_det = logit(torch.tensor([0.75]))
        >>> round(y.item(), 4), round(log_abs_det.item(), 4)
        (1.0986, 1.674)
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__(
            transform.latent_shape, latent_shape=transform.event_shape, context_shape=transform.context_shape
        )
        self.transform = transform
        self.reversible, self.exact = transform.reversible, transform.exact
        self.log_det_costs = transform.log_det_costs

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._inverse(x, context)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._forward(y, context)

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.transform._decode(x, context)

    def _decode(self, y: Tensor, context: Tensor | None) -> Tensor:
        return self.transform._encode(y, context)

    def _solve(self, x: Tensor, context: Tensor | None, request: Request) -> Solution:
        return self.transform._solve(x, context, replace(request, inverse=not request.inverse))

    def link(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> Link | None:
        """Return the link of the other direction."""
        return self.transform.link(x, context, inverse=not inverse) if type(self) is Inverse else None
