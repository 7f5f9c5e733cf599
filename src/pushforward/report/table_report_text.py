"""What the parts of a report about a table share: chapters, and numbers and sentences with their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .html import Section, Text, number


@dataclass(frozen=True, slots=True)
class Chapter:
    """A section of a report, and what it adds to the summary.

    Attributes:
        section: The section.
        good: What speaks for the flow, in sentences.
        doubts: What is to be distrusted.
        left_out: Whether the section only says why it is empty.
    """

    section: Section
    good: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    left_out: bool = False


def left_out(ident: str, title: str, why: str) -> Chapter:
    """Return a chapter that says why it is empty."""
    return Chapter(Section(ident, title, f"Left out: {why}.", ()), left_out=True)


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of values and its standard error, which is NaN for a single one.

    Example:
        >>> mean_and_error(np.array([1.0, 3.0]))
        (2.0, 1.0)
    """
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def with_error(values: NDArray[np.float64], spec: str = ".2f") -> str:
    """Return the mean of values with its standard error as text.

    Example:
        >>> with_error(np.array([1.0, 3.0]))
        '2.00 ± 1.00'
    """
    mean, error = mean_and_error(values)
    return (
        number(mean, spec)
        if math.isnan(error)
        else f"{number(mean, spec)} ± {format(error, spec.lstrip('+'))}"
    )


def p_relation(p_value: float) -> str:
    """Return what a p-value is, with the sign before it.

    Example:
        >>> [p_relation(p) for p in (1.0, 0.0234, 0.00001)]
        ['= 1', '= 0.02', '< 0.001']
    """
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"


def p_text(p_value: float) -> str:
    """Return a p-value as text.

    Example:
        >>> [p_text(p) for p in (1.0, 0.0234, 0.00001)]
        ['1', '0.02', '< 0.001']
    """
    return "< 0.001" if p_value < 0.001 else f"{p_value:.1g}" if p_value < 0.1 else f"{p_value:.2g}"


def rows_text(count: int, what: str = "row") -> str:
    """Return a number of rows in words.

    Example:
        >>> rows_text(1), rows_text(1200, "test row")
        ('1 row', '1,200 test rows')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def some(names: list[str], most: int = 5) -> str:
    """Return the first few names.

    Example:
        >>> some(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def texts(*sentences: str) -> tuple[Text, ...]:
    """Return paragraphs, without those that are empty."""
    return tuple(Text(sentence) for sentence in sentences if sentence)
