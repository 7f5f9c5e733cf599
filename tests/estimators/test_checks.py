"""scikit-learn's own checks of estimators, and what its tools do with them."""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pushforward import FlowAnomalyDetector, FlowConditional, FlowDensity, MADEConfig

SMALL = {"model": MADEConfig(hidden=(8,)), "random_state": 0}
ESTIMATORS = [
    FlowDensity(epochs=1, **SMALL),
    FlowAnomalyDetector(epochs=1, **SMALL),
    FlowConditional(epochs=20, learning_rate=0.02, folds=2, model="made"),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore:One value fills"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
]


@parametrize_with_checks(ESTIMATORS)
def test_checks_of_scikit_learn(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return np.random.default_rng(0).normal([1.0, -2.0], [1.0, 3.0], size=(120, 2))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_a_pickle_holds_the_file_of_the_flow_and_no_module(estimator: Any, X: np.ndarray) -> None:
    fitted = clone(estimator).set_params(random_state=0).fit(X, X.sum(1) + X[:, 0] ** 2)
    content = pickle.dumps(fitted)
    texts = [text for _, text, _ in pickletools.genops(content) if isinstance(text, str)]
    assert "pushforward.estimators.base" in texts
    assert not [text for text in texts if text.startswith("torch")]
    again = pickle.loads(content)
    for method in ("score_samples", "predict", "transform"):
        if hasattr(fitted, method):
            assert np.array_equal(getattr(again, method)(X), getattr(fitted, method)(X))
    # One that is not fitted, or is a clone, has nothing to hold.
    assert not hasattr(pickle.loads(pickle.dumps(clone(fitted))), "n_features_in_")


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_frames_are_taken_as_arrays_are(estimator: Any, X: np.ndarray) -> None:
    y = X.sum(1) + X[:, 0] ** 2
    of_array = clone(estimator).set_params(random_state=0).fit(X, y)
    method = "predict" if isinstance(estimator, FlowConditional) else "score_samples"
    expected = getattr(of_array, method)(X)
    for frame in (pl.DataFrame(X, schema=["a", "b"]), pd.DataFrame(X, columns=["a", "b"])):
        fitted = clone(estimator).set_params(random_state=0).fit(frame, y)
        assert fitted.feature_names_in_.tolist() == ["a", "b"]
        assert np.array_equal(getattr(fitted, method)(frame), expected)
        with pytest.raises(ValueError, match="feature names should match"):
            getattr(fitted, method)(frame[["b", "a"]])


def test_latents_take_the_container_that_was_asked_for(X: np.ndarray) -> None:
    density = FlowDensity(epochs=1, **SMALL).fit(X)
    names = ["flowdensity0", "flowdensity1"]
    assert density.get_feature_names_out().tolist() == names
    for container, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        Z = density.set_output(transform=container).transform(X)
        assert isinstance(Z, kind) and list(Z.columns) == names


def test_pipelines_and_searches_take_them(X: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), FlowDensity(epochs=1, random_state=0))
    search = GridSearchCV(pipeline, {"flowdensity__model": ["made", "maf"]}, cv=2).fit(X)
    assert search.score(X) == search.best_estimator_.score(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    y = X.sum(1) + X[:, 0] ** 2
    scores = cross_val_score(FlowConditional(model="made", folds=2, epochs=5), X, y, cv=2)
    assert np.isfinite(scores).all()


def test_importing_the_package_imports_no_scikit_learn() -> None:
    code = "import sys, pushforward; print('sklearn' in sys.modules, 'FlowDensity' in dir(pushforward))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_what_cannot_be_fitted_is_refused(estimator: Any, X: np.ndarray) -> None:
    constant, y = np.column_stack([X[:, 0], np.ones(len(X))]), X.sum(1) + X[:, 0] ** 2
    with pytest.raises(ValueError, match="model must be"):
        clone(estimator).set_params(model="nosuch").fit(X, y)
    with pytest.raises(ValueError, match=r"Found array with 1 sample\(s\) .* a minimum of 5 is required"):
        clone(estimator).fit(X[:1], y[:1])
    if isinstance(estimator, FlowConditional):
        clone(estimator).set_params(epochs=1).fit(constant, y)  # conditioned on, so it needs no density
        constant, y = X, np.ones(len(X))
    with pytest.raises(ValueError, match=r"all 120 values are 1\.0, so it has no density"):
        clone(estimator).fit(constant, y)


def test_progress_is_printed_where_it_is_asked_for(X: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    FlowDensity(epochs=2, verbose=True, **SMALL).fit(X)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "epoch 1 of 2",
        "epoch 2 of 2",
    ]
