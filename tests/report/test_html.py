"""The page: whole HTML, escaped, self-contained."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page_reader import images, read, urls
from pushforward.report.figures import new_figure
from pushforward.report.html import (
    Block,
    Files,
    Gallery,
    Page,
    Picture,
    Section,
    Table,
    Text,
    number,
    picture,
    render_page,
)


def page_of(*blocks: Block) -> Page:
    return Page("Title", "Lead", (Section("one", "One", "", blocks), Section("two", "Two", "", ())))


@given(st.text(min_size=1, max_size=30).filter(lambda t: t.strip() == t and t.isprintable()))
@settings(max_examples=15, deadline=None)
def test_any_text_comes_out_as_it_went_in_and_is_no_markup(text: str) -> None:
    hostile = f"<script>alert('{text}')</script>&amp;"
    reader = read(
        render_page(
            page_of(
                Text(hostile), Table((hostile,), ((hostile,),), caption=hostile), Files(((text, hostile),))
            )
        )
    )
    assert reader.text.count(hostile) == 5
    assert not any(tag == "script" for tag, _ in reader.attributes)
    labels = [attrs["aria-label"] for _, attrs in reader.attributes if "aria-label" in attrs]
    assert hostile in labels


def test_links_to_files_are_relative_and_quoted() -> None:
    reader = read(render_page(page_of(Files((("a b&c#d.csv", "what"),)))))
    assert "a%20b%26c%23d.csv" in urls(reader)


def test_pictures_come_in_two_themes_with_their_text() -> None:
    both = picture(lambda theme: new_figure(1.0, 0.5, theme), "what it shows", title="T", caption="C", dpi=40)
    assert both.light != both.dark
    reader = read(render_page(page_of(Gallery((both, both)), both)))
    assert len(images(reader)) == 6
    assert {image.size for image in images(reader)} == {(40, 20)}
    assert [attrs["alt"] for tag, attrs in reader.attributes if tag == "img"] == ["what it shows"] * 3
    sources = [attrs for tag, attrs in reader.attributes if tag == "source"]
    assert all("prefers-color-scheme: dark" in attrs["media"] for attrs in sources) and len(sources) == 3


def test_tables_tell_words_numbers_and_the_strong_row_apart() -> None:
    table = Table(("Model", "Loss"), (("a", "1"), ("b", "2")), strong=frozenset({1}))
    reader = read(render_page(page_of(table)))
    assert [attrs.get("class", "") for tag, attrs in reader.attributes if tag in ("th", "td")] == [
        "words",
        "",
    ] * 3
    assert [attrs.get("class", "") for tag, attrs in reader.attributes if tag == "tr"] == ["", "", "strong"]


def test_the_contents_lead_to_every_section() -> None:
    reader = read(render_page(page_of()))
    assert {"#one", "#two"} <= set(urls(reader))
    assert {attrs["id"] for tag, attrs in reader.attributes if tag == "section"} == {"one", "two"}


@pytest.mark.parametrize("value", [-1.25, 0.0, 3.14159, -1e-9])
def test_numbers_keep_their_value(value: float) -> None:
    assert float(number(value, ".6g").replace("−", "-")) == pytest.approx(value, rel=1e-5)
    assert "-" not in number(value, ".6f")


def test_a_picture_is_its_own_url() -> None:
    one = Picture(b"light", b"dark", "alt")
    assert base64.b64decode(one.light_url.split(",")[1]) == b"light"
    assert base64.b64decode(one.dark_url.split(",")[1]) == b"dark"
