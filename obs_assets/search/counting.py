"""Counts of the events that match, over slots of time and values of a field.

Whole hours are read from the table of statistics, if query and field need its columns only and no slot
begins inside an hour. All other rows are read from the table of events, the newest first, until the
time is over.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias

from psycopg import sql

from obs_assets.hours import ONE_HOUR, floor_to_hour
from obs_assets.search.language import Compare, Exists, Query, fields_of, has_text, negated
from obs_assets.search.postgres import condition
from obs_assets.search.questions import Span, parts, rows_within
from obs_assets.search.rows import ALIASES, Column, place_of
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

COLUMNS_OF_STATISTICS = ("event_type", "event_level", "master_type")
"""Columns of the table of events that the table of statistics has too."""


class Value(NamedTuple):
    """A value of a field.

    Attributes:
        text: the value as a query writes it; None for events without the field.
        is_other: whether it stands for all values that are not counted by themselves.
    """

    text: str | None
    is_other: bool = False


NO_FIELD = Value(None)
"""The only value if no field is asked for."""

OTHER = Value(None, is_other=True)


class Tally(NamedTuple):
    """Stored rows, and the events that they stand for."""

    rows: int = 0
    events: float = 0.0

    def plus(self, rows: int, events: float) -> "Tally":
        """This tally and further rows."""
        return Tally(self.rows + rows, self.events + events)


@dataclass(frozen=True)
class Grouping:
    """How rows are divided by the values of a field.

    Attributes:
        text: SQL of the value's text.
        is_other: SQL that is true for values that are counted together.
        column: the column that `text` is; None for a path, and if no field is asked for.
    """

    text: sql.Composable
    is_other: sql.Composable
    column: str | None = None


ALL_TOGETHER = Grouping(sql.SQL("NULL"), sql.SQL("false"))


def is_in_statistics(field_name: str) -> bool:
    """Whether the table of statistics has the column that a field means."""
    place = place_of(field_name)
    return isinstance(place, Column) and place.name in COLUMNS_OF_STATISTICS


def by_column(name: str) -> Grouping:
    """Divide by each value of a column of `COLUMNS_OF_STATISTICS`."""
    column = ALIASES.get(name, name)
    return Grouping(sql.Identifier(column), sql.SQL("false"), column)


def by_values(name: str, values: Sequence[str]) -> Grouping:
    """Divide by values of any field: a row belongs to the first value that it matches."""
    # The language decides what equals a value, so that a filter by the value finds the same rows.
    named = [(condition(Compare(name, "=", value)), value) for value in values]
    absent = condition(negated(Exists(name)))
    branches = [
        sql.SQL("WHEN {} THEN {}").format(matches, sql.Literal(value))
        for matches, value in named
    ]
    text = sql.SQL("CASE {} ELSE NULL END").format(
        sql.SQL(" ").join([*branches, sql.SQL("WHEN {} THEN NULL").format(absent)])
    )
    known = sql.SQL(" OR ").join([*(matches for matches, _ in named), absent])
    return Grouping(text, sql.SQL("NOT ({})").format(known))


Counts: TypeAlias = dict[tuple[int, Value], Tally]
"""(number of a slot from 0, value) → tally."""


@dataclass(frozen=True)
class Counted:
    """An answer of `count_slots`.

    Attributes:
        counts: slots and values without an event are absent.
        searched: the part of the range that was counted.
    """

    counts: Counts
    searched: Span


@dataclass(frozen=True)
class _Source:
    """A table to count in.

    Attributes:
        table: its name.
        time: its column of time.
        rows: SQL of the number of rows in a group.
        events: SQL of the number of events in a group.
        is_sliced: whether it is read part by part.
    """

    table: sql.Identifier
    time: sql.Identifier
    rows: sql.SQL
    events: sql.SQL
    is_sliced: bool

    def parts(self, span: Span) -> Iterator[Span]:
        """A range of the table in parts, the newest first."""
        if self.is_sliced:
            yield from parts(span, "newest")
        else:
            yield span


def count_slots(
    connection: Connection,
    selection: Selection,
    *,
    starts: Sequence[datetime],
    grouping: Grouping = ALL_TOGETHER,
    ends_at: float,
) -> Counted:
    """Count the events that match, in each slot, for each value.

    Args:
        connection: in a `questions.snapshot`.
        selection: the events to count.
        starts: starts of the slots, in the order of time; the first is the start of the range.
        grouping: how each slot is divided.
        ends_at: the moment of `time.monotonic` at which the count ends.
    """
    counts: Counts = {}
    span = selection.span
    reached = span.end
    slots = _Slots(selection.query, starts, grouping)
    for source, segment in _segments(selection, slots):
        for part in source.parts(segment):
            select = slots.select(source, part)
            rows = rows_within(connection, select, ends_at - time.monotonic())
            if rows is None:
                return Counted(counts, Span(reached, span.end))
            for slot, text, is_other, stored, events in rows:
                key = (slot - 1, OTHER if is_other else Value(text))
                counts[key] = counts.get(key, Tally()).plus(stored, events)
            reached = part.start
    return Counted(counts, span)


def _segments(selection: Selection, slots: "_Slots") -> Iterator[tuple[_Source, Span]]:
    """The range in parts by the table that answers for it, the newest first."""
    tables, span = selection.tables, selection.span
    events = _Source(
        tables.events,
        sql.Identifier("timestamp"),
        sql.SQL("count(*)"),
        sql.SQL("sum(coalesce(weight, 1))"),
        is_sliced=True,
    )
    statistics = _Source(
        tables.statistics,
        sql.Identifier("hour"),
        sql.SQL("sum(rows)::bigint"),
        sql.SQL("sum(events)"),
        is_sliced=False,
    )
    hours = whole_hours(span)
    if not slots.are_in_statistics():
        hours = Span(span.start, span.start)
    segments = [
        (events, Span(hours.end, span.end)),
        (statistics, hours),
        (events, Span(span.start, hours.start)),
    ]
    yield from ((source, part) for source, part in segments if part.start < part.end)


def whole_hours(span: Span) -> Span:
    """The hours that lie inside a range; an empty range at its start if there is none."""
    start = floor_to_hour(span.start)
    if start < span.start:
        start += ONE_HOUR
    end = floor_to_hour(span.end)
    return Span(start, end) if start < end else Span(span.start, span.start)


@dataclass(frozen=True)
class _Slots:
    """The counts that are asked for, see `count_slots`."""

    query: Query
    starts: Sequence[datetime]
    grouping: Grouping

    def are_in_statistics(self) -> bool:
        """Whether the table of statistics can answer for whole hours."""
        if has_text(self.query) or not all(map(is_in_statistics, fields_of(self.query))):
            return False
        if self.grouping is not ALL_TOGETHER and self.grouping.column is None:
            return False
        return all(floor_to_hour(start) == start for start in self.starts[1:])

    def select(self, source: _Source, part: Span) -> sql.Composed:
        """SQL of a part of the range."""
        # Literals, not parameters: a generic plan of a prepared statement would read all leaves.
        return sql.SQL(
            "SELECT width_bucket({time}, {starts}) AS slot, {text}::text AS value, "
            "{is_other} AS is_other, {rows}, {events} FROM {table} "
            "WHERE {time} >= {start} AND {time} < {end} AND {matching} GROUP BY 1, 2, 3"
        ).format(
            time=source.time,
            starts=sql.Literal(list(self.starts)),
            text=self.grouping.text,
            is_other=self.grouping.is_other,
            rows=source.rows,
            events=source.events,
            table=source.table,
            start=sql.Literal(part.start),
            end=sql.Literal(part.end),
            matching=condition(self.query),
        )
