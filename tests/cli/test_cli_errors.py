"""Bad input: the message, the exit code, and nothing lost."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from cli_runs import continuous, done, refused, run

from pushforward.artifact import FORMAT
from pushforward.errors import OutputError

Change = Callable[[pl.DataFrame], pl.DataFrame]


def put(column: str, row: int, value: object) -> Change:
    """Replace a value, in the row counted from 1."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        values = frame[column].to_list()
        values[row - 1] = value
        return frame.with_columns(pl.Series(column, [str(v) if v is not None else None for v in values]))

    return change


TABLES: dict[str, tuple[Change, list[str]]] = {
    "missing": (put("b", 7, None), ["row 7, column 'b': missing value", "Fill the gaps"]),
    "nan": (put("b", 7, "NaN"), ["row 7, column 'b': missing value"]),
    "text": (put("c", 3, "red"), ["row 3, column 'c': text where a number is expected: 'red'", "--drop"]),
    "infinite": (put("a", 9, "inf"), ["row 9, column 'a': infinite value", "leave out the row"]),
    "constant": (lambda f: f.with_columns(b=pl.lit(2.5)), ["column 'b': all 200 values are 2.5", "--drop b"]),
    "few rows": (lambda f: f.head(5), ["5 rows, but at least 20 are needed", "Give more rows"]),
    "no rows": (lambda f: f.head(0), ["no rows below the header", "Give a table with rows"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_models_of_numbers_cannot_be_fitted_to(tmp_path: Path, name: str) -> None:
    change, says = TABLES[name]
    table = tmp_path / "t.csv"
    change(continuous()).write_csv(table)
    (tmp_path / "m.flow").write_text("old")
    arguments = ("fit", table, "-o", tmp_path / "m.flow", "--model", "nsf")
    refused(*arguments, code=3, says=[str(table), *says], untouched=tmp_path)


@pytest.mark.parametrize("name", ["missing", "text", "infinite"])
def test_tables_that_cannot_be_scored(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bad row stands beyond the first chunk: its number is that in the file, and no half output is left."""
    monkeypatch.setattr("pushforward.cli.score._CHUNK_ROWS", 2)
    change, says = TABLES[name]
    table = tmp_path / "t.csv"
    change(continuous()).write_csv(table)
    (tmp_path / "s.csv").write_text("old")
    arguments = ("score", folder / "plain.flow", table, "-o", tmp_path / "s.csv")
    refused(*arguments, code=3, says=[says[0]], untouched=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", ["the file is empty", "Give a table with a header"]),
        ("t.parquet", b"a,b\n1,2\n", ["the name says .parquet", "something else, text perhaps"]),
        ("t.csv", b"PAR1\0\0\0\0", ["the name says .csv", "a Parquet file"]),
        ("t.npy", b"PK\x03\x04", ["the name says .npy", "ZIP archive"]),
        ("t.xlsx", b"PK\x03\x04", ["cannot tell the kind of table", ".parquet"]),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", ["row 2", "3 fields, but 2 columns"]),
        ("t.csv", b"a,b\n1,\xff\xfe\n", ["row 1", "UTF-8"]),
    ],
)
def test_files_that_are_not_what_their_name_says(
    folder: Path, tmp_path: Path, name: str, content: bytes, says: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    table = tmp_path / name
    refused("fit", table, "-o", tmp_path / "m.flow", code=3, says=[name, *says], untouched=tmp_path)
    arguments = ("score", folder / "plain.flow", table, "-o", tmp_path / "s.csv")
    if b"a,b" not in content:
        refused(*arguments, code=3, says=[name, *says], untouched=tmp_path)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    continuous().write_csv(tmp_path / "table.csv")
    arguments = ("fit", tmp_path / "tabel.csv", "-o", tmp_path / "m.flow")
    refused(*arguments, code=3, says=["tabel.csv: no such file", "Is 'table.csv' meant?"], untouched=tmp_path)


@pytest.mark.parametrize("command", ["score", "plot"])
def test_columns_with_other_names(folder: Path, tmp_path: Path, command: str) -> None:
    continuous().rename({"b": "B"}).write_csv(tmp_path / "t.csv")
    output = tmp_path / ("f.png" if command == "plot" else "s.csv")
    arguments = (command, folder / "plain.flow", tmp_path / "t.csv", "-o", output)
    says = ["t.csv", "column 'b' missing", "the table has 'a', 'B', 'c'", "Is 'B' meant?"]
    refused(*arguments, code=3, says=says, untouched=tmp_path)


def test_values_off_the_grid_of_a_dequantised_column(folder: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(folder / "mixed.csv").with_columns(pl.col("n").cast(pl.Float64))
    frame[4, "n"] = 2.5
    frame.write_csv(tmp_path / "t.csv")
    arguments = ("score", folder / "mixed.flow", tmp_path / "t.csv", "-o", tmp_path / "s.csv")
    refused(*arguments, code=3, says=["row 5, column 'n': 2.5 is not a whole number"], untouched=tmp_path)


def outputs(folder: Path, tmp_path: Path) -> list[tuple[object, ...]]:
    return [
        ("fit", folder / "plain.csv"),
        ("score", folder / "plain.flow", folder / "plain.csv"),
        ("sample", folder / "plain.flow"),
        ("plot", folder / "plain.flow", folder / "plain.csv"),
    ]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("place", ["no folder", "folder", "file as folder"])
def test_outputs_that_cannot_be_written_are_found_before_the_work(
    folder: Path, tmp_path: Path, which: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("pushforward.data.readers._open", work)
    monkeypatch.setattr("pushforward.artifact.load", work)
    command = outputs(folder, tmp_path)[which]
    name = {"fit": "x.flow", "plot": "x.png"}.get(str(command[0]), "x.csv")
    (tmp_path / "file").write_text("old")
    output = {
        "no folder": tmp_path / "nowhere" / name,
        "folder": tmp_path / name,
        "file as folder": tmp_path / "file" / name,
    }[place]
    if place == "folder":
        output.mkdir()
    says = {
        "no folder": ["there is no folder", "Create it first"],
        "folder": ["is a folder", "Give the path of a file"],
        "file as folder": ["file"],
    }[place]
    refused(*command, "-o", output, code=5, says=[str(output), *says], untouched=tmp_path)


def test_an_input_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    table, model = tmp_path / "t.csv", tmp_path / "m.flow"
    table.write_bytes((folder / "plain.csv").read_bytes())
    model.write_bytes((folder / "plain.flow").read_bytes())
    (tmp_path / "c.toml").write_text("")
    (tmp_path / "link.csv").symlink_to(table)
    for arguments in (
        ("score", model, table, "-o", table),
        ("score", model, table, "-o", tmp_path / "link.csv"),
        ("fit", table, "-o", tmp_path / "c.toml", "--config", tmp_path / "c.toml"),
    ):
        refused(*arguments, code=5, says=["is the input"], untouched=tmp_path)


@pytest.mark.parametrize(
    ("command", "name", "says"),
    [
        (0, "m.csv", ["the suffix of a table", ".flow"]),
        (1, "s.txt", ["'.txt'", ".csv or .parquet"]),
        (2, "r.npy", ["'.npy'", ".csv or .parquet"]),
        (3, "f.jpeg", ["'.jpeg'", ".png or .pdf or .svg"]),
    ],
)
def test_outputs_of_an_unknown_kind(
    folder: Path, tmp_path: Path, command: int, name: str, says: list[str]
) -> None:
    arguments = (*outputs(folder, tmp_path)[command], "-o", tmp_path / name)
    refused(*arguments, code=5, says=[name, *says], untouched=tmp_path)


def cut(blob: bytes) -> bytes:
    return blob[:-100]


def cut_in_the_header(blob: bytes) -> bytes:
    return blob[:100]


def flip(blob: bytes) -> bytes:
    return blob[:-5] + bytes([blob[-5] ^ 1]) + blob[-4:]


def later(blob: bytes) -> bytes:
    """The file as a later version would write it, with its digest in order."""
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["pushforward"])
    metadata["format"] = FORMAT + 1
    metadata["sha256"] = "0" * 64
    header["__metadata__"]["pushforward"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    changed = struct.pack("<Q", len(text)) + text + blob[8 + length :]
    return changed.replace(b"0" * 64, hashlib.sha256(changed).hexdigest().encode())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut, ["cut short or changed"]),
        (cut_in_the_header, ["cut short"]),
        (flip, ["checksum does not match"]),
        (later, [f"has format {FORMAT + 1}", f"reads up to {FORMAT}", "install a later one"]),
        (lambda _: b"", ["cut short", "0 bytes"]),
        (lambda _: b"a,b\n1,2\n" * 50, ["not a saved flow"]),
    ],
)
@pytest.mark.parametrize("command", ["score", "sample", "info"])
def test_model_files_that_cannot_be_trusted(
    folder: Path, tmp_path: Path, command: str, change: Callable[[bytes], bytes], says: list[str]
) -> None:
    model = tmp_path / "m.flow"
    model.write_bytes(change((folder / "plain.flow").read_bytes()))
    (tmp_path / "out.csv").write_text("old")
    arguments: tuple[object, ...] = (command, model)
    if command == "score":
        arguments += (folder / "plain.csv",)
    if command != "info":
        arguments += ("-o", tmp_path / "out.csv")
    refused(*arguments, code=4, says=[str(model), *says], untouched=tmp_path)


def test_model_and_table_in_each_other_s_place(folder: Path, tmp_path: Path) -> None:
    model, table, output = folder / "plain.flow", folder / "plain.csv", tmp_path / "s.csv"
    swapped = ("score", table, model, "-o", output)
    refused(*swapped, code=4, says=["plain.csv: is a table", "saved flow comes first"], untouched=tmp_path)
    for arguments in (
        ("score", model, model, "-o", output),
        ("fit", model, "-o", tmp_path / "m.flow"),
        ("sample", folder / "conditional.flow", "--context", model, "-o", output),
    ):
        refused(*arguments, code=3, says=["plain.flow: is a saved flow, not a table"], untouched=tmp_path)
    missing = ("info", tmp_path / "nowhere.flow")
    refused(*missing, code=3, says=["nowhere.flow", "no such file"], untouched=tmp_path)


def test_training_that_cannot_go_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushforward.training.run._MOST_SKIPPED_STEPS", 0)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("nan")))
    arguments = ("fit", folder / "plain.csv", "-o", tmp_path / "m.flow", "--config", folder / "tiny.toml")
    refused(*arguments, code=6, says=["epoch 1", "not finite", "smaller learning rate"], untouched=tmp_path)


def test_a_training_whose_model_cannot_be_saved_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutputError("m.flow: cannot be written (No space left on device).")

    model, kept = tmp_path / "m.flow", tmp_path / "m.flow.checkpoints"
    arguments = ("fit", folder / "plain.csv", "-o", model, "--config", folder / "tiny.toml")
    with monkeypatch.context() as patch:
        patch.setattr("pushforward.artifact.save", refuse)
        failed = run(*arguments)
    assert failed.code == 5
    assert f"The training is kept: the same command with --resume --checkpoint {kept} goes on" in failed.err
    refused(*arguments, code=5, says=["has ended, but was not saved", "--resume"], untouched=tmp_path)
    done(*arguments, "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["m.flow"]


def test_the_output_is_no_folder_for_checkpoints(folder: Path, tmp_path: Path) -> None:
    arguments = ("fit", folder / "plain.csv", "-o", tmp_path / "m.flow", "--checkpoint", tmp_path / "m.flow")
    refused(*arguments, code=2, says=["--checkpoint", "is the output"], untouched=tmp_path)


def test_training_that_stops_early_saves_its_last_good_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = torch.nn.utils.clip_grad_norm_, [0]

    def poisoned(*arguments: Any) -> torch.Tensor:
        calls[0] += 1
        return torch.tensor(float("nan")) if calls[0] > 7 else plain(*arguments)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    monkeypatch.setattr("pushforward.training.run._MOST_SKIPPED_STEPS", 1)
    model = tmp_path / "m.flow"
    result = run("fit", folder / "plain.csv", "-o", model, "--config", folder / "tiny.toml", "--epochs", 9)
    assert result.code == 6
    assert "error: training stopped early" in result.err and "m.flow has the weights of epoch" in result.err
    assert result.out.count("Note: Epoch ") == 2 and "Note: Training stopped after 2 such steps" in result.out
    assert [path.name for path in tmp_path.iterdir()] == ["m.flow"]
    shown = done("info", model).out
    assert "too many steps were not finite" in shown and "Training stopped after 2 such steps" in shown


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "not enough memory"),
        (PermissionError(13, "Permission denied", "x.flow"), 5, "x.flow: Permission denied"),
        (ValueError("argument: expected this, got that"), 2, "expected this, got that"),
        (KeyError("gone"), 1, "unexpected KeyError: 'gone'"),
    ],
)
def test_other_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, says: str
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("pushforward.artifact.load", fail)
    plain = refused("info", folder / "plain.flow", code=code, says=[says])
    assert ("--debug" in plain.err) == isinstance(error, KeyError)
    debug = run("info", folder / "plain.flow", "--debug")
    assert debug.code == code
    assert "Traceback" in debug.err
    assert says in debug.err


def test_interrupt_without_a_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pushforward.artifact.load", interrupt)
    result = run("sample", folder / "plain.flow", "-o", tmp_path / "r.csv")
    assert result.code == 130
    assert "interrupted" in result.err
    assert list(tmp_path.iterdir()) == []
