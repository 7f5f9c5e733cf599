"""One constructor for every exported transform, alone and inside the others, and for every model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from case_parts import (
    ANGLES,
    BOTH,
    BOUND,
    CONTEXT,
    CYLINDER,
    FEATURES,
    MAPS,
    NET,
    ON_CYLINDER,
    Case,
    MapCase,
    columns,
    normal,
    seeded,
    uniform,
)
from continuous_cases import CONTINUOUS_CASES, continuous_case, for_single_precision, pulling
from image_cases import IMAGE_CASES
from pushforward.configs import MODELS, ModelConfig
from pushforward.flows import Flow, build_flow
from pushforward.flows.layers import autoregressive, coupling
from pushforward.transforms import (
    ActNorm,
    Affine,
    Autoregressive,
    Chain,
    CompressTails,
    Continuous,
    Coupling,
    Elementwise,
    Inverse,
    LULinear,
    Orthogonal,
    Permutation,
    Planar,
    Radial,
    RationalQuadraticSpline,
    Sigmoid,
    Standardise,
    Support,
    Sylvester,
    Transform,
)

MASK = [True, True, False, False]
ORDER = [2, 0, 3, 1]


def lifted(m: MapCase, context: int) -> Transform:
    return Elementwise(m.build(list(range(FEATURES))), (FEATURES,), context_features=context, hidden=(8,))


def coupled(m: MapCase, context: int) -> Transform:
    angles = ANGLES if isinstance(m.period, tuple) else ()
    moving = [i for i in range(FEATURES) if not MASK[i]]
    return coupling(MASK, m.build(moving), context_features=context, periodic=angles, **NET)


def masked(m: MapCase, context: int) -> Transform:
    angles = ANGLES if isinstance(m.period, tuple) else ()
    elements = list(range(FEATURES))
    return autoregressive(ORDER, m.build(elements), context_features=context, periodic=angles, **NET)


def map_cases() -> dict[str, Case]:
    """Every map in every wiring; one without parameters has nothing that could be conditioned."""
    cases = {}
    for name, m in MAPS.items():
        conditional = m.build(list(range(FEATURES))).parameters_each > 0
        compiled = "elementwise" if name in ("sigmoid", "tanh", "softplus") else "coupling"
        wirings = {"elementwise": lifted, "coupling": coupled, "autoregressive": masked}
        for wiring, build in wirings.items() if conditional else [("elementwise", lifted)]:
            for context in (0, CONTEXT) if conditional else (0,):
                cases[f"{wiring}-{name}" + ("-context" if context else "")] = Case(
                    lambda build=build, m=m, context=context: build(m, context),
                    m.sample,
                    m.period,
                    m.period,
                    1.0 if wiring == "elementwise" else 1.5,
                    m.volume,
                    m.identity,
                    BOTH if wiring == compiled and not context and m.compiles else (),
                )
    return cases


def fitted_standardise() -> Standardise:
    t = Standardise(3, keep=[2])
    t.initialize(torch.tensor([[40.0, 5.0, 1.0], [60.0, -3.0, 2.0]], dtype=torch.float64))
    return t


def fitted_tails() -> CompressTails:
    """One heavy-tailed column, one that is not, one that passes whatever its tails."""
    t = CompressTails(3, keep=[2])
    middle = torch.randn(100, 3, generator=seeded(), dtype=torch.float64)
    t.initialize(torch.cat([middle, torch.tensor([[500.0, 3.0, 500.0]], dtype=torch.float64)]))
    return t


def composed(context: int) -> Transform:
    return Chain(
        [
            coupled(MAPS["affine"], context),
            LULinear(FEATURES),
            Inverse(masked(MAPS["affine"], 0)),
            Permutation.reverse(FEATURES),
            lifted(MAPS["spline"], context),
        ]
    )


TRANSFORMS: dict[str, Case] = (
    map_cases()
    | IMAGE_CASES
    | CONTINUOUS_CASES
    | {
        "actnorm": Case(lambda: ActNorm(FEATURES), starts_as_identity=True, compiles=BOTH),
        "lu-linear": Case(lambda: LULinear(FEATURES), compiles=BOTH),
        "orthogonal": Case(lambda: Orthogonal(FEATURES, 3), volume=True, compiles=BOTH),
        "permutation": Case(lambda: Permutation.random(FEATURES), volume=True, compiles=BOTH),
        "planar": Case(lambda: Planar(FEATURES), normal(0.3), strength=1.5, compiles=BOTH),
        "planar-context": Case(lambda: Planar(FEATURES, context_features=CONTEXT, hidden=(8,)), normal(0.3)),
        "radial": Case(lambda: Radial(FEATURES), normal(1.0), strength=1.5, compiles=BOTH),
        "radial-context": Case(
            lambda: Radial(FEATURES, context_features=CONTEXT, hidden=(8,)), normal(1.0), strength=1.5
        ),
        "sylvester": Case(lambda: Sylvester(FEATURES, 1), normal(0.3), strength=2.0, compiles=BOTH),
        "sylvester-context": Case(
            lambda: Sylvester(FEATURES, 3, context_features=CONTEXT, hidden=(8,)), normal(0.3)
        ),
        "support": Case(
            lambda: Support(
                [None, 1.0, None, -1.0, 0.0], [None, None, 2.0, 3.0, 360.0], [False] * 4 + [True]
            ),
            columns(
                normal(2.0), uniform(1.01, 6.0), uniform(-6.0, 1.99), uniform(-0.99, 2.99), uniform(0, 360)
            ),
            period=(0.0, 0.0, 0.0, 0.0, 360.0),
            latent_period=(0.0, 0.0, 0.0, 0.0, 2 * math.pi),
            compiles=BOTH,
        ),
        "standardise": Case(fitted_standardise, normal(30.0), compiles=BOTH),
        "compress-tails": Case(fitted_tails, normal(30.0), compiles=BOTH),
        "logit": Case(lambda: Inverse(Elementwise(Sigmoid(), (3,))), uniform(0.02, 0.98)),
        "inverse-autoregressive": Case(lambda: Inverse(masked(MAPS["affine"], CONTEXT)), strength=1.5),
        "matrix-event": Case(lambda: Elementwise(Affine(), (2, 2), context_features=CONTEXT, hidden=(8,))),
        "scalar-event": Case(lambda: Elementwise(RationalQuadraticSpline(5, BOUND), ()), strength=3.0),
        "chain": Case(lambda: composed(0)),
        "short-chain": Case(
            lambda: Chain([Inverse(ActNorm(FEATURES)), masked(MAPS["affine"], 0)]), compiles=BOTH
        ),
        "chain-context": Case(lambda: composed(CONTEXT)),
        "inverse-chain": Case(lambda: Inverse(composed(CONTEXT))),
    }
)

SOLVED: dict[str, object] = {"hidden": (8, 8), "atol": 1e-10, "rtol": 1e-10}
# The augmented one is a bijection of the larger space.
CONTINUOUS = ("ffjord", "rnode", "augmented-ffjord", "flow-matching")
SIZES: dict[str, dict[str, object]] = {
    **dict.fromkeys(CONTINUOUS, SOLVED),
    "made": {"hidden": (8, 8)},
    "planar": {"layers": 4},
    "radial": {"layers": 4},
    "sylvester": {"layers": 2, "rank": 2},
    "nsf": {"layers": 2, "hidden": (8, 8), "bins": 4},
    "nsf-coupling": {"layers": 3, "hidden": (8, 8), "bins": 4},
}
STRENGTH = {
    "glow": 0.5,
    "made": 1.5,
    "nsf": 0.5,
    "nsf-coupling": 0.5,
    "planar": 1.0,
    "radial": 1.5,
    "sylvester": 1.5,
}
# Residual flows bend near the origin, where their centres are.
NEAR = {"planar": 0.3, "sylvester": 0.3}
PERIODIC = ("nsf", "nsf-coupling")
MODEL_CASES = [
    (name, context, angles)
    for name in MODELS
    for context in (0, CONTEXT)
    for angles in ((), ANGLES)
    if not angles or name in PERIODIC
]


def small_config(name: str) -> ModelConfig:
    return MODELS[name](**SIZES.get(name, {"layers": 3, "hidden": (8, 8)}))


def model_id(case: tuple[str, int, tuple[int, ...]]) -> str:
    name, context, angles = case
    return f"model-{name}" + ("-context" if context else "") + ("-periodic" if angles else "")


def small_flow(case: tuple[str, int, tuple[int, ...]], features: int = FEATURES) -> Flow:
    """A fresh flow; of fewer features than FEATURES, the angles are those among them."""
    name, context, angles = case
    return build_flow(small_config(name), features, context, [i for i in angles if i < features])


def pulled(transform: Transform) -> Transform:
    for part in transform.modules():
        if isinstance(part, Continuous):
            pulling(part.field)
    return transform


def model_case(case: tuple[str, int, tuple[int, ...]]) -> Case:
    name, _, angles = case
    if name in CONTINUOUS:
        return continuous_case(lambda: pulled(small_flow(case).transform))
    return Case(
        lambda: small_flow(case).transform,
        ON_CYLINDER if angles else normal(NEAR.get(name, 2.0)),
        CYLINDER if angles else 0.0,
        CYLINDER if angles else 0.0,
        STRENGTH.get(name, 0.7),
    )


CASES: dict[str, Case] = TRANSFORMS | {model_id(c): model_case(c) for c in MODEL_CASES}


def randomise(module: nn.Module, strength: float, generator: torch.Generator) -> None:
    """Move every parameter away from its start; matrices by their width, so that no network blows up."""
    with torch.no_grad():
        for p in module.parameters():
            spread = strength / math.sqrt(p.shape[-1]) if p.ndim > 1 else strength
            p.add_(spread * torch.randn(p.shape, generator=generator).to(p))


def fresh(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def draw(name: str, seed: int) -> Transform:
    transform = fresh(CASES[name].build)
    assert isinstance(transform, Transform)
    randomise(transform, CASES[name].strength, seeded(seed))
    return transform


@functools.cache
def first_seed(name: str) -> int:
    """The first seed whose parameters do not pass near the identity."""
    for seed in range(100):
        transform = draw(name, seed).double()
        with torch.no_grad():
            _, log_abs_det = transform(points(name, 64), contexts(transform, 64))
        if CASES[name].volume or log_abs_det.abs().median() >= 1:
            return seed
    raise AssertionError(
        f"{name}: random parameters of strength {CASES[name].strength} stay near the identity"
    )


def make(name: str, dtype: torch.dtype = torch.float64) -> Transform:
    """Build a case with random parameters."""
    transform = draw(name, first_seed(name)).to(dtype)
    if dtype == torch.float32:
        for_single_precision(transform)
    return transform


@functools.cache
def event_shape(name: str) -> tuple[int, ...]:
    transform = fresh(CASES[name].build)
    assert isinstance(transform, Transform)
    return transform.event_shape


def points(name: str, *batch: int, seed: int = 1) -> Tensor:
    """Points of the domain, float64."""
    return CASES[name].sample((*batch, *event_shape(name)), seeded(seed))


def contexts(owner: Transform | Flow, *batch: int, seed: int = 2) -> Tensor | None:
    """Contexts far apart from each other, float64, or None where they are ignored."""
    if owner.context_shape is None:
        return None
    return 3.0 * torch.randn((*batch, *owner.context_shape), generator=seeded(seed), dtype=torch.float64)


def parts(transform: Transform) -> set[tuple[type, type]]:
    """The classes inside, as (class, class of its map): a map counts in every wiring."""
    wired = (Elementwise, Coupling, Autoregressive)
    return {(type(m), type(m.map) if isinstance(m, wired) else type(m)) for m in transform.modules()}


class Density(nn.Module):
    """A flow's log-density as a module's call."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.flow.log_prob(x, context)
