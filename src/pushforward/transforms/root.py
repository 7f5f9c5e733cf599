"""The inverse of an autoregressive map, element by element, and its exact gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..networks.sweep import Plan, Stage, encode, repeat, sweep, sweep_back
from .elementwise import ElementwiseMap


@dataclass(frozen=True, slots=True)
class Steps:
    """What the inverse needs besides numbers.

    Points ``(n, D)`` have their elements by position; the network is given as the weights and biases of its sorted
    layers in turn.

    Attributes:
        map: The elementwise map.
        plan: How the elements follow from each other.
        elements: Which element stands at each position, ``(D,)``.
    """

    map: ElementwiseMap
    plan: Plan
    elements: Tensor

    def sweep(self, y: Tensor, layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the elements and their log-derivatives, ``(n, D)``; for no gradients."""
        log_derivatives: list[Tensor] = []
        columns = y.t().contiguous()

        def find(number: int, parameters: Tensor) -> Tensor:
            stage = self.plan.stages[number]
            map_ = self.map.select(self.elements[stage.first : stage.end])
            x, log_derivative = map_.inverse(columns[stage.first : stage.end].t(), parameters)
            log_derivatives.append(log_derivative)
            return x

        with torch.no_grad():
            found = sweep(self.plan, _pairs(layers), len(y), find)
            return found.t(), torch.cat(log_derivatives, -1)

    def repeat(self, y: Tensor, layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the same as ``sweep``, by operations that can be differentiated and traced."""
        log_derivatives: list[Tensor] = []

        def find(number: int, parameters: Tensor) -> Tensor:
            stage = self.plan.stages[number]
            elements = self.elements[stage.first : stage.end]
            # The other elements are there for the sake of the map's constants.
            at = torch.zeros_like(y).index_copy(1, elements, y[:, stage.first : stage.end])
            under = parameters.new_zeros(*y.shape, parameters.shape[-1]).index_copy(1, elements, parameters)
            x, log_derivative = self.map.inverse(at, under)
            log_derivatives.append(log_derivative.index_select(1, elements))
            return x.index_select(1, elements)

        found = repeat(self.plan, _pairs(layers), len(y), find)
        return found.t(), torch.cat(log_derivatives, -1)


class Root(torch.autograd.Function):
    r"""The inverse :math:`x(y, \theta)` of an autoregressive map, with the gradient of the implicit function.

    From :math:`f(x; g_\theta(x)) = y` follows :math:`dx = J^{-1} (dy - f_\phi\, d_\theta g)`, with the triangular
    :math:`J = \partial y / \partial x`: a gradient goes back through :math:`v = J^{-\top} \bar x`, found from the last
    element to the first. A gradient of the gradient takes the longer way through ``Steps.repeat``, as the transforms of
    ``torch.func`` do from the beginning, so that none of them meets this function.
    """

    @staticmethod
    def forward(ctx: Any, steps: Steps, found: Tensor | None, y: Tensor, *layers: Tensor) -> Tensor:
        """Return ``x (n, D)``, which may have been found already."""
        x = steps.sweep(y, layers)[0] if found is None else found
        ctx.steps = steps
        ctx.save_for_backward(x, y, *layers)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``y`` and of all weights and biases."""
        x, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            needed = ctx.needs_input_grad[2:]
            return None, None, *_repeated_gradients(ctx.steps, inputs, gradient, needed)
        return None, None, *_gradients(ctx.steps, x, inputs[1:], gradient)


def _gradients(steps: Steps, x: Tensor, layers: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """Return the gradients of ``y`` and of the layers."""
    plan, columns = steps.plan, x.t()
    *hidden, (last, last_bias) = _pairs(layers)
    values = [torch.stack([encode(e, columns[p]) for p, e in plan.columns])]
    slopes = []
    for (weight, bias), activation in zip(hidden, plan.activations, strict=True):
        before = weight @ values[-1] + (bias[:, None] if bias.ndim == 1 else bias)
        with torch.enable_grad():
            value = activation(before.requires_grad_().clone())
            slopes.append(torch.autograd.grad(value.sum(), before)[0])
        values.append(value.detach())
    parameters = torch.addmm(last_bias[:, None], last, values[-1])
    with torch.enable_grad():
        # The map by elements, with the parameters of each next to each other.
        at = x.detach().requires_grad_()
        under = parameters.unflatten(0, (-1, plan.parameters)).permute(2, 0, 1).requires_grad_()
        y = steps.map.select(steps.elements).forward(at, under)[0]
        by_x, by_parameters = (g.movedim(0, -1) for g in torch.autograd.grad(y.sum(), (at, under)))
    of_y = gradient.new_empty(columns.shape)

    def find(stage: Stage, reached: Tensor) -> Tensor:
        place = slice(stage.first, stage.end)
        of_y[place] = reached / by_x[place]
        return -(of_y[place, None] * by_parameters[place]).reshape(-1, len(x))

    found = sweep_back(plan, _pairs(layers), columns, slopes, given=gradient.t(), find=find)
    result = [of_y.t()]
    for (_, bias), value, of_units in zip(_pairs(layers), values, found, strict=True):
        result.append(of_units @ value.t())
        result.append(of_units.sum(1) if bias.ndim == 1 else of_units)
    return result


def _repeated_gradients(
    steps: Steps, inputs: Sequence[Tensor], gradient: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Return the same gradients, by operations that can be differentiated once more."""
    x = steps.repeat(inputs[0], inputs[1:])[0]
    chosen = [t for t, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(x, chosen, gradient, create_graph=True, materialize_grads=True))
    return [next(found) if need else None for need in needed]


def _pairs(layers: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(layers[::2], layers[1::2], strict=True))
