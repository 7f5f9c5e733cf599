"""Under autocast networks compute in bfloat16, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cases import CASES, MODEL_CASES, contexts, make, model_id, points, randomise, seeded, small_flow
from continuous_cases import for_single_precision
from pushforward.distributions import DiagonalNormal
from pushforward.flows import Flow
from pushforward.networks import MLP
from pushforward.transforms import Affine, Chain, Coupling, LULinear, Orthogonal, Sylvester
from pushforward.transforms.recomputed import Recomputed

LOW = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("name", CASES)
def test_points_and_log_determinants_stay_in_their_precision(name: str) -> None:
    transform, x = make(name, torch.float32), points(name, 8).float()
    context = contexts(transform, 8)
    context = None if context is None else context.float()
    with LOW:
        y, log_abs_det = transform(x, context)
        back, log_back = transform.inverse(y, context)
    assert {t.dtype for t in (y, log_abs_det, back, log_back)} == {torch.float32}
    assert torch.isfinite(back).all() and torch.isfinite(log_abs_det).all()


@pytest.mark.parametrize(
    "transform", [LULinear(4), Orthogonal(4), Sylvester(4, 2)], ids=lambda t: type(t).__name__
)
def test_matrix_products_of_a_map_are_exact(transform: LULinear | Orthogonal | Sylvester) -> None:
    x = torch.randn(8, 4, generator=seeded())
    with LOW:
        found = (*transform(x), *transform.inverse(x))
    for a, b in zip(found, (*transform(x), *transform.inverse(x)), strict=True):
        assert torch.equal(a, b)


def test_what_networks_give_is_rounded_and_the_formula_is_not() -> None:
    network = MLP(2, 4, hidden=(8,))
    randomise(network, 1.0, seeded())
    seen: list[Tensor] = []
    network.register_forward_hook(lambda _, __, output: seen.append(output))
    coupling = Coupling([True, True, False, False], Affine(), network)
    x = torch.randn(8, 4, generator=seeded())
    with LOW:
        y, log_abs_det = coupling(x)
    parameters = seen[0]
    assert parameters.dtype == torch.bfloat16
    moved, log_derivative = Affine()(x[:, 2:], parameters.float().reshape(8, 2, 2))
    assert torch.equal(y, torch.cat([x[:, :2], moved], 1))
    assert torch.equal(log_abs_det, log_derivative.sum(-1))


@pytest.mark.parametrize("case", [c for c in MODEL_CASES if not c[2]], ids=model_id)
def test_the_loss_has_gradients_in_full_precision_and_near_the_ordinary_ones(
    case: tuple[str, int, tuple[int, ...]],
) -> None:
    flow = small_flow(case)
    randomise(flow, 0.3, seeded())
    for_single_precision(flow)
    context = torch.randn(64, case[1], generator=seeded()) if case[1] else None
    x = torch.randn(64, 4, generator=seeded(1))
    gradients = []
    for low in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            loss = -flow.estimate_log_prob(x, context, generator=seeded(2), num_samples=1).value.mean()
        assert loss.dtype == torch.float32
        found = torch.autograd.grad(loss, list(flow.parameters()), allow_unused=True)
        assert {g.dtype for g in found if g is not None} == {torch.float32}
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]))
    ordinary, low_precision = gradients
    assert (low_precision - ordinary).norm() < 0.05 * ordinary.norm()


def test_an_embedding_gives_contexts_in_the_precision_of_the_model() -> None:
    transform = Coupling([True, False], Affine(), MLP(1, 2, context_features=3), context_features=3)
    flow = Flow(transform, DiagonalNormal((2,)), embedding=nn.Linear(5, 3), context_shape=(5,))
    with LOW:
        assert flow.log_prob(torch.zeros(4, 2), torch.ones(4, 5)).dtype == torch.float32


def test_recomputed_layers_compute_in_full_precision() -> None:
    chain = make("model-realnvp", torch.float32)
    assert isinstance(chain, Chain)
    x = torch.randn(8, 4, generator=seeded())
    with LOW:
        y, log_abs_det = Recomputed(chain)(x)
        (y.sum() + log_abs_det.sum()).backward()
    assert torch.equal(y, chain(x)[0])
