"""Baselines against densities that are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from pushforward.report.baselines import Baseline, gaussian, gaussian_mixture, kernel_density

Matrix = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)
FITS = (gaussian, partial(gaussian_mixture, components={"full": (1, 2), "diag": (1, 2)}), kernel_density)


def parts(x: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    third = len(x) // 3
    return x[:third], x[third : 2 * third], x[2 * third :]


def normal(seed: int, rows: int, columns: int) -> tuple[Matrix, Matrix]:
    """Rows of a Gaussian with a random covariance and scales far apart, and their exact log-densities."""
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.uniform(-6, 6, columns))
    factor = scales[:, None] * (np.eye(columns) + 0.5 * rng.normal(size=(columns, columns)))
    centre = scales * rng.normal(scale=10, size=columns)
    z = rng.normal(size=(rows, columns))
    log_det = np.linalg.slogdet(factor)[1]
    return centre + z @ factor.T, -0.5 * (z**2).sum(1) - 0.5 * columns * math.log(2 * math.pi) - log_det


@given(seeds, st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_on_gaussian_rows_the_gaussian_is_exact_within_the_standard_error(seed: int, columns: int) -> None:
    x, exact = normal(seed, 6000, columns)
    fitted = gaussian(*parts(x))
    truth = parts(exact[:, None])[2][:, 0]
    # A fit to n rows costs about (number of parameters) / 2n nats.
    cost = (columns + columns * (columns + 1) / 2) / (2 * 2000)
    difference = truth - fitted.values
    assert abs(difference.mean() - cost) < 5 * difference.std() / math.sqrt(len(truth)) + cost
    assert fitted.mean == pytest.approx(fitted.values.mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_on_gaussian_rows_every_baseline_comes_near_the_entropy_and_none_below(seed: int) -> None:
    x, exact = normal(seed, 1800, 2)
    for fit in FITS:
        fitted = fit(*parts(x))
        difference = parts(exact[:, None])[2][:, 0] - fitted.values
        error = difference.std() / math.sqrt(len(difference))
        assert -5 * error < difference.mean() < 0.12 + 5 * error, fitted


@pytest.mark.parametrize("fit", FITS)
def test_units_change_the_log_density_by_the_log_of_the_scales(fit: Callable[..., Baseline]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
    scales, shift = np.array([1e-3, 1e4]), np.array([5.0, -7e5])
    here, there = fit(*parts(x)), fit(*parts(x * scales + shift))
    np.testing.assert_allclose(there.values, here.values - np.log(scales).sum(), atol=1e-5)
    assert there.detail == here.detail


def test_the_mixture_finds_the_components_and_their_density() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 1)) + 30.0 * rng.integers(3, size=(3000, 1))
    exact = -0.5 * math.log(2 * math.pi * math.e) - math.log(3)
    for criterion in ("bic", "validation"):
        fitted = gaussian_mixture(*parts(x), criterion=criterion, components={"full": (1, 2, 3)})
        error = fitted.values.std() / math.sqrt(len(fitted.values))
        assert abs(fitted.mean - exact) < 5 * error + 0.01
        assert fitted.detail.startswith("3 components")


def test_bic_refuses_components_that_the_rows_do_not_ask_for() -> None:
    x = np.random.default_rng(2).normal(size=(1500, 2))
    assert gaussian_mixture(*parts(x), components={"full": (1, 2, 5), "diag": (1,)}).detail.startswith(
        "1 component,"
    )


def test_no_more_components_are_tried_once_they_are_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of that kind of covariance; and the choice is the same."""
    tried: list[tuple[str, int]] = []
    fit = GaussianMixture.fit

    def counted(model: GaussianMixture, x: Matrix) -> GaussianMixture:
        tried.append((model.covariance_type, model.n_components))
        return fit(model, x)

    monkeypatch.setattr(GaussianMixture, "fit", counted)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(900, 2)) + 30.0 * rng.integers(2, size=(900, 1))
    kinds = {"full": (1, 2, 5, 8, 9), "diag": (1, 2)}
    some = gaussian_mixture(*parts(x), components=kinds, patience=2)
    assert tried == [("full", 1), ("full", 2), ("full", 5), ("full", 8), ("diag", 1), ("diag", 2)]
    assert some.detail == gaussian_mixture(*parts(x), components=kinds).detail


def test_kernel_density_is_the_mean_of_its_kernels() -> None:
    x = np.random.default_rng(3).normal(size=(90, 2))
    train, valid, test = parts(x)
    bandwidth = 0.4
    fitted = kernel_density(train, valid, test, bandwidths=(bandwidth,))
    h = bandwidth * train.std(0)
    kernels = np.exp(-0.5 * (((test[:, None] - train) / h) ** 2).sum(-1)) / (2 * math.pi * h.prod())
    np.testing.assert_allclose(fitted.values, np.log(kernels.mean(1)), rtol=1e-9)


def test_the_regularisation_is_chosen_on_the_validation_rows() -> None:
    rng = np.random.default_rng(4)
    train, rest = rng.normal(size=(12, 10)), rng.normal(size=(400, 10))
    chosen = gaussian(train, rest, rest)
    one = gaussian(train, rest, rest, regularisations=(1e-4,))
    assert chosen.mean > one.mean + 1


@pytest.mark.parametrize("fit", FITS)
def test_matrices_that_do_not_fit_are_refused(fit: Callable[..., Baseline]) -> None:
    x = np.zeros((5, 2)) + np.arange(5.0)[:, None]
    with pytest.raises(ValueError, match=r"valid must be a matrix .* \(5, 2\), got \(5, 3\)"):
        fit(x, np.zeros((5, 3)), x)
    with pytest.raises(ValueError, match="test must hold finite values"):
        fit(x, x, np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match=r"train must be .* got \(0, 2\)"):
        fit(x[:0], x, x)


def test_settings_that_cannot_be_are_refused() -> None:
    x = np.random.default_rng(5).normal(size=(30, 2))
    flat = np.stack([x[:, 0], x[:, 0]], 1)
    with pytest.raises(ValueError, match="covariance is singular"):
        gaussian(flat, flat, flat, regularisations=(0.0,))
    with pytest.raises(ValueError, match="criterion must be 'bic' or 'validation', got 'aic'"):
        gaussian_mixture(x, x, x, criterion="aic")
    with pytest.raises(ValueError, match="none of the mixtures could be fitted to 30 rows"):
        gaussian_mixture(x, x, x, components={"full": (31,)})
    with pytest.raises(ValueError, match="bandwidths: at least one"):
        kernel_density(x, x, x, bandwidths=())


def test_a_constant_column_does_not_break_the_others() -> None:
    x = np.random.default_rng(6).normal(size=(300, 2))
    x[:, 1] = 3.0
    results: list[Baseline] = [gaussian(*parts(x)), kernel_density(*parts(x))]
    assert all(np.isfinite(result.values).all() for result in results)
