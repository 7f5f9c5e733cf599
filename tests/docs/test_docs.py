"""Every block of code of every page runs, shows what it shows, and every page is in the navigation."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from pages import DOCS, PAGES, ROOT, Block, Session, blocks, compare
from troubles import make_troubles

import cases
from pushforward.configs import (
    ImageModelConfig,
    ModelConfig,
    TrainConfig,
    default_image_training,
    default_training,
)

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ADDRESS = re.compile(r"https?:[^\s)>\"'`|]*")
_EPOCHS = 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the tables of the quick start, where a fit by default takes a few epochs only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(cases, "CASES", dict(cases.CASES))  # pages register transforms
    tables = next(b for b in blocks(DOCS / "index.md") if b.title == "tables.py")
    Session().run(tables)

    def short(rows: int, seed: int = 0, model: ModelConfig | None = None) -> TrainConfig:
        return replace(default_training(rows, seed, model), epochs=_EPOCHS)

    def short_of_images(images: int, seed: int = 0, model: ImageModelConfig | None = None) -> TrainConfig:
        return replace(default_image_training(images, seed, model), epochs=_EPOCHS)

    for name in ("pushforward.cli.fit", "pushforward.cli.fit_images", "pushforward.training"):
        import_module(name)  # so that they are there to be changed
    for own, brief in ((default_training, short), (default_image_training, short_of_images)):
        for name, module in list(sys.modules.items()):
            if name.startswith("pushforward.") and getattr(module, own.__name__, None) is own:
                monkeypatch.setattr(module, own.__name__, brief)
    return tmp_path


@pytest.fixture
def before(request: pytest.FixtureRequest, folder: Path) -> Iterator[None]:
    """What the reader of a page has before it begins."""
    make = PREPARED.get(request.node.callspec.params["page"])
    if make is not None:
        make(folder)
    yield


PREPARED: dict[str, Callable[[Path], None]] = {"docs/troubleshooting.md": make_troubles}


@pytest.mark.parametrize("page", [name for name, path in PAGES.items() if "```" in path.read_text()])
@pytest.mark.usefixtures("before")
def test_every_block_of_the_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    monkeypatch.setitem(sys.modules, session.module.__name__, session.module)  # torch.compile looks there
    for block in blocks(PAGES[page]):
        session.run(block)
    outcome = doctest.testmod(session.module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_output_that_differs_is_noticed() -> None:
    """The comparison itself: words always count, numbers where they are said to, an ellipsis is anything."""
    shown = Block("sh", "", "", ROOT / "README.md", 1, "rows 3,000 in 0.6s\n...\nsaved (-1.2e-3 kB)")
    compare(shown, "rows 12 in 10s\nand\nmore\nsaved (7 kB)\n", numbers=False)
    for other in ("rows 12 in 10s\nlost (7 kB)", "rows x in 10s\nsaved (7 kB)", "rows 12 in 10s"):
        with pytest.raises(AssertionError, match="but got"):
            compare(shown, other, numbers=False)
    with pytest.raises(AssertionError, match="but got"):
        compare(shown, "rows 12 in 0.6s\nsaved (-1.2e-3 kB)", numbers=True)


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (("rust", "x"), "are not run"),
        (("python", "1 / 0"), "division by zero"),
        (("sh", "make nothing"), "make has no"),
        (("sh", "pip install .[everything]"), "no extra"),
        (("sh", "python benchmarks/toys.py --no-such 1"), "has no"),
        (("sh", "python -m benchmarks.speed --no-such 1"), "has no"),
        (("sh", "rm -r x"), "no way to run"),
        (("sh", "pushforward info nothing.flow"), "ended with 3"),
        (("toml", "[training]\nepoch = 3"), "unknown field"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_block_that_does_not_work_is_noticed(block: tuple[str, str], error: str) -> None:
    with pytest.raises((AssertionError, ArithmeticError, ValueError), match=error):
        Session().run(Block(block[0], "", block[1] + "\n", ROOT / "README.md", 1))


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def listed(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from listed(inner)

    found = sorted(listed(config["nav"]))
    assert found == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert config["strict"] is True and config["validation"]["links"]["anchors"] == "warn"


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ("# A\n\n[x](index.md#a)", 0),
        ("[x](nowhere.md)", 1),
        ("[x](index.md#nowhere)", 1),
        ("[x](/index.md)", 1),
    ],
)
def test_the_build_of_the_site_refuses_broken_links(tmp_path: Path, page: str, code: int) -> None:
    """With the options of `make docs`, and what mkdocs.yml says of links."""
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"/mkdocs (build.*)", makefile)
    assert options is not None
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    config = {"site_name": "x", "validation": settings["validation"], "strict": settings["strict"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(page)
    command = [sys.executable, "-m", "mkdocs", *options[1].split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


def test_every_package_has_its_page_in_the_reference() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    packages = {name for layer in contract["layers"] for name in layer.split(" | ")}
    pages = {page.stem for page in (DOCS / "reference").glob("*.md")}
    assert pages == packages - {"cli", "report", "sealed", "kernels"} | {"pushforward"}
    for page in pages - {"pushforward"}:
        assert f"::: pushforward.{page}\n" in (DOCS / "reference" / f"{page}.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_addresses_are_well_formed_and_files_are_there(page: str) -> None:
    text = PAGES[page].read_text()
    for address in _ADDRESS.findall(text):
        parts = urlsplit(address.rstrip(".,;"))
        assert parts.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), address
    # Those of pages are checked by the strict build; the others are read where they stand.
    for target in _LINK.findall(text) if PAGES[page].parent == ROOT else ():
        path = target.partition("#")[0]
        assert target.startswith("https://") or (ROOT / path).exists(), target
