"""A page as a browser lays it out: whether it overflows, what it loads, how large its letters are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

CHROMIUM = next(
    (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), ""
)

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
_CHECK = """
<pre id="found"></pre>
<script>
function look(frame) {
  const inside = frame.contentDocument, view = frame.contentWindow, images = [...inside.images];
  const words = [...inside.body.querySelectorAll("*")].filter(
    e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim()));
  return {
    inner: view.innerWidth, width: inside.documentElement.scrollWidth,
    images: images.length, broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    requests: view.performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
    smallest: Math.min(...words.map(e => parseFloat(view.getComputedStyle(e).fontSize))),
  };
}
addEventListener("load", () => {
  document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(look));
});
</script>
"""


@dataclass(frozen=True)
class Layout:
    inner: int
    width: int
    images: int
    broken: int
    requests: list[str]
    smallest: float


def layouts(page: str, widths: Sequence[int], folder: Path) -> list[Layout]:
    """Lay a page out in frames of these widths, in CSS pixels; a window of its own could not be as narrow."""
    frames = "".join(
        f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{escape(page)}"></iframe>'
        for width in widths
    )
    path = folder / "frames.html"
    path.write_text(f"<!DOCTYPE html><body>{frames}{_CHECK}</body>", encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *_QUIET, profile, "--virtual-time-budget=10000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    match = re.search(r'<pre id="found">(.+?)</pre>', done.stdout)
    assert match, done.stderr[-2000:]
    return [Layout(**found) for found in json.loads(unescape(match[1]))]
