"""Alarms of a promised rate, and the reasons for them, beside the log-densities of rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .options import UsageError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from ..artifact import FittedFlow
    from ..flows import Estimate

_MOST_REASONS = 3
_LEAST_GAIN = 0.5  # nats


@dataclass(frozen=True, slots=True)
class Alarms:
    """What turns log-densities into alarms.

    Attributes:
        fitted: The flow.
        held_out: Anomaly scores of rows that it was not fitted to.
        threshold: Above which a score is an alarm, in nats.
        explain: Whether to give the reasons of alarms.
    """

    fitted: FittedFlow
    held_out: Tensor
    threshold: float
    explain: bool

    def columns(self, estimate: Estimate, x: Tensor, context: Tensor | None) -> list[pl.Series]:
        """Return scores, p-values and alarms of rows, with reasons where these are wanted."""
        import polars as pl

        from ..evaluate import conformal_p_values

        scores = -estimate.value.double()
        alarm = ~(scores <= self.threshold)  # what is not a number is one
        found = [
            pl.Series("anomaly_score", -estimate.value.numpy()),
            pl.Series(
                "p_value", conformal_p_values(scores.nan_to_num(nan=float("inf")), self.held_out).numpy()
            ),
            pl.Series("alarm", alarm.numpy()),
        ]
        if self.explain:
            reasons: list[str | None] = [None] * len(scores)
            places = alarm.nonzero().flatten()
            told = self._reasons(x[places], None if context is None else context[places])
            for place, reason in zip(places.tolist(), told, strict=True):
                reasons[place] = reason
            found.append(pl.Series("reasons", reasons, dtype=pl.String))
        return found

    def _reasons(self, x: Tensor, context: Tensor | None) -> list[str]:
        """Say of each row which columns are unlikely given the others, and what would be likely there."""
        from ..data import to_frame
        from ..evaluate import explain
        from ..evaluate.anomaly_reasons import IMPOSSIBLE_TOGETHER

        if not len(x):
            return []
        columns = self.fitted.table.columns
        found = explain(self.fitted.flow, x, context, columns=columns)
        own, likely = (to_frame(values.numpy(), columns) for values in (x, found.likely))
        told = []
        for row, (gains, order) in enumerate(zip(found.gain.tolist(), found.order().tolist(), strict=True)):
            places = [j for j in order[:_MOST_REASONS] if gains[j] >= _LEAST_GAIN]
            reasons = [
                f"{columns[j].name} {_text(own[row, j])} ({_gained(gains[j])}; likely {_text(likely[row, j])})"
                for j in places
            ]
            if not reasons and found.score[row] == float("inf"):
                reasons = [IMPOSSIBLE_TOGETHER]
            told.append("; ".join(reasons))
        return told


def alarms_of(fitted: FittedFlow, model: Path, rate: float | None, explain: bool) -> Alarms | None:
    """Return what gives alarms at a promised rate; None where none was asked for.

    Raises:
        UsageError: A rate that cannot be promised, or reasons without a rate.
    """
    if rate is None:
        if explain:
            raise UsageError(
                "--explain: gives the reasons of alarms, so --alarm-rate is needed too, such as 0.01"
            )
        return None
    if fitted.held_out is None:
        raise UsageError(
            f"--alarm-rate: {model} holds no scores of held-out rows, by which a rate could be promised. Fit it again, "
            "without weights"
        )
    from ..evaluate import alarm_threshold

    held_out = -fitted.held_out
    try:
        threshold = alarm_threshold(held_out, rate)
    except ValueError as error:
        raise UsageError(
            f"--alarm-rate: {error}. These are the rows that the fit held out, by default a tenth of its table"
        ) from None
    return Alarms(fitted, held_out, threshold, explain)


def _gained(nats: float) -> str:
    return "impossible" if nats == float("inf") else f"+{nats:.1f} nats"


def _text(value: object) -> str:
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
