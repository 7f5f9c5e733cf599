"""`score` and `sample` that are killed go on where they were, to the byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from cli_runs import continuous, done, refused, run

from pushforward.cli import parts
from pushforward.errors import OutputError

SCRIPT = Path(__file__).parents[1] / "stress" / "killed_jobs.py"


@pytest.fixture
def jobs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[object]]:
    """Jobs of some ten parts, each of two or three chunks: their words but for the output."""
    monkeypatch.setattr(parts, "_PART_VALUES", 400)
    monkeypatch.setattr("pushforward.cli.score._CHUNK_ROWS", 64)
    monkeypatch.setattr("pushforward.cli.given._CHUNK_ROWS", 64)
    continuous(1500, seed=5).write_csv(tmp_path / "rows.csv")
    continuous(300, seed=5).write_parquet(tmp_path / "given.parquet")
    given = ["--context", tmp_path / "given.parquet", "-n", 5]
    return {
        "score": ["score", folder / "plain.flow", tmp_path / "rows.csv"],
        "sample": ["sample", folder / "mixed.flow", "-n", 1500, "--seed", 4],
        "given": ["sample", folder / "conditional.flow", *given],
    }


def test_jobs_killed_at_random_moments_end_as_those_that_nobody_killed(
    jobs: dict[str, list[object]], folder: Path, tmp_path: Path
) -> None:
    """From a script, since a process that has used polars must not be forked."""
    for name, copy in (("plain", "job"), ("conditional", "conditional")):
        (tmp_path / f"{copy}.flow").write_bytes((folder / f"{name}.flow").read_bytes())
    said = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "--kills", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert said.returncode == 0, said.stderr[-3000:]
    assert said.stdout.count("the same to the byte") == 3


@pytest.fixture
def stopped(
    jobs: dict[str, list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[object]]:
    """Jobs that were interrupted in their third part: the same words, with the output."""

    class Cut(Exception):
        pass

    plain = parts._Parts._flush

    def flush(self: parts._Parts, state: dict[str, object]) -> None:
        if len(self._parts) == 2:
            raise Cut
        plain(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(parts._Parts, "_flush", flush)
        for name, words in jobs.items():
            jobs[name] = [*words, "-o", tmp_path / f"{name}.csv"]
            assert run(*jobs[name]).code != 0
    return jobs


@pytest.mark.parametrize("name", ["score", "sample", "given"])
def test_it_goes_on_behind_the_last_part_and_says_so(
    stopped: dict[str, list[object]], tmp_path: Path, name: str
) -> None:
    manifest = json.loads((tmp_path / f"{name}.csv.parts" / "manifest.json").read_text())
    rows = sum(sum(part["heights"]) for part in manifest["parts"])
    assert not (tmp_path / f"{name}.csv").exists() and 200 <= rows < 600
    half = tmp_path / f"{name}.csv.parts" / "part-000003.parquet"
    half.write_bytes(b"written, but not in the manifest yet")
    said = done(*stopped[name], "--resume")
    assert f", {rows:,} before" in said.err + said.out
    again = [*stopped[name][:-1], tmp_path / "whole.csv"]
    once = done(*again)
    assert (tmp_path / f"{name}.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not half.parent.exists()
    if name == "score":
        assert said.err.split("Mean")[1] == once.err.split("Mean")[1]


def test_parts_are_never_overwritten_unasked(stopped: dict[str, list[object]], tmp_path: Path) -> None:
    refused(
        *stopped["score"],
        code=5,
        says=["score.csv.parts: holds the parts of an unfinished job", "--resume", "--no-resume"],
        untouched=tmp_path,
    )
    done(*stopped["score"], "--no-resume")
    assert pl.read_csv(tmp_path / "score.csv").height == 1500
    assert not (tmp_path / "score.csv.parts").exists()


def test_parts_of_another_job_are_refused(
    stopped: dict[str, list[object]], folder: Path, tmp_path: Path
) -> None:
    seeded = [9 if word == 4 else word for word in stopped["sample"]]
    refused(
        *seeded, "--resume", code=4, says=["another job: seed was 4 there and is 9 here"], untouched=tmp_path
    )
    warmer = [*stopped["sample"], "--temperature", 0.5]
    refused(*warmer, "--resume", code=4, says=["temperature was 1.0 there and is 0.5 here"])
    (tmp_path / "other.flow").write_bytes((folder / "mixed.flow").read_bytes())
    os.utime(tmp_path / "rows.csv", (1, 1))
    refused(
        *stopped["score"], "--resume", code=4, says=["another job: the table has changed"], untouched=tmp_path
    )
    done("fit", tmp_path / "rows.csv", "-o", tmp_path / "other.flow", "--model", "nice", "--epochs", 1)
    other = [tmp_path / "other.flow" if word == folder / "plain.flow" else word for word in stopped["score"]]
    refused(*other, "--resume", code=4, says=["the model has changed; the table has changed"])


def test_damaged_parts_are_refused(stopped: dict[str, list[object]], tmp_path: Path) -> None:
    part = tmp_path / "score.csv.parts" / "part-000002.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    refused(
        *stopped["score"],
        "--resume",
        code=4,
        says=["part-000002.parquet: is missing, or was cut short or changed"],
    )
    manifest = part.with_name("manifest.json")
    manifest.write_text(manifest.read_text()[:-9])
    refused(*stopped["score"], "--resume", code=4, says=["its manifest is damaged", "--no-resume"])


def test_an_output_that_cannot_be_written_costs_nothing_that_was_done(
    stopped: dict[str, list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(parts, "table_sink", _full)
        says = ["No space left", "What was done is kept in", "--resume goes on"]
        refused(*stopped["score"], "--resume", code=5, says=says)
    done(*stopped["score"], "--resume")
    assert pl.read_csv(tmp_path / "score.csv").height == 1500


def _full(output: Path) -> None:
    raise OutputError(f"{output}: cannot be written (No space left on device).")


def test_a_second_process_is_kept_out(stopped: dict[str, list[object]], tmp_path: Path) -> None:
    from pushforward.data.locks import exclusive

    lock = exclusive(tmp_path / "score.csv.parts" / "pushforward.lock")
    assert lock is not None
    refused(*stopped["score"], "--resume", code=5, says=["another process writes these parts"])
    os.close(lock)
    done(*stopped["score"], "--resume")


def test_short_jobs_leave_no_parts_and_resume_is_for_files_of_tables(folder: Path, tmp_path: Path) -> None:
    words = ["score", folder / "plain.flow", folder / "plain.csv"]
    said = done(*words, "-o", tmp_path / "a.csv", "--resume")
    assert "no rows to go on from" in said.err + said.out
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    refused(*words, "-o", "-", "--resume", code=2, says=["--resume: what is on standard output is gone"])


def test_rows_of_every_type_come_back_from_parts_as_they_were(tmp_path: Path) -> None:
    from datetime import date, datetime, time, timedelta

    frame = pl.DataFrame(
        {
            "float": [0.1, float("nan"), None],
            "text": ["a", None, "é"],
            "whole": [1, 2**60, None],
            "truth": [True, None, False],
            "date": [date(2024, 2, 29), None, date(1, 1, 1)],
            "moment": [datetime(2024, 2, 29, 1, 2, 3), None, datetime(1969, 1, 1)],
            "time": [time(1, 2, 3, 4), None, time(0)],
            "length": [timedelta(seconds=1), None, timedelta(days=-1)],
            "kind": pl.Series(["exact", None, "estimate"], dtype=pl.Enum(["exact", "estimate"])),
        }
    ).with_columns(zoned=pl.col("moment").dt.replace_time_zone("Europe/Paris"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PART_VALUES", 1)
        sink = parts._Parts(tmp_path / "x.csv", {})
        sink.write(frame, dict)
    back = sink._read(sink._parts[0])
    assert back.schema == frame.schema and back.equals(frame)
    sink.release()
