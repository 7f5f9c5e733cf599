"""A masked network: output i sees only the inputs that come before i in an order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.chain import Layer, Stairs
from .blocks import Blocks, block_product, pays, permutation, restore, sort, staircase
from .mlp import check_widths, make_activation
from .shapes import Shape, need_context
from .stack import Stack, adds, perceptron, plain_layers, serves, stairs
from .sweep import Plan, stages, turns


class MaskedLinear(nn.Linear):
    r"""A linear layer whose weight is multiplied by a fixed 0/1 mask: :math:`y = (M \odot W) x + b`.

    The weights that count are drawn from :math:`U(-1/\sqrt{k}, 1/\sqrt{k})` with ``k`` the number of inputs that
    the unit really sees, so that a narrow view does not start with a vanishing signal. A large product is done in
    blocks that leave most of the zeros out, where the mask is a staircase once rows and columns are sorted, as those
    of autoregressive networks are.

    Args:
        mask: Boolean, ``(out_features, in_features)``.
    """

    mask: Tensor
    stairs: Stairs
    _factor: Tensor
    _rows: Tensor | None
    _columns: Tensor | None

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)
        for name in ("_factor", "_rows", "_columns"):
            self.register_buffer(name, None, persistent=False)
        self._read_mask()
        self.register_load_state_dict_post_hook(_read_mask_again)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            seen = mask.sum(-1, keepdim=True).clamp(min=1)
            self.weight.mul_((mask.shape[1] / seen).sqrt())
            self.weight.mul_(self.mask)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the masked layer to ``x (..., in_features)``."""
        points = math.prod(x.shape[:-1])
        weight, bias, blocks = self._parts(0 if _autocast(x.device.type) else points)
        if blocks is None:
            return F.linear(x, weight, bias)
        product = block_product(sort(x.reshape(points, -1), self._inputs_of), weight, bias, blocks)
        return restore(product, self._rows).reshape(*x.shape[:-1], -1)

    def _parts(self, points: int) -> tuple[Tensor, Tensor, Blocks | None]:
        """Return weight and bias, and, where that pays for so many points, sorted and with their blocks."""
        weight = self.folded()
        if self._blocks is None or not pays(points, self.mask):
            return weight, self.bias, None
        return sort(sort(weight, self._rows, 0), self._inputs_of), sort(self.bias, self._rows), self._blocks

    def folded(self) -> Tensor:
        """Return the weight with the mask in it."""
        return self.weight * self._factor

    def _read_mask(self) -> None:
        # Numbers are multiplied by numbers three times as fast as by Booleans.
        self._factor = self.mask.to(self.weight)
        self.stairs = stairs(self.mask)
        rows, columns, self._blocks = staircase(self.mask)
        self._rows, self._inputs_of = permutation(rows), permutation(columns)


def _autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _read_mask_again(layer: nn.Module, _: object) -> None:
    assert isinstance(layer, MaskedLinear)
    if not layer.mask.is_meta:
        layer._read_mask()


class MaskedPerceptron(nn.Module):
    r"""A masked perceptron whose inputs and outputs belong to elements in an order.

    Every unit has a degree; a connection exists where the degree does not fall (hidden layers) or strictly grows
    (to the output), so that an output of element :math:`i` sees only inputs of elements before it. Hidden units are
    sorted by degree. The last layer starts at zero. The context is seen by every unit.

    Args:
        order: Position of each element in the order, a permutation of ``0 .. D-1``.
        inputs: Which element each input belongs to.
        outputs: Which element each output belongs to.
        context_features: Width of the context; 0: none.
        hidden: Widths of the hidden layers.
        activation: One of ``ACTIVATIONS``.

    Shapes:
        ``x (*batch, len(inputs))``, ``context (*context_batch, context_features)`` -> ``(*batch, len(outputs))``.

    Raises:
        ValueError: An order that is no permutation, impossible widths, an unknown activation.

    Example:
        >>> import torch
        >>> network = MaskedPerceptron([0, 1], inputs=[0, 0, 1], outputs=[0, 1, 1, 1], hidden=(16,))
        >>> network(torch.randn(5, 3)).shape
        torch.Size([5, 4])
    """

    order: Tensor

    def __init__(
        self,
        order: Sequence[int],
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        features = len(order)
        check_widths(features, len(outputs), context_features, hidden)
        if not hidden:
            raise ValueError("hidden: a masked network needs at least one hidden layer, got none")
        _check_order(order, features)
        positions = torch.as_tensor(list(order))
        self.features, self.context_features = features, context_features
        self._inputs_of, self._outputs_of = tuple(inputs), tuple(outputs)
        self.register_buffer("order", positions)
        # Degree d: the unit may know the elements at positions 0..d. Degree -1 knows none but the context.
        degrees = positions[torch.as_tensor(list(inputs))]
        layers: list[nn.Module] = []
        for width in hidden:
            own = _hidden_degrees(width, features, with_none=context_features > 0)
            layers += [MaskedLinear(own[:, None] >= degrees[None, :]), make_activation(activation)]
            degrees = own
        self.context = nn.Linear(context_features, hidden[0], bias=False) if context_features else None
        self.first, self.hidden = layers[0], nn.Sequential(*layers[1:])
        out = positions[torch.as_tensor(list(outputs))]
        self.last = MaskedLinear(out[:, None] > degrees[None, :])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @property
    def layers(self) -> list[MaskedLinear]:
        """The masked layers, from the first to the last."""
        return [m for m in (self.first, *self.hidden, self.last) if isinstance(m, MaskedLinear)]

    def inputs_at(self, position: int) -> list[int]:
        """Return which inputs belong to the element at a position."""
        return self._at(self._inputs_of, position)

    def outputs_at(self, position: int) -> list[int]:
        """Return which outputs belong to the element at a position."""
        return self._at(self._outputs_of, position)

    def _at(self, elements: Sequence[int], position: int) -> list[int]:
        positions = self.order.tolist()
        return [place for place, element in enumerate(elements) if positions[element] == position]

    def units_until(self, layer: int, position: int) -> int:
        """Return how many units of a hidden layer, the first ones, see nothing beyond a position."""
        width, known = self.layers[layer].out_features, self.context_features > 0
        return int((_hidden_degrees(width, self.features, with_none=known) <= position).sum())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return all outputs for the inputs ``x`` under ``context``."""
        stack = self.stack(x.shape, context) if serves(x) else None
        if stack is not None:
            return perceptron(x, *stack)
        h: Tensor = self.first(x)
        if self.context is not None:
            h = h + self.context(need_context(self, context))
        output: Tensor = self.last(self.hidden(h))
        return output

    def stack(self, shape: Sequence[int], context: Tensor | None) -> Stack | None:
        """Return the layers, and what the context adds, for ``perceptron``; None where that does not serve.

        Args:
            shape: That of the points, ``(*batch, len(inputs))``.
            context: The context.
        """
        modules: list[nn.Module] = [self.first, *self.hidden, self.last]
        plain = plain_layers(modules, MaskedLinear, shape[-1])
        if plain is None:
            return None
        seen = None if self.context is None else self.context(need_context(self, context))
        layers = [
            Layer(*each[:2], layer.stairs, None if layer.stairs.whole else layer._factor)
            for layer, each in zip(cast(list[MaskedLinear], modules[::2]), plain, strict=True)
        ]
        return (layers, seen) if adds(seen, layers, shape[:-1]) else None


class MaskedMLP(MaskedPerceptron):
    r"""MADE's masked perceptron: the parameters of element :math:`i` depend on the elements before it in ``order``.

    Every unit has a degree; a connection exists where the degree does not fall (hidden layers) or strictly grows
    (to the output), so that :math:`\partial g_i / \partial x_j = 0` unless ``order[j] < order[i]``. Hidden units
    are sorted by degree. The last layer starts at zero. The context is seen by every unit. A hidden layer narrower
    than ``D - 1`` (``D`` with a context) has not a unit for every degree, so that some elements do not see some of
    those right before them.

    Args:
        features: Number of elements ``D``.
        parameters: Number of outputs for each element, ``P``.
        context_features: Width of the context; 0: none.
        hidden: Widths of the hidden layers.
        order: Position of each element in the order, a permutation of ``0 .. D-1``; None: as they stand.
        inputs: Which element each input column belongs to, for a point that is encoded by more than one column an
            element; None: one column each.
        activation: One of ``ACTIVATIONS``.

    Shapes:
        ``x (*batch, len(inputs))``, ``context (*context_batch, context_features)`` -> ``(*batch, D, P)``.

    Raises:
        ValueError: An order that is no permutation, impossible widths, an unknown activation.

    References:
        Germain et al., MADE: Masked Autoencoder for Distribution Estimation, 2015, eq. 12-13.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> import torch
        >>> net = MaskedMLP(3, 2, hidden=(16,))
        >>> net(torch.randn(5, 3)).shape
        torch.Size([5, 3, 2])
    """

    _elements: Tensor | None
    _inputs: Tensor | None
    _outputs: Tensor | None

    def __init__(
        self,
        features: int,
        parameters: int,
        *,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        inputs: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> None:
        check_widths(features, parameters, context_features, hidden)
        positions = list(range(features)) if order is None else list(order)
        _check_order(positions, features)
        columns = list(range(features)) if inputs is None else list(inputs)
        super().__init__(
            positions,
            inputs=columns,
            outputs=[i for i in range(features) for _ in range(parameters)],
            context_features=context_features,
            hidden=hidden,
            activation=activation,
        )
        self.parameters_each = parameters
        for name in ("_elements", "_inputs", "_outputs"):
            self.register_buffer(name, None, persistent=False)
        self._read_order()
        self.register_load_state_dict_post_hook(_read_order_again)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of every element of ``x`` under ``context``."""
        output = super().forward(x, context)
        return output.reshape(*output.shape[:-1], self.features, self.parameters_each)

    def plan(self, encodings: Sequence[str] = ()) -> Plan:
        """Return how the elements follow from each other, under the encodings of the columns, if they have any."""
        encoding = list(encodings) or ["value"] * len(self._inputs_of)
        activations = tuple(m for m in self.hidden if not isinstance(m, MaskedLinear))
        columns = tuple((self._positions[self._inputs_of[i]], encoding[i]) for i in self._sorted)
        return Plan(self._stages, columns, self.parameters_each, activations)

    def sorted_layers(self, context: Tensor | None, batch: Shape) -> list[tuple[Tensor, Tensor]]:
        """Return weight and bias of every layer as ``sweep`` takes them, for points of the batch shape."""
        first, *hidden, last = self.layers
        bias = first.bias
        if self.context is not None:
            seen = bias + self.context(need_context(self, context))
            bias = seen.expand(*batch, -1).reshape(-1, len(first.bias)).t() if seen.ndim > 1 else seen
        return [
            (sort(first.folded(), self._inputs), bias),
            *((layer.folded(), layer.bias) for layer in hidden),
            (sort(last.folded(), self._outputs, 0), sort(last.bias, self._outputs)),
        ]

    def by_position(self, x: Tensor) -> Tensor:
        """Return the elements of ``x (..., D)`` in the order."""
        return sort(x, self._elements)

    def by_element(self, x: Tensor) -> Tensor:
        """Undo ``by_position``."""
        return restore(x, self._elements)

    def _read_order(self) -> None:
        self._positions: list[int] = self.order.tolist()
        degrees = [self._positions[i] for i in self._inputs_of]
        self._sorted = sorted(range(len(degrees)), key=degrees.__getitem__)
        widths = [layer.out_features for layer in self.layers[:-1]]
        known = self.context_features > 0
        units = [_hidden_degrees(w, self.features, with_none=known).tolist() for w in widths]
        self._stages = stages(self.features, [sorted(degrees), *units])
        plain = self._inputs_of == tuple(range(self.features))
        self.turns = turns(self._stages, self._positions) if plain else None
        elements = self.order.argsort()
        each = torch.arange(self.parameters_each, device=elements.device)
        self._elements = permutation(elements)
        self._inputs = permutation(torch.as_tensor(self._sorted, device=elements.device))
        self._outputs = permutation((elements[:, None] * self.parameters_each + each).flatten())


def _check_order(order: Sequence[int], features: int) -> None:
    if sorted(order) != list(range(features)):
        raise ValueError(f"order must be a permutation of 0..{features - 1}, got {list(order)}")


def _read_order_again(network: nn.Module, _: object) -> None:
    assert isinstance(network, MaskedMLP)
    if not network.order.is_meta:
        network._read_order()


def _hidden_degrees(width: int, features: int, *, with_none: bool) -> Tensor:
    """Spread degrees evenly and in order over a layer; no unit need know the last element."""
    lowest = -1 if with_none or features == 1 else 0
    count = features - 1 - lowest
    return lowest + (torch.arange(width) * count) // width
