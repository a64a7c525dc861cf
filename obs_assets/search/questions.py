"""The list of events that match, and the parts that every question shares: snapshots and time limits.

Each question is a function over a connection. Each reads, and none writes.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, LiteralString, TypeAlias

import psycopg
from psycopg import Cursor, errors, sql
from psycopg.pq import TransactionStatus

from obs_assets.errors import ConfigurationError, TransientError
from obs_assets.search.language import EVERYTHING, And, Compare, Query
from obs_assets.search.postgres import condition
from obs_assets.search.rows import Column, place_of, text_for
from obs_assets.storage.postgres import Connection

Order: TypeAlias = Literal["newest", "oldest"]

FIRST_SLICE = timedelta(hours=1)
"""Length of the part of a range that is searched first. Behind a quick part, the next is longer.

A query that matches often needs the first parts only; a rare one is at the range's end after few steps.
"""

QUICK_PART_S = 0.1
"""A part that takes longer than this is followed by a part of the same length."""

GROWTH = 4
"""Behind a quick part, the next is this many times as long."""

SLOW_PART_S = 1.0
"""A part that takes longer than this is followed by a part of half the length.

A part that the time limit stops has found nothing, so that long parts would waste the time.
"""

KEPT_PLAN_FROM = timedelta(days=7)
"""Length of a range from which on the server keeps the plan of a trace.

To plan over the partitions of months takes ten times as long as to look into their indexes. A kept
plan is for any range: it locks all partitions, and reads those of the range.
"""

LEAST_STATEMENT_S = 0.05
"""With less time left than this, no further part is searched."""

_DIRECTIONS: dict[Order, sql.SQL] = {"newest": sql.SQL("DESC"), "oldest": sql.SQL("ASC")}
_SIGNS: dict[Order, LiteralString] = {"newest": "<", "oldest": ">"}
"""How a row behind another row compares with it."""

EARLIEST = datetime(11, 1, 1, tzinfo=UTC)
LATEST = datetime(9990, 1, 1, tzinfo=UTC)
"""Ends of the time that can be asked about. Neighbours and steps around them are times too: Python has the years
1 to 9999."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID = re.compile(r"(-?[0-9]{1,18})-([0-9a-f]*)")

EVENT_COLUMNS = sql.SQL(
    "timestamp, row_uid, event_id, event_type, event_level, source_name, master_type, worker_type, "
    "worker_id, trace_id, session_id, error, duration_ms, trim_scale(cost_usd)::text, weight, data::text"
)
"""SQL of the columns of a `FoundEvent`, in the order of its attributes.

A single text: to put it together from its names takes longer than to find an event.
"""


@dataclass(frozen=True)
class Span:
    """A range of time.

    Attributes:
        start: the first moment, UTC.
        end: the first moment behind the range, UTC.
    """

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Position:
    """A row's place in the order of a search. Rows at the same microsecond are ordered by `row_uid`."""

    timestamp: datetime
    row_uid: str

    @property
    def id(self) -> str:
        """The position as text: microseconds since 1970, a dash and the `row_uid`.

        It is the public identity of an event too: it carries the time, so that finding the event
        reads a single leaf of the table.
        """
        return f"{(self.timestamp - _EPOCH) // timedelta(microseconds=1)}-{self.row_uid}"

    @classmethod
    def of_id(cls, text: str) -> "Position":
        """The position of an `id`.

        Raises:
            ConfigurationError: the text is no id.
        """
        written = _ID.fullmatch(text)
        # 18 digits of microseconds are within the years of a datetime's arithmetic, but for the last ones.
        at = timedelta(microseconds=int(written[1])) if written else None
        if written and at is not None and EARLIEST - _EPOCH <= at <= LATEST - _EPOCH:
            return cls(_EPOCH + at, written[2])
        raise ConfigurationError(f"{text!r} is no id of an event: copy one from the answer")


@dataclass(frozen=True)
class FoundEvent:
    """A row of the table of events.

    Attributes:
        timestamp: when it happened, UTC, microseconds.
        row_uid: identity of the row; the same after a rebuild.
        duration_ms: milliseconds.
        cost_usd: US dollars, as a decimal number in text.
        weight: how many events the row stands for.
        data: the whole event, as JSON text; numbers have the digits that the table stores.
    """

    timestamp: datetime
    row_uid: str
    event_id: str | None
    event_type: str
    event_level: str | None
    source_name: str | None
    master_type: str | None
    worker_type: str | None
    worker_id: str | None
    trace_id: str | None
    session_id: str | None
    error: str | None
    duration_ms: int | None
    cost_usd: str | None
    weight: float
    data: str

    @property
    def id(self) -> str:
        """The event's public identity, see `Position.id`."""
        return Position(self.timestamp, self.row_uid).id

    def to_json(self) -> str:
        """The event as a JSON object on one line: its columns, and the event itself below ``data``."""
        columns = {"id": self.id} | asdict(self) | {"timestamp": self.timestamp.isoformat()}
        del columns["data"]  # its text is passed on as it is, so that no number loses a digit
        return f'{json.dumps(columns, ensure_ascii=False)[:-1]}, "data": {self.data}}}'


@dataclass(frozen=True)
class Found:
    """An answer of `list_events`.

    Attributes:
        events: the rows that match, in the order that was asked for.
        searched: the part of the range that was searched to its end, or to the last event of the answer.
        is_complete: whether the answer has all that its limit allows; else the time was over.
        next: the position to go on from; None at the end of the range.
        seconds: how long the search took.
    """

    events: tuple[FoundEvent, ...]
    searched: Span
    is_complete: bool
    next: Position | None
    seconds: float

    @property
    def estimated_events(self) -> float:
        """How many events the rows stand for."""
        return sum(event.weight for event in self.events)


@dataclass(frozen=True)
class FoundRows:
    """An answer of `find_rows`; see `Found`.

    Attributes:
        rows: each with its time and its `row_uid` first, then the columns that were asked for.
    """

    rows: tuple[tuple[Any, ...], ...]
    searched: Span
    is_complete: bool
    next: Position | None
    seconds: float


@dataclass(frozen=True)
class Context:
    """An event and its neighbours in time.

    Attributes:
        event: the event.
        before: events before it, the nearest first.
        after: events behind it, the nearest first.
        searched: the range in which neighbours were looked for.
        is_complete: False if the time was over before all neighbours were found.
    """

    event: FoundEvent
    before: tuple[FoundEvent, ...]
    after: tuple[FoundEvent, ...]
    searched: Span
    is_complete: bool


def last_day(connection: Connection, table: sql.Identifier) -> Span | None:
    """The 24 hours up to the newest stored event; None for an empty table."""
    ask = sql.SQL("SELECT max(timestamp) FROM {}").format(table)
    ((newest,),) = connection.execute(ask).fetchall()
    if newest is None:
        return None
    end = newest.astimezone(UTC) + timedelta(microseconds=1)
    return Span(end - timedelta(days=1), end)


def list_events(
    connection: Connection,
    table: sql.Identifier,
    query: Query,
    span: Span,
    *,
    order: Order = "newest",
    limit: int = 100,
    after: Position | None = None,
    deadline_s: float = 10.0,
) -> Found:
    """Events that match, part by part of the range, until the limit, the range or the time ends.

    All parts see the same state of the table. A search that takes too long gives the events that it
    found until then, and the position from which it goes on.

    Args:
        connection: in autocommit mode.
        table: the table of events.
        query: see `language.parse`.
        span: the range of time.
        order: by time and `row_uid`, newest or oldest first.
        limit: rows of the answer, at most.
        after: go on behind this row, see `Found.next`.
        deadline_s: seconds after which the search ends.

    Raises:
        QueryValueError: a numeric column is compared with a text.
        psycopg.Error: the server's errors, but for the end of the time.
    """
    found = find_rows(
        connection,
        table,
        [EVENT_COLUMNS],
        query,
        span,
        order=order,
        limit=limit,
        after=after,
        deadline_s=deadline_s,
    )
    # The first two columns are those that `find_rows` adds.
    events = tuple(FoundEvent(*row[2:]) for row in found.rows)
    return Found(events, found.searched, found.is_complete, found.next, found.seconds)


def find_event(
    connection: Connection,
    table: sql.Identifier,
    position: Position,
    *,
    deadline_s: float = 10.0,
) -> FoundEvent | None:
    """The event at a position, see `Position.of_id`; None if the table has no such event now.

    Raises:
        TransientError: the time was over before the event was found.
    """
    at = Span(position.timestamp, position.timestamp + timedelta(microseconds=1))
    query = Compare("row_uid", "=", position.row_uid)
    found = list_events(connection, table, query, at, limit=1, deadline_s=deadline_s)
    if not found.is_complete:
        raise TransientError(f"the event was not found within {deadline_s:g} s: try again")
    return next(iter(found.events), None)


def context_of(
    connection: Connection,
    table: sql.Identifier,
    position: Position,
    *,
    same: Literal["trace_id", "session_id", "worker_id"] | None = None,
    before: int = 20,
    after: int = 20,
    reach: timedelta = timedelta(days=7),
    deadline_s: float = 10.0,
) -> Context | None:
    """An event with its neighbours in time, all from the same state of the table.

    Args:
        connection: in autocommit mode.
        table: the table of events.
        position: the event, see `Position.of_id`.
        same: neighbours have the same value of this column as the event; None for all events.
        before: neighbours before the event, at most.
        after: neighbours behind the event, at most.
        reach: how far before and behind the event neighbours are looked for.
        deadline_s: seconds after which the search ends.

    Returns:
        None if the table has no such event now.

    Raises:
        ConfigurationError: the event has no value in the column ``same``.
        TransientError: the time was over before the event itself was found.
    """
    ends_at = time.monotonic() + deadline_s
    with snapshot(connection):
        event = find_event(connection, table, position, deadline_s=deadline_s)
        if event is None:
            return None
        query = _like(event, same)
        searched = Span(position.timestamp - reach, position.timestamp + reach)

        def neighbours(order: Order, limit: int) -> Found:
            return list_events(
                connection,
                table,
                query,
                searched,
                order=order,
                limit=limit,
                after=position,
                deadline_s=ends_at - time.monotonic(),
            )

        earlier = neighbours("newest", before)
        later = neighbours("oldest", after)
    is_complete = earlier.is_complete and later.is_complete
    return Context(event, earlier.events, later.events, searched, is_complete)


def _like(event: FoundEvent, same: str | None) -> Query:
    """The query of the events with the same value in a column."""
    if same is None:
        return EVERYTHING
    value = getattr(event, same)
    if value is None:
        raise ConfigurationError(f"the event has no {same}: ask for its neighbours in time")
    return Compare(same, "=", value)


# -- shared by the questions -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def snapshot(
    connection: Connection,
    *,
    role: str | None = None,
    timeout_s: float | None = None,
) -> Iterator[None]:
    """Within the block, all questions see the same state of the tables, although hours are replaced meanwhile.

    Inside another such block it changes nothing: the outer block's role and state hold.

    Args:
        connection: in autocommit mode.
        role: role whose rights the statements have; None leaves the connection's own.
        timeout_s: seconds after which the server ends a statement; None leaves the server's own.
    """
    if connection.info.transaction_status != TransactionStatus.IDLE:
        yield
        return
    # With LOCAL, nothing is left on the connection, also behind a pooler that shares it.
    begin: list[sql.Composable] = [sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")]
    if role is not None:
        begin.append(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    if timeout_s is not None:
        # 0 would mean no limit.
        begin.append(_time_limit(max(timeout_s, 0.001)))
    try:
        together(connection, begin)
        yield
    except BaseException:
        # The connection may be lost: then there is nothing to take back.
        with contextlib.suppress(psycopg.Error):
            connection.rollback()
        raise
    connection.commit()


def together(connection: Connection, statements: Sequence[sql.Composable]) -> Cursor[Any]:
    """Statements in a single message; the cursor has the result of each. An error ends them.

    Each message takes longer than a statement that the server answers from an index.
    """
    # Several statements cannot be prepared together.
    return connection.execute(sql.SQL("; ").join(statements), prepare=False)


def _time_limit(seconds: float) -> sql.Composed:
    milliseconds = sql.Literal(int(seconds * 1000))
    return sql.SQL("SET LOCAL statement_timeout = {}").format(milliseconds)


def find_rows(
    connection: Connection,
    table: sql.Identifier,
    columns: Sequence[sql.Composable],
    query: Query,
    span: Span,
    *,
    order: Order = "newest",
    limit: int = 100,
    after: Position | None = None,
    deadline_s: float = 10.0,
) -> FoundRows:
    """Columns of the rows that match; arguments as for `list_events`.

    Args:
        columns: SQL of the columns.
    """
    began = time.monotonic()
    condition(query)  # a mistake in it is found before the first statement
    search = _Search(table, columns, query, order, after)
    rest = _rest(span, after, order)
    found: list[tuple[Any, ...]] = []
    reached = after or _behind(rest, order)
    is_complete = True
    first = _first_part(query, rest)
    with _state_for(connection, first, rest):
        for part in parts(rest, order, first=first):
            left_s = began + deadline_s - time.monotonic()
            # A row more than the limit says that there are more.
            rows = search.rows(connection, part, limit + 1 - len(found), left_s)
            if rows is None:
                is_complete = False
                break
            found += rows
            if len(found) > limit:
                break
            reached = _behind(part, order, is_searched=True)
    answer = tuple(found[:limit])
    has_more = len(found) > limit
    if has_more and answer:
        timestamp, row_uid = answer[-1][:2]
        reached = Position(timestamp, row_uid)
    return FoundRows(
        answer,
        _searched(rest, reached, order),
        is_complete,
        reached if has_more or not is_complete else None,
        time.monotonic() - began,
    )


def _state_for(
    connection: Connection, first: timedelta, rest: Span
) -> contextlib.AbstractContextManager[None]:
    """The state of the tables that all parts of a range see; ``first`` is the length of the first part."""
    # A single statement sees a single state by itself, in one message instead of three.
    if first >= rest.end - rest.start:
        return contextlib.nullcontext()
    return snapshot(connection)


def _rest(span: Span, after: Position | None, order: Order) -> Span:
    """The range that is left behind a position; the position's own microsecond is in it."""
    if after is None:
        return span
    # Other rows can have the same microsecond: it is searched again.
    if order == "newest":
        return Span(span.start, min(span.end, after.timestamp + timedelta(microseconds=1)))
    return Span(max(span.start, after.timestamp), span.end)


def _first_part(query: Query, rest: Span) -> timedelta:
    """Length of the first part: the whole range, if an index finds the few rows that match."""
    terms = query.terms if isinstance(query, And) else (query,)
    is_of_trace = any(_trace_of(term) is not None for term in terms)
    return rest.end - rest.start if is_of_trace else FIRST_SLICE


def _trace_of(query: Query) -> str | None:
    """The value of a query ``trace:VALUE``; None for any other query."""
    if isinstance(query, Compare) and query.operator == "=":
        place = place_of(query.field)
        if place == Column("trace_id"):
            return text_for(place, query.value)
    return None


def parts(rest: Span, order: Order, *, first: timedelta = FIRST_SLICE) -> Iterator[Span]:
    """The range in parts, in the order of the search; see `FIRST_SLICE`, `QUICK_PART_S`, `SLOW_PART_S`."""
    length = first
    start, end = rest.start, rest.end
    while start < end:
        began = time.monotonic()
        if order == "newest":
            edge = end - min(length, end - start)
            yield Span(edge, end)
            end = edge
        else:
            edge = start + min(length, end - start)
            yield Span(start, edge)
            start = edge
        # The caller has searched the part in the meantime.
        seconds = time.monotonic() - began
        if seconds < QUICK_PART_S:
            length *= GROWTH
        elif seconds > SLOW_PART_S:
            length = max(FIRST_SLICE, length / 2)


def _behind(part: Span, order: Order, *, is_searched: bool = False) -> Position:
    """The position before a part that is to be searched, or behind a part that is searched.

    No row has an empty `row_uid`, so that the position lies between two microseconds.
    """
    goes_up = order == "oldest"
    return Position(part.end if goes_up == is_searched else part.start, "")


def _searched(rest: Span, reached: Position, order: Order) -> Span:
    if order == "newest":
        return Span(reached.timestamp, rest.end)
    return Span(rest.start, reached.timestamp)


def rows_within(
    connection: Connection,
    select: sql.Composable,
    seconds: float,
    *,
    prepare: sql.Composable | None = None,
) -> list[tuple[Any, ...]] | None:
    """Rows of a statement; None if it takes longer.

    Args:
        connection: in a `snapshot`, or in autocommit mode.
        select: the statement.
        seconds: how long it may take.
        prepare: PREPARE of the statement that ``select`` executes.
    """
    if seconds < LEAST_STATEMENT_S:
        return None
    is_alone = connection.info.transaction_status == TransactionStatus.IDLE
    # Statements of one message are a transaction of their own.
    before: list[sql.Composable] = [_time_limit(seconds)]
    behind: list[sql.Composable] = []
    if not is_alone:
        # A statement that is stopped must not end the whole transaction.
        before.insert(0, sql.SQL("SAVEPOINT part"))
        behind.append(sql.SQL("RELEASE SAVEPOINT part"))
    if prepare is not None:
        before.append(sql.SQL("SET LOCAL plan_cache_mode = force_generic_plan"))
    try:
        return _rows(connection, before, select, behind)
    except errors.QueryCanceled:
        _undo(connection)
        return None
    except errors.InvalidSqlStatementName:
        if prepare is None:
            raise
        # Only now, since behind a pooler only the server knows its prepared statements.
        _undo(connection)
        return _rows(connection, [*before, prepare], select, behind)


def _undo(connection: Connection) -> None:
    """Go back to before a statement that failed, if a transaction is open."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        undo = sql.SQL("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
        connection.execute(undo, prepare=False)


def _rows(
    connection: Connection,
    before: Sequence[sql.Composable],
    select: sql.Composable,
    behind: Sequence[sql.Composable],
) -> list[tuple[Any, ...]]:
    with together(connection, [*before, select, *behind]) as cursor:
        cursor.set_result(len(before))
        return cursor.fetchall()


@dataclass(frozen=True)
class _Search:
    """The statements of a search: one for each part of the range."""

    table: sql.Identifier
    columns: Sequence[sql.Composable]
    query: Query
    order: Order
    after: Position | None

    def rows(
        self, connection: Connection, part: Span, limit: int, seconds: float
    ) -> list[tuple[Any, ...]] | None:
        """The rows of a part, see `rows_within`."""
        trace = _trace_of(self.query)
        is_long = part.end - part.start >= KEPT_PLAN_FROM
        if trace is not None and self.after is None and is_long:
            return self._rows_of_trace(connection, part, trace, limit, seconds)
        # Literals, not parameters: the plan is then for the partitions of the part alone.
        values = map(sql.Literal, (part.start, part.end, limit))
        select = self._select(*values, matching=condition(self.query))
        return rows_within(connection, select, seconds)

    def _rows_of_trace(
        self, connection: Connection, part: Span, trace: str, limit: int, seconds: float
    ) -> list[tuple[Any, ...]] | None:
        """The rows of a trace, by a plan that the server keeps."""
        # The limit is a literal: with a limit that it does not know, the planner expects thousands
        # of rows and walks along the times.
        places = (sql.SQL("$1"), sql.SQL("$2"), sql.Literal(limit))
        body = self._select(*places, matching=sql.SQL("trace_id = $3"))
        # The name says the statement: a statement of this name is this statement.
        digest = hashlib.sha256(body.as_bytes(connection)).hexdigest()
        name = sql.Identifier(f"obs_{digest[:32]}")
        types = sql.SQL("timestamptz, timestamptz, text")
        prepare = sql.SQL("PREPARE {} ({}) AS {}").format(name, types, body)
        values = map(sql.Literal, (part.start, part.end, trace))
        execute = sql.SQL("EXECUTE {} ({})").format(name, sql.SQL(", ").join(values))
        return rows_within(connection, execute, seconds, prepare=prepare)

    def _select(
        self,
        start: sql.Composable,
        end: sql.Composable,
        limit: sql.Composable,
        *,
        matching: sql.Composable,
    ) -> sql.Composed:
        """SQL of a part. The bounds of time stand by themselves: PostgreSQL then reads the part's leaves only."""
        direction = _DIRECTIONS[self.order]
        return sql.SQL(
            "SELECT timestamp, row_uid, {columns} FROM {table} WHERE timestamp >= {start} AND timestamp < {end} "
            "AND {behind} AND {matching} "
            'ORDER BY timestamp {direction}, row_uid COLLATE "C" {direction} LIMIT {limit}'
        ).format(
            columns=sql.SQL(", ").join(self.columns),
            table=self.table,
            start=start,
            end=end,
            behind=self._is_behind(),
            matching=matching,
            direction=direction,
            limit=limit,
        )

    def _is_behind(self) -> sql.Composable:
        if self.after is None:
            return sql.SQL("true")
        sign = _SIGNS[self.order]
        form = sql.SQL(f'(timestamp {sign} {{}} OR row_uid COLLATE "C" {sign} {{}})')
        return form.format(sql.Literal(self.after.timestamp), sql.Literal(self.after.row_uid))
