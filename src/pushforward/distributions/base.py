"""The contract of every distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks.shapes import Shape, anchor, check_arguments, check_context, context_batch_shape


class Distribution(nn.Module, ABC):
    r"""A density :math:`p(x; c)` that can be evaluated and sampled; the base of a flow.

    This docstring is the contract. For an event of ``event_shape`` with any batch shape in front,

    - ``log_prob(x, context) -> (*batch,)`` is exact, normalised and in nats; a point outside the support has
      -inf, a NaN stays NaN; it never depends on a temperature and never waits for the device;
    - ``sample(shape, context) -> (*shape, *context_batch, *event_shape)`` draws without gradient, ``rsample``
      with the gradient of a reparametrised draw, where ``has_rsample``;
    - ``temperature`` :math:`T` draws :math:`m + T (x - m)` around the location :math:`m`, where
      ``has_temperature``; other distributions refuse any but 1;
    - ``context`` has shape ``(*context_batch, *context_shape)``, its batch shape broadcasting to that of
      ``x``; a distribution with ``context_shape`` None ignores it, and so does not see its batch shape;
    - dtype and device are those of the parameters and buffers, which ``.to()`` moves, and of which there is
      always a floating one;
    - the public methods check shapes and dtypes, never values, and call ``_log_prob`` and ``_sample``.

    Args:
        event_shape: Shape of one ``x``.
        context_shape: Shape of one context, or None.
    """

    event_shape: Shape
    context_shape: Shape | None
    has_rsample: bool
    has_temperature: bool

    def __init__(self, event_shape: Shape, *, context_shape: Shape | None = None) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.context_shape = None if context_shape is None else tuple(context_shape)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters and buffers, and so of the samples."""
        return self._anchor().dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters and buffers, and so of the samples."""
        return self._anchor().device

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Evaluate the log-density.

        Args:
            x: Points, ``(*batch, *event_shape)``.
            context: Contexts, ``(*context_batch, *context_shape)``.

        Returns:
            Log-densities of shape ``batch``, in nats.

        Raises:
            ValueError: A shape or dtype that does not fit, or a context that is missing.
        """
        context = check_arguments(self, "x", x, self.event_shape, context)
        dtype = self.dtype
        if x.dtype != dtype:
            raise ValueError(
                f"{type(self).__name__}: x must have the dtype of the distribution, {dtype}, got {x.dtype}; "
                "convert one of them with .to(dtype)"
            )
        return self._log_prob(x, context)

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int],
        context: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw points, without gradient.

        Args:
            shape: Number of draws for each context, of any shape; ``()`` is one.
            context: Contexts, ``(*context_batch, *context_shape)``.
            temperature: Factor of the distance from the location, at least 0.
            generator: Source of randomness on the device of the distribution; None: torch's own.

        Returns:
            Points of shape ``(*shape, *context_batch, *event_shape)``.

        Raises:
            ValueError: A context that does not fit or is missing, or a temperature that cannot be had.
        """
        return self._checked_sample(shape, context, temperature, generator)

    def rsample(
        self,
        shape: Sequence[int],
        context: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw points that are differentiable in the parameters and the context.

        Arguments, shape and errors as in ``sample``, and the same points for the same generator.

        Raises:
            ValueError: The distribution has no such draws (``has_rsample`` is False).
        """
        if not self.has_rsample:
            raise ValueError(
                f"{type(self).__name__}: rsample must be able to differentiate the draws by the parameters, "
                "which this distribution cannot; use sample"
            )
        return self._checked_sample(shape, context, temperature, generator)

    def _checked_sample(
        self,
        shape: Sequence[int],
        context: Tensor | None,
        temperature: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        context = check_context(self, context, self.dtype, "that of the distribution")
        label = type(self).__name__
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"{label}: temperature must be finite and at least 0, got {temperature}")
        if temperature != 1 and not self.has_temperature:
            raise ValueError(
                f"{label}: temperature must be 1, for this is no location-scale family, got {temperature}"
            )
        return self._sample((*shape, *context_batch_shape(self, context)), context, temperature, generator)

    @abstractmethod
    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draw ``(*shape, *event_shape)``; ``shape`` ends in the batch shape of the context already."""

    def _anchor(self) -> Tensor:
        found = anchor(self, buffers=True)
        assert found is not None
        return found

    def _empty(self, shape: Shape) -> Tensor:
        """Return ``(*shape, *event_shape)`` of the right dtype and device, to be filled with noise."""
        anchor = self._anchor()
        return torch.empty((*shape, *self.event_shape), dtype=anchor.dtype, device=anchor.device)

    def _sum_event(self, x: Tensor) -> Tensor:
        """Sum the event dimensions away; a sum over no dimension would be one over all."""
        return x.sum(tuple(range(-len(self.event_shape), 0))) if self.event_shape else x
