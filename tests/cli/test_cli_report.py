"""What ``pushforward report`` promises: a page about a table's flow, and refusals in one line."""

from __future__ import annotations

from pathlib import Path

from cli_runs import continuous, done, refused


def test_the_report_is_written_and_names_what_it_is_about(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = done(
        "report", folder / "plain.flow", folder / "plain.csv", "-o", path, "--rows", 100, "--seed", 2
    )
    assert "Saved" in result.err and not result.out
    text = path.read_text(encoding="utf-8")
    assert "Report on plain.flow" in text and "pushforward report plain.flow plain.csv" in text
    assert "--rows 100 --seed 2" in text and str(folder) not in text


def test_what_cannot_be_reported_is_refused(folder: Path, pictures: Path, tmp_path: Path) -> None:
    model, table, out = folder / "plain.flow", folder / "plain.csv", tmp_path / "r.html"
    short = tmp_path / "short.csv"
    continuous(20).select("a", "b").write_csv(short)
    refused("report", pictures / "plain.flow", table, "-o", out, code=2, says=["is a flow of images"])
    refused("report", model, short, "-o", out, code=3, says=["'c'"])
    refused("report", model, model, "-o", out, code=3, says=["saved flow, not a table"])
    refused(
        "report", model, table, "-o", tmp_path / "r.txt", code=5, says=[".txt", ".html"], untouched=tmp_path
    )
    refused("report", model, table, "-o", tmp_path / "no" / "r.html", code=5, says=["there is no folder"])
    page = tmp_path / "table.html"
    page.write_bytes(short.read_bytes())
    refused("report", model, page, "-o", page, code=5, says=["is the input"], untouched=tmp_path)
