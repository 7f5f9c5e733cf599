"""Velocity fields of continuous flows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mlp import check_widths
from .shapes import Shape, need_context

FREQUENCIES = 3
_SHARPNESS = 3.0


class VectorField(nn.Module, ABC):
    """A velocity :math:`v(t, x; c)` for points of ``event_shape``, with a context of ``context_shape`` or None.

    ``field(t, x, context)`` takes times ``(n,)``, points ``(n, *event_shape)`` and contexts ``(n, *context_shape)``,
    and gives velocities ``(n, *event_shape)``; rows do not see each other.
    """

    event_shape: Shape
    context_shape: Shape | None

    @abstractmethod
    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the velocities."""

    def with_divergence(self, t: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return velocity and exact divergence ``(n,)`` where the structure gives them at little cost, else None."""
        return None


def time_features(t: Tensor, frequencies: int) -> Tensor:
    r"""Return :math:`(t, \sin \pi t, \cos \pi t, \dots, \sin F\pi t, \cos F\pi t)` for times ``(n,)``.

    Example:
        >>> time_features(torch.tensor([0.0]), 1)
        tensor([[0., 0., 1.]])
    """
    angles = t[:, None] * (pi * torch.arange(1, frequencies + 1, dtype=t.dtype, device=t.device))
    waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    return torch.cat([t[:, None], waves], 1)


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(z)
    return h, 1.0 - h.square()


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(z)
    h = z * s
    return h, s + h * (1.0 - s)


def _softplus(z: Tensor) -> tuple[Tensor, Tensor]:
    return F.softplus(z), torch.sigmoid(z)


SMOOTH: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]] = {
    "tanh": (torch.tanh, _tanh),
    "silu": (F.silu, _silu),
    "softplus": (F.softplus, _softplus),
}
"""Activations that solvers can follow, alone and with their derivatives."""


def check_smooth(name: str) -> None:
    """Refuse an activation with a kink, at which the steps of a solver become short."""
    if name not in SMOOTH:
        raise ValueError(f"activation must be one of {', '.join(SMOOTH)}, got {name!r}")


class PerceptronField(VectorField):
    r"""A perceptron of point, time and context,

    .. math:: v(t, x; c) = W_L\, a(\dots a(W_1 x + V \phi(t) + C c + b_1) \dots) + b_L,

    with the features of time of ``time_features``. With at most two hidden layers the divergence is exact at the price
    of one more product, whatever the number of features: of two,

    .. math:: \operatorname{tr} \partial v/\partial x = a'(z_2)^\top \left(W_2 \odot (W_1 W_3)^\top\right) a'(z_1).

    With gates, :math:`W_1 x` is multiplied by :math:`e^{G \phi(t)}`, unit by unit: flow matching has to see edges that
    become sharper as data come near.

    Args:
        features: Number of elements ``D``.
        context_features: Width of the context; 0: none.
        hidden: Widths of the hidden layers.
        activation: ``"tanh"``, ``"silu"`` or ``"softplus"``.
        frequencies: Number of frequencies of time.
        gated: Whether there are gates.

    Raises:
        ValueError: Impossible widths or an unknown activation.

    Example:
        >>> field = PerceptronField(2)
        >>> field(torch.zeros(5), torch.randn(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        frequencies: int = FREQUENCIES,
        gated: bool = False,
    ) -> None:
        super().__init__()
        check_widths(features, features, context_features, hidden)
        check_smooth(activation)
        if not hidden:
            raise ValueError("hidden must have at least one width, got none")
        self.event_shape, self.context_shape = (
            (features,),
            ((context_features,) if context_features else None),
        )
        self.activation, self.frequencies = activation, frequencies
        self.first = nn.Linear(features, hidden[0])
        self.time = nn.Linear(1 + 2 * frequencies, hidden[0], bias=False)
        self.gate = nn.Linear(1 + 2 * frequencies, hidden[0], bias=False) if gated else None
        self.context = nn.Linear(context_features, hidden[0], bias=False) if context_features else None
        self.rest = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise((*hidden, features)))
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
        # Points are standardised, and what is to be seen in them is finer than their spread.
        for parameter in self.first.parameters():
            parameter.data.mul_(_SHARPNESS)
        # The identity at first.
        nn.init.zeros_(self.rest[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.rest[-1].bias)  # type: ignore[arg-type]

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the velocities."""
        activation = SMOOTH[self.activation][0]
        z, _ = self._first(t, x, context)
        for layer in self.rest:
            z = layer(activation(z))
        return z

    def _first(self, t: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what the first activation is given, and the gates."""
        features = time_features(t, self.frequencies)
        z: Tensor = self.first(x)
        gate: Tensor | None = None
        if self.gate is not None:
            gate = self.gate(features).exp()
            z = z * gate
        z = z + self.time(features)
        return (z if self.context is None else z + self.context(need_context(self, context))), gate

    def with_divergence(self, t: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return velocity and divergence for one or two hidden layers."""
        if len(self.rest) > 2:
            return None
        both = SMOOTH[self.activation][1]
        layers = [layer for layer in self.rest if isinstance(layer, nn.Linear)]
        z, gate = self._first(t, x, context)
        h, slope = both(z)
        slope = slope if gate is None else slope * gate
        # Row j holds, of the j-th unit, what it sees of x times what x gets of each unit further on.
        loops = self.first.weight @ layers[-1].weight
        if len(layers) == 1:
            return layers[0](h), slope @ loops.diagonal()
        h2, slope2 = both(layers[0](h))
        through = F.linear(slope, layers[0].weight * loops.T)
        return layers[1](h2), (slope2 * through).sum(-1)


class ConcatSquashField(VectorField):
    r"""FFJORD's field: layers :math:`z \mapsto (W z + b) \odot \sigma(g t + g_0 + G c) + s t + S c`.

    Args:
        features: Number of elements.
        context_features: Width of the context; 0: none.
        hidden: Widths of the hidden layers.
        activation: ``"tanh"``, ``"silu"`` or ``"softplus"``.

    References:
        Grathwohl et al., FFJORD, 2019, appendix B.1. https://arxiv.org/abs/1810.01367

    Example:
        >>> ConcatSquashField(2)(torch.zeros(5), torch.randn(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64, 64),
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        check_widths(features, features, context_features, hidden)
        check_smooth(activation)
        self.event_shape, self.context_shape = (
            (features,),
            ((context_features,) if context_features else None),
        )
        self.activation = activation
        sizes = list(pairwise((features, *hidden, features)))
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in sizes)
        self.gates = nn.ModuleList(nn.Linear(1 + context_features, o) for _, o in sizes)
        self.shifts = nn.ModuleList(nn.Linear(1 + context_features, o, bias=False) for _, o in sizes)
        for module in (self.layers[-1], self.shifts[-1]):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the velocities."""
        activation = SMOOTH[self.activation][0]
        given = t[:, None]
        if self.context_shape is not None:
            given = torch.cat([given, need_context(self, context)], -1)
        z = x
        for i, (layer, gate, shift) in enumerate(zip(self.layers, self.gates, self.shifts, strict=True)):
            z = layer(activation(z) if i else z) * torch.sigmoid(gate(given)) + shift(given)
        return z


class Guided(VectorField):
    r"""A field that is led towards its context: :math:`v(t, x; 0) + s\, (v(t, x; c) - v(t, x; 0))`.

    The null context is all zeros. Scale 1 is the field itself, 0 the one without context; more than 1 trades variety
    for samples that are typical of their context, under a density of its own.

    Args:
        field: A field that was trained with contexts dropped at random.
        scale: The scale ``s``.

    Raises:
        ValueError: A scale that is not finite, or a field without context.

    References:
        Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, eq. 6, with :math:`s = 1 + w`.
        https://arxiv.org/abs/2207.12598

    Example:
        >>> led = Guided(PerceptronField(2, context_features=3), 2.0)
        >>> led(torch.zeros(5), torch.randn(5, 2), torch.eye(3)[[0, 1, 2, 0, 1]]).shape
        torch.Size([5, 2])
    """

    def __init__(self, field: VectorField, scale: float) -> None:
        super().__init__()
        if not isfinite(scale):
            raise ValueError(f"scale must be finite, got {scale}")
        if field.context_shape is None:
            raise ValueError("guidance needs a field with a context, got one without")
        self.event_shape, self.context_shape = field.event_shape, field.context_shape
        self.field, self.scale = field, scale

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the velocities, for twice the work."""
        context = need_context(self, context)
        without: Tensor = self.field(t, x, torch.zeros_like(context))
        towards: Tensor = self.field(t, x, context)
        return without + self.scale * (towards - without)
