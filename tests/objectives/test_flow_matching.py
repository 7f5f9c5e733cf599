"""The loss is least at the velocity that carries one law to the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pushforward.networks import Guided, PerceptronField, VectorField
from pushforward.objectives.flow_matching import Field, flow_matching_loss, reflow_pairs
from pushforward.objectives.pairing import PAIRINGS
from pushforward.objectives.paths import PATHS

MEAN, SCALE = 1.5, 0.5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=seeded(seed))


def still(t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    return torch.zeros_like(x)


def best_velocity(path: str, t: Tensor, x: Tensor) -> Tensor:
    """Return E[u_t | x_t = x] for x0 ~ N(0, 1) and x1 ~ N(MEAN, SCALE^2), elementwise and independent."""
    alpha, sigma, alpha_rate, sigma_rate = (weight[:, None] for weight in PATHS[path].schedule(t))
    slope = (alpha_rate * alpha * SCALE**2 + sigma_rate * sigma) / (alpha**2 * SCALE**2 + sigma**2)
    return alpha_rate * MEAN + slope * (x - alpha * MEAN)


class Recorder:
    """A field that does nothing but keep what it was given."""

    def __call__(self, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        self.t, self.x, self.context = t, x, context
        return torch.zeros_like(x)


class SmallField(VectorField):
    def __init__(self, context_features: int = 0) -> None:
        super().__init__()
        self.event_shape, self.context_shape = (2,), (context_features,) if context_features else None
        self.layers = nn.Sequential(
            nn.Linear(3 + context_features, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 2)
        )
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(normal(*p.shape, seed=i) / p.shape[-1] ** 0.5 if p.ndim == 2 else torch.zeros_like(p))

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        parts = [t[:, None], x] if context is None else [t[:, None], x, context]
        result: Tensor = self.layers(torch.cat(parts, 1))
        return result


def train(field: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int = 300) -> None:
    generator = seeded(7)
    optimiser = torch.optim.Adam(field.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(generator).backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def carry(field: Field, x: Tensor, context: Tensor | None = None, steps: int = 20) -> Tensor:
    """Solve from noise to data by the midpoint method."""
    h = 1 / steps
    for k in range(steps):
        t = torch.full((len(x),), k * h)
        middle = x + h / 2 * field(t, x, context)
        x = x + h * field(t + h / 2, middle, context)
    return x


@pytest.mark.parametrize("path", sorted(PATHS))
def test_the_best_field_of_normals_has_no_gradient_and_the_least_loss(path: str) -> None:
    n = 100_000
    x0, x1 = normal(n, 1, dtype=torch.float64), MEAN + SCALE * normal(n, 1, seed=1, dtype=torch.float64)

    def loss(theta: Tensor) -> Tensor:
        def field(t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
            terms = torch.cat([torch.ones_like(x), x, t[:, None], t[:, None] * x, x**2], 1)
            return best_velocity(path, t, x) + (terms @ theta)[:, None]

        return flow_matching_loss(field, x1, x0, path=path, pairing="given", generator=seeded(2))

    at_best = loss(torch.zeros(5, dtype=torch.float64))
    theta = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(theta), theta)
    assert gradient.abs().max() < 0.06
    for k in range(5):
        for step in (-0.2, 0.2):
            other = torch.zeros(5, dtype=torch.float64)
            other[k] = step
            assert loss(other) > at_best + 0.002


def test_the_best_field_of_the_linear_path_is_the_known_one() -> None:
    t, x = torch.linspace(0, 1, 11), torch.linspace(-2, 2, 11)[:, None]
    late = t[:, None]
    known = MEAN + (late * SCALE**2 - (1 - late)) / (late**2 * SCALE**2 + (1 - late) ** 2) * (x - late * MEAN)
    torch.testing.assert_close(best_velocity("linear", t, x), known)
    end = carry(lambda t, x, context: best_velocity("linear", t, x), x)
    torch.testing.assert_close(end, MEAN + SCALE * x, rtol=1e-3, atol=1e-3)


def test_times_are_uniform_stratified_and_in_random_order() -> None:
    n, field = 1000, Recorder()
    flow_matching_loss(field, torch.zeros(n, 2), torch.zeros(n, 2), pairing="given", generator=seeded())
    assert torch.equal(field.t.sort().values.mul(n).floor(), torch.arange(n).float())
    assert torch.corrcoef(torch.stack([field.t, torch.arange(n)]))[0, 1].abs() < 0.1
    assert 0.2 < field.t.mul(n).frac().std() < 0.4


@pytest.mark.parametrize("event", [(), (3,), (2, 2)])
def test_the_loss_is_the_mean_over_rows_of_the_mean_over_elements(event: tuple[int, ...]) -> None:
    x0, x1 = normal(6, *event), normal(6, *event, seed=1)
    each = (x1 - x0).square().reshape(6, -1).mean(1)
    loss = flow_matching_loss(still, x1, x0, pairing="given", generator=seeded())
    torch.testing.assert_close(loss, each.mean())
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 3.0])
    weighted = flow_matching_loss(still, x1, x0, None, weights, pairing="given", generator=seeded())
    torch.testing.assert_close(weighted, (weights * each).sum() / 6.5)


def test_exact_pairing_lessens_the_variance_that_no_field_can_explain() -> None:
    x0, x1 = normal(128, 2), normal(128, 2, seed=1)
    exact, given = (
        flow_matching_loss(still, x1, x0, pairing=p, generator=seeded()) for p in ("exact", "given")
    )
    assert exact < 0.2 * given


@pytest.mark.parametrize("pairing", sorted(PAIRINGS))
@pytest.mark.parametrize("path", sorted(PATHS))
def test_equal_seeds_give_equal_losses(path: str, pairing: str) -> None:
    context = torch.eye(2)[torch.arange(30) % 2]

    def loss(seed: int) -> float:
        return flow_matching_loss(
            lambda t, x, context: x * t[:, None] + context,
            normal(30, 2),
            normal(30, 2, seed=1),
            context,
            torch.rand(30, generator=seeded()),
            path=path,
            pairing=pairing,
            drop=0.3,
            generator=seeded(seed),
        ).item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    for pairing in PAIRINGS:
        context, weights = torch.ones(300, 1), torch.rand(300, generator=seeded())
        x = normal(300, 2)
        flow_matching_loss(still, x, x, context, weights, pairing=pairing, drop=0.5, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_share_of_contexts_is_dropped() -> None:
    n, field = 4000, Recorder()
    context = torch.ones(n, 2, 3)
    flow_matching_loss(
        field, torch.zeros(n, 1), torch.zeros(n, 1), context, pairing="given", drop=0.2, generator=seeded()
    )
    assert field.context is not None
    dropped = (field.context == 0).flatten(1)
    assert torch.equal(dropped.all(1), dropped.any(1))
    assert dropped.all(1).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (context == 1).all()


def test_one_sample_is_carried_to_another() -> None:
    """A flat normal far left goes to an upright one, neither of them noise, by about the shortest way."""
    centres, scales = torch.tensor([[-2.0, 0.0], [2.0, 1.0]]), torch.tensor([[1.0, 0.3], [0.3, 1.0]])

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x0, x1 = centres[:, None] + scales[:, None] * torch.randn(2, 128, 2, generator=generator)
        return x1, x0

    field = SmallField()
    train(field, lambda g: flow_matching_loss(field, *draw(g), generator=g))
    z = normal(2000, 2, seed=5)
    end = carry(field, centres[0] + scales[0] * z)
    torch.testing.assert_close(end.mean(0), centres[1], rtol=0, atol=0.1)
    torch.testing.assert_close(end.std(0), scales[1], rtol=0, atol=0.1)
    # The optimal map between normals of these axes moves and scales each of them.
    assert (end - (centres[1] + scales[1] * z)).square().mean().sqrt() < 0.2


def test_classes_keep_their_laws_under_exact_pairing_and_guidance_sharpens_them() -> None:
    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        classes = torch.arange(128) % 2
        x1 = torch.randn(128, 2, generator=generator) + torch.where(classes == 0, -1.0, 1.0)[:, None]
        return x1, torch.randn(128, 2, generator=generator), torch.eye(2)[classes]

    def loss(generator: torch.Generator) -> Tensor:
        return flow_matching_loss(field, *draw(generator), drop=0.2, generator=generator)

    field = SmallField(context_features=2)
    train(field, loss)
    noise = normal(2000, 2, seed=5)
    for k, centre in enumerate((-1.0, 1.0)):
        context = torch.eye(2)[k].expand(2000, 2)
        end = carry(field, noise, context)
        torch.testing.assert_close(end.mean(0), torch.full((2,), centre), rtol=0, atol=0.2)
        torch.testing.assert_close(end.std(0), torch.ones(2), rtol=0, atol=0.2)
        sharper = carry(Guided(field, 3.0), noise, context)
        assert (sharper.mean(0) * centre > 1.2).all()
    both = carry(Guided(field, 0.0), noise, torch.eye(2)[0].expand(2000, 2))
    torch.testing.assert_close(both.mean(0), torch.zeros(2), rtol=0, atol=0.25)
    assert (both.std(0) > 1.25).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_is_a_line_from_null_to_context(scale: float) -> None:
    field = PerceptronField(2, context_features=3, hidden=(8,))
    with torch.no_grad():
        for p in field.parameters():
            p.copy_(torch.randn(p.shape, generator=seeded()))
    t, x, context = torch.rand(4, generator=seeded()), normal(4, 2), normal(4, 3)
    without, with_context = field(t, x, torch.zeros(4, 3)), field(t, x, context)
    expected = (1 - scale) * without + scale * with_context
    torch.testing.assert_close(Guided(field, scale)(t, x, context), expected)


def test_reflow_pairs_are_carried_in_chunks() -> None:
    sizes = []

    def transport(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        sizes.append(len(x))
        return 2 * x + context

    x0, context = normal(10, 2).requires_grad_(), normal(10, 1, seed=1)
    start, end = reflow_pairs(transport, x0, context, chunk=4)
    assert sizes == [4, 4, 2]
    assert start is x0
    torch.testing.assert_close(end, (2 * x0 + context).detach())
    assert not end.requires_grad
    assert reflow_pairs(lambda x, context: x, x0)[1].shape == x0.shape


def test_pairs_of_a_straight_flow_have_no_loss_left() -> None:
    """A flow that only moves and scales has one line through each point, and its field explains all of it."""
    x0, x1 = reflow_pairs(lambda x, context: MEAN + SCALE * x, normal(500, 2))

    def straight(t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        late = t[:, None]
        start = (x - late * MEAN) / (1 - late + late * SCALE)
        return MEAN + (SCALE - 1) * start

    assert flow_matching_loss(straight, x1, x0, pairing="given", generator=seeded()) < 1e-10
    assert flow_matching_loss(straight, x1, x0, pairing="independent", generator=seeded()) > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "vp"}, "path must be one of linear, variance-preserving, trigonometric, got 'vp'"),
        ({"pairing": "ot"}, "pairing must be one of given, independent, exact, sinkhorn, got 'ot'"),
        ({"x0": torch.zeros(4, 1)}, r"x0 must have the shape of x1, \(4, 2\), got \(4, 1\)"),
        ({"drop": 1.0}, "drop must be at least 0 and less than 1, got 1.0"),
        ({"drop": float("nan")}, "drop must be at least 0 and less than 1, got nan"),
        ({"late": 0.5}, "late must be at least 1 and finite, got 0.5"),
        ({"drop": 0.1}, "context is needed for drop 0.1, got None"),
        (
            {"field": lambda t, x, context: x[:, :1]},
            r"field must return the shape of x1, \(4, 2\), got \(4, 1\)",
        ),
    ],
)
def test_arguments_of_the_loss_that_do_not_fit(change: dict[str, object], message: str) -> None:
    arguments = {"field": still, "x1": torch.zeros(4, 2), "x0": torch.zeros(4, 2), **change}
    with pytest.raises(ValueError, match=message):
        flow_matching_loss(**arguments)  # type: ignore[arg-type]


def test_arguments_of_guidance_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="scale must be finite, got inf"):
        Guided(PerceptronField(2, context_features=2), float("inf"))
    with pytest.raises(ValueError, match="guidance needs a field with a context, got one without"):
        Guided(PerceptronField(2), 2.0)
    with pytest.raises(ValueError, match="context is needed, got None"):
        Guided(PerceptronField(2, context_features=2), 2.0)(torch.zeros(1), torch.zeros(1, 2))


def test_arguments_of_reflow_that_do_not_fit() -> None:
    x0 = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        reflow_pairs(lambda x, context: x, x0, chunk=0)
    with pytest.raises(ValueError, match=r"context must have a row for each of the 3 of x0, got \(2, 1\)"):
        reflow_pairs(lambda x, context: x, x0, torch.zeros(2, 1))
    with pytest.raises(
        ValueError, match=r"transport must return the shape it is given, \(3, 2\), got \(3, 1\)"
    ):
        reflow_pairs(lambda x, context: x[:, :1], x0)
