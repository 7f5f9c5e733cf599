"""Errors with a remedy.

Each is a ``ValueError``; the command line prints its text without a traceback and leaves with its ``exit_code``.
"""

from __future__ import annotations

from pathlib import Path


class PushforwardError(ValueError):
    """What was asked for cannot be done as it was asked; the text says what was expected and what came."""

    exit_code = 1


class DataError(PushforwardError):
    """A table or array cannot be used as it is.

    Args:
        problem: What is wrong, in one sentence.
        source: The file or argument.
        row: The first offending row, counted from 1 without the header.
        column: The offending column.
        remedy: What to do about it.

    Example:
        >>> print(DataError("missing value", source="a.csv", row=3, column="age", remedy="Fill it or drop the row."))
        a.csv, row 3, column 'age': missing value. Fill it or drop the row.
    """

    exit_code = 3

    def __init__(
        self,
        problem: str,
        *,
        source: str | Path | None = None,
        row: int | None = None,
        column: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.source, self.row, self.column, self.remedy = problem, source, row, column, remedy
        place = [str(source)] if source is not None else []
        if row is not None:
            place.append(f"row {row}")
        if column is not None:
            place.append(f"column {column!r}")
        text = f"{', '.join(place)}: {problem}" if place else problem
        super().__init__(f"{text.rstrip('.')}. {remedy}" if remedy else text)


class ArtifactError(PushforwardError):
    """A saved flow cannot be read: cut short, changed, of a later version, or not a saved flow at all."""

    exit_code = 4


class OutputError(PushforwardError):
    """A result cannot be written where it was asked to go."""

    exit_code = 5


class TrainingError(PushforwardError):
    """Training cannot go on; the text says what happened at which step and what to try."""

    exit_code = 6


class TerminatedError(PushforwardError):
    """A run was asked to stop (SIGTERM) and has written a checkpoint, from which it can go on."""

    exit_code = 75
