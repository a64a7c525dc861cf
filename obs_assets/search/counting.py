"""Counts and figures of the events that match, over slots of time and values of a field.

Whole hours are read from a table of statistics, if query and field need its columns only and no slot
begins inside an hour. All other rows are read from the table of events, the newest first, until the
time is over.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from psycopg import sql

from obs_assets.hours import ONE_HOUR, floor_to_hour
from obs_assets.search.figures import FIGURES, Figures
from obs_assets.search.language import Compare, Exists, Query, fields_of, has_text, negated
from obs_assets.search.postgres import condition
from obs_assets.search.questions import Span, parts, rows_within
from obs_assets.search.rows import ALIASES, Column, place_of
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

COLUMNS_OF_STATISTICS = ("event_type", "event_level", "master_type")
"""Columns of the table of events that the table of statistics has too."""

COLUMNS_OF_WORKERS = ("worker_id",)
"""Columns of the table of events that the table of statistics by worker has too."""


class Value(NamedTuple):
    """A value of a field.

    Attributes:
        text: the value as a query writes it; None for events without the field.
        is_other: whether it stands for all values that are not counted by themselves.
    """

    text: str | None
    is_other: bool = False


OTHER = Value(None, is_other=True)


class Tally(NamedTuple):
    """Stored rows, and the events that they stand for."""

    rows: int = 0
    events: float = 0.0

    def plus(self, rows: int, events: float) -> "Tally":
        """This tally and further rows."""
        return Tally(self.rows + rows, self.events + events)


class Addable(Protocol):
    """Figures that can be added to each other."""

    def plus(self, *values: Any) -> Self:
        """These figures and those of further rows, as the columns of a `Measure`."""
        ...


T = TypeVar("T", bound=Addable)


@dataclass(frozen=True)
class Measure(Generic[T]):
    """What is counted.

    Attributes:
        of_rows: SQL of the columns, from the table of events.
        of_hours: SQL of the same columns, from a table of statistics.
        nothing: the figures of no event.
    """

    of_rows: sql.SQL
    of_hours: sql.SQL
    nothing: T


TALLY = Measure(
    sql.SQL("count(*), coalesce(sum(weight), 0)"),
    # The sum of bigint is a numeric, which takes longer.
    sql.SQL("sum(rows::float8)::bigint, sum(events)"),
    Tally(),
)

ALL_FIGURES = Measure(
    sql.SQL(", ".join(figure.of_rows for figure in FIGURES.values())),
    sql.SQL(", ".join(figure.of_hours for figure in FIGURES.values())),
    Figures(),
)


@dataclass(frozen=True)
class Grouping:
    """How rows are divided by the values of a field.

    Attributes:
        text: SQL of the value's text.
        is_other: SQL that is true for values that are counted together.
        columns: columns that both read; None if they read the event itself.
    """

    text: sql.Composable
    is_other: sql.Composable
    columns: frozenset[str] | None


ALL_TOGETHER = Grouping(sql.SQL("NULL"), sql.SQL("false"), frozenset())


def by_column(name: str) -> Grouping:
    """Divide by each value of a column or its short name."""
    column = ALIASES.get(name, name)
    return Grouping(sql.Identifier(column), sql.SQL("false"), frozenset([column]))


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
    # A row that matches no value and has the field belongs to the values that are counted together.
    known = sql.SQL(" OR ").join([*(matches for matches, _ in named), absent])
    return Grouping(text, sql.SQL("(({}) IS NOT TRUE)").format(known), columns_of(Exists(name)))


def columns_of(query: Query) -> frozenset[str] | None:
    """The columns that decide about a query; None if it reads the event itself, too."""
    if has_text(query):
        return None
    places = list(map(place_of, fields_of(query)))
    # A path reads the event itself, so it is no column of a table of statistics.
    columns = frozenset(place.name for place in places if isinstance(place, Column))
    return columns if len(columns) == len(set(places)) else None


@dataclass(frozen=True)
class Slots(Generic[T]):
    """The counts that are asked for.

    Attributes:
        starts: starts of the slots of time, in their order; the first is the start of the range.
        measure: the figures of each slot and value.
        grouping: how each slot is divided.
    """

    starts: Sequence[datetime]
    measure: Measure[T]
    grouping: Grouping = ALL_TOGETHER


@dataclass(frozen=True)
class Counted(Generic[T]):
    """An answer of `count_slots`.

    Attributes:
        figures: (number of a slot from 0, value) → figures; absent where there is no event.
        searched: the part of the range that was counted.
    """

    figures: Mapping[tuple[int, Value], T]
    searched: Span


def count_slots(
    connection: Connection,
    selection: Selection,
    slots: Slots[T],
    *,
    ends_at: float,
) -> Counted[T]:
    """Count the events that match, in each slot, for each value.

    Args:
        connection: in a `questions.snapshot`.
        selection: the events to count.
        slots: the counts that are asked for.
        ends_at: the moment of `time.monotonic` at which the count ends.
    """
    figures: dict[tuple[int, Value], T] = {}
    span = selection.span
    reached = span.end
    for source, segment in _segments(selection, slots):
        for part in source.parts(segment):
            select = _select(selection.query, slots, source, part)
            # A part after the other, the newest first: when the time is over, the newest bars are complete.
            rows = rows_within(connection, select, ends_at - time.monotonic())
            if rows is None:
                return Counted(figures, Span(reached, span.end))
            for slot, text, is_other, *values in rows:
                # `width_bucket` of SQL counts from 1.
                key = (slot - 1, OTHER if is_other else Value(text))
                figures[key] = figures.get(key, slots.measure.nothing).plus(*values)
            reached = part.start
    return Counted(figures, span)


@dataclass(frozen=True)
class _Source:
    """A table to count in.

    Attributes:
        table: its name.
        time: its column of time.
        figures: SQL of the figures of a group.
        is_sliced: whether it is read part by part.
    """

    table: sql.Identifier
    time: sql.Identifier
    figures: sql.SQL
    is_sliced: bool

    def parts(self, span: Span) -> Iterator[Span]:
        """A range of the table in parts, the newest first."""
        if self.is_sliced:
            yield from parts(span, "newest")
        else:
            yield span


def _segments(selection: Selection, slots: Slots[T]) -> Iterator[tuple[_Source, Span]]:
    """The range in parts by the table that answers for it, the newest first."""
    span = selection.span
    events = _Source(
        selection.tables.events, sql.Identifier("timestamp"), slots.measure.of_rows, True
    )
    table = hourly_table(selection, slots.grouping)
    hours = whole_hours(span)
    begin_with_hours = all(floor_to_hour(start) == start for start in slots.starts[1:])
    # Statistics are stored by hour: a bar that begins within an hour needs the events.
    if table is None or not begin_with_hours or hours.start == hours.end:
        yield events, span
        return
    hourly = _Source(table, sql.Identifier("hour"), slots.measure.of_hours, False)
    segments = [
        # The hours at both ends are not whole, so that their events are counted themselves.
        (events, Span(hours.end, span.end)),
        (hourly, hours),
        (events, Span(span.start, hours.start)),
    ]
    yield from ((source, part) for source, part in segments if part.start < part.end)


def hourly_table(
    selection: Selection, grouping: Grouping = ALL_TOGETHER
) -> sql.Identifier | None:
    """The table of statistics that has all columns of query and grouping; None if none has."""
    asked = columns_of(selection.query)
    if asked is None or grouping.columns is None:
        return None
    needed = asked | grouping.columns
    if needed <= frozenset(COLUMNS_OF_STATISTICS):
        return selection.tables.statistics
    if needed <= frozenset(COLUMNS_OF_WORKERS):
        return selection.tables.workers
    return None


def whole_hours(span: Span) -> Span:
    """The hours that lie inside a range; an empty range at its start if there is none."""
    start = floor_to_hour(span.start)
    if start < span.start:
        start += ONE_HOUR
    end = floor_to_hour(span.end)
    return Span(start, end) if start < end else Span(span.start, span.start)


def _select(query: Query, slots: Slots[T], source: _Source, part: Span) -> sql.Composed:
    slot: sql.Composable = sql.SQL("1")
    if len(slots.starts) > 1:
        slot = sql.SQL("width_bucket({}, {})").format(
            source.time, sql.Literal(list(slots.starts))
        )
    # Literals, not parameters: a generic plan of a prepared statement would read all leaves.
    return sql.SQL(
        "SELECT {slot} AS slot, {text}::text AS value, "
        "{is_other} AS is_other, {figures} FROM {table} "
        "WHERE {time} >= {start} AND {time} < {end} AND {matching} GROUP BY 1, 2, 3"
    ).format(
        slot=slot,
        time=source.time,
        text=slots.grouping.text,
        is_other=slots.grouping.is_other,
        figures=source.figures,
        table=source.table,
        start=sql.Literal(part.start),
        end=sql.Literal(part.end),
        matching=condition(query),
    )
