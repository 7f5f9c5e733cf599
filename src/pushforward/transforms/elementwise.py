"""Maps of one element at a time: formulas with per-element log-derivatives, and how to lift them to transforms."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..kernels import Map, affine_kernel, fused_affine
from ..networks import ParameterSource
from .base import Shape, Transform


class ElementwiseMap(nn.Module, ABC):
    r"""A strictly increasing map :math:`y_i = f(x_i; \theta_i)` of each element, with its log-derivative.

    ``forward(x, parameters)`` and ``inverse(y, parameters)`` take ``x (*batch, *event)`` and ``parameters
    (*batch, *event, parameters_each)`` (batch dimensions broadcast) and return the mapped elements with
    :math:`\log |\partial f/\partial x|`, respectively that of the inverse, for each element. A map holds no learned
    values: these come from a conditioner (``Coupling``, ``Autoregressive``) or are learned by ``Elementwise``. All
    parameters zero give a map near the identity, except for those without parameters.

    Attributes:
        parameters_each: How many parameters each element needs.
        reversible: Whether ``inverse`` recovers ``x`` from ``y`` to about rounding: not where the map saturates, and on
            a circle only up to a turn.
    """

    parameters_each: int = 0
    reversible: bool = False

    @abstractmethod
    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x`` and return the log-derivatives."""

    @abstractmethod
    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map back ``y`` and return the log-derivatives of the inverse."""

    def kernel(self, *, inverse: bool) -> Map | None:
        """Return the fused kernel of one direction, for a pass together with a network; None: there is none."""
        return None

    def select(self, elements: Tensor) -> ElementwiseMap:
        """Return the map for elements of these numbers alone; a map with constants for each element overrides this."""
        return self


class Additive(ElementwiseMap):
    r"""Shift :math:`y = x + t`, which keeps volume.

    References:
        Dinh et al., NICE, 2014, eq. 8. https://arxiv.org/abs/1410.8516

    Example:
        >>> Additive()(torch.tensor([1.0]), torch.tensor([[2.0]]))
        (tensor([3.]), tensor([0.]))
    """

    parameters_each = 1
    reversible = True

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Shift forwards."""
        y = x + parameters[..., 0]
        return y, torch.zeros_like(y)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Shift backwards."""
        x = y - parameters[..., 0]
        return x, torch.zeros_like(x)


class Scale(ElementwiseMap):
    r"""Scale :math:`y = x e^{s}` with :math:`s = B\tanh(\tilde s/B)`, :math:`\log|dy/dx| = s`.

    Args:
        bound: Largest log-scale ``B`` in nats.

    References:
        Dinh et al., NICE, 2014, section 3.3. https://arxiv.org/abs/1410.8516

    Example:
        >>> Scale()(torch.tensor([2.0]), torch.zeros(1, 1))
        (tensor([2.]), tensor([0.]))
    """

    parameters_each = 1
    reversible = True

    def __init__(self, bound: float = 8.0) -> None:
        super().__init__()
        self.bound = check_bound(bound)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Scale."""
        log_scale = limit(parameters[..., 0], self.bound)
        return x * log_scale.exp(), log_scale.expand_as(x)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Scale back."""
        log_scale = limit(parameters[..., 0], self.bound)
        return y * (-log_scale).exp(), -log_scale.expand_as(y)


class Affine(ElementwiseMap):
    r"""Scale and shift with a bounded scale,

    .. math:: y = x\, e^{s} + t, \qquad s = B \tanh(\tilde s / B), \qquad \log|dy/dx| = s.

    The bound keeps both directions finite: a scale can neither vanish nor overflow in training.

    Args:
        bound: Largest log-scale ``B`` in nats.

    References:
        Dinh et al., Density estimation using Real NVP, 2017, eq. 7. https://arxiv.org/abs/1605.08803

    Example:
        >>> y, log_derivative = Affine()(torch.tensor([1.0]), torch.tensor([[2.0, 0.0]]))
        >>> y.item(), log_derivative.item()
        (3.0, 0.0)
    """

    parameters_each = 2
    reversible = True

    def __init__(self, bound: float = 5.0) -> None:
        super().__init__()
        self.bound = check_bound(bound)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Scale, then shift."""
        fused = fused_affine(x, parameters, bound=self.bound, inverse=False, formula=self._formula)
        return self._formula(x, parameters) if fused is None else fused

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Shift back, then scale back."""
        fused = fused_affine(y, parameters, bound=self.bound, inverse=True, formula=self._invert_formula)
        return self._invert_formula(y, parameters) if fused is None else fused

    def kernel(self, *, inverse: bool) -> Map | None:
        """Return the fused kernel of one direction."""
        return affine_kernel(self.bound, inverse) if type(self) is Affine else None

    def _formula(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = parameters[..., 0], limit(parameters[..., 1], self.bound)
        y = x * log_scale.exp() + shift
        return y, log_scale.expand_as(y)

    def _invert_formula(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = parameters[..., 0], limit(parameters[..., 1], self.bound)
        x = (y - shift) * (-log_scale).exp()
        return x, -log_scale.expand_as(x)


class Sigmoid(ElementwiseMap):
    r"""The logistic function :math:`y = 1/(1 + e^{-x})`, from the line onto (0, 1). Its inverse is the logit.

    Example:
        >>> y, log_derivative = Sigmoid()(torch.tensor([0.0]), torch.zeros(1, 0))
        >>> y.item(), round(log_derivative.exp().item(), 4)
        (0.5, 0.25)
    """

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Line to interval."""
        return torch.sigmoid(x), -(softplus(x) + softplus(-x))

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Interval to line; what lies outside of [0, 1] has log-derivative -inf, for no density is there."""
        outside = (y < 0) | (y > 1)
        inner = torch.where(outside, 0.5, y)
        log_y, log_rest = torch.log(inner), torch.log1p(-inner)
        return log_y - log_rest, torch.where(outside, -torch.inf, -(log_y + log_rest))


class Tanh(ElementwiseMap):
    r"""The hyperbolic tangent, from the line onto (-1, 1): :math:`\log|dy/dx| = 2(\log 2 - x - \log(1+e^{-2x}))`.

    Example:
        >>> Tanh()(torch.tensor([0.0]), torch.zeros(1, 0))
        (tensor([0.]), tensor([0.]))
    """

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Line to interval."""
        return torch.tanh(x), 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Interval to line."""
        up, down = torch.log1p(y), torch.log1p(-y)
        return 0.5 * (up - down), -(up + down)


class Softplus(ElementwiseMap):
    r"""The map :math:`y = \log(1 + e^x)` from the line onto the positive numbers.

    Example:
        >>> y, log_derivative = Softplus()(torch.tensor([0.0]), torch.zeros(1, 0))
        >>> round(y.item(), 4), round(log_derivative.exp().item(), 4)
        (0.6931, 0.5)
    """

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Line to positive half-line."""
        return softplus(x), -softplus(-x)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Positive half-line to line."""
        log_rest = torch.log(-torch.expm1(-y))
        return y + log_rest, -log_rest


def check_bound(bound: float) -> float:
    """Return the bound of a log-scale if it is one."""
    if not (bound > 0 and math.isfinite(bound)):
        raise ValueError(f"bound must be positive and finite, got {bound}")
    return bound


def limit(value: Tensor, bound: float) -> Tensor:
    """Return ``bound * tanh(value / bound)``: the value itself near 0, never beyond the bound."""
    return bound * torch.tanh(value / bound)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)) to rounding; torch's own switches to x above a threshold, which costs 2e-9."""
    return torch.logaddexp(x, torch.zeros_like(x))


class Elementwise(Transform):
    r"""An elementwise map as a transform, its parameters learned, or given by a network of the context.

    .. math:: y_i = f(x_i; \theta_i(c)), \qquad \log|\det J| = \sum_i \log |f'(x_i; \theta_i(c))|.

    Args:
        map: The map.
        event_shape: Shape of one point.
        context_features: Width of the context; 0: none.
        hidden: Hidden widths of the network of the context.

    Example:
        >>> t = Elementwise(Affine(), (3,))
        >>> t(torch.zeros(2, 3))[1]
        tensor([0., 0.], grad_fn=<SumBackward1>)
    """

    def __init__(
        self,
        map: ElementwiseMap,
        event_shape: Shape,
        *,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        conditional = context_features > 0 and map.parameters_each > 0
        super().__init__(event_shape, context_shape=(context_features,) if conditional else None)
        self.map, self.reversible = map, map.reversible
        count = math.prod(event_shape) * map.parameters_each
        self.source = (
            ParameterSource(torch.zeros(count), context_features=context_features, hidden=hidden)
            if count
            else None
        )

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Set the scales of ``Scale`` such that the batch leaves with variance 1; only map under others."""
        if isinstance(self.map, Scale) and self.source is not None:
            with torch.no_grad():
                spread = x.std(0, correction=0).flatten().clamp(min=torch.finfo(x.dtype).eps)
                share = (-spread.log() / self.map.bound).clamp(-0.99, 0.99)
                self.source.value.copy_(self.map.bound * torch.atanh(share))
        return super().initialize(x, context)

    def _map_parameters(self, x: Tensor, context: Tensor | None) -> Tensor:
        if self.source is None:
            return x.new_zeros((*self.event_shape, 0))
        parameters: Tensor = self.source(context)
        shaped: Tensor = parameters.unflatten(-1, (*self.event_shape, self.map.parameters_each))
        return shaped

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_derivative = self.map.forward(x, self._map_parameters(x, context))
        return y, sum_event(log_derivative, len(self.event_shape))

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_derivative = self.map.inverse(y, self._map_parameters(y, context))
        return x, sum_event(log_derivative, len(self.event_shape))


def sum_event(values: Tensor, dims: int) -> Tensor:
    """Sum over the last ``dims`` dimensions."""
    return values.sum(tuple(range(-dims, 0))) if dims else values
