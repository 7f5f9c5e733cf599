"""The pages of the documentation, their blocks of code, and how each kind of block is run."""

from __future__ import annotations

import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {str(p.relative_to(ROOT)): p for p in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))}
LANGUAGES = ("python", "sh", "toml", "json", "text")

_FENCE = re.compile(r"^(?P<indent>[ ]*)(?P<mark>```+)(?P<info>.*)$")
_TITLE = re.compile(r'title="([^"]+)"')
_NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, title and text, the page and line where it stands, and the output shown below."""

    language: str
    title: str
    text: str
    page: Path
    line: int
    output: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, each ``text`` block as the output of the one before it."""
    found: list[Block] = []
    for block, follows in _fenced(page):
        if block.language != "text":
            found.append(block)
            continue
        assert follows and found and found[-1].output is None, f"{block.place}: output of no block"
        last = found.pop()
        found.append(Block(last.language, last.title, last.text, last.page, last.line, block.text))
    return found


def _fenced(page: Path) -> Iterator[tuple[Block, bool]]:
    """Blocks, and whether each follows another with nothing between them."""
    lines, inside, follows = page.read_text().split("\n"), None, False
    for number, line in enumerate(lines, 1):
        match = _FENCE.match(line)
        if inside is None and match:
            info = match["info"].split(maxsplit=1)
            inside, start, body = match, number, []
            language = info[0] if info else ""
        elif inside is not None and match and match["mark"] == inside["mark"] and not match["info"]:
            title = _TITLE.search(inside["info"])
            text = "\n".join(body) + "\n"
            yield Block(language, title[1] if title else "", text, page, start), follows
            inside, follows = None, True
        elif inside is not None:
            body.append(line.removeprefix(inside["indent"]))
        elif line.strip():
            follows = False
    assert inside is None, f"{page}: the block of line {start} does not end"


@dataclass
class Session:
    """Runs the blocks of one page in their order, in the current folder and as one module."""

    module: ModuleType = field(default_factory=lambda: ModuleType("page"))

    def run(self, block: Block) -> None:
        assert block.language in LANGUAGES, f"{block.place}: blocks in {block.language!r} are not run"
        getattr(self, f"_{block.language}")(block)

    def _python(self, block: Block) -> None:
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        out = io.StringIO()
        with redirect_stdout(out):
            exec(code, self.module.__dict__)
        if block.title:
            Path(block.title).write_text(block.text)
        if block.output is not None:
            compare(block, out.getvalue(), numbers=True)

    def _sh(self, block: Block) -> None:
        out = "".join(self._command(block, line) for line in commands(block.text))
        if block.output is not None:
            compare(block, out, numbers=False)

    def _toml(self, block: Block) -> None:
        from pushforward.cli.settings import read_settings

        path = Path(block.title or "settings.toml")
        path.write_text(block.text)
        if path.name != "pyproject.toml":
            read_settings(path)
        tomllib.loads(block.text)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _command(self, block: Block, words: list[str]) -> str:
        match words:
            case ["pushforward", "demo", *arguments]:  # minutes: only its options are read
                from typer.main import get_command

                from pushforward.cli.app import app

                get_command(app).commands["demo"].make_context("demo", arguments)  # type: ignore[attr-defined]
                return ""
            case ["pushforward", *arguments]:
                return self._pushforward(block, arguments)
            case ["make", *targets]:
                known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
                assert set(targets) <= set(known), f"{block.place}: make has no {targets}"
            case ["pip", "install", *packages]:
                check_packages(block, packages)
            case ["python", "-m", module, *options]:
                check_options(block, f"{module.replace('.', '/')}/__main__.py", options)
            case ["python", script, *options]:
                check_options(block, script, options)
            case _:
                raise AssertionError(f"{block.place}: no way to run {shlex.join(words)}")
        return ""

    def _pushforward(self, block: Block, arguments: list[str]) -> str:
        from pushforward.cli import main

        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = main(arguments)
        refused = re.search("^(error|broken): ", block.output or "", re.MULTILINE) is not None
        assert bool(code) == refused, (
            f"{block.place}: {shlex.join(arguments)} ended with {code}\n{out.getvalue()}"
        )
        return out.getvalue()


def commands(text: str) -> list[list[str]]:
    """The commands of a block, as words; comments are left out, lines that end in a backslash joined."""
    found = []
    for line in text.replace("\\\n", " ").split("\n"):
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words:
                found.append(words)
    return found


def check_packages(block: Block, packages: list[str]) -> None:
    """Packages to install are this one, with extras that it has, or others' by name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package in packages:
        name, _, wanted = package.rstrip("]").partition("[")
        if name in (".", "pushforward") and wanted:
            assert set(wanted.split(",")) <= set(extras), f"{block.place}: no extra {wanted}"
        assert re.fullmatch(r"\.|[a-z0-9-]+", name), f"{block.place}: {package} is not a package"


def check_options(block: Block, script: str, options: list[str]) -> None:
    """Options of a script of this project are ones that it has."""
    source = (ROOT / script).read_text()
    missing = [o for o in options if o.startswith("--") and f'"{o}"' not in source]
    assert not missing, f"{block.place}: {script} has no {missing}"


def compare(block: Block, got: str, *, numbers: bool) -> None:
    """Words are as shown, and so are numbers unless they depend on training; ``...`` stands for anything."""
    assert block.output is not None
    pieces = []
    for token in re.split(rf"(\.\.\.|\s+|{_NUMBER})", block.output.strip()):
        if token == "...":
            pieces.append(r"[\s\S]*?")
        elif token.isspace():
            pieces.append(r"\s+")
        elif not numbers and re.fullmatch(_NUMBER, token):
            pieces.append(_NUMBER)
        else:
            pieces.append(re.escape(token))
    # Space before an ellipsis may be none: what it stands for may be nothing.
    pattern = "".join(pieces).replace(r"\s+[\s\S]*?", r"\s*[\s\S]*?")
    assert re.fullmatch(pattern, got.strip()), f"{block.place} shows\n{block.output}\nbut got\n{got}"
