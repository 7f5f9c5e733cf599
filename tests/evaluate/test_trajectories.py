"""Points on their way from base to data: the ends are those of the flow, and a density is one at every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pushforward.configs import (
    AugmentedConfig,
    FFJORDConfig,
    FlowMatchingConfig,
    ImageRealNVPConfig,
    ImageSchema,
    NICEConfig,
    RealNVPConfig,
)
from pushforward.distributions import DiagonalNormal
from pushforward.evaluate.trajectories import density_path, follow, stages, trajectories
from pushforward.flows import Flow, Preprocess, build_flow, image_flow
from pushforward.networks import PerceptronField
from pushforward.ode import Adaptive, Fixed
from pushforward.transforms import Chain, Continuous, Standardise

ADAPTIVE = Adaptive(1e-6, 1e-6)
TIMES = (0.0, 0.3, 0.5, 1.0)


def randomised(flow: Flow, seed: int = 0) -> Flow:
    """The flow with weights that move points, as float64."""
    generator = torch.Generator().manual_seed(seed)
    flow = flow.double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return flow


def continuous(control: Adaptive | Fixed = ADAPTIVE, method: str = "dopri5", context: int = 0) -> Flow:
    field = PerceptronField(2, context_features=context, hidden=(12, 12), activation="tanh")
    return randomised(Flow(Continuous(field, control=control, method=method), DiagonalNormal((2,))))


def in_units(flow: Flow) -> Flow:
    """The flow of data with location (5, -2) and scale (3, 0.1)."""
    standardise = Standardise(2)
    standardise.loc.copy_(torch.tensor([5.0, -2.0]))
    standardise.scale.copy_(torch.tensor([3.0, 0.1]))
    return Flow(flow.transform, flow.base, preprocess=Preprocess(Chain([standardise])))


def grid_of(low: Tensor, high: Tensor, cells: int = 64) -> tuple[Tensor, float]:
    """Centres of cells, and the area of one."""
    along = [
        a + (b - a) * (torch.arange(cells).double() + 0.5) / cells for a, b in zip(low, high, strict=True)
    ]
    return torch.cartesian_prod(*along), float((high - low).prod()) / cells**2


FLOWS = {
    "adaptive": continuous,
    "fixed": lambda: continuous(Fixed(7), "heun"),
    "fine": lambda: continuous(Fixed(9)),
    "units": lambda: in_units(continuous()),
    "two": lambda: randomised(
        Flow(
            Chain(
                [
                    continuous().transform,
                    build_flow(NICEConfig(layers=2, hidden=(8,)), 2).transform.double(),
                    continuous().transform,
                ]
            ),
            DiagonalNormal((2,)),
        )
    ),
    "hutchinson": lambda: randomised(
        build_flow(FFJORDConfig(hidden=(8, 8), divergence="hutchinson", atol=1e-6, rtol=1e-6), 2)
    ),
    "layers": lambda: randomised(build_flow(RealNVPConfig(layers=4, hidden=(8,)), 2)),
}


@pytest.mark.parametrize("name", FLOWS)
def test_the_ends_are_latent_and_data(name: str) -> None:
    flow = FLOWS[name]()
    latent = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    path = trajectories(flow, latent, times=TIMES)
    start = latent if flow.preprocess is None else flow.preprocess.inverse(latent)[0]
    assert path.shape == (len(TIMES), 6, 2) and path.dtype == torch.float64
    assert torch.equal(path[0], start)
    exact = name in ("fixed", "fine", "layers")  # the same steps
    torch.testing.assert_close(
        path[-1], flow.from_latent(latent), atol=1e-12 if exact else 2e-4, rtol=1e-12 if exact else 2e-4
    )
    assert (path[1] - path[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["adaptive", "fixed", "layers"])
def test_where_points_are_does_not_depend_on_the_other_times(name: str) -> None:
    flow = FLOWS[name]()
    latent = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    many = trajectories(flow, latent, times=[i / 20 for i in range(21)])
    for i in (6, 10, 20):
        (alone,) = trajectories(flow, latent, times=[i / 20])
        torch.testing.assert_close(alone, many[i], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", ["adaptive", "units", "two", "hutchinson", "layers"])
def test_densities_are_those_of_the_points(name: str) -> None:
    flow = FLOWS[name]()
    times = [0.0, 0.4, 1.0]
    ways = stages(flow)
    times = (
        [0.0, *sorted({s.stop for s in ways if s.stop < 1.0}), 1.0]
        if not all(s.moves for s in ways)
        else times
    )
    points = trajectories(flow, 1000, times=times, generator=torch.Generator().manual_seed(3))
    for t, x in zip(times, points, strict=True):
        # Generous about the tails, which maps with random weights may stretch.
        spread = x.std(0)
        grid, area = grid_of(x.amin(0) - 1.5 * spread, x.amax(0) + 1.5 * spread)
        (log_prob,) = density_path(flow, [t], grid)
        assert abs(float(log_prob.exp().sum()) * area - 1.0) < 0.02, t
    # Each point keeps its mass: the density at it is that of its latent over the change of volume.
    assert (density_path(flow, [0.0], points[0, :9])[0].exp() > 0).all()


@pytest.mark.parametrize("name", ["adaptive", "units", "layers", "fixed"])
def test_the_density_at_the_end_is_that_of_the_flow(name: str) -> None:
    flow = FLOWS[name]()
    x = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    if flow.preprocess is not None:
        x = flow.preprocess.inverse(x)[0]
    torch.testing.assert_close(
        density_path(flow, [1.0], x)[0], flow.log_prob(x).detach(), atol=1e-4, rtol=1e-4
    )


def test_contexts_are_far_apart_and_so_are_their_points() -> None:
    flow = continuous(context=1)
    contexts = torch.tensor([[-9.0], [0.0], [9.0]], dtype=torch.float64)
    latent = torch.randn(4, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    path = trajectories(flow, latent, contexts, times=TIMES)
    density = density_path(flow, [0.4], path[1], contexts)
    assert path.shape == (len(TIMES), 4, 3, 2) and density.shape == (1, 4, 3)
    for j, context in enumerate(contexts):
        torch.testing.assert_close(
            path[:, :, j], trajectories(flow, latent[:, 0], context, times=TIMES), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            density[:, :, j], density_path(flow, [0.4], path[1, :, j], context), atol=1e-4, rtol=1e-4
        )
    drawn = trajectories(flow, 5, contexts[0], generator=torch.Generator().manual_seed(6))
    assert drawn.shape == (6, 5, 2)
    assert torch.equal(drawn, trajectories(flow, 5, contexts[0], generator=torch.Generator().manual_seed(6)))


def test_a_solve_that_is_given_up_is_nan_and_is_said() -> None:
    flow = continuous(Adaptive(1e-9, 1e-9, max_steps=2))
    with pytest.warns(RuntimeWarning, match="they are NaN"):
        path = trajectories(flow, 3, times=(0.0, 1.0))
    assert path[0].isfinite().all() and path[1].isnan().all()
    with pytest.warns(RuntimeWarning, match="they are NaN"):
        assert density_path(flow, [1.0], torch.zeros(2, 2).double()).isnan().all()


def test_following_leaves_gradients_on_and_takes_none() -> None:
    flow = continuous()
    for x in follow(flow, 3, times=TIMES):
        assert torch.is_grad_enabled() and not x.requires_grad
    assert not density_path(flow, [0.5], torch.zeros(2, 2).double()).requires_grad


def test_added_elements_are_left_out() -> None:
    flow = build_flow(AugmentedConfig(hidden=(8, 8)), 2)
    assert trajectories(flow, 3, times=TIMES).shape == (4, 3, 2)
    with pytest.raises(ValueError, match="added elements"):
        density_path(flow, [1.0], torch.zeros(1, 2))


def test_what_cannot_be_is_refused() -> None:
    flow, layered = build_flow(FlowMatchingConfig(hidden=(8,)), 2), FLOWS["layers"]()
    for times in ((), (0.5, 0.2), (0.0, 1.5), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="times must be increasing"):
            trajectories(flow, 2, times=times)
    with pytest.raises(ValueError, match="start"):
        trajectories(flow, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="between two layers"):
        density_path(layered, [0.01], torch.zeros(1, 2).double())
    glow = image_flow(ImageRealNVPConfig(scales=2, hidden_channels=4), ImageSchema(height=4, width=4))
    with pytest.raises(ValueError, match="keep the shape of points"):
        trajectories(glow, 2)
