"""One constructor for every kind of continuous transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from case_parts import BOTH, CONTEXT, Case, normal
from pushforward.networks import MLP, ConcatSquashField, PerceptronField, VectorField
from pushforward.ode import Adaptive, Control, Fixed
from pushforward.transforms import Affine, Chain, Continuous, Coupling, Inverse, Permutation, Transform

TIGHT = Adaptive(1e-10, 1e-10)
# Where no kernel serves.
SHORT = Adaptive(1e-8, 1e-8)
# Errors that float32 can tell from its rounding.
_SINGLE = 1e-6
_WIDTH = 3


class PictureField(VectorField):
    """A velocity for pictures of one channel, moved by time; its divergence has no short cut."""

    context_shape = None

    def __init__(self, size: tuple[int, int] = (2, 2), *, channels: int = 1) -> None:
        super().__init__()
        self.event_shape = (channels, *size)
        self.first, self.last = nn.Conv2d(channels, 3, 3, padding=1), nn.Conv2d(3, channels, 3, padding=1)
        self.time = nn.Linear(1, 3)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        moved: Tensor = self.last(torch.tanh(self.first(x) + self.time(t[:, None])[:, :, None, None]))
        return moved


def perceptron(
    context: int = 0, hidden: tuple[int, ...] = (8, 8), activation: str = "tanh"
) -> PerceptronField:
    return PerceptronField(
        _WIDTH, context_features=context, hidden=hidden, activation=activation, frequencies=1
    )


def pulling(field: VectorField, strength: float = 2.0) -> VectorField:
    """Begin with velocities towards the origin: volumes change, and few steps follow it."""
    layers = ("first", "rest", "layers", "last")
    weights = [p for name, p in field.named_parameters() if p.ndim > 1 and name.startswith(layers)]
    with torch.no_grad():
        for p in weights:
            nn.init.eye_(p) if p.ndim == 2 else nn.init.dirac_(p)
        weights[-1].mul_(-strength)
    return field


def continuous(
    field: VectorField, *, method: str = "dopri5", control: Control = TIGHT, gradient: str = "checkpointed"
) -> Continuous:
    return Continuous(field, method=method, control=control, gradient=gradient)


def among_others(context: int) -> Transform:
    coupling = Coupling(
        [True, False, True],
        Affine(),
        MLP(2, 2, context_features=context, hidden=(6,), activation="tanh"),
        context_shape=(context,) if context else None,
    )
    return Chain([coupling, continuous(pulling(perceptron(context, (6, 6)))), Permutation.reverse(_WIDTH)])


def for_single_precision(transform: nn.Module) -> None:
    """Loosen tolerances that a float32 cannot keep."""
    for part in transform.modules():
        if isinstance(part, Continuous) and isinstance(part.control, Adaptive):
            atol, rtol = (max(t, _SINGLE) for t in (part.control.atol, part.control.rtol))
            part.control = replace(part.control, atol=atol, rtol=rtol)


def with_steps_that_are_known(transform: nn.Module) -> None:
    """Let what adapts its steps take equal ones: tensors without values cannot say how many."""
    for part in transform.modules():
        if isinstance(part, Continuous):
            part.control = Fixed(2)


def continuous_case(build: Callable[[], Transform], **more: Any) -> Case:
    given = {"strength": 0.4, "log_det_tolerance": 1e-7, "loop_tolerance": 1e-8}
    return Case(build, normal(0.7), adaptive=True, **(given | more))


def short_case(build: Callable[[], Transform], **more: Any) -> Case:
    given = {"round_trip_tolerance": 1e-6, "log_det_tolerance": 1e-5, "loop_tolerance": 1e-6}
    return continuous_case(build, **(given | more))


def squashed() -> Continuous:
    field = ConcatSquashField(2, context_features=CONTEXT, hidden=(4,), activation="silu")
    return continuous(pulling(field, 12.0), control=SHORT)


CONTINUOUS_CASES: dict[str, Case] = {
    "continuous": continuous_case(lambda: continuous(pulling(perceptron()))),
    "continuous-context": continuous_case(
        lambda: continuous(pulling(perceptron(CONTEXT, (8, 8), "silu"), 3.0))
    ),
    "continuous-one-layer": short_case(
        lambda: continuous(pulling(perceptron(0, (6,), "silu"), 3.0), control=SHORT)
    ),
    "continuous-copies": short_case(
        lambda: continuous(pulling(perceptron(CONTEXT, (4, 4, 4), "softplus"), 2.0), control=SHORT)
    ),
    "continuous-squashed": short_case(squashed),
    "continuous-backprop": short_case(
        lambda: continuous(pulling(perceptron()), control=SHORT, gradient="backprop")
    ),
    "continuous-adjoint": short_case(
        lambda: continuous(
            pulling(perceptron(CONTEXT, (8, 8), "silu"), 3.0), control=SHORT, gradient="adjoint"
        )
    ),
    "continuous-picture": short_case(lambda: continuous(pulling(PictureField(), 3.0), control=SHORT)),
    "continuous-rk4": Case(
        lambda: continuous(
            pulling(perceptron(0, (6,))), method="rk4", control=Fixed(16), gradient="backprop"
        ),
        normal(0.7),
        strength=0.5,
        compiles=BOTH,
        round_trip_tolerance=1e-4,
        log_det_tolerance=1e-4,
    ),
    "continuous-chain": continuous_case(lambda: among_others(CONTEXT)),
    "inverse-continuous": continuous_case(
        lambda: Inverse(continuous(pulling(perceptron(CONTEXT, (8, 8), "silu"), 3.0)))
    ),
}
