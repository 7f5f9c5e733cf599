"""Each family against an independent reference, at its edges, and with arguments that cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from distribution_cases import seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor

from pushforward.distributions import (
    DiagonalNormal,
    Distribution,
    GaussianMixture,
    Logistic,
    Product,
    StudentT,
    Uniform,
    VonMises,
)
from pushforward.distributions.constraints import LOG_SCALE_BOUND

f64 = torch.float64
quick = settings(max_examples=10, deadline=None)
points = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8).map(lambda v: torch.tensor(v, dtype=f64))
angles = st.lists(st.floats(-math.pi, math.nextafter(math.pi, 0)), min_size=1, max_size=8).map(
    lambda v: torch.tensor(v, dtype=f64)
)


def close(got: Tensor, expected: object) -> None:
    torch.testing.assert_close(got.detach(), torch.as_tensor(expected, dtype=f64), rtol=1e-10, atol=1e-10)


@given(x=points, loc=st.floats(-5, 5), raw=st.floats(-3, 3))
@quick
def test_normal(x: Tensor, loc: float, raw: float) -> None:
    close(DiagonalNormal(()).double().log_prob(x), stats.norm.logpdf(x))
    learned = DiagonalNormal((), trainable=True).double()
    learned.load_state_dict({"source.value": torch.tensor([loc, raw], dtype=f64)})
    scale = math.exp(LOG_SCALE_BOUND * math.tanh(raw / LOG_SCALE_BOUND))
    close(learned.log_prob(x), stats.norm.logpdf(x, loc, scale))


@given(x=points, df=st.floats(0.1, 1e6))
@quick
def test_student_and_logistic(x: Tensor, df: float) -> None:
    close(Logistic(()).double().log_prob(x), stats.logistic.logpdf(x))
    close(StudentT((), torch.tensor(df, dtype=f64)).log_prob(x), stats.t.logpdf(x, df))
    learned = StudentT((), torch.tensor(2 + df, dtype=f64), trainable=True)
    close(learned.log_prob(x), stats.t.logpdf(x, 2 + df))


@pytest.mark.parametrize("df", [0.5, 3.0, 39.9, 40.1, 1e4, 1e7])
def test_student_in_float32_keeps_its_normalisation(df: float) -> None:
    x = torch.tensor([0.0, 1.0])
    got = StudentT((), df).log_prob(x).double()
    torch.testing.assert_close(got, torch.from_numpy(stats.t.logpdf(x.double(), df)), rtol=0, atol=5e-6)


@given(x=angles, loc=st.floats(-9, 9), kappa=st.floats(0, 1e4))
@quick
def test_von_mises(x: Tensor, loc: float, kappa: float) -> None:
    got = VonMises(torch.tensor(loc, dtype=f64), torch.tensor(kappa, dtype=f64)).log_prob(x)
    close(got, kappa * special.cosm1((x - loc).numpy()) - math.log(2 * math.pi * special.i0e(kappa)))
    if 0 < kappa < 500:
        close(got, stats.vonmises.logpdf(x, kappa, loc))


@given(x=points.map(lambda v: v / 100), low=st.floats(-5, 5), width=st.floats(0.1, 9))
@quick
def test_uniform(x: Tensor, low: float, width: float) -> None:
    base = Uniform(torch.tensor(low, dtype=f64), torch.tensor(low + width, dtype=f64))
    ends = torch.stack([base.low, base.high])
    close(base.log_prob(x), stats.uniform.logpdf(x, low, low + width - low))
    assert base.log_prob(ends).isfinite().all()
    assert (base.log_prob(torch.nextafter(ends, torch.tensor([-9.0, 99.0], dtype=f64))) == -math.inf).all()


def test_uniform_samples_stay_inside() -> None:
    low = torch.tensor([1e6, -1.0, 0.1], dtype=torch.float32)
    base = Uniform(low, torch.nextafter(low, low + 1))
    assert base.log_prob(base.sample((2000,), generator=seeded())).isfinite().all()


def test_mixture() -> None:
    base = GaussianMixture((2,), 3, generator=seeded()).double()
    with torch.no_grad():
        base.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
        base.raw_log_scale.normal_(generator=seeded())
    x = 3 * torch.randn(50, 2, dtype=f64, generator=seeded())
    scale = torch.exp(LOG_SCALE_BOUND * torch.tanh(base.raw_log_scale.detach() / LOG_SCALE_BOUND))
    each = stats.norm.logpdf(x[:, None], base.loc.detach(), scale).sum(-1)
    close(
        base.log_prob(x), special.logsumexp(each, b=torch.softmax(base.logits.detach(), 0).numpy(), axis=-1)
    )


def test_mixture_begins_spread_out_and_of_variance_one() -> None:
    base = GaussianMixture((2,), 500, generator=seeded())
    assert len(base.loc.unique(dim=0)) == 500
    x = base.sample((20_000,), generator=seeded())
    torch.testing.assert_close(x.T.cov(), torch.eye(2), rtol=0, atol=0.15)


def test_product_deals_elements_to_parts() -> None:
    parts = [StudentT((2,), torch.tensor([3.0, 9.0])), VonMises(torch.tensor([1.0]), torch.tensor([2.0]))]
    base = Product([parts[0], parts[1], Logistic((1,))], [[3, 0], [1], [2]]).double()
    x = torch.tensor([0.5, -2.0, 4.0, -1.0], dtype=f64)
    expected = (
        stats.t.logpdf(-1.0, 3)
        + stats.t.logpdf(0.5, 9)
        + stats.vonmises.logpdf(-2.0, 2, 1)
        + stats.logistic.logpdf(4.0)
    )
    close(base.log_prob(x), expected)
    draws = base.sample((2000,), generator=seeded())
    assert draws[:, 1].abs().max() <= math.pi
    assert stats.kstest(draws[:, 0], stats.t(9).cdf).pvalue > 1e-4
    assert stats.kstest(draws[:, 3], stats.t(3).cdf).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, f64])
@pytest.mark.parametrize("kappa", [0.0, 1e-6, 0.3, 5.0, 1e3, 1e7])
def test_von_mises_samples_of_any_concentration(kappa: float, dtype: torch.dtype) -> None:
    loc = torch.tensor(3.0, dtype=dtype)
    x = VonMises(loc, torch.tensor(kappa, dtype=dtype)).sample((4000,), generator=seeded())
    assert x.min() >= -math.pi
    assert (x < math.pi).all()
    around = torch.remainder(x.double() - 3 + math.pi, 2 * math.pi) - math.pi
    if kappa < 1e6:
        assert stats.kstest(around, stats.vonmises(max(kappa, 1e-9)).cdf).pvalue > 1e-4
    else:  # a float32 angle near 3 has a step of 2e-7, next to a spread of 3e-4
        assert stats.kstest(around * math.sqrt(kappa), stats.norm.cdf).pvalue > 1e-4


def test_von_mises_at_the_seam_of_the_circle() -> None:
    """At this concentration the draws are rounded to a few numbers on both sides of the seam."""
    loc, kappa = torch.tensor([-math.pi, 1e31], dtype=f64)
    base = VonMises(loc, kappa, trainable=True)
    x = base.sample((1000,), generator=seeded())
    assert len(x.unique()) > 1
    assert base.log_prob(x).isfinite().all()
    got = base.log_prob(torch.tensor([-math.pi, math.pi, math.inf, -math.inf], dtype=f64))
    assert (got[1:] == -math.inf).all()
    got[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in base.parameters())


def test_von_mises_with_a_nan_parameter_ends() -> None:
    base = VonMises(torch.zeros(2), torch.ones(2), trainable=True)
    with torch.no_grad():
        base.raw[0] = math.nan
    x = base.sample((100,), generator=seeded())
    assert x[:, 0].isnan().all()
    assert x[:, 1].isfinite().all()


def test_student_samples_differentiate_like_their_variance() -> None:
    """The variance is df / (df - 2), so that its slope in r with df = 2 + softplus(r) is known."""
    df = 8.0
    base = StudentT((), torch.tensor(df, dtype=f64), trainable=True)
    base.rsample((400_000,), generator=seeded()).square().mean().backward()
    expected = -2 / (df - 2) ** 2 * torch.sigmoid(base.raw.detach())
    assert base.raw.grad is not None
    torch.testing.assert_close(base.raw.grad, expected, rtol=0.05, atol=0)


def test_log_scale_never_leaves_the_floats() -> None:
    base = DiagonalNormal((2,), trainable=True)
    base.load_state_dict({"source.value": torch.tensor([0.0, 0.0, 1e6, -1e6])})
    x = base.rsample((5,), generator=seeded())
    value = base.log_prob(torch.cat([x, torch.full((1, 2), 1e4)]))
    value.sum().backward()
    assert value.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in base.parameters())


BOX = Uniform(torch.zeros(1), torch.ones(1))
NORMAL = DiagonalNormal((2,), context_features=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: NORMAL.log_prob(torch.zeros(3), torch.zeros(3)),
            r"DiagonalNormal: x .* \(..., 2\), got \(3,\)",
        ),
        (
            lambda: NORMAL.log_prob(torch.zeros(2)),
            r"DiagonalNormal: context of shape \(..., 3\) is needed, got None",
        ),
        (
            lambda: NORMAL.log_prob(torch.zeros(2), torch.zeros(5, 3)),
            r"context batch shape \(5,\) .* x, \(\)",
        ),
        (lambda: NORMAL.sample((2,)), "context .* is needed, got None"),
        (lambda: NORMAL.sample((2,), torch.zeros(4)), r"context must have shape \(..., 3\), got \(4,\)"),
        (lambda: NORMAL.sample((2,), torch.zeros(3).double()), "dtype torch.float32, .* got torch.float64"),
        (lambda: NORMAL.sample((2,), torch.zeros(3), temperature=-1.0), "at least 0, got -1.0"),
        (lambda: NORMAL.sample((2,), torch.zeros(3), temperature=math.nan), "at least 0, got nan"),
        (
            lambda: BOX.log_prob(torch.zeros(1).double()),
            "dtype of the distribution, torch.float32, got torch.float64",
        ),
        (lambda: BOX.log_prob(torch.zeros(1).long()), "floating dtype, got torch.int64"),
        (lambda: GaussianMixture((1,), 2).rsample((2,)), "GaussianMixture: rsample .* use sample"),
        (lambda: GaussianMixture((1,), 0), "components must be at least 1, got 0"),
        (lambda: Uniform(torch.zeros(2), torch.ones(3)), r"high must have .* \(2,\) .* got \(3,\)"),
        (lambda: Uniform(torch.zeros(2), torch.tensor([1.0, 0.0])), "high must be above low"),
        (lambda: Uniform(torch.zeros(1), torch.full((1,), math.inf)), r"finite width, got \[inf\]"),
        (
            lambda: Uniform(torch.tensor([0]), torch.tensor([1])),
            "high must be of a floating dtype, got torch.int64",
        ),
        (lambda: StudentT((2,), 0.0), "df must be finite and above 0, got 0.0"),
        (lambda: StudentT((2,), 2.0, trainable=True), "df must be finite and above 2, got 2.0"),
        (lambda: StudentT((2,), torch.ones(3)), r"df must broadcast to the event shape \(2,\), got \(3,\)"),
        (lambda: VonMises(torch.zeros(1), -torch.ones(1)), "concentration must be finite and at least 0"),
        (lambda: VonMises(torch.zeros(1), torch.zeros(1), trainable=True), "finite and above 0"),
        (lambda: VonMises(torch.full((1,), math.nan), torch.ones(1)), r"loc must be finite, got \[nan\]"),
        (lambda: VonMises(torch.zeros(1), torch.ones(2)), r"concentration must have .* got \(2,\)"),
        (lambda: Product([], []), "at least 1, got 0 and 0"),
        (
            lambda: Product([BOX], [[0, 1]]),
            r"part 0 \(Uniform\) has the event shape \(1,\), its indices are 2",
        ),
        (lambda: Product([BOX, BOX], [[0], [0]]), r"each of 0..1 once, got \[0, 0\]"),
        (lambda: Product([BOX, Logistic((1,)).double()], [[0], [1]]), "same dtype, got"),
        (
            lambda: Product([NORMAL, DiagonalNormal((1,), context_features=2)], [[0, 1], [2]]),
            "same context shape",
        ),
    ],
)
def test_errors_name_argument_expected_and_got(call: Callable[[], Distribution], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
