"""Reads a page as a browser would: its tags, texts, links and embedded pictures."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "link", "img", "source", "br"}


class Reader(HTMLParser):
    """Keeps what tests ask for, and fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def urls(reader: Reader) -> list[str]:
    names = ("src", "srcset", "href", "action", "data", "poster")
    return [attrs[name] for _, attrs in reader.attributes for name in names if name in attrs]


def images(reader: Reader) -> list[Image.Image]:
    """Every embedded picture, fully decoded."""
    found = []
    for url in urls(reader):
        if url.startswith("data:image/png;base64,"):
            image = Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1], validate=True)))
            image.load()
            assert image.format == "PNG"
            found.append(image)
    return found
