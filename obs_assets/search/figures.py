"""The figures of a group of events: counts, durations, costs and times, as the table of statistics keeps them."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

from obs_assets.severities import GRAVE

_IS_ERROR: LiteralString = "error IS NOT NULL"


@dataclass(frozen=True)
class Figure:
    """A column of the table of statistics.

    Attributes:
        kind: its type in PostgreSQL.
        of_rows: SQL that computes it from rows of the table of events.
        of_hours: SQL that computes it from rows of the table of statistics.
    """

    kind: LiteralString
    of_rows: str
    of_hours: str


def _events_where(condition: str) -> str:
    return f"coalesce(sum(weight) FILTER (WHERE {condition}), 0)"


_IS_GRAVE = ", ".join(f"'{level}'" for level in GRAVE)

_WEIGHTED: LiteralString = "DOUBLE PRECISION"

FIGURES: dict[LiteralString, Figure] = {
    "rows": Figure("BIGINT NOT NULL", "count(*)", "sum(rows::float8)::bigint"),
    "events": Figure(f"{_WEIGHTED} NOT NULL", "coalesce(sum(weight), 0)", "sum(events)"),
    "errors": Figure(
        f"{_WEIGHTED} NOT NULL",
        _events_where(f"{_IS_ERROR} OR coalesce(event_level IN ({_IS_GRAVE}), false)"),
        "sum(errors)",
    ),
    "duration_ms_sum": Figure(_WEIGHTED, "sum(weight * duration_ms)", "sum(duration_ms_sum)"),
    "duration_ms_max": Figure("BIGINT", "max(duration_ms)", "max(duration_ms_max)"),
    "cost_usd": Figure(_WEIGHTED, "sum(weight * cost_usd::float8)", "sum(cost_usd)"),
    "with_error": Figure(_WEIGHTED, _events_where(_IS_ERROR), "sum(with_error)"),
    "with_duration": Figure(
        _WEIGHTED, _events_where("duration_ms IS NOT NULL"), "sum(with_duration)"
    ),
    "with_cost": Figure(_WEIGHTED, _events_where("cost_usd IS NOT NULL"), "sum(with_cost)"),
    "first_at": Figure("TIMESTAMPTZ", "min(timestamp)", "min(first_at)"),
    "last_at": Figure("TIMESTAMPTZ", "max(timestamp)", "max(last_at)"),
}
"""Name → column. All except ``rows``, the maximum and the times are weighted: they count the events that
the kept rows stand for."""


@dataclass(frozen=True)
class Figures:
    """The figures of a group of events; each attribute is a column of `FIGURES`.

    Attributes:
        rows: stored rows.
        events: events that the rows stand for; all other counts and sums are weighted too.
        errors: events with an error or a grave level.
        duration_ms_sum: milliseconds of all events with a duration; None without such an event.
        duration_ms_max: the longest duration, milliseconds.
        cost_usd: US dollars of all events with a cost; None without such an event.
        with_error: events whose column ``error`` has a text.
        with_duration: events with a duration.
        with_cost: events with a cost.
        first_at: time of the first event; None without an event.
        last_at: time of the last event.
    """

    rows: int = 0
    events: float = 0.0
    errors: float = 0.0
    duration_ms_sum: float | None = None
    duration_ms_max: int | None = None
    cost_usd: float | None = None
    with_error: float = 0.0
    with_duration: float = 0.0
    with_cost: float = 0.0
    first_at: datetime | None = None
    last_at: datetime | None = None

    @property
    def duration_ms_mean(self) -> float | None:
        """Milliseconds of an event with a duration, on average; None without such an event."""
        if self.duration_ms_sum is None or not self.with_duration:
            return None
        return self.duration_ms_sum / self.with_duration

    @property
    def cost_usd_mean(self) -> float | None:
        """US dollars of an event with a cost, on average; None without such an event."""
        if self.cost_usd is None or not self.with_cost:
            return None
        return self.cost_usd / self.with_cost

    def plus(self, *values: Any) -> "Figures":
        """The figures of this group and of another one, whose values are in the order of `FIGURES`."""
        merged = {}
        for name, value in zip(FIGURES, values, strict=True):
            own = getattr(self, name)
            known = [figure for figure in (own, value) if figure is not None]
            if known:
                merged[name] = _MERGES.get(name, sum)(known)
        return replace(self, **merged)


_MERGES: dict[str, Any] = {"duration_ms_max": max, "first_at": min, "last_at": max}
"""How figures of two groups become one; all others are added."""
