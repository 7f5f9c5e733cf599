"""A backward pass that recomputes gives the ordinary gradients and keeps next to nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cases import CASES, contexts, make, points, randomise, seeded
from pushforward.configs import GlowConfig, MAFConfig, NSFCouplingConfig, RealNVPConfig
from pushforward.flows import build_flow
from pushforward.networks import MLP
from pushforward.transforms import Affine, Autoregressive, Chain, Coupling, Inverse, LULinear, Transform
from pushforward.transforms.recomputed import Recomputed

Case = tuple[Transform, Tensor, Tensor | None]


def drawn(name: str, dtype: torch.dtype, direction: str) -> Case:
    """A case whose forward is the given direction, with points for it."""
    transform, x = make(name, dtype), points(name, 16).to(dtype)
    context = contexts(transform, 16)
    context = None if context is None else context.to(dtype)
    if direction == "inverse":
        x = transform(x, context)[0].detach()
        transform = Inverse(transform)
    return transform, x, context


def gradients(
    transform: Transform, x: Tensor, context: Tensor | None, of: Transform
) -> dict[str, Tensor | None]:
    """Of a sum with random weights, for the point, the context and the parameters of a transform."""
    inputs = {"the point": x.clone().requires_grad_()} | dict(of.named_parameters())
    if context is not None:
        context = inputs["the context"] = context.clone().requires_grad_()
    y, log_abs_det = transform(inputs["the point"], context)
    one, other = (
        torch.randn(t.shape, generator=seeded(), dtype=torch.float64).to(t) for t in (y, log_abs_det)
    )
    total = (one * y).sum() + (other * log_abs_det).sum()
    return dict(
        zip(inputs, torch.autograd.grad(total, list(inputs.values()), allow_unused=True), strict=True)
    )


def largest_error(transform: Transform, x: Tensor, context: Tensor | None) -> float:
    """Of the gradients of the point, the context and every parameter, each by its length."""
    ordinary = gradients(transform, x, context, transform)
    frugal = gradients(Recomputed(transform), x, context, transform)
    assert {n for n, g in ordinary.items() if g is None} == {n for n, g in frugal.items() if g is None}
    errors = [0.0]
    for name, expected in ordinary.items():
        got = frugal[name]
        if expected is not None and got is not None:
            errors.append(((got - expected).norm() / expected.norm().clamp(min=1e-30)).item())
    return max(errors)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_ordinary_ones(name: str, direction: str) -> None:
    assert largest_error(*drawn(name, torch.float64, direction)) < 1e-9


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("model-")])
def test_gradients_in_single_precision(name: str) -> None:
    # A spline with bins as narrow as these has gradients that change as fast.
    assert largest_error(*drawn(name, torch.float32, "forward")) < (1e-3 if "nsf" in name else 1e-4)


@pytest.mark.parametrize("name", ["chain", "chain-context", "model-nsf-coupling", "model-maf"])
def test_values_are_the_same_to_the_last_bit_in_both_directions(name: str) -> None:
    transform, x, context = drawn(name, torch.float32, "forward")
    for given in (x, x.clone().requires_grad_()):
        y, log_abs_det = Recomputed(transform)(given, context)
        for a, b in zip((y, log_abs_det), transform(x, context), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        back = Recomputed(transform).inverse(y.detach(), context)
        for a, b in zip(back, transform.inverse(y.detach(), context), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


# --- memory -----------------------------------------------------------------------------------------------------


def kept(transform: Transform, x: Tensor) -> int:
    """Bytes that a forward pass keeps for its backward pass, parameters and buffers not counted."""
    owned = {t.untyped_storage().data_ptr() for t in (*transform.parameters(), *transform.buffers())}
    storages: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in owned:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y, log_abs_det = transform(x)  # held until all is counted
    assert y.requires_grad and log_abs_det.shape == x.shape[:-1]
    return sum(storages.values())


@pytest.mark.parametrize(
    "config",
    [
        lambda n: RealNVPConfig(layers=n, hidden=(16, 16)),
        lambda n: GlowConfig(layers=n, hidden=(16, 16)),
        lambda n: NSFCouplingConfig(layers=n, hidden=(16, 16), bins=4),
    ],
    ids=["realnvp", "glow", "nsf-coupling"],
)
def test_what_is_kept_does_not_depend_on_depth(config: object) -> None:
    assert callable(config)
    shallow, deep = (build_flow(config(n), 6).transform for n in (2, 16))
    x = torch.randn(32, 6, generator=seeded())
    assert kept(Recomputed(deep), x) == kept(Recomputed(shallow), x) == x.nbytes
    assert kept(deep, x) > 7 * kept(shallow, x)


def test_layers_that_are_not_inverted_keep_their_inputs_alone() -> None:
    deep = build_flow(MAFConfig(layers=16, hidden=(16, 16)), 6).transform
    x = torch.randn(32, 6, generator=seeded())
    assert kept(Recomputed(deep), x) == 16 * x.nbytes


def test_a_coupling_runs_its_network_once_in_the_backward_pass() -> None:
    transform = Recomputed(build_flow(RealNVPConfig(layers=3, hidden=(8,)), 4).transform)
    calls = []
    for module in transform.modules():
        if isinstance(module, MLP):
            module.register_forward_hook(lambda *_: calls.append(1))
    y, _ = transform(torch.randn(5, 4, generator=seeded()))
    assert len(calls) == 3
    y.sum().backward()
    assert len(calls) == 6


# --- as a part of other things ----------------------------------------------------------------------------------


def test_frozen_and_shared_parameters() -> None:
    first, *rest = build_flow(RealNVPConfig(layers=3, hidden=(8,)), 4).transform
    chain = Chain([first, *rest, first, LULinear(4)]).double()
    randomise(chain, 0.5, seeded())
    frozen = next(rest[0].parameters()).requires_grad_(False)
    results = []
    for transform in (chain, Recomputed(chain)):
        chain.zero_grad()
        y, log_abs_det = transform(torch.randn(9, 4, generator=seeded(), dtype=torch.float64))
        (y.square().sum() + log_abs_det.sum()).backward()
        assert frozen.grad is None
        results.append({name: p.grad for name, p in chain.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, rtol=1e-9, atol=1e-12, msg=name)


def test_other_parameters_in_between_are_noticed() -> None:
    chain = build_flow(RealNVPConfig(layers=2, hidden=(8,)), 4).transform
    y, _ = Recomputed(chain)(torch.randn(5, 4, generator=seeded()))
    with torch.no_grad():
        next(chain.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_gradients_of_gradients_are_refused_and_not_wrong() -> None:
    chain = build_flow(RealNVPConfig(layers=2, hidden=(8,)), 4).transform
    randomise(chain, 0.5, seeded())
    x = torch.randn(5, 4, generator=seeded(), requires_grad=True)
    with pytest.raises(ValueError, match="no gradients of gradients"):
        torch.autograd.grad(Recomputed(chain)(x)[1].sum(), x, create_graph=True)
    with pytest.raises(ValueError, match=r"none in torch\.func"):
        torch.func.grad(lambda v: Recomputed(chain)(v)[1].sum())(x)


@pytest.mark.parametrize("name", ["chain-context", "inverse-chain", "matrix-event", "planar-context"])
@pytest.mark.parametrize("mapped", [(0, 0), (None, 0), (0, None), (1, 1)], ids=str)
def test_vmap_is_a_loop(name: str, mapped: tuple[int | None, int | None]) -> None:
    transform = make(name)
    frugal = Recomputed(transform)
    x, context = points(name, 3, 3), contexts(transform, 3, 3)
    assert context is not None
    if mapped[0] is None:
        x = x[0]
    if mapped[1] is None:
        context = context[0]
    y, log_abs_det = torch.func.vmap(frugal, mapped)(x, context)
    for i in range(3):
        one = x if mapped[0] is None else x.select(mapped[0], i)
        given = context if mapped[1] is None else context.select(mapped[1], i)
        expected, expected_log = transform(one, given)
        torch.testing.assert_close(y[i], expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_abs_det[i], expected_log, rtol=1e-9, atol=1e-9)


def test_vmap_over_points_with_one_context_for_all() -> None:
    transform = make("chain-context")
    x, context = points("chain-context", 3, 5), contexts(transform, 3)
    assert context is not None
    y, _ = torch.func.vmap(Recomputed(transform))(x, context)
    for i in range(3):
        torch.testing.assert_close(y[i], transform(x[i], context[i])[0], rtol=1e-9, atol=1e-9)


def test_what_needs_iterations_or_saturates_is_not_inverted() -> None:
    expected = {
        "coupling-affine": True,
        "coupling-spline": True,
        "coupling-spline-circular": False,
        "elementwise-spline": True,
        "elementwise-sigmoid": False,
        "autoregressive-affine": False,
        "inverse-autoregressive": False,
        "lu-linear": True,
        "orthogonal": True,
        "permutation": True,
        "actnorm": True,
        "planar": False,
        "sylvester": False,
    }
    assert {name: make(name).reversible for name in expected} == expected
    assert Inverse(make("coupling-affine")).reversible


def test_a_layer_by_hand_is_not_inverted_unless_it_says_so() -> None:
    class Double(Transform):
        def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            return 2 * x * self.one, x.new_zeros(x.shape[:-1])

        def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            raise AssertionError("not asked for")

        def __init__(self) -> None:
            super().__init__((2,))
            self.one = nn.Parameter(torch.ones(()))

    transform = Recomputed(Chain([Double(), Coupling([True, False], Affine(), MLP(1, 2))]))
    transform(torch.ones(3, 2))[0].sum().backward()
    assert next(p.grad for p in transform.parameters()) == 12.0
    assert not Autoregressive.reversible
