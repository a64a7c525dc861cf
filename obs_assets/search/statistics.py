"""Weighted counts, durations and costs of the events that match, by a field and by steps of time.

Over whole hours no event is read, if query and field are columns of a table of statistics. A step below
an hour, or a query for text or paths, reads events, within the time limit.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from obs_assets.search.counting import ALL_FIGURES, Slots, by_column, count_slots, hourly_table
from obs_assets.search.figures import Figures
from obs_assets.search.histogram import grouping_by, starts_of_bars
from obs_assets.search.questions import Span, snapshot
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection


@dataclass(frozen=True)
class Statistic:
    """The figures for a slot of time and a value of a field.

    Attributes:
        start: start of the slot; without a step, start of the range.
        end: end of the slot; without a step, end of the range.
        value: the value of the field; None for events without it, or if no field was asked for.
        is_other: whether these are the figures of all values that have no figures of their own.
        figures: weighted counts, durations and costs.
    """

    start: datetime
    end: datetime
    value: str | None
    is_other: bool
    figures: Figures


@dataclass(frozen=True)
class Statistics:
    """An answer of `statistics_of`.

    Attributes:
        statistics: in the order of time, then those with most events first; none without an event.
        searched: the part of the range that was counted.
        is_complete: whether the whole range was counted; else the time was over.
        seconds: how long it took.
    """

    statistics: tuple[Statistic, ...]
    searched: Span
    is_complete: bool
    seconds: float

    @property
    def total(self) -> Figures:
        """The figures of all events."""
        total = Figures()
        for statistic in self.statistics:
            total = total.plus(*vars(statistic.figures).values())
        return total


def statistics_of(
    connection: Connection,
    selection: Selection,
    *,
    by: str | None = None,
    step: timedelta | None = None,
    tz: str = "UTC",
    deadline_s: float = 10.0,
) -> Statistics:
    """Figures of the events that match.

    Args:
        connection: in autocommit mode.
        selection: the events to count.
        by: a field; type, level, master and worker give each value, other fields the most frequent.
        step: length of the slots of time; None counts the whole range together.
        tz: name of a time zone; slots begin at its full hours and days.
        deadline_s: seconds after which the count ends.

    Raises:
        ConfigurationError: the step gives too many slots, or the zone is not known.
        QueryValueError: a numeric column is compared with a text.
    """
    began = time.monotonic()
    span = selection.span
    starts = starts_of_bars(span, step, tz) if step else [span.start]
    ends = [*starts[1:], span.end]
    with snapshot(connection):
        if by and hourly_table(selection, by_column(by)):
            grouping = by_column(by)
        else:
            grouping = grouping_by(connection, selection, by, deadline_s=deadline_s / 3)
        slots = Slots(starts, ALL_FIGURES, grouping)
        counted = count_slots(connection, selection, slots, ends_at=began + deadline_s)
    found = [
        Statistic(starts[slot], ends[slot], *value, figures)
        for (slot, value), figures in counted.figures.items()
    ]
    found.sort(key=lambda one: (one.start, -one.figures.events, one.value or ""))
    is_complete = counted.searched == span
    return Statistics(tuple(found), counted.searched, is_complete, time.monotonic() - began)
