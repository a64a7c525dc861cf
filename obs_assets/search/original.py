"""Questions of the dashboard whose paths `obs serve` keeps: pages by number, summaries, top lists.

Counts and sums are weighted: they count the events that the stored rows stand for. Totals of pages
are rows. Summaries read the table of statistics; only the hours that a range cuts are read from the
table of events.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, LiteralString, TypeAlias

from psycopg import sql

from obs_assets.errors import ObsError
from obs_assets.hours import ONE_HOUR, floor_to_hour
from obs_assets.search.counting import ALL_TOGETHER, hourly_table
from obs_assets.search.figures import Figures
from obs_assets.search.language import (
    EVERYTHING,
    Compare,
    Exists,
    Query,
    all_of,
    any_of,
    negated,
)
from obs_assets.search.postgres import condition
from obs_assets.search.questions import Order, Span, parts, rows_within, snapshot
from obs_assets.search.rows import storable
from obs_assets.search.selection import Selection, Tables
from obs_assets.search.statistics import statistics_of
from obs_assets.storage.postgres import Connection

SortColumn: TypeAlias = Literal[
    "timestamp", "event_type", "event_level", "duration_ms", "cost_usd"
]
Interval: TypeAlias = Literal["minute", "hour", "day"]
GroupBy: TypeAlias = Literal["master", "type", "level", "worker"]

COLUMNS: tuple[LiteralString, ...] = (
    "event_id",
    "event_type",
    "event_level",
    "timestamp",
    "source_name",
    "master_type",
    "worker_type",
    "error",
    "duration_ms",
    "cost_usd",
    "created_at",
)
"""Columns of an event of these paths; keys of the event itself with these names are left out."""

NO_LEVEL = "info"
"""Level that these paths show for an event without a level."""

DEEPEST_ROW = 10_000
"""Last row that a page can have. Behind it, cursors of ``/api/v1/events`` go on."""

COUNTED_ROWS = 100_000
"""Rows up to which a total is counted; a larger total is an estimate."""

COUNT_S = 2.0
"""Seconds for a total; then it is an estimate."""

TOP = 50
"""Entries of a list of types or costs."""

STEPS: Mapping[Interval, timedelta] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}

TIMELINE_RANGES: Mapping[Interval, timedelta] = {
    "minute": timedelta(days=1),
    "hour": timedelta(days=30),
    "day": timedelta(days=1_000),
}
"""Range of a timeline without times, up to the newest event."""


class TooWideError(ObsError):
    """The question would read more rows than it may, or it took too long."""


# -- which events ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filters:
    """The events of a list; None asks for nothing.

    Attributes:
        type: value of ``event_type``.
        level: name of a level; `NO_LEVEL` finds events without a level too.
        master: value of ``master_type``.
        worker: value of ``worker_type`` or of ``worker_id``.
        has_error: whether ``error`` has a text.
    """

    type: str | None = None
    level: str | None = None
    master: str | None = None
    worker: str | None = None
    has_error: bool | None = None

    def query(self) -> Query:
        """The filters as a query."""
        terms: list[Query] = []
        if self.type is not None:
            terms.append(Compare("event_type", "=", self.type))
        if self.level is not None:
            terms.append(_of_level(self.level))
        if self.master is not None:
            terms.append(Compare("master_type", "=", self.master))
        if self.worker is not None:
            by_type = Compare("worker_type", "=", self.worker)
            terms.append(any_of([by_type, Compare("worker_id", "=", self.worker)]))
        if self.has_error is not None:
            has_text = Exists("error")
            terms.append(has_text if self.has_error else negated(has_text))
        return all_of(terms)


def _of_level(level: str) -> Query:
    found = Compare("event_level", "=", level)
    if level.lower() != NO_LEVEL:
        return found
    return any_of([found, negated(Exists("event_level"))])


def holding(text: str) -> sql.Composable:
    """SQL: an event's type, error or JSON text holds a text, in any case."""
    # `strpos` reads % and _ as they are.
    wanted = sql.SQL("lower({})").format(sql.Literal(storable(text)))
    searched = [sql.SQL("event_type"), sql.SQL("error"), sql.SQL("data::text")]
    found = [
        sql.SQL("coalesce(strpos(lower({}), {}) > 0, false)").format(column, wanted)
        for column in searched
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(found))


def whole_span(connection: Connection, tables: Tables) -> Span | None:
    """The hours from the oldest to the newest stored event; None for an empty table."""
    ask = sql.SQL("SELECT min(timestamp), max(timestamp) FROM {}").format(tables.events)
    ((oldest, newest),) = connection.execute(ask).fetchall()
    if oldest is None:
        return None
    # Whole hours, so that statistics answer without reading an event.
    start, end = floor_to_hour(oldest.astimezone(UTC)), floor_to_hour(newest.astimezone(UTC))
    return Span(start, end + ONE_HOUR)


def span_between(
    connection: Connection, tables: Tables, since: datetime | None, until: datetime | None
) -> Span | None:
    """The range from ``since`` to before ``until``; a side that is None is open. None: it has no event."""
    whole = whole_span(connection, tables)
    if whole is None:
        return None
    start = whole.start if since is None else max(since, whole.start)
    end = whole.end if until is None else min(until, whole.end)
    return Span(start, end) if start < end else None


# -- pages of events -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """An event of a list.

    Attributes:
        timestamp: when it happened, UTC.
        row_uid: identity of its row.
        columns: name → value, for `COLUMNS`.
        rest: the event's other keys, as JSON text of an object.
    """

    timestamp: datetime
    row_uid: str
    columns: Mapping[str, Any]
    rest: str


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        events: its events.
        total: rows of the whole list.
        is_estimate: whether the total is an estimate.
    """

    events: tuple[Listed, ...] = ()
    total: int = 0
    is_estimate: bool = False


@dataclass(frozen=True)
class Sorting:
    """Order of a list; rows with the same value are ordered by time and `row_uid`, so that no page repeats a row."""

    column: SortColumn = "timestamp"
    order: Order = "newest"

    def terms(self) -> sql.SQL:
        """SQL behind ORDER BY."""
        direction = "DESC" if self.order == "newest" else "ASC"
        first = (
            ""
            if self.column == "timestamp"
            else f"{_sorted(self.column)} {direction} NULLS LAST, "
        )
        return sql.SQL(f'{first}timestamp {direction}, row_uid COLLATE "C" {direction}')


def _sorted(column: SortColumn) -> str:
    """SQL of the value that a column is sorted by: texts by code points, as in every database."""
    if column == "event_level":
        return f"coalesce(event_level, '{NO_LEVEL}') COLLATE \"C\""
    if column == "event_type":
        return 'event_type COLLATE "C"'
    return column


def page_of(
    connection: Connection,
    tables: Tables,
    span: Span,
    where: Query | sql.Composable,
    sorting: Sorting,
    *,
    page: int,
    limit: int,
    deadline_s: float,
) -> Page:
    """A page of the events that match.

    Args:
        connection: in autocommit mode.
        tables: where the events are.
        span: the range of time.
        where: a query, or SQL as `holding` makes it.
        sorting: order of the list.
        page: number of the page, from 1.
        limit: events of a page.
        deadline_s: seconds after which the search ends.

    Raises:
        TooWideError: the page lies behind `DEEPEST_ROW`, or the time was over.
    """
    ends_at = time.monotonic() + deadline_s
    skipped = (page - 1) * limit
    if skipped + limit > DEEPEST_ROW:
        raise TooWideError(
            f"a page ends at row {DEEPEST_ROW:,} at most: name a narrower range, or go on with the "
            "cursors of /api/v1/events"
        )
    matching = where if isinstance(where, sql.Composable) else condition(where)
    with snapshot(connection):
        search = _Search(tables, matching, sorting, ends_at)
        keys = search.keys(connection, span, skipped + limit)
        events = _events(connection, tables, keys[skipped:])
        # A list that ends on this page has as many rows as were found.
        if len(keys) < skipped + limit:
            return Page(events, len(keys))
        total, is_estimate = _total(connection, tables, span, where, matching)
    return Page(events, total, is_estimate)


@dataclass(frozen=True)
class _Search:
    """A list of rows: which, in which order, and the moment of `time.monotonic` at which the search ends."""

    tables: Tables
    matching: sql.Composable
    sorting: Sorting
    ends_at: float

    def keys(
        self, connection: Connection, span: Span, limit: int
    ) -> list[tuple[datetime, str]]:
        """Time and `row_uid` of the first rows of the list.

        Raises:
            TooWideError: the time was over.
        """
        # By time, the newest part alone often has the page; any other order needs the whole range.
        by_time = self.sorting.column == "timestamp"
        pieces = parts(span, self.sorting.order) if by_time else [span]
        found: list[tuple[datetime, str]] = []
        for part in pieces:
            select = self._select(part, limit - len(found))
            rows = rows_within(connection, select, self.ends_at - time.monotonic())
            if rows is None:
                raise TooWideError(
                    "the search took too long: name a narrower range with startTime and endTime, "
                    "or search part by part with /api/v1/events"
                )
            found += [(moment, uid) for moment, uid in rows]
            if len(found) >= limit:
                break
        return found

    def _select(self, part: Span, limit: int) -> sql.Composed:
        form = sql.SQL("SELECT timestamp, row_uid FROM {} WHERE {} AND {} ORDER BY {} LIMIT {}")
        order = self.sorting.terms()
        return form.format(
            self.tables.events, _within(part), self.matching, order, sql.Literal(limit)
        )


def _within(span: Span) -> sql.Composed:
    bounds = sql.SQL("timestamp >= {} AND timestamp < {}")
    return bounds.format(sql.Literal(span.start), sql.Literal(span.end))


def _events(
    connection: Connection, tables: Tables, keys: Sequence[tuple[datetime, str]]
) -> tuple[Listed, ...]:
    """The whole rows of keys, in the order of the keys."""
    if not keys:
        return ()
    times = sorted({moment for moment, _ in keys})
    select = sql.SQL(
        "SELECT row_uid, {columns}, (data - {names}::text[])::text FROM {table} "
        "WHERE timestamp = ANY({times}) AND timestamp >= {first} AND timestamp <= {last} "
        "AND row_uid = ANY({uids})"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
        names=sql.Literal([*COLUMNS, "id"]),
        table=tables.events,
        times=sql.Literal(times),
        first=sql.Literal(times[0]),
        last=sql.Literal(times[-1]),
        uids=sql.Literal([uid for _, uid in keys]),
    )
    found = {}
    for uid, *values, rest in connection.execute(select).fetchall():
        columns = dict(zip(COLUMNS, values, strict=True))
        columns["event_level"] = columns["event_level"] or NO_LEVEL
        moment = columns["timestamp"].astimezone(UTC)
        found[moment, uid] = Listed(moment, uid, columns, rest)
    wanted = [(moment.astimezone(UTC), uid) for moment, uid in keys]
    return tuple(found[key] for key in wanted if key in found)


def listed_event(
    connection: Connection, tables: Tables, moment: datetime, uid: str
) -> Listed | None:
    """The event of a time and a `row_uid`."""
    with snapshot(connection):
        return next(iter(_events(connection, tables, [(moment, uid)])), None)


def listed_by_number(
    connection: Connection, tables: Tables, number: int, *, deadline_s: float
) -> Listed | None:
    """The event whose column ``id`` is a number. No index has it: the whole table may be read.

    Raises:
        TooWideError: the time was over.
    """
    ends_at = time.monotonic() + deadline_s
    with snapshot(connection):
        span = whole_span(connection, tables)
        if span is None:
            return None
        matching = sql.SQL("id = {}").format(sql.Literal(number))
        search = _Search(tables, matching, Sorting(), ends_at)
        keys = search.keys(connection, span, 1)
        return next(iter(_events(connection, tables, keys)), None)


def _total(
    connection: Connection,
    tables: Tables,
    span: Span,
    where: Query | sql.Composable,
    matching: sql.Composable,
) -> tuple[int, bool]:
    """Rows of the range that match, and whether that is an estimate."""
    ends_at = time.monotonic() + COUNT_S
    if not isinstance(where, sql.Composable):
        selection = Selection(tables, where, span)
        if hourly_table(selection, ALL_TOGETHER):
            counted = statistics_of(connection, selection, deadline_s=COUNT_S)
            if counted.is_complete:
                return counted.total.rows, False
    found, reached = 0, span.end
    for part in parts(span, "newest"):
        select = sql.SQL(
            "SELECT count(*) FROM (SELECT FROM {} WHERE {} AND {} LIMIT {}) AS counted"
        ).format(tables.events, _within(part), matching, sql.Literal(COUNTED_ROWS + 1 - found))
        rows = rows_within(connection, select, ends_at - time.monotonic())
        if rows is None:
            break
        found += rows[0][0]
        reached = part.start
        if found > COUNTED_ROWS:
            break
    else:
        return found, False
    # As many in the rest of the range, by its stored rows, as in the part that was counted.
    counted_rows = _stored_rows(connection, tables, Span(reached, span.end))
    share = counted_rows / max(1, _stored_rows(connection, tables, span))
    return max(found, round(found / share)) if share else found, True


def _stored_rows(connection: Connection, tables: Tables, span: Span) -> int:
    """Rows of a range by the table of statistics; an hour at its start counts whole."""
    ask = sql.SQL(
        "SELECT coalesce(sum(rows), 0)::bigint FROM {} WHERE hour >= {} AND hour < {}"
    )
    bounds = [sql.Literal(floor_to_hour(span.start)), sql.Literal(span.end)]
    ((rows,),) = connection.execute(ask.format(tables.statistics, *bounds)).fetchall()
    return int(rows)


# -- summaries -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """The figures of the events with a value, for example of a master; None: events without it."""

    key: str | None
    figures: Figures


@dataclass(frozen=True)
class Overview:
    """The figures of a range.

    Attributes:
        figures: of all its events.
        types: number of different types.
        by_level: level → events; `NO_LEVEL` has the events without a level too.
    """

    figures: Figures
    types: int
    by_level: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """The figures of all times, of the last day and of the last hour.

    Attributes:
        masters: number of different masters in the last day.
    """

    all: Figures
    day: Figures
    hour: Figures
    masters: int


@dataclass(frozen=True)
class Slot:
    """The figures of a minute, an hour or a day from ``start`` on."""

    start: datetime
    figures: Figures


def overview(
    connection: Connection, tables: Tables, span: Span | None, *, deadline_s: float
) -> Overview:
    """The figures of a range.

    Raises:
        TooWideError: the time was over.
    """
    levels = entries(connection, tables, span, "level", deadline_s=deadline_s)
    types = entries(connection, tables, span, "type", deadline_s=deadline_s)
    by_level = {entry.key or NO_LEVEL: entry.figures.events for entry in levels}
    return Overview(_sum(levels), len(types), by_level)


def summary(
    connection: Connection, tables: Tables, now: datetime, *, deadline_s: float
) -> Summary:
    """The figures of all times, of the last day and of the last hour.

    Raises:
        TooWideError: the time was over.
    """

    def since(length: timedelta | None) -> list[Entry]:
        start = None if length is None else now - length
        end = None if length is None else now
        span = span_between(connection, tables, start, end)
        return entries(connection, tables, span, "master", deadline_s=deadline_s)

    whole, day, hour = since(None), since(timedelta(days=1)), since(timedelta(hours=1))
    masters = sum(entry.key is not None for entry in day)
    return Summary(_sum(whole), _sum(day), _sum(hour), masters)


def entries(
    connection: Connection,
    tables: Tables,
    span: Span | None,
    group_by: Literal["master", "type", "level"],
    *,
    deadline_s: float,
) -> list[Entry]:
    """The figures of a range by a column, most events first; None has no event.

    Events without a level count as `NO_LEVEL`.

    Raises:
        TooWideError: the time was over.
    """
    if span is None:
        return []
    selection = Selection(tables, EVERYTHING, span)
    found = statistics_of(connection, selection, by=group_by, deadline_s=deadline_s)
    if not found.is_complete:
        raise TooWideError("the count took too long: name a narrower range")
    by_key: dict[str | None, Figures] = {}
    for one in found.statistics:
        key = one.value
        if group_by == "level":
            key = key or NO_LEVEL
        by_key[key] = by_key.get(key, Figures()).plus(*vars(one.figures).values())
    listed = [Entry(key, figures) for key, figures in by_key.items()]
    return sorted(listed, key=lambda entry: (-entry.figures.events, entry.key or ""))


def costs(
    connection: Connection,
    tables: Tables,
    span: Span | None,
    group_by: GroupBy,
    *,
    deadline_s: float,
) -> list[Entry]:
    """The figures of the events with a cost, by a column, the most expensive first.

    Raises:
        TooWideError: the time was over.
    """
    if span is None:
        return []
    if group_by == "worker":
        found = _costs_by_worker(connection, tables, span, deadline_s)
    else:
        found = entries(connection, tables, span, group_by, deadline_s=deadline_s)
    with_cost = [entry for entry in found if entry.figures.cost_usd is not None]
    with_cost.sort(key=lambda entry: (-(entry.figures.cost_usd or 0), entry.key or ""))
    return with_cost[:TOP]


def _costs_by_worker(
    connection: Connection, tables: Tables, span: Span, deadline_s: float
) -> list[Entry]:
    """Costs by ``worker_type``, else ``worker_id``: no table of statistics has the first."""
    select = sql.SQL(
        "SELECT coalesce(worker_type, worker_id), count(*), sum(weight), sum(weight * cost_usd::float8) "
        "FROM {} WHERE {} AND cost_usd IS NOT NULL GROUP BY 1"
    ).format(tables.events, _within(span))
    rows = rows_within(connection, select, deadline_s)
    if rows is None:
        raise TooWideError("the count took too long: name a narrower range")
    return [
        Entry(key, Figures(rows=stored, events=events, with_cost=events, cost_usd=cost))
        for key, stored, events, cost in rows
    ]


MOST_SLOTS = 10_000
"""Slots of a timeline, at most."""

_SLOTS_AT_ONCE = 1_000
"""Slots that are counted by a statement."""


def timeline(
    connection: Connection,
    tables: Tables,
    span: Span | None,
    interval: Interval,
    *,
    deadline_s: float,
) -> list[Slot]:
    """The figures of each minute, hour or day (UTC) of a range that has an event, the oldest first.

    Raises:
        TooWideError: there are too many slots, or the time was over.
    """
    if span is None:
        return []
    step = STEPS[interval]
    if (span.end - span.start) / step > MOST_SLOTS:
        raise TooWideError(
            f"the range has more than {MOST_SLOTS:,} slots: name a narrower range or a longer interval"
        )
    ends_at = time.monotonic() + deadline_s
    found: list[Slot] = []
    for part in _pieces(span, step * _SLOTS_AT_ONCE):
        counted = statistics_of(
            connection,
            Selection(tables, EVERYTHING, part),
            step=step,
            deadline_s=ends_at - time.monotonic(),
        )
        if not counted.is_complete:
            raise TooWideError("the count took too long: name a narrower range")
        found += [Slot(_floor(one.start, step), one.figures) for one in counted.statistics]
    return found


def _pieces(span: Span, length: timedelta) -> Iterable[Span]:
    """A range in pieces that begin at full steps, except the first."""
    start = span.start
    while start < span.end:
        end = min(span.end, _floor(start, length) + length)
        yield Span(start, end)
        start = end


def _floor(moment: datetime, step: timedelta) -> datetime:
    since = moment - _EPOCH
    return moment - since % step


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timeline_span(
    connection: Connection,
    tables: Tables,
    interval: Interval,
    since: datetime | None,
    until: datetime | None,
) -> Span | None:
    """The range of a timeline; without a start, the newest `TIMELINE_RANGES`."""
    span = span_between(connection, tables, since, until)
    if span is None or since is not None:
        return span
    # Without a start, a bar for each minute of years would be millions of bars.
    return Span(max(span.start, span.end - TIMELINE_RANGES[interval]), span.end)


def _sum(listed: Iterable[Entry]) -> Figures:
    total = Figures()
    for entry in listed:
        total = total.plus(*vars(entry.figures).values())
    return total
