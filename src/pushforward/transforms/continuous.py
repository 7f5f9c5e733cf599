"""A continuous flow as a transform."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from ..networks.fields import VectorField
from ..networks.shapes import context_batch_shape
from ..ode import GRADIENTS, Adaptive, Control, Plan, Solved, solve, tableau
from .base import Transform
from .divergence import Divergence, Exact, draw_probes
from .dynamics import Dynamics
from .fused import fused
from .solution import PENALTIES, Request, Solution, Stats

_WHY = {
    1: "needed more than {most} steps",
    2: "met a velocity that is not finite",
    3: "needed steps too short for the arithmetic",
}


class Continuous(Transform):
    r"""The flow of a velocity field over a unit of time, data at :math:`t = 1`, latent at :math:`t = 0`,

    .. math:: \frac{dx}{dt} = v(t, x; c), \qquad \log|\det J_f| = -\int_0^1 \nabla \cdot v(t, x(t); c)\, dt,

    where ``forward`` goes back in time. Each row has steps of its own: beyond rounding, the company of a row never
    changes its result.

    Five parts are chosen independently: the field, the method, how long its steps are, the divergence, and how the
    gradient of a solve is found. ``forward`` and ``inverse`` need an exact divergence; with an estimated one ``solve``
    and ``Flow.estimate_log_prob`` serve, and ``encode`` and ``decode``, which need none.

    A row that needs too many steps, or meets values that are not finite, comes out as NaN, with a warning that says
    what to do.

    Args:
        field: The velocity.
        method: A name in ``pushforward.ode.METHODS``.
        control: ``Adaptive`` tolerances, for a method with an error estimate, or a ``Fixed`` number of steps.
        divergence: ``Exact``, ``Hutchinson`` or ``HutchPlusPlus``.
        gradient: ``"checkpointed"``, ``"backprop"`` or ``"adjoint"``, as in ``pushforward.ode.solve``.

    Raises:
        ValueError: An unknown method or gradient, or tolerances for a method without an error estimate.

    References:
        Chen et al., Neural Ordinary Differential Equations, 2018, theorem 1. https://arxiv.org/abs/1806.07366
        Grathwohl et al., FFJORD, 2019. https://arxiv.org/abs/1810.01367

    Example:
        >>> from pushforward.networks import PerceptronField
        >>> t = Continuous(PerceptronField(2, hidden=(8,)))
        >>> y, log_abs_det = t(torch.randn(5, 2))
        >>> y.shape, log_abs_det.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    log_det_costs = True

    def __init__(
        self,
        field: VectorField,
        *,
        method: str = "dopri5",
        control: Control | None = None,
        divergence: Divergence | None = None,
        gradient: str = "checkpointed",
    ) -> None:
        super().__init__(field.event_shape, context_shape=field.context_shape)
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}, got {gradient!r}")
        self.field = field
        self.method, self.gradient = tableau(method), gradient
        self.control: Control = Adaptive() if control is None else control
        self.divergence: Divergence = Exact() if divergence is None else divergence
        self.exact = self.divergence.exact
        if isinstance(self.control, Adaptive) and self.method.e is None:
            raise ValueError(
                f"method {method!r} has no estimate of its error for adaptive steps; use control=Fixed(steps), or "
                "dopri5, bosh3 or heun"
            )

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._both(x, context, inverse=False)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._both(y, context, inverse=True)

    def _both(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if not self.exact:
            raise ValueError(
                f"the log-determinant of a Continuous with {type(self.divergence).__name__} is an estimate: use "
                "solve or estimate_log_prob, with a generator, or divergence=Exact()"
            )
        solution = self._solve(x, context, Request(inverse))
        return solution.y, solution.log_abs_det

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._integrate(x, context, Request(), wanted=False).y

    def _decode(self, y: Tensor, context: Tensor | None) -> Tensor:
        return self._integrate(y, context, Request(inverse=True), wanted=False).y

    def _solve(self, x: Tensor, context: Tensor | None, request: Request) -> Solution:
        return self._integrate(x, context, request, wanted=True)

    def between(
        self,
        x: Tensor,
        context: Tensor | None,
        times: tuple[float, float],
        *,
        control: Control | None = None,
        log_det: bool = False,
    ) -> Solution:
        """Carry points from one time to another, of which 0 is that of the latent and 1 that of the data.

        Args:
            x: Points at the first time, ``(*batch, *event_shape)``.
            context: As in ``forward``.
            times: From when to when.
            control: How long the steps are; as they are by default.
            log_det: Whether the log-determinant is wanted, which then must be exact.
        """
        context = self._check("x", x, self.event_shape, context)
        return self._integrate(x, context, Request(), wanted=log_det, times=times, control=control)

    def _integrate(
        self,
        x: Tensor,
        context: Tensor | None,
        request: Request,
        *,
        wanted: bool,
        times: tuple[float, float] | None = None,
        control: Control | None = None,
    ) -> Solution:
        """Solve one way, with the log-determinant where it is wanted."""
        batch = x.shape[: x.ndim - len(self.event_shape)]
        rows = x.reshape(-1, *self.event_shape)
        given = context
        if context is not None:
            shape = context.shape[len(context_batch_shape(self, context)) :]
            given = context.expand(*batch, *shape).reshape(-1, *shape)
        names = tuple(name for name in PENALTIES if name in request.penalties)
        probes = (
            draw_probes(
                self.divergence, rows, request.generator, shared=request.shared, extra="jacobian" in names
            )
            if wanted
            else None
        )
        dynamics = Dynamics(self.field, self.divergence if wanted else None, given, probes, names)
        d = prod(self.event_shape)
        points = rows.reshape(len(rows), d)
        ends = times or ((0.0, 1.0) if request.inverse else (1.0, 0.0))
        plan = Plan(self.method, control or self.control, *ends, controlled=d + int(wanted))
        with _whole_precision(x):
            if not torch.compiler.is_compiling() and (torch.is_inference_mode_enabled() or x.is_inference()):
                solved = _ordinarily(self, dynamics, points, plan)
            else:
                solved = self._solved(dynamics, points, plan)
        _report(solved, plan)
        end = solved.u
        # Backwards in time a rate adds up with the other sign; the penalties are sizes.
        sign = 1.0 if request.inverse else -1.0
        stats = Stats(*(c.reshape(batch) for c in (solved.evaluations, solved.accepted, solved.rejected)))
        return Solution(
            end[:, :d].reshape(x.shape),
            end[:, d].reshape(batch) if wanted else end.new_zeros(()).expand(batch),
            stats,
            {name: sign * end[:, d + int(wanted) + i].reshape(batch) for i, name in enumerate(names)},
        )

    def _solved(self, dynamics: Dynamics, points: Tensor, plan: Plan) -> Solved:
        """Solve the dynamics of points ``(n, D)``, by the kernel where it serves."""
        if self.gradient == "checkpointed" or not self._is_followed(points, dynamics.context):
            found = fused(dynamics, points, plan)
            if found is not None:
                return found
        integrals = int(dynamics.divergence is not None) + len(dynamics.penalties)
        start = torch.cat([points, points.new_zeros(len(points), integrals)], 1) if integrals else points
        return solve(dynamics, start, plan, gradient=self.gradient)

    def _is_followed(self, *tensors: Tensor | None) -> bool:
        """Return whether a gradient is wanted."""
        return torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (*tensors, *self.field.parameters())
        )


def _report(solved: Solved, plan: Plan) -> None:
    """Warn of rows that were given up."""
    control = plan.control
    if torch.compiler.is_compiling() or not isinstance(control, Adaptive):
        return
    for status, count in zip(*_counts(solved.status), strict=True):
        if status:
            row = int((solved.status == status).nonzero()[0])
            warnings.warn(
                f"the solve of {count} of {len(solved.status)} rows of one call, the first of them its row {row + 1}, "
                f"{_WHY[status].format(most=control.max_steps)}: they are NaN. Larger tolerances (atol, rtol), a "
                "training with the kinetic and jacobian penalties (rnode), or fewer epochs make a field that is "
                "easier to follow.",
                RuntimeWarning,
                stacklevel=4,
            )


def _ordinarily(transform: Continuous, dynamics: Dynamics, points: Tensor, plan: Plan) -> Solved:
    """Solve outside inference mode, whose tensors have no gradient at all, also where a divergence needs one."""
    with torch.inference_mode(False), torch.no_grad():
        context, probes = (None if t is None else t.clone() for t in (dynamics.context, dynamics.probes))
        return transform._solved(replace(dynamics, context=context, probes=probes), points.clone(), plan)


def _whole_precision(x: Tensor) -> AbstractContextManager[object]:
    """Leave autocast: an error of half precision would be taken for one of the steps, and make them short."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def _counts(status: Tensor) -> tuple[Sequence[int], Sequence[int]]:
    if not bool(status.any()):
        return (), ()
    values, counts = status.unique(return_counts=True)
    return values.tolist(), counts.tolist()
