"""What edits changed, in numbers and words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .attributes import UNITS


@dataclass(frozen=True, slots=True)
class EditReport:
    """What edits of one attribute changed, for each strength.

    Attributes:
        target: The attribute that was edited.
        held: The attributes that the direction holds fixed.
        rows: Number of images.
        strengths: The strengths.
        asked: By how much the attribute was to change, in its own units.
        deviations: Standard deviation of each attribute over the images before the edit.
        changes: Mean change of each attribute in its own units, over the images that have it before and after.
        clipped: Share of pixels that came out more than half a level outside of the range.
        not_finite: Share of images with a pixel that is not finite; nothing else counts them.
        kept: Share of the images that are finite to which a classifier gives the same label before and after; None
            without one, and NaN where none is finite.
        returned: Share of pixels that latents not moved at all give back within half a level.
    """

    target: str
    held: tuple[str, ...]
    rows: int
    strengths: tuple[float, ...]
    asked: tuple[float, ...]
    deviations: dict[str, float]
    changes: dict[str, tuple[float, ...]]
    clipped: tuple[float, ...]
    not_finite: tuple[float, ...]
    kept: tuple[float, ...] | None
    returned: float

    def standardised(self, name: str) -> tuple[float, ...]:
        """Return the mean changes of an attribute in its standard deviations; NaN where that is 0."""
        deviation = self.deviations[name]
        return tuple(change / deviation if deviation > 0 else math.nan for change in self.changes[name])

    @property
    def leakage(self) -> dict[str, tuple[float, ...]]:
        """Mean changes of all other attributes, in their standard deviations."""
        return {name: self.standardised(name) for name in self.changes if name != self.target}

    @property
    def ratios(self) -> dict[str, tuple[float, ...]]:
        """Sizes of the leakages, for each standard deviation that the target itself changed; NaN where it did not."""
        own = self.standardised(self.target)
        return {
            name: tuple(abs(a / b) if b else math.nan for a, b in zip(changes, own, strict=True))
            for name, changes in self.leakage.items()
        }

    def text(self) -> str:
        """Return a table for the terminal, one column for each strength.

        Example:
            >>> report = EditReport(
            ...     "width", ("slant",), 2, (0.0, 1.0), (0.0, 3.0), {"width": 3.0, "slant": 0.5},
            ...     {"width": (0.0, 2.7), "slant": (0.0, 0.05)}, (0.0, 0.25), (0.0, 0.0), None, 1.0,
            ... )
            >>> print(report.text())
            Edits of width in 2 images, with slant held fixed.
            Latents not moved give back 100 % of pixels.
            strength                                  0      +1
            asked: width, pixels                      0      +3
            width, pixels                             0    +2.7
            width, standard deviations                0    +0.9
            slant, standard deviations                0    +0.1
              for each one of width                   -    0.11
            pixels clipped                          0 %    25 %
            images not finite                       0 %     0 %
        """
        unit = f", {UNITS[self.target]}" if self.target in UNITS else ""
        rows: list[tuple[str, Sequence[str]]] = [
            ("strength", [_signed(s) for s in self.strengths]),
            (f"asked: {self.target}{unit}", [_signed(a) for a in self.asked]),
            (f"{self.target}{unit}", [_signed(c) for c in self.changes[self.target]]),
            (f"{self.target}, standard deviations", [_signed(c) for c in self.standardised(self.target)]),
        ]
        for name, changes in self.leakage.items():
            rows.append((f"{name}, standard deviations", [_signed(c) for c in changes]))
            rows.append((f"  for each one of {self.target}", [_short(r) for r in self.ratios[name]]))
        rows.append(("pixels clipped", [_percent(c) for c in self.clipped]))
        rows.append(("images not finite", [_percent(c) for c in self.not_finite]))
        if self.kept is not None:
            rows.append(("images that keep their class", [_percent(k) for k in self.kept]))
        label = max(34, *(len(name) + 1 for name, _ in rows))
        cell = max(8, *(len(text) + 1 for _, cells in rows for text in cells))
        held = f", with {', '.join(self.held)} held fixed" if self.held else ""
        head = (
            f"Edits of {self.target} in {self.rows:,} images{held}.",
            f"Latents not moved give back {_percent(self.returned)} of pixels.",
        )
        return "\n".join(
            [*head, *(f"{name:<{label}}{''.join(f'{c:>{cell}}' for c in cs)}" for name, cs in rows)]
        )


def _signed(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "0" if abs(value) < 5e-7 else f"{value:+.3g}"


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _percent(share: float) -> str:
    """Return a share in percent; only what is all or nothing is called so.

    Example:
        >>> _percent(1.0), _percent(0.99999), _percent(0.123), _percent(1e-7)
        ('100 %', '99.99 %', '12.3 %', '0.01 %')
    """
    if math.isnan(share):
        return "-"
    percent = min(max(100.0 * share, 0.01), 99.99) if 0.0 < share < 1.0 else 100.0 * share
    decimals = 2 if percent < 1.0 or 99.0 < percent < 100.0 else 1
    return f"{percent:.{decimals}f}".rstrip("0").rstrip(".") + " %" if percent % 1 else f"{percent:.0f} %"
