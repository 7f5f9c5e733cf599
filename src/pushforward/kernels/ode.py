"""The neural ODE of a continuous flow, each row solved with steps of its own, by a fused kernel, with its gradient."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from .build import library
from .calls import INT, LONG, POINTER, followed
from .tracing import traced

DOUBLE = ctypes.c_double
_REALS = {torch.float32: "float", torch.float64: "double"}
_PLAIN = frozenset([Tensor, torch.nn.Parameter])
ACTIVATIONS = ("tanh", "silu", "softplus")
DONE, TOO_MANY, NOT_FINITE, TOO_SMALL = range(4)


@dataclass(frozen=True, slots=True)
class Weights:
    r"""A field of two hidden layers, :math:`v = W_3\, a(W_2\, a(W_1 x + V \phi(t) + c + b_1) + b_2) + b_3`.

    With gates, :math:`W_1 x + b_1` is multiplied by :math:`e^{G \phi(t)}`, unit by unit.

    Attributes:
        w1: ``(H1, D)``.
        v: ``(H1, 1 + 2F)``, over :math:`\phi(t) = (t, \sin \pi t, \cos \pi t, \dots, \sin F \pi t, \cos F \pi t)`.
        b1: ``(H1,)``.
        w2: ``(H2, H1)``.
        b2: ``(H2,)``.
        w3: ``(D, H2)``.
        b3: ``(D,)``.
        gate: :math:`G`, ``(H1, 1 + 2F)``; None: there are no gates.
    """

    w1: Tensor
    v: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor
    b3: Tensor
    gate: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that there are."""
        gate = () if self.gate is None else (self.gate,)
        return self.w1, self.v, self.b1, self.w2, self.b2, self.w3, self.b3, *gate


class Tableau(Protocol):
    """An explicit Runge-Kutta method."""

    @property
    def a(self) -> tuple[tuple[float, ...], ...]:
        """Weights of earlier stages, a row for each stage, which may leave out zeros at its end."""

    @property
    def b(self) -> tuple[float, ...]:
        """Weights of the result."""

    @property
    def c(self) -> tuple[float, ...]:
        """Times of the stages."""

    @property
    def e(self) -> tuple[float, ...] | None:
        """Weights of the error's estimate; None: there is no estimate, and steps are equal."""

    @property
    def order(self) -> int:
        """By which a step's size follows from its error."""

    @property
    def fsal(self) -> bool:
        """Whether the last stage is the first of the next step."""


@dataclass(frozen=True, slots=True)
class Course:
    """From when to when, and with which steps.

    Attributes:
        t0: Time at which rows are given.
        t1: Time at which they are wanted; it may be before.
        limit: How many steps a row may try to take; the number of its equal steps.
        tolerances: Absolute and relative, of the error of one step; None: steps are equal.
    """

    t0: float
    t1: float
    limit: int
    tolerances: tuple[float, float] | None


class Solved(NamedTuple):
    r"""What became of each row, NaN where its status is not 0; None for what was not asked for.

    Attributes:
        x: Points at the end, ``(n, D)``.
        log_det: Integral of the trace of the field's Jacobian, ``(n,)``.
        kinetic: Integral of :math:`|v|^2`.
        jacobian: Integral of :math:`|J \epsilon|^2`.
        evaluations: Evaluations of the field, int32.
        accepted: Steps taken, int32.
        rejected: Steps tried in vain, int32.
        status: 0; or 1, too many steps; 2, numbers that are not finite; 3, steps too small; int32.
    """

    x: Tensor
    log_det: Tensor | None
    kinetic: Tensor | None
    jacobian: Tensor | None
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor
    status: Tensor


def can_solve(x: Tensor, weights: Weights, activation: str) -> bool:
    """Return whether the kernel serves: tensors of one precision in the memory of the CPU, that nobody follows."""
    tensors = [x, *weights.tensors()]
    return (
        activation in ACTIVATIONS
        and x.dtype in _REALS
        and all(t.dtype is x.dtype and t.is_cpu and type(t) in _PLAIN and not t.is_neg() for t in tensors)
        and not traced()
        and _kernel(x.dtype) is not None
    )


def solve(
    x: Tensor,
    context: Tensor | None,
    weights: Weights,
    *,
    activation: str,
    tableau: Tableau,
    course: Course,
    log_det: bool,
    probe: Tensor | None = None,
    kinetic: bool = False,
) -> Solved:
    r"""Solve :math:`\dot x = v(x, t)` and, if asked for, :math:`\dot l = \operatorname{tr} \partial v / \partial x`.

    What a row gives depends on no other row, and on no number of threads. Its gradient is the exact derivative of the
    steps it took, their sizes held constant; it has no gradient itself. A row that failed gives none.

    Args:
        x: Points, ``(n, D)``.
        context: What is added before the first activation, ``(n, H1)``; None: nothing.
        weights: Of the field.
        activation: One of ``ACTIVATIONS``.
        tableau: The method.
        course: Times and steps.
        log_det: Integrate the trace, with its error under control as that of the points.
        probe: Directions for the integral of :math:`|J \epsilon|^2`, ``(n, D)``, without a gradient; None: do without.
        kinetic: Integrate :math:`|v|^2`.
    """
    w1, v, b1, w2, b2, w3, b3, *gates = weights.tensors()
    assert context is None or (context.dtype is x.dtype and context.shape == (len(x), len(w1)))
    assert course.limit > 0 and (course.tolerances is None or tableau.e is not None)
    assert probe is None or (probe.dtype is x.dtype and probe.shape == x.shape)
    assert all(gate.shape == v.shape for gate in gates)
    # A bias is the weight of one more input, and torch finds the way back from these to the weights.
    first = torch.cat([w1, *([] if gates else [v]), b1[:, None]], 1)
    time = torch.cat([v, *gates]) if gates else None
    second, third = torch.cat([w2, b2[:, None]], 1), torch.cat([w3, b3[:, None]], 1)
    with torch.autocast("cpu", enabled=False):
        structure = w2 * (w1 @ w3).T if log_det else None
    how = _How(activation, tableau, course, log_det, kinetic, (v.shape[1] - 1) // 2)
    tensors = (x, context, first, second, third, structure, time)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return Solved(*_Solve.apply(how, probe, *tensors))  # type: ignore[no-untyped-call]
    return _solve(how, probe, tensors, None)


class _Problem(ctypes.Structure):
    """``problem`` of the C source."""

    _fields_: ClassVar = [
        *((name, LONG) for name in ("rows", "features", "frequencies", "first", "second", "stages", "limit")),
        *((name, INT) for name in ("activation", "log_det", "kinetic", "adaptive", "fsal", "order")),
        *((name, DOUBLE) for name in ("t0", "t1", "atol", "rtol")),
        *((name, POINTER) for name in ("a", "b", "e", "c", "x", "context", "probe", "w1", "w2", "w3", "m", "time")),
    ]  # fmt: skip


_Inputs = tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True, slots=True)
class _How:
    """What one call is given beside tensors."""

    activation: str
    tableau: Tableau
    course: Course
    log_det: bool
    kinetic: bool
    frequencies: int

    def problem(self, probe: Tensor | None, tensors: _Inputs) -> tuple[_Problem, Any]:
        """Return the problem, and what must live as long."""
        x, context, first, second, *_ = tensors
        every = (x, context, probe, *tensors[2:])
        given = [None if t is None else t.detach().contiguous() for t in every]
        method, course = self.tableau, self.course
        stages = len(method.b)
        a = [weight for row in method.a for weight in (*row, *[0.0] * (stages - len(row)))]
        numbers = [_doubles(part) for part in (a, method.b, method.e or (), method.c)]
        atol, rtol = course.tolerances or (0.0, 0.0)
        problem = _Problem(
            *x.shape, self.frequencies, len(first), len(second), stages, course.limit,
            ACTIVATIONS.index(self.activation), self.log_det, self.kinetic, course.tolerances is not None, method.fsal,
            method.order, course.t0, course.t1, atol, rtol, *map(ctypes.addressof, numbers), *map(_address, given),
        )  # fmt: skip
        return problem, (given, numbers)


class _Steps:
    """Steps that the kernel keeps, in its own memory, for as long as this lives."""

    def __init__(self, kernel: ctypes.CDLL, rows: int) -> None:
        self.tails = torch.zeros(rows, dtype=torch.int64)
        self._release = kernel.release

    def __del__(self) -> None:
        self._release(self.tails.data_ptr(), len(self.tails))


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: _How, probe: Tensor | None, *tensors: Any) -> Solved:
        kernel, x = _loaded(tensors[0]), tensors[0]
        ctx.how, ctx.steps = how, _Steps(kernel, len(x))
        solved = _solve(how, probe, tensors, ctx.steps)
        ctx.save_for_backward(probe, *tensors, solved.accepted, solved.status)
        ctx.mark_non_differentiable(solved.evaluations, solved.accepted, solved.rejected, solved.status)
        return solved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        of = [None if g is None else g.contiguous() for g in gradients[:4]]
        if followed(*(g for g in of if g is not None)):
            raise RuntimeError(
                "the gradient of a continuous flow's solution by its kernel has no gradient itself, and is not that of "
                "many at once; build the transform with gradient='backprop' for that"
            )
        probe, *tensors, accepted, status = ctx.saved_tensors
        x, context, needed = tensors[0], tensors[1], ctx.needs_input_grad[2:]
        done = status == DONE
        rows = (done & (accepted > 0)).nonzero().squeeze(1)
        order = rows[accepted[rows].argsort(descending=True, stable=True)]
        g_x = torch.where(done[:, None], of[0], 0.0)  # type: ignore[arg-type]
        g_context = None if context is None or not needed[1] else context.new_zeros(context.shape)
        weights = [None if t is None else t.new_zeros(t.shape) for t in tensors[2:]]
        wanted = weights if any(needed[2:]) else [None] * len(weights)
        problem, owner = ctx.how.problem(probe, tensors)
        no_memory = _loaded(x).pull_back(
            ctypes.byref(problem), ctx.steps.tails.data_ptr(), order.data_ptr(), len(order),
            _pointers(of), _pointers([g_x, g_context, *wanted]),
        )  # fmt: skip
        del owner
        if no_memory:
            raise MemoryError("there is not enough memory for the gradient of a continuous flow")
        return None, None, g_x, g_context, *wanted


def _solve(how: _How, probe: Tensor | None, tensors: Any, steps: _Steps | None) -> Solved:
    x = tensors[0]
    kernel, n = _loaded(x), len(x)
    log_det, kinetic, jacobian = (
        x.new_empty(n) if want else None for want in (how.log_det, how.kinetic, probe is not None)
    )
    evaluations, accepted, rejected, status = (torch.zeros(n, dtype=torch.int32) for _ in range(4))
    solved = Solved(x.new_empty(x.shape), log_det, kinetic, jacobian, evaluations, accepted, rejected, status)
    problem, owner = how.problem(probe, tensors)
    no_memory = kernel.solve(
        ctypes.byref(problem), _pointers([*solved, None if steps is None else steps.tails])
    )
    del owner
    if no_memory:
        raise MemoryError("there is not enough memory to solve a continuous flow")
    return solved


def _doubles(numbers: Any) -> ctypes.Array[ctypes.c_double]:
    return (DOUBLE * max(1, len(numbers)))(*numbers)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _pointers(tensors: list[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (POINTER * len(tensors))(*map(_address, tensors))


def _loaded(x: Tensor) -> ctypes.CDLL:
    kernel = _kernel(x.dtype)
    assert kernel is not None
    return kernel


@functools.cache
def _kernel(dtype: torch.dtype) -> ctypes.CDLL | None:
    loaded = library("ode.c", f"REAL={_REALS[dtype]}")
    if loaded is not None:
        loaded.solve.argtypes = [POINTER, POINTER]
        loaded.pull_back.argtypes = [POINTER, POINTER, POINTER, LONG, POINTER, POINTER]
        loaded.solve.restype = loaded.pull_back.restype = ctypes.c_int32
        loaded.release.argtypes, loaded.release.restype = [POINTER, LONG], None
    return loaded
