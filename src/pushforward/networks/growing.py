"""The outputs of a masked perceptron for one element after the other, each unit computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from .masked import MaskedLinear, MaskedPerceptron
from .shapes import need_context


class Growing:
    """A pass of a masked perceptron in which the inputs become known element by element.

    Units are sorted by degree, so those that an element makes computable follow those that are known: all steps
    together cost the arithmetic of one pass.

    Args:
        network: The network.
        rows: Number of points ``n``.
        context: Their contexts, ``(n, context_features)``, or None.

    Example:
        >>> network = MaskedPerceptron([0, 1], inputs=[0, 1], outputs=[0, 1], hidden=(4,))
        >>> growing = Growing(network, 3)
        >>> first = growing.outputs(0)
        >>> growing.learn(0, torch.zeros(3, 1))
        >>> first.shape, growing.outputs(1).shape
        (torch.Size([3, 1]), torch.Size([3, 1]))
    """

    def __init__(self, network: MaskedPerceptron, rows: int, context: Tensor | None = None) -> None:
        first, *rest = network.layers
        self._activations = [m for m in network.hidden if not isinstance(m, MaskedLinear)]
        self._weights = [layer.folded() for layer in (first, *rest)]
        self._biases = [layer.bias for layer in (first, *rest)]
        self._seen = (
            None
            if network.context is None
            else network.context(need_context(network, context)).expand(rows, -1)
        )
        self._network = network
        like = first.weight
        self._inputs = like.new_zeros(rows, first.in_features)
        self._hidden = [like.new_zeros(rows, layer.out_features) for layer in (first, *rest[:-1])]
        self._known = [0] * len(self._hidden)
        self._grow(-1)

    def outputs(self, position: int) -> Tensor:
        """Return the outputs of the element at a position, once all before it are known, ``(n, its outputs)``."""
        rows = torch.as_tensor(self._network.outputs_at(position))
        known = self._known[-1]
        return self._hidden[-1][:, :known] @ self._weights[-1][rows, :known].t() + self._biases[-1][rows]

    def learn(self, position: int, inputs: Tensor) -> None:
        """Take the inputs of the element at a position, ``(n, its inputs)``."""
        self._inputs[:, self._network.inputs_at(position)] = inputs
        self._grow(position)

    def _grow(self, position: int) -> None:
        """Compute the units that see nothing beyond a position and were not computed yet."""
        before, known = self._inputs, self._inputs.shape[1]
        for i, hidden in enumerate(self._hidden):
            start, end = self._known[i], self._network.units_until(i, position)
            if end > start:
                units = slice(start, end)
                sums = before[:, :known] @ self._weights[i][units, :known].t() + self._biases[i][units]
                if i == 0 and self._seen is not None:
                    sums = sums + self._seen[:, units]
                hidden[:, units] = self._activations[i](sums)
                self._known[i] = end
            before, known = hidden, self._known[i]
