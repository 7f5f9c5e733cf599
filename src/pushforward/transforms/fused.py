"""When the solve of a continuous transform may be one call of a fused kernel, and that call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.ode import Course, Weights, can_solve
from ..kernels.ode import solve as solve_fused
from ..networks import PerceptronField
from ..networks.stack import is_plain
from ..ode import Adaptive, Plan, Solved
from .divergence import Exact
from .dynamics import Dynamics

_LAYERS = 3


def fused(dynamics: Dynamics, x: Tensor, plan: Plan) -> Solved | None:
    """Solve the dynamics of points ``(n, D)`` by the kernel; None where it cannot.

    It is for perceptron fields with two hidden layers, and their exact divergence, with the gradient of the discrete
    solution.
    """
    weights = _weights(dynamics)
    if weights is None:
        return None
    field, context = dynamics.field, dynamics.context
    assert isinstance(field, PerceptronField)
    if not can_solve(x, weights, field.activation):
        return None
    added = None if context is None or field.context is None else field.context(context)
    control = plan.control
    course = Course(
        plan.t0,
        plan.t1,
        control.max_steps if isinstance(control, Adaptive) else control.steps,
        (control.atol, control.rtol) if isinstance(control, Adaptive) else None,
    )
    probe = (
        dynamics.probes[:, 0] if "jacobian" in dynamics.penalties and dynamics.probes is not None else None
    )
    found = solve_fused(
        x,
        added,
        weights,
        activation=field.activation,
        tableau=plan.method,
        course=course,
        log_det=dynamics.divergence is not None,
        probe=probe,
        kinetic="kinetic" in dynamics.penalties,
    )
    integrals = [q for q in (found.log_det, found.kinetic, found.jacobian) if q is not None]
    end = torch.cat([found.x, torch.stack(integrals, 1)], 1) if integrals else found.x
    return Solved(end, found.evaluations, found.accepted, found.rejected, found.status)


def _weights(dynamics: Dynamics) -> Weights | None:
    """Return the weights of a field that the kernel knows, of modules that do no more than theirs."""
    field = dynamics.field
    if (
        not isinstance(field, PerceptronField)
        or not is_plain(field, PerceptronField)
        or len(field.rest) != _LAYERS - 1
        or not isinstance(dynamics.divergence, Exact | None)
        or "acceleration" in dynamics.penalties
    ):
        return None
    layers = [field.first, *field.rest]
    gates = [] if field.gate is None else [field.gate]
    if not all(is_plain(layer, nn.Linear) for layer in (*layers, field.time, *gates)):
        return None
    (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias) for layer in layers)
    return Weights(w1, field.time.weight, b1, w2, b2, w3, b3, *(gate.weight for gate in gates))
