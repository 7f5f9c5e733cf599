"""Continuous flows on the command line: fits, what is said of them, and how samples are solved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_runs import continuous, done, refused

SETTINGS = """
[model]
name = "{name}"
hidden = [8, 8]

[training]
epochs = 2
batch_size = 32
"""
NAMES = ("ffjord", "rnode", "augmented-ffjord", "flow-matching")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and a conditional flow of each model, NAME.flow; only read."""
    path = tmp_path_factory.mktemp("continuous")
    continuous(80).write_csv(path / "plain.csv")
    for name in NAMES:
        (path / f"{name}.toml").write_text(SETTINGS.format(name=name))
        said = done(
            "fit",
            path / "plain.csv",
            "--config",
            path / f"{name}.toml",
            "--condition",
            "c",
            "-o",
            path / f"{name}.flow",
        )
        unit, other = ("MSE", "NLL") if name == "flow-matching" else ("NLL", "MSE")
        assert f"{unit} train" in said.err + said.out and other not in said.err + said.out
    return path


@pytest.mark.parametrize("name", NAMES)
def test_each_model_scores_samples_and_explains_itself(place: Path, tmp_path: Path, name: str) -> None:
    model = place / f"{name}.flow"
    done("score", model, place / "plain.csv", "-o", tmp_path / "s.csv")
    scores = pl.read_csv(tmp_path / "s.csv")
    bound = name == "augmented-ffjord"
    assert set(scores["kind"]) == {"estimate" if bound else "exact"} and scores["log_prob"].is_finite().all()
    done("sample", model, "--set", "c=1.5", "-n", 20, "-o", tmp_path / "r.csv")
    assert pl.read_csv(tmp_path / "r.csv").shape == (20, 3)
    said = done("info", model).out
    assert ("added elements" in said) == bound
    done("plot", model, place / "plain.csv", "-o", tmp_path / "p.png")


def test_few_steps_give_other_samples_near_those_of_the_tolerance(place: Path, tmp_path: Path) -> None:
    drawn = {}
    for steps, options in {
        0: (),
        1: ("--method", "euler", "--steps", 1),
        9: ("--method", "rk4", "--steps", 9),
    }.items():
        output = tmp_path / f"{steps}.csv"
        done("sample", place / "ffjord.flow", "--set", "c=1.5", "-n", 50, "-o", output, *options)
        drawn[steps] = pl.read_csv(output).to_numpy()
    far, near = (np.abs(drawn[k] - drawn[0]).max() for k in (1, 9))
    assert near < 1e-2 and near < far


def test_guidance_changes_samples_of_a_conditional_flow(place: Path, tmp_path: Path) -> None:
    for scale in (1, 3):
        done(
            "sample",
            place / "flow-matching.flow",
            "--set",
            "c=9",
            "--guidance",
            scale,
            "-o",
            tmp_path / f"{scale}.csv",
        )
    one, three = (pl.read_csv(tmp_path / f"{k}.csv").to_numpy() for k in (1, 3))
    assert not np.allclose(one, three)


def test_options_that_do_not_fit(place: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.csv"
    given = ("--set", "c=1.5", "-o", output)
    model = place / "ffjord.flow"
    refused(
        "sample", model, *given, "--method", "rk45", code=2, says=["method must be one of euler", "'rk45'"]
    )
    refused("sample", model, *given, "--method", "rk4", code=2, says=["method rk4 takes equal steps"])
    refused("sample", model, *given, "--guidance", "nan", code=2, says=["scale must be finite"])
    discrete = folder / "plain.flow"
    refused("sample", discrete, "-o", output, "--steps", 4, code=2, says=["only a continuous flow", "Chain"])
    assert not output.exists()


def test_a_model_that_cannot_be_had_is_refused_before_training(place: Path, tmp_path: Path) -> None:
    for line, says in (
        ("activation = 'relu'", "activation must be one of tanh, silu, softplus"),
        ("divergence = 'guess'", "divergence must be one of exact, hutchinson, hutch++"),
        ("atol = 0.0", "atol must be positive and finite"),
        ("field = 'transformer'", "field must be one of perceptron, concatsquash"),
    ):
        settings = tmp_path / "bad.toml"
        settings.write_text(f"[model]\nname = 'ffjord'\n{line}\n")
        refused(
            "fit", place / "plain.csv", "--config", settings, "-o", tmp_path / "m.flow", code=2, says=[says]
        )
    refused(
        "fit", place / "plain.csv", "--model", "ffjord", "--periodic", "a=0:20", "-o", tmp_path / "m.flow",
        code=2, says=["ffjord cannot model periodic columns"],
    )  # fmt: skip
