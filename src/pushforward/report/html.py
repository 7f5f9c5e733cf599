"""A page that stands for itself: text, tables and pictures in one HTML file, for light and dark screens.

The parts of a page are plain data; the template turns them into HTML and escapes every text.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from .figures import DARK, LIGHT, Theme, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATE = "page.html.j2"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for light screens and one for dark screens.

    Attributes:
        light: PNG file.
        dark: PNG file of the same size.
        alt: What it shows, for those who cannot see it.
        title: A few words to stand above it.
        caption: What to see in it.
        width: Largest width on the page, in CSS pixels.
    """

    light: bytes = field(repr=False)
    dark: bytes = field(repr=False)
    alt: str
    title: str = ""
    caption: str = ""
    width: int = 960

    kind: ClassVar[str] = "picture"

    @property
    def light_url(self) -> str:
        """The light picture as a URL that holds it."""
        return _data_url(self.light)

    @property
    def dark_url(self) -> str:
        """The dark picture as a URL that holds it."""
        return _data_url(self.dark)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures side by side where there is room, below each other where there is not."""

    pictures: tuple[Picture, ...]

    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes:
        head: Titles of the columns.
        rows: The cells.
        caption: What the table holds.
        text_columns: Places of the columns that hold words; the others hold numbers.
        strong: Places of rows to emphasise.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    text_columns: frozenset[int] = frozenset({0})
    strong: frozenset[int] = frozenset()

    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str

    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences, with a few words to stand above it."""

    points: tuple[str, ...]
    title: str = ""

    kind: ClassVar[str] = "points"


@dataclass(frozen=True, slots=True)
class Files:
    """Links to files beside the page: their names and what they hold."""

    files: tuple[tuple[str, str], ...]

    kind: ClassVar[str] = "files"


Block = Picture | Gallery | Table | Text | Points | Files


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        ident: Its name in links, letters and hyphens.
        title: Its heading.
        lead: What was done and what came of it.
        blocks: What it shows.
        facts: How it was made: labels and values.
    """

    ident: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page; the fields are as those of ``Section``."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def render_page(page: Page) -> str:
    """Return a page as HTML that refers to nothing outside itself, but for the files that its sections name.

    Example:
        >>> text = render_page(Page("a < b", "", (Section("one", "One", "", (Text("x & y"),)),)))
        >>> "<h1>a &lt; b</h1>" in text, "<p>x &amp; y</p>" in text
        (True, True)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pushforward.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(page=page)


def number(value: float, spec: str) -> str:
    """Return a number as text, with a minus sign that is as wide as a plus.

    Example:
        >>> number(-1.25, "+.1f")
        '−1.2'
    """
    return format(value, spec).replace("-", "−")


def picture(
    draw: Callable[[Theme], Figure],
    alt: str,
    *,
    title: str = "",
    caption: str = "",
    width: int = 960,
    dpi: int = 160,
) -> Picture:
    """Draw a picture in both themes.

    Args:
        draw: Returns the figure in a theme.
        alt: What it shows, for those who cannot see it.
        title: A few words to stand above it.
        caption: What to see in it.
        width: Largest width on the page, in CSS pixels.
        dpi: Dots per inch.
    """
    return Picture(png(draw(LIGHT), dpi=dpi), png(draw(DARK), dpi=dpi), alt, title, caption, width)


def _data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
