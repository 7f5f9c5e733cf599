"""Each library's own way to the same flow: log-density, samples, maximum likelihood and flow matching."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .problem import Field, Problem, normal_log_prob

Density = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Library:
    """What a library can do with a copy of the problem's field.

    Attributes:
        module: Holds the weights.
        field: The module that every evaluation of the field calls.
        train: Differentiable log-densities, by the name of the way; the fastest is timed.
        log_prob: Log-densities without gradient, by the name of the way; the fastest is timed.
        sample: ``n -> (n, 2)``, without gradient.
        matching: Loss of flow matching with independent pairs.
        matching_ot: Loss of flow matching with pairs by exact optimal transport.
        evaluations: Evaluations of the mean row, by the name of the call, where the field is not called as a module.
        weights: Puts values of the module's parameters in the order of those of the problem's field.
        defaults: Its own tolerances, which the run does not use.
        notes: How it differs from the others.
    """

    module: nn.Module
    field: nn.Module
    train: dict[str, Density] = field(default_factory=dict)
    log_prob: dict[str, Density] = field(default_factory=dict)
    sample: Callable[[int], Tensor] | None = None
    matching: Loss | None = None
    matching_ot: Loss | None = None
    evaluations: dict[str, Callable[[], float]] = field(default_factory=dict)
    weights: Callable[[Sequence[Tensor]], Sequence[Tensor]] = list
    defaults: str = ""
    notes: str = ""


def ours(problem: Problem) -> Library:
    from pushforward.configs import FFJORDConfig
    from pushforward.flows import build_flow
    from pushforward.objectives import flow_matching_objective
    from pushforward.transforms.solution import Request

    hidden = tuple(m.out_features for m in problem.field.network[:-1] if isinstance(m, nn.Linear))
    flow = build_flow(FFJORDConfig(hidden=hidden, atol=problem.atol, rtol=problem.rtol), problem.x.shape[1])
    module = flow.transform.field
    our_field_weights(problem.field, module)
    t = torch.rand(len(problem.x))
    with torch.no_grad():
        apart = (module(t, problem.x, None) - problem.field(t, problem.x)).abs().max()
    if apart > 1e-4:
        raise ValueError(f"expected our field to equal the shared one, got values {apart:.2g} apart")

    def count(x: Tensor, **asked: bool) -> float:
        with torch.no_grad():
            solution = flow.transform._integrate(x, None, Request(inverse=not asked["wanted"]), **asked)
        return solution.stats.evaluations.double().mean().item()

    objectives = {pairing: flow_matching_objective(pairing=pairing) for pairing in ("independent", "exact")}
    return Library(
        module=flow,
        field=module,
        train={"": flow.log_prob},
        log_prob={"": flow.log_prob},
        sample=lambda n: flow.sample((n,)),
        matching=lambda x: objectives["independent"].loss(flow, x, None, None, None),
        matching_ot=lambda x: objectives["exact"].loss(flow, x, None, None, None),
        evaluations={
            "log_prob": lambda: count(problem.x, wanted=True),
            "sample": lambda: count(torch.randn_like(problem.x), wanted=False),
        },
        weights=lambda values: _as_shared(module, dict(zip(flow.parameters(), values, strict=True))),
        notes="every row has steps and an error of its own; evaluations are those of the mean row",
    )


_TIME = torch.tensor([0, 1, 4, 2, 5, 3, 6])
"""Where the shared field has our features of time: ours go by frequency, its sines come first."""


def our_field_weights(shared: Field, module: nn.Module) -> None:
    """Copy the shared field's weights into ours, whose first layer has one matrix for points and one for time."""
    first, *rest = [layer for layer in shared.network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        module.first.weight.copy_(first.weight[:, : module.first.in_features])
        module.first.bias.copy_(first.bias)
        module.time.weight.copy_(first.weight[:, module.first.in_features :][:, _TIME])
    for target, source in zip(module.rest, rest, strict=True):
        target.load_state_dict(source.state_dict())


def _as_shared(module: nn.Module, values: dict[nn.Parameter, Tensor]) -> list[Tensor]:
    """Return values of our weights as the shared field has them."""
    time = values[module.time.weight][:, _TIME.argsort()]
    first = torch.cat((values[module.first.weight], time), 1)
    return [first, values[module.first.bias], *(values[p] for p in module.rest.parameters())]


def zuko(problem: Problem) -> Library:
    from zuko.distributions import DiagNormal, NormalizingFlow
    from zuko.transforms import FreeFormJacobianTransform

    module = copy.deepcopy(problem.field)
    base = DiagNormal(torch.zeros(2), torch.ones(2))

    def flow() -> NormalizingFlow:
        transform = FreeFormJacobianTransform(
            module, 1.0, 0.0, module.parameters(), problem.atol, problem.rtol, exact=True
        )
        return NormalizingFlow(transform, base)

    def log_prob(x: Tensor) -> Tensor:
        return flow().log_prob(x)

    return Library(
        module=module,
        field=module,
        train={"checkpointed adjoint": log_prob},
        log_prob={"": log_prob},
        sample=lambda n: flow().sample((n,)),
        defaults=tolerances(FreeFormJacobianTransform),
        notes="largest error of any entry in place of the root mean square; log-det at 100 times the tolerance",
    )


def torchdiffeq(problem: Problem) -> Library:
    from torchdiffeq import odeint, odeint_adjoint

    module = copy.deepcopy(problem.field)
    tolerance = {"atol": problem.atol, "rtol": problem.rtol, "method": "dopri5"}
    weights = tuple(module.parameters())
    adjoint = functools.partial(odeint_adjoint, adjoint_params=weights)
    solvers = {
        "backpropagation": odeint,
        "adjoint": adjoint,
        "adjoint, seminorm": functools.partial(adjoint, adjoint_options={"norm": "seminorm"}),
    }
    traces = {"loop": _trace_loop, "batched": _trace_batched, "jvp": _trace_jvp}

    def log_prob(x: Tensor, solve: Callable[..., tuple[Tensor, Tensor]], trace: Trace) -> Tensor:
        def dynamics(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return trace(functools.partial(module, t), state[0])

        z, change = solve(dynamics, (x, x.new_zeros(len(x))), torch.tensor([1.0, 0.0]), **tolerance)
        return normal_log_prob(z[-1]) + change[-1]

    return Library(
        module=module,
        field=module,
        train={
            f"{gradient}, {name}": functools.partial(log_prob, solve=solve, trace=trace)
            for gradient, solve in solvers.items()
            for name, trace in traces.items()
            if name == "loop" or solve is odeint
        },
        log_prob={n: functools.partial(log_prob, solve=odeint, trace=trace) for n, trace in traces.items()},
        sample=_torchdiffeq_sample(module, tolerance),
        defaults=tolerances(odeint),
    )


Trace = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Tensor]]


def _watched(x: Tensor) -> Tensor:
    return x if x.requires_grad else x.detach().requires_grad_()


def _trace_loop(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = _watched(x)
        y = f(x)
        rows = [
            torch.autograd.grad(y[:, i].sum(), x, create_graph=keep, retain_graph=True)[0] for i in (0, 1)
        ]
    return y, rows[0][:, 0] + rows[1][:, 1]


def _trace_batched(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = _watched(x)
        y = f(x)
        basis = torch.eye(2).unsqueeze(1).expand(-1, len(x), -1)
        jacobian = torch.autograd.grad(y, x, basis, create_graph=keep, is_grads_batched=True)[0]
    return y, torch.einsum("ini->n", jacobian)


def _trace_jvp(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    def along(direction: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(f, (x,), (direction.expand_as(x),))

    y, jacobian = torch.func.vmap(along, out_dims=(None, 0))(torch.eye(2))
    return y, torch.einsum("ini->n", jacobian)


def _torchdiffeq_sample(module: nn.Module, tolerance: dict[str, object]) -> Callable[[int], Tensor]:
    from torchdiffeq import odeint

    return lambda n: odeint(module, torch.randn(n, 2), torch.tensor([0.0, 1.0]), **tolerance)[-1]


def flow_matching(problem: Problem) -> Library:
    from flow_matching.path import CondOTProbPath
    from flow_matching.solver import ODESolver

    module = copy.deepcopy(problem.field)
    solver, path = ODESolver(lambda x, t: module(t, x)), CondOTProbPath()
    settings = {"step_size": None, "method": "dopri5", "atol": problem.atol, "rtol": problem.rtol}

    def log_prob(x: Tensor) -> Tensor:
        return solver.compute_likelihood(x, normal_log_prob, exact_divergence=True, **settings)[1]

    def matching(x: Tensor) -> Tensor:
        found = path.sample(t=torch.rand(len(x)), x_0=torch.randn_like(x), x_1=x)
        return (module(found.t, found.x_t) - found.dx_t).square().mean()

    return Library(
        module=module,
        field=module,
        log_prob={"": log_prob},
        sample=lambda n: solver.sample(torch.randn(n, 2), **settings),
        matching=matching,
        defaults=tolerances(ODESolver.compute_likelihood),
        notes="no training by likelihood: its solver detaches the field",
    )


def torchcfm(problem: Problem) -> Library:
    from torchcfm import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher

    module = copy.deepcopy(problem.field)

    def loss(matcher: ConditionalFlowMatcher, x: Tensor) -> Tensor:
        t, location, flow = matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        return (module(t, location) - flow).square().mean()

    return Library(
        module=module,
        field=module,
        sample=_torchdiffeq_sample(module, {"atol": problem.atol, "rtol": problem.rtol, "method": "dopri5"}),
        matching=functools.partial(loss, ConditionalFlowMatcher(sigma=0.0)),
        matching_ot=functools.partial(loss, ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)),
        defaults="atol 0.0001, rtol 0.0001 in its examples",
        notes="no solver of its own: samples by torchdiffeq, as in its examples",
    )


def tolerances(call: Callable[..., object]) -> str:
    """Return the tolerances that a function has by default."""
    known = inspect.signature(call).parameters
    return ", ".join(f"{name} {known[name].default:g}" for name in ("atol", "rtol"))


LIBRARIES: dict[str, Callable[[Problem], Library]] = {
    "ours": ours,
    "zuko": zuko,
    "torchdiffeq": torchdiffeq,
    "flow_matching": flow_matching,
    "torchcfm": torchcfm,
}
"""In the order of the table's rows."""
