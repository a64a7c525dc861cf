"""Stored events as they arrive: which hours were loaded since the last look, and their new rows.

An hour is loaded in a transaction, so that all rows of a load have the same ``created_at``; a load that
replaces an hour keeps the rows that are the same, with their ``created_at``. The new rows of an hour
are therefore those with a ``created_at`` that was not seen before. Transactions do not commit in the
order of their times, so that a mark "all up to this time are seen" would lose rows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg import sql

from obs_assets.errors import ObsError
from obs_assets.hours import ONE_HOUR, floor_to_hour
from obs_assets.search.language import Query
from obs_assets.search.postgres import condition
from obs_assets.search.questions import EVENT_COLUMNS, FoundEvent, Position
from obs_assets.search.selection import Tables
from obs_assets.storage.postgres import Connection

LONGEST_LOAD = timedelta(minutes=30)
"""A load takes no longer: the server would end its statements. See `storage.postgres.begin`."""

SEEDED = timedelta(hours=2)
"""Hours that were loaded so long before the first look have their rows noted as seen."""

_MARK = re.compile(r"(-?[0-9]{1,12})\.([0-9]{1,18})\.(-?[0-9]{1,18})\.([0-9a-f]{1,64})")


@dataclass(frozen=True)
class Mark:
    """The place of a row in a stream, which a client gives to go on behind it.

    Attributes:
        hour: start of the row's hour, UTC.
        generation: landing generation of the hour when the row was sent.
        position: the row.
    """

    hour: datetime
    generation: int
    position: Position

    @property
    def id(self) -> str:
        """The mark as text: ``<hour>.<generation>.<µs>.<row_uid>``, hour and µs since 1970."""
        # Hours instead of seconds: the mark stands in front of each message.
        hours = int(self.hour.timestamp()) // 3600
        microseconds, _, row_uid = self.position.id.rpartition("-")
        return f"{hours}.{self.generation}.{microseconds}.{row_uid}"

    @classmethod
    def of_id(cls, text: str) -> "Mark | None":
        """The mark of an id; None if the text is none."""
        written = _MARK.fullmatch(text)
        # The text comes from a client, and may be anything.
        if written is None:
            return None
        try:
            position = Position.of_id(f"{written[3]}-{written[4]}")
        except ObsError:
            return None
        hour = floor_to_hour(position.timestamp)
        # A row lies in its hour.
        if int(hour.timestamp()) // 3600 != int(written[1]):
            return None
        return cls(hour, int(written[2]), position)


@dataclass(frozen=True)
class Load:
    """An hour as the ledger has it.

    Attributes:
        hour: its start, UTC.
        generation: its landing generation.
        rows: its stored rows.
        loaded_at: when it was loaded.
    """

    hour: datetime
    generation: int
    rows: int
    loaded_at: datetime


@dataclass(frozen=True)
class Change:
    """An hour that was loaded, and the times of writing of its new rows.

    Attributes:
        load: the hour as the ledger has it now.
        is_replaced: whether the hour was stored before.
        written: values of ``created_at`` of the rows that are new; empty if rows only went away.
        after: only rows behind this position; None for all.
    """

    load: Load
    is_replaced: bool
    written: tuple[datetime, ...]
    after: Position | None = None


def loads(connection: Connection, tables: Tables) -> dict[datetime, Load]:
    """Start of an hour → the hour, for all stored hours."""
    rows = connection.execute(
        "SELECT hour, generation, rows, loaded_at FROM obs.hour_loads WHERE destination = %s",
        [tables.key],
    )
    found = [Load(hour.astimezone(UTC), *others) for hour, *others in rows.fetchall()]
    return {load.hour: load for load in found}


def written_times(
    connection: Connection, tables: Tables, hour: datetime, since: datetime
) -> set[datetime]:
    """The values of ``created_at`` of an hour's rows that are not before a time."""
    ask = sql.SQL("SELECT DISTINCT created_at FROM {} WHERE {} AND created_at >= {}").format(
        tables.events, _within(hour), sql.Literal(since)
    )
    return {moment.astimezone(UTC) for (moment,) in connection.execute(ask).fetchall()}


def _within(hour: datetime) -> sql.Composed:
    bounds = sql.SQL("timestamp >= {} AND timestamp < {}")
    return bounds.format(sql.Literal(hour), sql.Literal(hour + ONE_HOUR))


class Ledger:
    """The loads that were seen so far.

    Args:
        tables: the table that is followed.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._loads: dict[datetime, Load] | None = None
        self._since = datetime.now(UTC)
        self._seen: dict[datetime, set[datetime]] = {}

    def changes(self, connection: Connection) -> list[Change]:
        """The hours that were loaded since the last call, in the order of their loading; none the first time.

        Args:
            connection: in a `questions.snapshot`.
        """
        present = loads(connection, self._tables)
        # At the first look every hour is new to this process, but none is new to a client.
        if self._loads is None:
            self._since = datetime.now(UTC) - SEEDED
            for load in present.values():
                if load.loaded_at >= self._since:
                    self._seen[load.hour] = self._times(connection, load.hour)
            self._loads = present
            return []
        before, self._loads = self._loads, present
        changed = [load for hour, load in present.items() if before.get(hour) != load]
        # The ledger has no order, and clients expect the hours as they were loaded.
        changed.sort(key=lambda load: (load.loaded_at, load.hour))
        return [self._change(connection, load, load.hour in before) for load in changed]

    @property
    def newest(self) -> Load | None:
        """The newest hour that was stored at the last look."""
        if not self._loads:
            return None
        return self._loads[max(self._loads)]

    def _change(self, connection: Connection, load: Load, is_replaced: bool) -> Change:
        times = self._times(connection, load.hour)
        # A load that only removes rows has no new time of writing.
        new = times - self._seen.get(load.hour, set())
        self._seen[load.hour] = times
        return Change(load, is_replaced, tuple(sorted(new)))

    def _times(self, connection: Connection, hour: datetime) -> set[datetime]:
        return written_times(connection, self._tables, hour, self._since)


def changes_since(
    connection: Connection, tables: Tables, mark: Mark, announced: Sequence[Change]
) -> list[Change] | None:
    """The changes that a client has missed who has seen everything up to a mark.

    Args:
        connection: in a `questions.snapshot`.
        tables: the table that is followed.
        mark: the last row that the client has seen.
        announced: changes that were announced to all clients, the oldest first. They say which loads the
            client has seen. Without the mark's load among them, loads that may have been under way
            are given again: the client leaves out the rows that it has.

    Returns:
        None if the table no longer has the row of the mark.
    """
    position = mark.position
    ask = sql.SQL("SELECT created_at FROM {} WHERE timestamp = {} AND row_uid = {}")
    row = connection.execute(
        ask.format(
            tables.events, sql.Literal(position.timestamp), sql.Literal(position.row_uid)
        )
    ).fetchone()
    # The hour was replaced, or retention dropped it: the client must search anew.
    if row is None:
        return None
    written_at = row[0].astimezone(UTC)
    for number, change in enumerate(announced):
        if change.load.hour == mark.hour and written_at in change.written:
            rest = Change(change.load, change.is_replaced, change.written, position)
            return [rest, *announced[number + 1 :]]
    since = written_at - LONGEST_LOAD
    found = []
    for load in sorted(loads(connection, tables).values(), key=lambda load: load.loaded_at):
        if load.loaded_at < since:
            continue
        times = tuple(sorted(written_times(connection, tables, load.hour, since)))
        if times:
            found.append(Change(load, True, times))
    return found


def new_rows(
    connection: Connection,
    tables: Tables,
    query: Query,
    change: Change,
    *,
    after: Position | None,
    limit: int,
) -> tuple[FoundEvent, ...]:
    """New rows of a changed hour that match, the oldest first.

    Args:
        connection: in a `questions.snapshot`.
        tables: the table that is followed.
        query: see `language.parse`.
        change: the hour.
        after: only rows behind this position.
        limit: rows, at most.
    """
    if not change.written:
        return ()
    behind: sql.Composable = sql.SQL("true")
    if after is not None:
        form = sql.SQL('timestamp >= {0} AND (timestamp > {0} OR row_uid COLLATE "C" > {1})')
        behind = form.format(sql.Literal(after.timestamp), sql.Literal(after.row_uid))
    select = sql.SQL(
        "SELECT {columns} FROM {table} WHERE {within} AND created_at = ANY({written}) AND {behind} "
        'AND {matching} ORDER BY timestamp, row_uid COLLATE "C" LIMIT {limit}'
    ).format(
        columns=EVENT_COLUMNS,
        table=tables.events,
        within=_within(change.load.hour),
        written=sql.Literal(list(change.written)),
        behind=behind,
        matching=condition(query),
        limit=sql.Literal(limit),
    )
    return tuple(FoundEvent(*row) for row in connection.execute(select).fetchall())
