"""A diagnosis tells the truth: known numbers, every fault with its layer, and no alarm where nothing is wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import test_broken_transforms as faults
from pushforward import DataConfig, Diagnosis, Flow, TrainConfig, diagnose, fit
from pushforward.configs import MODELS, IAFConfig, NSFConfig
from pushforward.data import to_matrix
from pushforward.distributions import DiagonalNormal, StudentT, Uniform, VonMises
from pushforward.flows import build_flow
from pushforward.networks import MLP
from pushforward.transforms import (
    Affine,
    Chain,
    Coupling,
    Elementwise,
    LULinear,
    Planar,
    RationalQuadraticSpline,
    Sigmoid,
    Transform,
)

SMALL: dict[str, dict[str, object]] = {
    "nice": {"layers": 2}, "realnvp": {"layers": 2}, "glow": {"layers": 2}, "made": {}, "maf": {"layers": 2},
    "iaf": {"layers": 2}, "nsf-coupling": {"layers": 2, "bins": 4}, "nsf": {"layers": 1, "bins": 4},
    "planar": {"layers": 4}, "radial": {"layers": 4}, "sylvester": {"layers": 2},
    "ffjord": {"hidden": (8, 8)}, "rnode": {"hidden": (8, 8)}, "flow-matching": {"hidden": (8, 8)},
}  # fmt: skip


def normal(rows: int, features: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((rows, features), generator=generator, dtype=torch.float64)


def table(circle: bool, rows: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    a = rng.normal(size=rows)
    frame = pl.DataFrame(
        {
            "line": 5e3 + 2 * a,
            "share": rng.beta(1.2, 3.0, size=rows),
            "count": rng.poisson(3.0, rows).astype(float),
            "heavy": 10 * rng.standard_t(1.2, size=rows),
            "near": a + 0.05 * rng.normal(size=rows),
        }
    )
    angle = np.mod(a, 2 * np.pi) * 180 / np.pi
    return frame.with_columns(angle=pl.Series(angle)) if circle else frame


@pytest.mark.parametrize("name", [name for name in MODELS if name != "augmented-ffjord"])
def test_no_alarm_for_a_fitted_model(name: str) -> None:
    """With and without the table; every second model is conditional, and the splines have an angle."""
    circle, conditional = name.startswith("nsf"), list(MODELS).index(name) % 2 == 0
    hidden = {} if name in ("planar", "radial", "sylvester") else {"hidden": (16,)}
    hidden |= {"hidden": (8, 8)} if "hidden" in SMALL[name] else {}
    frame = table(circle)
    fitted = fit(
        frame,
        model=MODELS[name](**(SMALL[name] | hidden)),  # type: ignore[arg-type]
        training=TrainConfig(epochs=2, batch_size=64),
        data=DataConfig(
            condition=("line",) if conditional else (),
            bounds={"share": (0.0, 1.0)},
            periodic={"angle": (0.0, 360.0)} if circle else {},
        ),
    )
    x = torch.from_numpy(to_matrix(frame, fitted.schema.columns))
    context = torch.from_numpy(to_matrix(frame, fitted.schema.context)) if conditional else None
    for d in (diagnose(fitted.flow, x, context, rows=200), diagnose(fitted.flow, rows=100)):
        assert d.verdict == "sound", d.text()
        assert d.log_det.maximum < 1e-9 and d.log_det_inverse.maximum < 1e-9
        assert all(m.value is None or abs(m.value - 1) < 6 * float(m.error or 0) + 0.01 for m in d.masses)


def linear() -> tuple[Flow, Tensor]:
    torch.manual_seed(0)
    layer = LULinear(2).double()
    with torch.no_grad():
        layer.raw_log_scale += torch.tensor([1.0, -2.0])
    flow = Flow(Chain([layer]), DiagonalNormal((2,)).double())
    matrix = layer(torch.eye(2, dtype=torch.float64))[0] - layer(torch.zeros(2, dtype=torch.float64))[0]
    return flow, matrix.detach().mT


def test_the_numbers_of_a_linear_flow_are_those_of_its_matrix() -> None:
    flow, matrix = linear()
    d = diagnose(flow, flow.sample((500,), generator=torch.Generator().manual_seed(1)), rows=300)
    largest, smallest = torch.linalg.svdvals(matrix).tolist()
    for stretch in d.stretches:
        assert stretch.forward.median == pytest.approx(largest, rel=1e-12)
        assert stretch.inverse.maximum == pytest.approx(1 / smallest, rel=1e-9)
    assert [m.method for m in d.masses] == ["importance sampling", "quadrature"]
    sampled, quadrature = d.masses
    assert sampled.value is not None and sampled.error is not None and quadrature.value is not None
    assert abs(sampled.value - 1) < 4 * sampled.error < 0.05
    assert quadrature.value == pytest.approx(1, abs=1e-3)
    assert d.latent is not None and d.latent.fits
    assert d.verdict == "sound", d.text()


def test_deviation_and_its_row_are_those_of_the_log_density() -> None:
    flow, _ = linear()
    flow = flow.float()
    x = normal(100, 2)
    x[37] *= 1e4
    d = diagnose(flow, x, rows=1000)
    exact = copy.deepcopy(flow).double().log_prob(x)
    error = (flow.log_prob(x.float()).double() - exact).abs()
    assert d.deviation.row == int(error.argmax()) == 37
    assert d.deviation.error.maximum == pytest.approx(error.max().item(), rel=1e-9)
    assert d.deviation.error.median == pytest.approx(error.quantile(0.5).item(), rel=1e-9)


def couplings(log_scales: list[float], bound: float) -> Chain:
    torch.manual_seed(0)
    layers = []
    for i, log_scale in enumerate(log_scales):
        network = MLP(1, 4, hidden=(8,))
        last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
        with torch.no_grad():
            nn.init.normal_(last.weight, std=0.05)
            last.bias[1::2], last.bias[0::2] = log_scale, 0.3
        layers.append(Coupling([j == i % 3 for j in range(3)], Affine(bound), network))
    return Chain(layers)


def near_singular() -> Chain:
    linear = LULinear(3, bound=60.0)
    with torch.no_grad():
        linear.raw_log_scale[1] = -28.0
    return Chain([Planar(3), linear, Planar(3)])


def folded() -> Chain:
    layers = [Planar(3) for _ in range(4)]
    for layer in layers:
        with torch.no_grad():
            layer.source.value.copy_(torch.tensor([-30.0, 0, 0, 30.0, 0, 0, 0]))
    return Chain(layers)


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize(
    ("transform", "layer"),
    [
        (couplings([0, -27.6, 0, 0], 40.0), "transform.transforms[1] (Coupling)"),
        (couplings([0, 27.6, 0, 0], 40.0), "transform.transforms[1] (Coupling)"),
        (couplings([0, 0, -9, -9, -9], 8.0), "transform.transforms["),
        (near_singular(), "transform.transforms[1] (LULinear)"),
    ],
    ids=["scale-1e-12", "scale-1e12", "several-saturated", "near-singular"],
)
def test_what_cannot_be_inverted_in_float32_is_broken(
    transform: Transform, layer: str, with_data: bool
) -> None:
    d = diagnose(Flow(transform, DiagonalNormal((3,))), normal(300, 3) if with_data else None, rows=200)
    assert d.verdict == "broken"
    assert d.blamed[0].startswith(layer), d.text()
    assert "float32 not one digit" in d.text() or "not finite" in d.text()


def test_a_fold_at_the_data_is_broken() -> None:
    d = diagnose(Flow(folded(), DiagonalNormal((3,))), 0.01 * normal(300, 3), rows=200)
    assert d.verdict == "broken" and "Planar" in d.blamed[0]


FAULTS: list[tuple[type[Transform], str]] = [
    (faults.WrongSign, "log-determinant"),
    (faults.WrongBothWays, "log-determinant"),
    (faults.WrongInverseOnly, "log-determinant"),
    (faults.OneLogDet, "log-determinant"),
    (faults.ForwardTwice, "not the inverse"),
    (faults.SlightlyOff, "not the inverse"),
    (faults.SeesTheBatch, "beside others"),
    (faults.FirstContextForAll, "beside others"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("build", "words"), FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_wrong_formula_is_broken_and_its_layer_named(
    build: Callable[[], Transform], words: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    healthy = Elementwise(Affine(), (faults.FEATURES,))
    flow = Flow(Chain([healthy, build(), copy.deepcopy(healthy)]), DiagonalNormal((faults.FEATURES,)))
    d = diagnose(flow.to(dtype), rows=100)
    assert d.verdict == "broken"
    assert d.blamed == (f"transform.transforms[1] ({build.__name__})",), d.text()
    assert any(words in f.text for f in d.findings)


class TooHeavy(DiagonalNormal):
    """Has a mass of exp(0.1)."""

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return super()._log_prob(x, context) + 0.1


@pytest.mark.parametrize("features", [1, 2, 5])
def test_a_mass_that_is_not_1_is_measured_and_the_base_blamed(features: int) -> None:
    flow = Flow(Elementwise(Affine(), (features,)), TooHeavy((features,)))
    d = diagnose(flow, rows=100)
    assert d.verdict == "broken" and d.blamed == ("base (TooHeavy)",), d.text()
    for mass in d.masses:
        assert mass.value == pytest.approx(math.exp(0.1), abs=4 * float(mass.error or 0) + 1e-3)


def test_a_transform_that_does_not_reach_the_base_is_blamed() -> None:
    torch.manual_seed(0)
    flow = Flow(Chain([LULinear(3), Elementwise(Sigmoid(), (3,))]), DiagonalNormal((3,)))
    d = diagnose(flow, normal(200, 3), rows=100)
    assert d.verdict == "broken" and d.blamed == ("transform.transforms[1] (Elementwise)",)


@pytest.mark.parametrize(
    "flow",
    [
        Flow(Elementwise(Affine(), (2,)), StudentT((2,), 1.0)),
        Flow(
            Elementwise(RationalQuadraticSpline(4, math.pi, "circular"), (2,)),
            VonMises(torch.zeros(2), 3 * torch.ones(2)),
        ),
        Flow(
            Elementwise(RationalQuadraticSpline(4, 1.0, "bounded"), (2,)),
            Uniform(-torch.ones(2), torch.ones(2)),
        ),
    ],
    ids=["cauchy", "circle", "box"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_alarm_for_other_bases(flow: Flow, dtype: torch.dtype) -> None:
    d = diagnose(copy.deepcopy(flow).to(dtype), rows=200)
    assert d.verdict == "sound", d.text()
    assert any(m.value is not None for m in d.masses)


def test_latents_off_the_base_are_a_note_and_what_was_not_measured_is_said() -> None:
    flow, _ = linear()
    d = diagnose(flow, 3 + normal(300, 2))
    assert d.verdict == "sound" and d.latent is not None and not d.latent.fits
    assert any(f.level == "note" and "fit is poor" in f.text for f in d.findings)
    alone = diagnose(flow, rows=50)
    assert alone.latent is None and "no data were given" in alone.text()


def test_a_mass_with_too_few_effective_draws_is_withheld() -> None:
    d = diagnose(Flow(couplings([0, -27.6], 40.0), DiagonalNormal((3,))), rows=50)
    assert d.masses[0].value is None and "total mass" in " ".join(d.not_measured)


def test_equal_seeds_give_equal_results_and_the_flow_stays_as_it_is() -> None:
    flow, _ = linear()
    flow = flow.float().train()
    before = copy.deepcopy(flow.state_dict())
    state = torch.get_rng_state()
    x = normal(300, 2)
    one, two, three = (diagnose(flow, x, rows=100, seed=s) for s in (3, 3, 4))
    assert one == two and one != three
    assert flow.training and all(p.requires_grad and p.grad is None for p in flow.parameters())
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(one, Diagnosis)


def test_wide_flows_are_looked_at_too() -> None:
    """Beyond 32 elements one direction's Jacobian is the inverse of the other's."""
    torch.manual_seed(0)
    for config in (NSFConfig(layers=1, bins=4, hidden=(8,)), IAFConfig(layers=2, hidden=(8,))):
        d = diagnose(build_flow(config, 33), rows=20)
        assert d.verdict == "sound" and d.log_det_inverse.maximum < 1e-9, d.text()


def test_arguments_that_do_not_fit_are_refused() -> None:
    flow, _ = linear()
    x = normal(10, 2)
    for arguments, words in (
        ((object(),), "must be a Flow"),
        ((flow, x[:, :1]), "must have shape"),
        ((flow, x[:0]), "n of at least 1"),
        ((flow, None, x), "context must come with x"),
        ((flow, torch.full((2, 2), math.nan, dtype=torch.float64)), "must be finite"),
    ):
        with pytest.raises(ValueError, match=words):
            diagnose(*arguments)  # type: ignore[arg-type]
