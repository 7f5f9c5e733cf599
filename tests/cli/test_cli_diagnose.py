"""What ``pushforward diagnose`` promises: exit codes, words, JSON and a picture."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from cli_runs import done, refused, run
from torch import nn

from pushforward import load, save


@pytest.mark.parametrize("name", ["plain", "mixed", "conditional"])
def test_a_fitted_model_is_sound(folder: Path, tmp_path: Path, name: str) -> None:
    table = folder / ("mixed.csv" if name == "mixed" else "plain.csv")
    picture = tmp_path / "d.png"
    result = done("diagnose", folder / f"{name}.flow", table, "--rows", 100, "-o", picture)
    assert result.out.startswith("sound: ")
    assert picture.read_bytes().startswith(b"\x89PNG")
    for words in ("There and back", "Total mass", "float32 against float64", "transform.transforms[0]"):
        assert words in result.out


def test_without_a_table_and_as_json(folder: Path) -> None:
    arguments = ("diagnose", folder / "conditional.flow", "--rows", 50, "--json", "--seed", 5)
    document = json.loads(done(*arguments).out)
    assert document["verdict"] == "sound" and document["seed"] == 5 and document["given"] == 0
    assert [t["where"] for t in document["round_trips"]] == ["samples", "away"]
    assert any("no data were given" in text for text in document["not_measured"])
    assert json.loads(done(*arguments).out) == document


@pytest.fixture
def crushed(folder: Path, tmp_path: Path) -> Path:
    """A saved flow that is broken: Real NVP layers whose scales are all at their bound."""
    path = tmp_path / "crushed.flow"
    (tmp_path / "r.toml").write_text(
        '[model]\nname = "realnvp"\nlayers = 8\nhidden = [8]\n[training]\nepochs = 1\n'
    )
    done("fit", folder / "plain.csv", "-o", path, "--config", tmp_path / "r.toml")
    fitted = load(path)
    for layer in fitted.flow.transform.transforms:
        with torch.no_grad():
            [m for m in layer.network.modules() if isinstance(m, nn.Linear)][-1].bias[1::2] = -60.0
    save(dataclasses.replace(fitted), path)
    return path


def test_a_broken_model_has_its_own_exit_code(folder: Path, crushed: Path, tmp_path: Path) -> None:
    picture = tmp_path / "d.svg"
    result = run("diagnose", crushed, folder / "plain.csv", "--rows", 100, "-o", picture)
    assert result.code == 7
    assert result.out.startswith("broken: ") and "(Coupling)" in result.out and "not one digit" in result.out
    assert "Traceback" not in result.err and picture.exists()
    assert json.loads(run("diagnose", crushed, "--rows", 50, "--json").out)["verdict"] == "broken"


def test_what_cannot_be_read_or_written_is_refused(folder: Path, tmp_path: Path) -> None:
    model = folder / "plain.flow"
    refused("diagnose", tmp_path / "no.flow", code=3, says=["no such file"])
    refused("diagnose", model, model, code=3, says=["saved flow, not a table"])
    refused("diagnose", model, "-o", tmp_path / "d.txt", code=5, says=[".txt"], untouched=tmp_path)
    assert run("diagnose", model, "--rows", 1).code == 2
