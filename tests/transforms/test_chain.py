"""Links of a chain that one call of a kernel takes together are the maps that they are one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fused import doubled, everything, randomise, same
from pushforward.kernels.table import available
from pushforward.networks import MLP, MaskedMLP
from pushforward.transforms import (
    Affine,
    Autoregressive,
    Chain,
    Coupling,
    Inverse,
    LULinear,
    Permutation,
    RationalQuadraticSpline,
    Transform,
)
from pushforward.transforms import chain as chain_module

pytestmark = pytest.mark.skipif(not available(), reason="there is no C compiler, or another processor")

FEATURES = 5


def coupling(layer: int, hidden: int = 16, *, context: int = 0, spline: bool = False) -> Coupling:
    mask = [i % 2 == layer % 2 for i in range(FEATURES)]
    how = RationalQuadraticSpline(4) if spline else Affine()
    moves = mask.count(False)
    network = MLP(
        mask.count(True), moves * how.parameters_each, context_features=context, hidden=(hidden, hidden + 3)
    )
    return Coupling(mask, how, network, context_features=context)


def masked(layer: int, hidden: int = 16) -> Autoregressive:
    order = torch.randperm(FEATURES, generator=torch.Generator().manual_seed(layer)).tolist()
    return Autoregressive(Affine(), MaskedMLP(FEATURES, 2, hidden=(hidden, hidden), order=order))


CHAINS: dict[str, Callable[[], list[Transform]]] = {
    "couplings": lambda: [coupling(i) for i in range(4)],
    "large couplings": lambda: [coupling(i, 400) for i in range(3)],
    "a context": lambda: [coupling(0, context=2), coupling(1), coupling(2, context=2)],
    "splines": lambda: [coupling(i, spline=True) for i in range(3)],
    "autoregressive": lambda: [masked(i) for i in range(3)],
    "inverses among them": lambda: [coupling(0), Inverse(coupling(1)), masked(0), Inverse(coupling(0))],
    "inverses of couplings": lambda: [coupling(0), Inverse(coupling(1)), Inverse(coupling(0))],
    "others between": lambda: [
        LULinear(FEATURES),
        coupling(0),
        coupling(1),
        Permutation.reverse(FEATURES),
        coupling(0),
        Inverse(Chain([coupling(1), coupling(2)])),
    ],
}


def prepared(name: str, points: int) -> tuple[Chain, list[Tensor]]:
    chain = Chain(CHAINS[name]())
    randomise(chain, 0.7)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(points, FEATURES, generator=generator)]
    return chain, inputs + [torch.randn(2, generator=generator)] * (chain.context_shape is not None)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of links that were taken together, call by call."""
    done: list[int] = []
    real = chain_module.along
    monkeypatch.setattr(chain_module, "along", lambda x, links: (done.append(len(links)), real(x, links))[1])
    return done


RUNS = {"others between": [2, 1, 2], "large couplings": [3], "couplings": [4]}


@pytest.mark.parametrize("points", [100, 5000])
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", CHAINS)
def test_links_together_equal_steps_in_float64(
    name: str, inverse: bool, points: int, runs: list[int]
) -> None:
    chain, inputs = prepared(name, points)
    direction = chain.inverse if inverse else chain.forward
    if inverse and any(isinstance(part, Autoregressive) for part in chain):
        inputs = [chain(inputs[0][:200])[0].detach()]
        runs.clear()
    found = everything(direction, inputs, list(chain.parameters()))
    if name in RUNS:
        assert runs == 2 * (RUNS[name][::-1] if inverse else RUNS[name])
    wanted = everything(direction, doubled(inputs), list(chain.double().parameters()))
    same(found, wanted, 1e-3)  # of sums of thousands


@pytest.mark.parametrize("name", ["couplings", "large couplings", "splines", "autoregressive"])
def test_together_is_one_by_one_to_the_last_bit(name: str) -> None:
    chain, (x,) = prepared(name, 700)

    def one_by_one(x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for part in chain:
            x, log_abs_det = part(x)
            total = total + log_abs_det
        return x, total

    parameters = list(chain.parameters())
    before = torch.get_num_threads()
    wanted = everything(one_by_one, [x], parameters)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found = everything(chain, [x], parameters)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    torch.set_num_threads(before)


@pytest.mark.parametrize("points", [40, 64, 700])
@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", ["couplings", "large couplings", "splines", "inverses of couplings"])
def test_without_a_gradient_it_is_the_same_to_the_last_bit(name: str, inverse: bool, points: int) -> None:
    chain, (x,) = prepared(name, points)
    x[3] = torch.nan
    direction = chain.inverse if inverse else chain.forward
    with torch.no_grad():
        found = direction(x)
        alone = direction(x[5:])  # other points in other lanes
    for a, b, c in zip(found, direction(x), alone, strict=True):
        assert torch.equal(a.isnan(), b.isnan())
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
        assert torch.equal(a[5:], c)
        assert bool(a[torch.arange(points) != 3].isfinite().all())


def test_links_of_many_weights_go_alone_so_that_their_gradients_do(runs: list[int]) -> None:
    chain = Chain([coupling(0), *(coupling(i, 800) for i in (1, 2, 3)), coupling(0)])
    randomise(chain, 0.7)
    y, log_abs_det = chain(torch.randn(40, FEATURES))
    assert runs == [2, 1, 2] and bool((y.isfinite().all(-1) & log_abs_det.isfinite()).all())


@pytest.mark.parametrize("spline", [False, True])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_what_recovers_points_gives_their_gradients(spline: bool, context: int, turned: bool) -> None:
    one = coupling(1, context=context, spline=spline)
    randomise(one, 0.5)
    part = Inverse(one) if turned else one
    generator = torch.Generator().manual_seed(0)
    x, given = torch.randn(200, FEATURES, generator=generator), torch.randn(200, 2, generator=generator)
    found = []
    for to in (torch.float32, torch.float64):
        part = part.to(to)
        condition = given.to(to).requires_grad_() if context else None
        with torch.no_grad():
            y, log_abs_det = part.forward(x.to(to), condition)
        y = y.t().contiguous().t()  # as linear maps give it
        back, *again = part._reverse(y, condition)
        assert (part._reverse_link(y, condition) is None) is (to is torch.float64)
        torch.testing.assert_close(back, x.to(to), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(again, [y, log_abs_det], atol=1e-4, rtol=1e-4)
        loss = again[0].sin().sum() + again[1].square().sum()
        wanted = [back, *part.parameters(), *([] if condition is None else [condition])]
        found.append(torch.autograd.grad(loss, wanted))
    same(found[0], found[1], 1e-3)


def test_gradients_have_gradients() -> None:
    chain, (x,) = prepared("inverses among them", 50)
    found = []
    for given in (x, x.double()):
        chain = chain.to(given)
        points = given.clone().requires_grad_()
        y, log_abs_det = chain(points)
        loss = y.sin().sum() + log_abs_det.square().sum()
        (first,) = torch.autograd.grad(loss, points, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [points, *chain.parameters()]))
    same(found[0], found[1], 2e-3)


def test_frozen_parts_have_no_gradient_and_pass_one_on() -> None:
    chain, (x,) = prepared("couplings", 60)
    first, *rest = list(chain)
    rest[0].requires_grad_(False)
    last: nn.Module = rest[-1].network.rest[-1][1]  # type: ignore[index, union-attr, assignment]
    last.weight.requires_grad_(False)
    chain(x)[0].square().sum().backward()
    found = [p.grad for p in first.parameters()]
    assert all(g is not None for g in found)
    assert not any(p.grad is not None for p in (*rest[0].parameters(), last.weight))
    twin, _ = prepared("couplings", 60)
    twin.double()(x.double())[0].square().sum().backward()
    same(
        [g for g in found if g is not None],
        [p.grad for p in next(iter(twin)).parameters() if p.grad is not None],
        1e-3,
    )


def test_a_link_with_a_meaning_of_its_own_stands_alone(runs: list[int]) -> None:
    class Still(Coupling):
        def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            return x, x.new_zeros(len(x))

    still = Still([True] * 4 + [False], Affine(), MLP(4, 2))
    watched = coupling(0)
    seen = []
    watched.network.register_forward_hook(lambda *_: seen.append(1))
    chain = Chain([coupling(0), still, coupling(1), watched, coupling(0)])
    randomise(chain)
    x = torch.randn(100, FEATURES)
    y = chain(x)[0]
    assert runs == [1, 1, 1] and seen == [1]
    for part in (list(chain)[i] for i in (0, 2, 3, 4)):
        x = part(x)[0]
    assert torch.equal(x, y)


def test_a_kept_result_that_is_changed_is_noticed() -> None:
    chain, (x,) = prepared("couplings", 60)
    y, _ = chain.inverse(x)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
