"""How many events match, over time: bars of equal length, each as rows and as the events they stand for."""

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from obs_assets.errors import ConfigurationError
from obs_assets.search.counting import (
    ALL_TOGETHER,
    COLUMNS_OF_STATISTICS,
    OTHER,
    TALLY,
    Grouping,
    Slots,
    Tally,
    Value,
    by_column,
    by_values,
    count_slots,
)
from obs_assets.search.facets import facets
from obs_assets.search.questions import Span, snapshot
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

STEPS: tuple[timedelta, ...] = (
    *(timedelta(seconds=count) for count in (1, 5, 10, 30)),
    *(timedelta(minutes=count) for count in (1, 5, 10, 30)),
    *(timedelta(hours=count) for count in (1, 3, 6, 12)),
    *(timedelta(days=count) for count in (1, 7, 28)),
)
"""Lengths of bars that ``auto`` chooses from."""

AUTO_BARS = 100
"""``auto`` chooses the smallest step that gives at most this number of bars."""

MOST_BARS = 2_000
"""Bars of an answer, at most."""

MOST_GROUPS = 10
"""Values of a field that are counted by themselves; all others are counted together."""

FEW_VALUES = frozenset(COLUMNS_OF_STATISTICS)
"""Columns with few values: each is counted, then the most frequent are chosen."""

_ONE_DAY = timedelta(days=1)
_A_MONDAY = date(2000, 1, 3).toordinal()
"""Bars of weeks begin on Mondays."""


@dataclass(frozen=True)
class Group:
    """A bar's events with the same value of a field.

    Attributes:
        value: the value as a query writes it; None for events without the field.
        is_other: whether the group has all values that are not counted by themselves.
        rows: stored rows.
        events: events that the rows stand for.
    """

    value: str | None
    is_other: bool
    rows: int
    events: float


@dataclass(frozen=True)
class Bar:
    """The events from ``start`` to before ``end``; ``groups`` is empty if no field was asked for."""

    start: datetime
    end: datetime
    rows: int
    events: float
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Histogram:
    """An answer of `histogram`.

    Attributes:
        bars: side by side from the start of the range to its end.
        step: length of a bar; the first and the last bar may be cut by the range.
        searched: the part of the range that was counted. Bars before it have 0.
        is_complete: whether the whole range was counted; else the time was over.
        seconds: how long it took.
    """

    bars: tuple[Bar, ...]
    step: timedelta
    searched: Span
    is_complete: bool
    seconds: float

    @property
    def rows(self) -> int:
        """Stored rows that match, in the part of the range that was counted."""
        return sum(bar.rows for bar in self.bars)

    @property
    def events(self) -> float:
        """Events that the rows stand for."""
        return sum(bar.events for bar in self.bars)


def histogram(
    connection: Connection,
    selection: Selection,
    *,
    step: timedelta | Literal["auto"] = "auto",
    by: str | None = None,
    most_groups: int = MOST_GROUPS,
    tz: str = "UTC",
    deadline_s: float = 10.0,
) -> Histogram:
    """Count the events that match, a bar for each step of time.

    Args:
        connection: in autocommit mode.
        selection: the events to count.
        step: length of a bar; ``auto`` gives at most `AUTO_BARS` bars.
        by: a field; each bar is divided into its most frequent values.
        most_groups: values of that field that are counted by themselves, at most.
        tz: name of a time zone; bars begin at its full hours and days.
        deadline_s: seconds after which the count ends.

    Raises:
        ConfigurationError: the step gives too many bars, or the zone is not known.
        QueryValueError: a numeric column is compared with a text.
    """
    if step == "auto":
        step = auto_step(selection.span)
    starts = starts_of_bars(selection.span, step, tz)
    bars = _Bars(starts, step, by, most_groups)
    return _counted(connection, selection, bars, deadline_s)


def count(
    connection: Connection,
    selection: Selection,
    *,
    deadline_s: float = 10.0,
) -> Histogram:
    """How many events match: a histogram with a single bar; arguments as for `histogram`."""
    span = selection.span
    bars = _Bars([span.start], span.end - span.start, None)
    return _counted(connection, selection, bars, deadline_s)


@dataclass(frozen=True)
class _Bars:
    """The bars that are asked for: their starts, their length, the field that divides them and into how many."""

    starts: Sequence[datetime]
    step: timedelta
    by: str | None
    most_groups: int = MOST_GROUPS


def _counted(
    connection: Connection,
    selection: Selection,
    asked: _Bars,
    deadline_s: float,
) -> Histogram:
    began = time.monotonic()
    with snapshot(connection):
        # A third of the time, at most, is spent to find the values to count.
        grouping = grouping_by(
            connection,
            selection,
            asked.by,
            limit=asked.most_groups,
            deadline_s=deadline_s / 3,
        )
        slots = Slots(asked.starts, TALLY, grouping)
        counted = count_slots(connection, selection, slots, ends_at=began + deadline_s)
    # Values are ranked over the whole range: a group means the same value in each bar.
    counts = _most_frequent(counted.figures, asked.most_groups)
    ends = [*asked.starts[1:], selection.span.end]
    bars = [
        _bar(Span(start, end), counts, slot, has_groups=asked.by is not None)
        for slot, (start, end) in enumerate(zip(asked.starts, ends, strict=True))
    ]
    is_complete = counted.searched == selection.span
    seconds = time.monotonic() - began
    return Histogram(tuple(bars), asked.step, counted.searched, is_complete, seconds)


def grouping_by(
    connection: Connection,
    selection: Selection,
    by: str | None,
    *,
    limit: int = MOST_GROUPS,
    deadline_s: float,
) -> Grouping:
    """How rows are divided by the values of a field, of which ``limit`` are found; None for no division."""
    if by is None:
        return ALL_TOGETHER
    column = by_column(by)
    if column.columns and column.columns <= FEW_VALUES:
        return column
    # A field such as trace_id has millions of values: only the most frequent are counted.
    (top,) = facets(connection, selection, [by], limit=limit, deadline_s=deadline_s)
    return by_values(by, [found.value for found in top.values if found.value is not None])


_Counts: TypeAlias = Mapping[tuple[int, Value], Tally]
"""(number of a bar from 0, value) → tally."""


def _most_frequent(counts: _Counts, limit: int) -> _Counts:
    """Counts with all values but the most frequent together."""
    totals: dict[Value, Tally] = {}
    for (_, value), tally in counts.items():
        totals[value] = totals.get(value, Tally()).plus(*tally)
    ranked = sorted(totals, key=lambda value: (-totals[value].rows, value.text or ""))
    kept = set(ranked[:limit])
    folded: dict[tuple[int, Value], Tally] = {}
    for (slot, value), tally in counts.items():
        key = (slot, value if value in kept else OTHER)
        folded[key] = folded.get(key, Tally()).plus(*tally)
    return folded


def _bar(
    span: Span,
    counts: _Counts,
    slot: int,
    *,
    has_groups: bool,
) -> Bar:
    tallies = {value: tally for (at, value), tally in counts.items() if at == slot}
    total = Tally(
        sum(tally.rows for tally in tallies.values()),
        sum(tally.events for tally in tallies.values()),
    )
    groups = [Group(*value, *tally) for value, tally in tallies.items()] if has_groups else []
    # The same order in each bar, whichever values are frequent in it.
    groups.sort(key=lambda group: (group.is_other, group.value is None, group.value or ""))
    return Bar(span.start, span.end, *total, tuple(groups))


# -- edges of bars -----------------------------------------------------------------------------------------------------


def auto_step(span: Span) -> timedelta:
    """The smallest of `STEPS` that gives at most `AUTO_BARS` bars, or the largest step."""
    least = (span.end - span.start) / AUTO_BARS
    return next((step for step in STEPS if step >= least), STEPS[-1])


def starts_of_bars(span: Span, step: timedelta, tz: str) -> list[datetime]:
    """Starts of the bars of a range, UTC; the first is the start of the range.

    Bars of days begin at midnight in the zone, so that a day may have 23 or 25 hours; bars of weeks
    begin on Mondays. Shorter bars are counted from the midnight before the range.

    Raises:
        ConfigurationError: the step gives too many bars, or the zone is not known.
    """
    # Checked before the list of starts is made: it could fill the memory.
    if step <= timedelta(0) or (span.end - span.start) / step > MOST_BARS:
        raise ConfigurationError(
            f"steps of {step} divide the range into more than {MOST_BARS:,} bars: "
            "choose a longer step or a shorter range"
        )
    zone = _zone(tz)
    local_day = span.start.astimezone(zone).date()
    if step % _ONE_DAY:
        # So that bars of six hours begin at 0, 6, 12 and 18 of the zone, wherever the range begins.
        first = _midnight(local_day, zone)
        first += (span.start - first) // step * step
        grid = [first]
        while grid[-1] + step < span.end:
            grid.append(grid[-1] + step)
    else:
        # Counted in days of the calendar: a day of the zone may have 23 or 25 hours.
        days = step // _ONE_DAY
        day = local_day.toordinal()
        day -= (day - _A_MONDAY) % days
        grid = []
        while not grid or _midnight(date.fromordinal(day), zone) < span.end:
            grid.append(_midnight(date.fromordinal(day), zone))
            day += days
    return [span.start, *grid[bisect_right(grid, span.start) :]]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time_of_day(0), zone).astimezone(UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"{name!r} is no name of a time zone: write for example Europe/Berlin"
        ) from None
