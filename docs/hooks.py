"""What the site adds to Markdown: formulas as MathML, and docstrings as they stand in the sources.

Formulas are ``$...$`` and ``$$...$$`` on pages, ``:math:`` and ``.. math::`` in docstrings. They become MathML when the
site is built, so that a page needs no script and no network to show them. Doctests become blocks of code.
"""

from __future__ import annotations

import re
from html import escape
from xml.etree.ElementTree import fromstring

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from mkdocs.config.defaults import MkDocsConfig

_BLOCK = re.compile(
    r"^(?P<fence>[ ]*(?P<mark>```+|~~~+).*\n(?:.*\n)*?[ ]*(?P=mark)[ ]*)$"
    r"|^(?P<indent>[ ]*)\.\. math::[ ]*(?P<directive>.*(?:\n\n?(?P=indent)[ ]+\S.*)*)$"
    r"|^(?P<before>[ ]*)\$\$(?P<dollars>[^$]*)\$\$[ ]*$"
    r"|^(?P<doctest>[ ]*>>>[ ].*(?:\n[ ]*\S.*)*)$",
    re.MULTILINE,
)
# What TeX does of itself: bars close to what they hold, named functions apart from what is beside them.
_FUNCTION = (
    r"<m[io]>(?:arctan|asinh|atanh|cos|exp|log|sin|sinh|softplus|tanh)</m[io]>"
)
_THIN = '<mspace width="0.167em"/>'
_SPACING = [
    (
        re.compile(r"<mo([^>]*)>&#x0007C;</mo>"),
        r'<mo\1 lspace="0" rspace="0">&#x0007C;</mo>',
    ),
    (re.compile(r'<mo movablelimits="true">det</mo>'), f"<mi>det</mi>{_THIN}"),
    (
        re.compile(rf"({_FUNCTION})(?!<mo[^>]*>(?:&#x00028;|&#x0005B;))"),
        rf"\1{_THIN}",
    ),
    (
        re.compile(rf"(</mi>|</mn>|</msub>|</msup>|</mfrac>)({_FUNCTION})"),
        rf"\1{_THIN}\2",
    ),
]
_BEFORE_FENCES = 30
_BEFORE_CODE, _AFTER_CODE = 195, 185  # spans of code are at 190


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the extension to all Markdown of the site, that of docstrings too."""
    config.markdown_extensions.append(Formulas())  # type: ignore[arg-type]
    return config


def mathml(tex: str, display: str) -> str:
    """Return a formula as MathML, its source as alternative text.

    Raises:
        ValueError: It does not become well-formed MathML.
    """
    tex = " ".join(tex.split())
    result = convert(
        tex.replace(r"\lvert", "|").replace(r"\rvert", "|"), display=display
    )
    for pattern, spaced in _SPACING:
        result = pattern.sub(spaced, result)
    fromstring(result)  # noqa: S314 (our own text; it is parsed to see that it can be)
    return result.replace("<math ", f'<math alttext="{escape(tex)}" ', 1)


class _Blocks(Preprocessor):
    """Takes formulas that stand alone, and doctests; leaves blocks of code as they are."""

    def run(self, lines: list[str]) -> list[str]:
        return _BLOCK.sub(self._replaced, "\n".join(lines)).split("\n")

    def _replaced(self, match: re.Match[str]) -> str:
        if match["fence"] is not None:
            return match["fence"]
        if match["doctest"] is not None:
            indent = match["doctest"].partition(">>>")[0]
            return f"{indent}```pycon\n{match['doctest']}\n{indent}```"
        tex, indent = match["directive"], match["indent"]
        if tex is None:
            tex, indent = match["dollars"], match["before"]
        place = self.md.htmlStash.store(
            f'<div class="formula">{mathml(tex, "block")}</div>'
        )
        return f"\n{indent}{place}\n"


class _Inline(InlineProcessor):
    """Takes formulas within a line."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # type: ignore[override]  # noqa: N802
        return (
            self.md.htmlStash.store(mathml(m[1], "inline")),
            m.start(0),
            m.end(0),
        )


class Formulas(Extension):
    """Markdown with formulas and doctests."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Register the processors."""
        md.preprocessors.register(_Blocks(md), "formula-blocks", _BEFORE_FENCES)
        md.inlinePatterns.register(
            _Inline(r":math:`([^`]+)`", md), "formula-role", _BEFORE_CODE
        )
        dollars = r"(?<![\\$\w])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])"
        md.inlinePatterns.register(
            _Inline(dollars, md), "formula-dollars", _AFTER_CODE
        )
