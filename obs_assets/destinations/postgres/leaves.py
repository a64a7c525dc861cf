"""Which leaf of the table holds an hour: an hour, a day or a month of UTC. Pure; nothing here asks the server.

::

    events_h2025120410    an hour, where hours are large and recent
    events_d20251204      a day, else
    events_m202512        a month, for what is old

A new leaf is the largest that suits the hour and overlaps no leaf that is there. So sizes mix freely, nobody plans
ahead, and growing from small hours to large ones takes no decision of the user's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from obs_assets.hours import ONE_HOUR, Hour

HOURLY_FROM_ROWS = 200_000
"""An hour from so many rows on gets a leaf of its own while it is hot. A choice, not a measured limit."""

HOT = timedelta(days=2)
"""How long hours keep leaves of their own before they are rolled up into a day."""

WARM = timedelta(days=62)
"""How long days keep leaves of their own before they are rolled up into a month."""

MONTHS_FROM_RETENTION_DAYS = 150
"""Who keeps less has at most so many days, and loses each on its day; who keeps more may wait for a month's end."""

_ONE_DAY = timedelta(days=1)
_SUFFIX = re.compile(r"_(?:h(\d{10})|d(\d{8})|m(\d{6}))")


@dataclass(frozen=True, order=True)
class Span:
    """What a leaf holds: ``[start, end)``, and the end of its name."""

    start: datetime
    end: datetime
    suffix: str

    def __contains__(self, hour: Hour) -> bool:
        return self.start <= hour.start < self.end

    def overlaps(self, other: "Span") -> bool:
        """Whether the two share an hour."""
        return self.start < other.end and other.start < self.end


def hour_of(moment: datetime) -> Span:
    """The hour of a moment."""
    start = moment.replace(minute=0, second=0, microsecond=0)
    return Span(start, start + ONE_HOUR, f"_h{start:%Y%m%d%H}")


def day_of(moment: datetime) -> Span:
    """The day of a moment."""
    start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return Span(start, start + _ONE_DAY, f"_d{start:%Y%m%d}")


def month_of(moment: datetime) -> Span:
    """The month of a moment."""
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Span(start, (start + 31 * _ONE_DAY).replace(day=1), f"_m{start:%Y%m}")


def span_of(suffix: str) -> Span | None:
    """What a leaf holds whose name ends so after the table's; None for a name that we did not give."""
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
    """Whether what is old is kept by the month."""
    return retention_days is None or retention_days > MONTHS_FROM_RETENTION_DAYS


def new_leaf(
    hour: Hour, rows: int, taken: Iterable[Span], *, now: datetime, retention_days: int | None
) -> Span:
    """The leaf to make for an hour that no leaf holds.

    Args:
        hour: which.
        rows: it has.
        taken: what the leaves that are there hold.
        now: the clock.
        retention_days: of the table.
    """
    age = now - hour.end
    sizes = [hour_of(hour.start)]
    if rows < HOURLY_FROM_ROWS or age > HOT:
        sizes.insert(0, day_of(hour.start))
    if age > WARM and keeps_months(retention_days):
        sizes.insert(0, month_of(hour.start))
    held = list(taken)
    return next((span for span in sizes if not any(map(span.overlaps, held))), sizes[-1])


def roll_ups(
    leaves: Iterable[Span], *, now: datetime, retention_days: int | None
) -> list[Span]:
    """The larger leaves to make of smaller ones by now, the oldest first: days of hours, then months of days."""
    spans = list(leaves)
    days = {day_of(span.start) for span in spans if span.end - span.start == ONE_HOUR}
    due = {day for day in days if now - day.end > HOT}
    if keeps_months(retention_days):
        months = {month_of(span.start) for span in spans if span.end - span.start <= _ONE_DAY}
        old = {month for month in months if now - month.end > WARM}
        due = {day for day in due if month_of(day.start) not in old} | old
    return sorted(due)


def expired(leaves: Iterable[Span], *, now: datetime, retention_days: int) -> list[Span]:
    """The leaves whose last hour has expired: none holds an hour that has not."""
    return sorted(
        span for span in leaves if has_expired(span.end, now=now, retention_days=retention_days)
    )


def has_expired(end: datetime, *, now: datetime, retention_days: int) -> bool:
    """Whether what ended then, an hour or a leaf, is older than is kept."""
    return end <= now - timedelta(days=retention_days)
