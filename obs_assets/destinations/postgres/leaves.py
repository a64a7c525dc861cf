"""The spans of leaves (partitions): an hour, a day or a month of UTC. No function asks the server.

::

    events_h2025120410    an hour, if the hour is large and recent
    events_d20251204      a day, otherwise
    events_m202512        a month, for old days

A new leaf has the largest span that suits the hour and overlaps no leaf of the table. So spans of
different lengths mix, and a table whose hours grow needs no new setting.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from obs_assets.hours import ONE_HOUR, Hour

HOURLY_FROM_ROWS = 200_000
"""Rows from which a hot hour gets its own leaf. The number is a choice, not a measured limit."""

HOT = timedelta(days=2)
"""Age at which leaves of hours are rolled up into a leaf of a day."""

WARM = timedelta(days=62)
"""Age at which leaves of days are rolled up into a leaf of a month."""

MONTHS_FROM_RETENTION_DAYS = 150
"""Retention in days above which leaves of months are made.

A leaf of a month is dropped when its last day has expired, up to a month late. With a shorter
retention that would be too late, and the leaves of days are few enough.
"""

_ONE_DAY = timedelta(days=1)
_SUFFIX = re.compile(r"_(?:h(\d{10})|d(\d{8})|m(\d{6}))")


@dataclass(frozen=True, order=True)
class Span:
    """The span of a leaf.

    Attributes:
        start: first moment of the span, UTC.
        end: first moment after the span, UTC.
        suffix: end of the leaf's name after the table's name, for example ``_d20251204``.
    """

    start: datetime
    end: datetime
    suffix: str

    def __contains__(self, hour: Hour) -> bool:
        return self.start <= hour.start < self.end

    def overlaps(self, other: "Span") -> bool:
        """Whether two spans share an hour."""
        return self.start < other.end and other.start < self.end


def hour_of(moment: datetime) -> Span:
    """The span of the hour that holds a moment."""
    start = moment.replace(minute=0, second=0, microsecond=0)
    return Span(start, start + ONE_HOUR, f"_h{start:%Y%m%d%H}")


def day_of(moment: datetime) -> Span:
    """The span of the day that holds a moment."""
    start = moment.replace(
        hour=0,
        minute=0,
        second=0,
        microsecond=0,
    )
    return Span(start, start + _ONE_DAY, f"_d{start:%Y%m%d}")


def month_of(moment: datetime) -> Span:
    """The span of the month that holds a moment."""
    start = moment.replace(
        day=1,
        hour=0,
        minute=0,
        second=0,
        microsecond=0,
    )
    # 31 days later is in the next month, whatever the length of this month.
    return Span(
        start,
        (start + 31 * _ONE_DAY).replace(day=1),
        f"_m{start:%Y%m}",
    )


def span_of(suffix: str) -> Span | None:
    """The span of a leaf by the end of its name; None for the name of another table.

    Args:
        suffix: end of the name after the table's name, for example ``_h2025120410``.
    """
    found = _SUFFIX.fullmatch(suffix)
    if not found:
        return None
    hour, day, month = found.groups()
    if hour:
        return hour_of(datetime.strptime(hour, "%Y%m%d%H").replace(tzinfo=UTC))
    if day:
        return day_of(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC))
    return month_of(datetime.strptime(month, "%Y%m").replace(tzinfo=UTC))


def keeps_months(retention_days: int | None) -> bool:
    """Whether old days are rolled up into months; None keeps all rows."""
    return retention_days is None or retention_days > MONTHS_FROM_RETENTION_DAYS


def new_leaf(
    hour: Hour,
    rows: int,
    taken: Iterable[Span],
    *,
    now: datetime,
    retention_days: int | None,
    hourly_from_rows: int = HOURLY_FROM_ROWS,
) -> Span:
    """The span of the leaf to make for an hour that no leaf holds.

    Args:
        hour: the hour.
        rows: number of its rows.
        taken: spans of the leaves of the table.
        now: the present time, UTC.
        retention_days: retention of the table in days; None keeps all rows.
        hourly_from_rows: rows from which on a hot hour gets a leaf of its own.
    """
    age = now - hour.end
    sizes = [hour_of(hour.start)]
    if rows < hourly_from_rows or age > HOT:
        sizes.insert(0, day_of(hour.start))
    if age > WARM and keeps_months(retention_days):
        sizes.insert(0, month_of(hour.start))
    held = list(taken)
    for span in sizes:
        if not any(map(span.overlaps, held)):
            return span
    return sizes[-1]


def roll_ups(
    leaves: Iterable[Span], *, now: datetime, retention_days: int | None
) -> list[Span]:
    """The spans of time whose leaves are to be merged into one leaf, the oldest first.

    Hours that are older than `HOT` become days; hours and days that are older than `WARM` become months.
    """
    spans = list(leaves)
    days = {day_of(span.start) for span in spans if span.end - span.start == ONE_HOUR}
    due = {day for day in days if now - day.end > HOT}
    if keeps_months(retention_days):
        months = {month_of(span.start) for span in spans if span.end - span.start <= _ONE_DAY}
        old = {month for month in months if now - month.end > WARM}
        # A day of such a month goes into the month without a leaf of its own.
        due = {day for day in due if month_of(day.start) not in old} | old
    return sorted(due)


def expired(
    leaves: Iterable[Span],
    *,
    now: datetime,
    retention_days: int,
) -> list[Span]:
    """The spans whose last hour has expired, so that all their hours have."""
    return sorted(
        span for span in leaves if has_expired(span.end, now=now, retention_days=retention_days)
    )


def has_expired(
    end: datetime,
    *,
    now: datetime,
    retention_days: int,
) -> bool:
    """Whether an hour or a span with this end is older than the retention."""
    return end <= now - timedelta(days=retention_days)
