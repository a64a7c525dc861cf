"""PostgreSQL: an hour is replaced in one transaction, together with the ledger row that says what it is.

::

    public.events                 the events, partitioned by ``timestamp``
    ├── events_d20251204          leaves, made on demand: see `leaves`
    public.events_hourly          statistics, so that nobody needs to scan events for them
    public.receipts               what each stage did with an hour: a view
    obs.hour_loads                the ledger: a row for each hour that a table holds, and what it was built from

An hour whose leaf is there is replaced in it, by DELETE and COPY: the one way that never blocks a reader and lets each
see the old hour or the new, whatever its isolation level. Where the hour comes of the same recipe as what is held, as
after a late event, only the rows that differ are written. An hour without a leaf gets one that is filled and indexed
aside, then attached, which blocks nobody either, and takes a third of the WAL. The advisory lock keeps a second writer
of the hour out; the ledger's generation turns away a writer that has seen less.
"""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import LiteralString

import duckdb
import psycopg
import pyarrow as pa
from psycopg import errors, sql

from obs_assets.crash import crash_point
from obs_assets.destinations.base import Delivery, Holding, Offer
from obs_assets.destinations.postgres import leaves
from obs_assets.destinations.postgres.config import PostgresConfig, server_of
from obs_assets.destinations.postgres.leaves import Span
from obs_assets.destinations.postgres.rows import (
    BATCH_ROWS,
    COLUMNS_ON_SERVER,
    columns_of_row,
    copy_data,
    row_of,
    statistics_of,
    stored_event,
)
from obs_assets.destinations.postgres.table import STATISTICS, EventTable, patiently
from obs_assets.destinations.postgres.upkeep import Upkeep
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    ObsError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres import Connection, begin, lock, one, session, where

OLDEST_SERVER = 140000


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Health:
    """What there is of a table, for ``obs status``.

    Attributes:
        version: of the server.
        size_bytes: of the table with its indexes.
        lost_bytes: files of the database that belong to no table. A server that crashes in a load leaves them and never
            removes them; a dump and restore does.
        leaves, rows: how many, the rows by the ledger.
        oldest, newest: hours in the ledger.
        connections, max_connections: of the server.
        totals: over all time, by name.
    """

    version: str
    size_bytes: int
    lost_bytes: int
    leaves: int
    rows: int
    oldest: Hour | None
    newest: Hour | None
    connections: int
    max_connections: int
    totals: dict[str, int | str | None]

    def facts(self) -> dict[str, int | str | None]:
        """By name, to print."""
        return {
            "version": self.version,
            "rows": self.rows,
            "bytes": self.size_bytes,
            "lost_bytes": self.lost_bytes,
            "leaves": self.leaves,
            "oldest": str(self.oldest) if self.oldest else None,
            "newest": str(self.newest) if self.newest else None,
            "connections": f"{self.connections} of {self.max_connections}",
            **self.totals,
        }


class PostgresDestination:
    """Holds hours in a table.

    Args:
        config: which table, and what about it.
        settings: the server.
        busy_after_s: how long to wait for another writer of the same hour.
        clock: tells how old an hour is, which decides the size of a new leaf.
    """

    def __init__(
        self,
        config: PostgresConfig,
        settings: PostgresSettings,
        *,
        busy_after_s: float = 10.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.config = config
        self.server = server_of(config, settings)
        self.table = EventTable(config)
        self.key = self.table.key
        self.upkeep = Upkeep(self.table, config, self.server, busy_after_s=busy_after_s)
        self._busy_after_s = busy_after_s
        self._clock = clock

    def deliver(self, offer: Offer) -> Delivery:
        """Replace the hour's rows and its ledger row in one transaction; see `base.Destination.deliver`."""
        try:
            return self._deliver(offer)
        except (HourBusyError, StaleHourError, ConfigurationError):
            raise
        except ObsError:
            self._count_error()
            raise

    def _deliver(self, offer: Offer) -> Delivery:
        began = time.monotonic()
        with session(self.server) as connection:
            self._prepare(connection)
            self._lock(connection, offer.hour)
            held = self._ledger_row(connection, offer.hour, for_update=True)
            if held and held.version.generation > offer.version.generation:
                raise StaleHourError(
                    f"{self.key} holds generation {held.version.generation} of {offer.hour}, newer than the offered "
                    f"{offer.version.generation}: materialize the stages before it again"
                )
            if (
                held == _holding(offer)
                and not offer.rebuild
                and self._count(connection, offer.hour) == offer.rows
            ):
                return Delivery(written=0, already_there=offer.rows)
            sent = self._replace(connection, offer, held)
            self._write_statistics(connection, offer)
            self._write_ledger(connection, offer, sent)
            crash_point("postgres.before_commit")
            self._commit(connection, offer)
            crash_point("postgres.after_commit")
        seconds = time.monotonic() - began
        stats = {
            "total_events_written": sent.written,
            "total_batches_written": sent.batches,
            "seconds": round(seconds, 3),
            "rows_per_s": round(offer.rows / seconds),
        }
        same = offer.rows - sent.written
        return Delivery(
            written=sent.written, already_there=same, size_bytes=sent.size_bytes, stats=stats
        )

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """The ledger's row of an hour; with ``count`` also the rows of the table and the altered groups."""
        query = "SELECT count(*) FROM {table} WHERE timestamp >= {start} AND timestamp < {end}"
        with session(self.server) as connection:
            try:
                held = self._ledger_row(connection, hour)
                if held is None or not count:
                    return held
                rows = one(connection, self._of_hour(query, hour))[0]
                altered = one(connection, self._altered_groups(hour))[0]
            except errors.UndefinedTable:
                return None
        return replace(held, counted=rows, altered=altered)

    def _altered_groups(self, hour: Hour) -> sql.Composed:
        """A query: the number of groups (type, level, master) that differ from the statistics of the load."""
        words = {
            "table": self.table.name,
            "statistics": self.table.statistics,
            "start": sql.Literal(hour.start),
            "end": sql.Literal(hour.end),
        }
        return sql.SQL(_ALTERED_GROUPS).format(**words)

    def holdings(self) -> dict[Hour, Holding]:
        """The ledger's rows of the hours that still have a row in the table, or never had one."""
        # The subquery with its LIMIT is looked up hour by hour in one leaf's index; a join would scan the table
        query = """
            SELECT hour, generation, config_hash, code_version, rows, content_hash
            FROM obs.hour_loads AS load LEFT JOIN LATERAL (
                SELECT true AS found FROM {table}
                WHERE timestamp >= load.hour AND timestamp < load.hour + interval '1 hour' LIMIT 1) AS first ON true
            WHERE destination = {key} AND (rows = 0 OR found)"""
        with session(self.server) as connection:
            begin(connection, lock_timeout_s=5)
            try:
                rows = connection.execute(
                    sql.SQL(query).format(table=self.table.name, key=sql.Literal(self.key))
                ).fetchall()
            except errors.UndefinedTable:
                return {}
        return {Hour.of(row[0]): Holding(InputVersion(*row[1:4]), *row[4:]) for row in rows}

    def selected(self, frame: Frame) -> Frame:
        """All rows, events without the characters that ``jsonb`` cannot hold, and ``columns``."""
        return frame.project(
            f"* REPLACE ({stored_event('event')} AS event), {columns_of_row()} AS columns"
        )

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid``, ``event`` and ``columns`` of the rows, as a temporary table of ``connection``.

        ``event`` is ``data`` as the server prints it: compare canonical forms, with `stored_event` on the other side.
        """
        name = f"read_back_{self.key.replace('.', '_')}_{hour.stamp}"
        connection.execute(
            f'CREATE OR REPLACE TEMP TABLE "{name}" (row_uid VARCHAR, event VARCHAR, columns VARCHAR)'
        )
        query: LiteralString = (
            f"SELECT row_uid, data::text, {COLUMNS_ON_SERVER} FROM {{table}} "
            "WHERE timestamp >= {start} AND timestamp < {end}"
        )
        with (
            session(self.server) as server,
            contextlib.suppress(errors.UndefinedTable),
            server.cursor("read_back") as cursor,
        ):
            cursor.execute(self._of_hour(query, hour))
            while rows := cursor.fetchmany(BATCH_ROWS):
                row_uids, events, columns = zip(*rows, strict=True)
                texts = [row_uids, events, columns]
                arrays = [pa.array(text, pa.large_string()) for text in texts]
                batch = pa.table(arrays, ["row_uid", "event", "columns"])
                connection.from_arrow(batch).insert_into(name)
        return connection.table(name)

    def check(self) -> str:
        """One line that says which server, database and table were reached."""
        at, create = where(self.server), self.config.create_table_if_not_exists
        try:
            with session(self.server) as connection:
                version = one(connection, "SHOW server_version")[0]
                if connection.info.server_version < OLDEST_SERVER:
                    raise ConfigurationError(
                        f"PostgreSQL at {at} is version {version}: 14 is the oldest that will do"
                    )
                there = self.table.is_there(connection)
                if not create and not self.table.is_current(connection):
                    raise ConfigurationError(self.table.absent)
        except TransientError as error:
            raise ConfigurationError(str(error)) from None
        made = "" if there else " (to be made)"
        return f"PostgreSQL {version} at {at}, database {self.server.database}, table {self.key}{made}"

    # -- what is done besides loading ----------------------------------------------------------------------------------

    def init(self, *, reader: str | None = None) -> list[str]:
        """Make or migrate table and ledger, and a role that may read the events and nothing else; says what was done.

        Args:
            reader: the role's name; None for no role.
        """
        with session(self.server) as connection:
            begin(connection, lock_timeout_s=10)
            done = self.table.migrate(connection)
            if reader:
                done += self._make_reader(connection, reader)
            connection.commit()
        return done

    def _make_reader(self, connection: Connection, name: str) -> list[str]:
        role, done = sql.Identifier(name), []
        if not one(
            connection, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [name]
        )[0]:
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(role))
            done.append(
                f"Make the role {name}, which cannot log in yet: ALTER ROLE {name} LOGIN PASSWORD '…'."
            )
        for setting, value in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", "30s"),
        ):
            connection.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(
                    role, sql.SQL(setting), sql.Literal(value)
                )
            )
        schema = sql.Identifier(self.config.schema_name)
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
        readable = sql.SQL(", ").join(
            [self.table.name, self.table.statistics, self.table.receipts]
        )
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(readable, role))
        return [
            *done,
            f"Let {name} read {self.key}, {self.key}_hourly and {self.config.schema_name}.receipts.",
        ]

    def health(self) -> Health | None:
        """What there is of the table; None before it was made."""
        with session(self.server) as connection:
            if not self.table.is_current(connection):
                return None
            size = "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree(%s)"
            held = """
                SELECT min(hour), max(hour), coalesce(sum(rows), 0)::bigint
                FROM obs.hour_loads WHERE destination = %s"""
            oldest, newest, rows = one(connection, held, [self.key])
            written = """
                SELECT total_events_written, total_batches_written, total_errors, last_write_at FROM obs.totals
                WHERE destination = %s"""
            events, batches, failed, at = connection.execute(
                written, [self.key]
            ).fetchone() or (0, 0, 0, None)
            return Health(
                version=one(connection, "SHOW server_version")[0],
                size_bytes=one(connection, size, [self.table.name.as_string(connection)])[0],
                lost_bytes=max(0, one(connection, _LOST_BYTES)[0] - _NOT_TABLES_BYTES),
                leaves=len(self.table.leaves(connection)),
                rows=rows,
                oldest=Hour.of(oldest) if oldest else None,
                newest=Hour.of(newest) if newest else None,
                connections=one(
                    connection,
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type IS NOT NULL",
                )[0],
                max_connections=int(one(connection, "SHOW max_connections")[0]),
                totals={
                    "total_events_written": events,
                    "total_batches_written": batches,
                    "total_errors": failed,
                    "last_write_at": at.astimezone(UTC).isoformat(timespec="seconds")
                    if at
                    else None,
                },
            )

    # -- an hour, inside the transaction of `deliver` ------------------------------------------------------------------

    @patiently
    def _prepare(self, connection: Connection) -> None:
        """Make table and ledger where they are missing or of an older version, in a short transaction of its own."""
        with connection.transaction():
            begin(connection, lock_timeout_s=2)
            if self.table.is_current(connection):
                return
            if not self.config.create_table_if_not_exists:
                raise ConfigurationError(self.table.absent)
            self.table.migrate(connection)

    def _lock(self, connection: Connection, hour: Hour) -> None:
        """Begin the transaction and keep other writers of the hour out until its end."""
        begin(connection, lock_timeout_s=self._busy_after_s)
        try:
            lock(connection, f"{self.key} {hour}")
            lock(connection, self.table.leaves_lock(hour.start), shared=True)
        except errors.LockNotAvailable:
            raise HourBusyError(
                f"another run is writing {hour} to {self.key}: let it finish, then try again"
            ) from None

    def _ledger_row(
        self, connection: Connection, hour: Hour, *, for_update: bool = False
    ) -> Holding | None:
        query: LiteralString = """
            SELECT generation, config_hash, code_version, rows, content_hash FROM obs.hour_loads
            WHERE destination = %s AND hour = %s"""
        row = connection.execute(
            query + " FOR UPDATE" * for_update, [self.key, hour.start]
        ).fetchone()
        return Holding(InputVersion(*row[:3]), *row[3:]) if row else None

    def _count(self, connection: Connection, hour: Hour) -> int:
        query = self._of_hour(
            "SELECT count(*) FROM {table} WHERE timestamp >= {start} AND timestamp < {end}",
            hour,
        )
        return int(one(connection, query)[0])

    def _replace(self, connection: Connection, offer: Offer, held: Holding | None) -> "_Sent":
        """Put the offered rows in the place of the hour's."""
        leaf = self._leaf_of(connection, offer.hour)
        if leaf is None and offer.rows:
            leaf = self._only_maker(connection, offer.hour)
        if leaf is not None:
            name = self.table.leaf(leaf.suffix)
            alike = (
                held
                and held.rows
                and replace(held.version, generation=offer.version.generation) == offer.version
            )
            if alike and (sent := self._merge(connection, name, offer)):
                return sent
            self._delete(connection, name, offer.hour)
            return self._copy(connection, name, offer)
        if not offer.rows:
            return _Sent(0, 0, 0)
        span = leaves.new_leaf(
            offer.hour,
            offer.rows,
            self.table.leaves(connection),
            now=self._clock(),
            retention_days=self.config.retention_days,
        )
        aside = self.table.leaf(span.suffix)  # no other session sees it before the commit
        self.table.create_aside(connection, aside, span)
        if self.table.has_row_triggers(connection):
            self.table.attach(connection, aside, span)  # only an attached leaf fires them
            return self._copy(connection, aside, offer)
        sent = self._copy(connection, aside, offer)
        self.table.index_aside(connection, aside)
        crash_point("postgres.after_index")
        self.table.attach(connection, aside, span)
        return sent

    def _leaf_of(self, connection: Connection, hour: Hour) -> Span | None:
        return next((span for span in self.table.leaves(connection) if hour in span), None)

    def _only_maker(self, connection: Connection, hour: Hour) -> Span | None:
        """Become the only one who makes leaves of this month; the leaf that another has made meanwhile."""
        try:
            lock(connection, f"{self.key} new leaf {hour.start:%Y-%m}")
        except errors.LockNotAvailable:
            raise HourBusyError(
                f"another run is making the leaf of {hour} in {self.key}: try again"
            ) from None
        return self._leaf_of(connection, hour)

    def _delete(self, connection: Connection, leaf: sql.Identifier, hour: Hour) -> None:
        query: LiteralString = (
            "DELETE FROM {leaf} WHERE timestamp >= {start} AND timestamp < {end}"
        )
        connection.execute(
            sql.SQL(query).format(
                leaf=leaf, start=sql.Literal(hour.start), end=sql.Literal(hour.end)
            )
        )
        crash_point("postgres.after_delete")

    def _copy(self, connection: Connection, table: sql.Identifier, offer: Offer) -> "_Sent":
        columns = sql.SQL(", ").join(map(sql.Identifier, row_of(offer.hour)))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, columns)
        size = batches = 0
        with connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for text in copy_data(offer.frame, offer.hour):
                    copy.write(text)
                    size, batches = size + len(text), batches + 1
            crash_point("postgres.after_copy")
            if cursor.rowcount != offer.rows:
                raise PermanentError(
                    f"{offer.rows:,} rows of {offer.hour} were offered to {self.key}, and {cursor.rowcount:,} were "
                    "stored: either the frame has another number of rows, or a trigger on the table drops rows"
                )
            return _Sent(cursor.rowcount, size, batches)

    def _merge(
        self, connection: Connection, leaf: sql.Identifier, offer: Offer
    ) -> "_Sent | None":
        """Write only the rows that differ from those that are there: a late event costs its own row and no more WAL.

        None if that did not do, as when somebody has doubled a row by hand.
        """
        # Aside, without an index and without WAL; gone with the transaction
        aside = sql.Identifier("pg_temp", "offered")
        connection.execute(
            "SET LOCAL work_mem = '64MB'"
        )  # for the hash of the rows' identities
        names = [sql.Identifier(name) for name in row_of(offer.hour)]
        create = sql.SQL(
            "CREATE TEMPORARY TABLE offered ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
        )
        connection.execute(create.format(sql.SQL(", ").join(names), self.table.name))
        sent = self._copy(connection, aside, offer)
        words = {
            "leaf": leaf,
            "aside": aside,
            "start": sql.Literal(offer.hour.start),
            "end": sql.Literal(offer.hour.end),
            "columns": sql.SQL(", ").join(names),
            "there": sql.SQL(", ").join(sql.SQL("there.{}").format(name) for name in names),
            "offered": sql.SQL(", ").join(sql.SQL("offered.{}").format(name) for name in names),
        }
        connection.execute(sql.SQL(_DELETE_CHANGED).format(**words))
        crash_point("postgres.after_delete")
        written = connection.execute(sql.SQL(_INSERT_MISSING).format(**words)).rowcount
        return (
            replace(sent, written=written)
            if self._count(connection, offer.hour) == offer.rows
            else None
        )

    def _write_statistics(self, connection: Connection, offer: Offer) -> None:
        delete = sql.SQL("DELETE FROM {} WHERE hour = %s").format(self.table.statistics)
        connection.execute(delete, [offer.hour.start])
        columns = sql.SQL(", ").join(map(sql.Identifier, STATISTICS))
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(self.table.statistics, columns)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in statistics_of(offer.frame, offer.hour):
                copy.write_row(row)

    def _write_ledger(self, connection: Connection, offer: Offer, sent: "_Sent") -> None:
        row = {
            "destination": self.key,
            "hour": offer.hour.start,
            **asdict(offer.version),
            "rows": offer.rows,
            "content_hash": offer.content_hash,
            "run_id": offer.run_id,
            "loaded_at": _now(),
        }
        names = sql.SQL(", ").join(map(sql.Identifier, row))
        values = sql.SQL(", ").join(map(sql.Placeholder, row))
        upsert = """
            INSERT INTO obs.hour_loads ({names}) VALUES ({values})
            ON CONFLICT (destination, hour) DO UPDATE SET ({names}) = ROW ({values})"""
        connection.execute(sql.SQL(upsert).format(names=names, values=values), row)
        connection.execute(
            "DELETE FROM obs.receipts WHERE destination = %s AND hour = %s",
            [self.key, offer.hour.start],
        )
        connection.cursor().executemany(
            "INSERT INTO obs.receipts VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    self.key,
                    offer.hour.start,
                    receipt.stage,
                    n,
                    receipt.taken,
                    receipt.kept,
                    json.dumps(dict(receipt.other)),
                )
                for n, receipt in enumerate(offer.receipts)
            ],
        )
        # Last: all loads of a table meet here, and the row stays locked until the commit.
        connection.execute(_COUNT_LOAD, [self.key, sent.written, sent.batches, _now()])

    def _count_error(self) -> None:
        """Count a failed load where the server lets us; a count is not worth another error."""
        with contextlib.suppress(ObsError), session(self.server) as connection:
            begin(connection, lock_timeout_s=1)
            connection.execute(_COUNT_ERROR, [self.key])
            connection.commit()

    def _commit(self, connection: Connection, offer: Offer) -> None:
        """Commit; when the answer is lost, ask the ledger what became of it."""
        try:
            connection.commit()
        except psycopg.OperationalError:
            if not connection.closed:
                raise
            if not self._is_committed(offer):
                raise TransientError(
                    f"the connection to PostgreSQL at {where(self.server)} was lost before {offer.hour} was committed"
                ) from None

    def _is_committed(self, offer: Offer) -> bool:
        with session(self.server) as connection:
            self._lock(
                connection, offer.hour
            )  # waits for the end of the transaction whose answer was lost
            query = "SELECT run_id FROM obs.hour_loads WHERE destination = %s AND hour = %s"
            writer = connection.execute(query, [self.key, offer.hour.start]).fetchone()
            return writer == (offer.run_id,) and self._ledger_row(
                connection, offer.hour
            ) == _holding(offer)

    def _of_hour(self, query: LiteralString, hour: Hour) -> sql.Composed:
        return sql.SQL(query).format(
            table=self.table.name, start=sql.Literal(hour.start), end=sql.Literal(hour.end)
        )


@dataclass(frozen=True)
class _Sent:
    """What a load wrote, and how much was sent for it."""

    written: int
    size_bytes: int
    batches: int


_LOST_BYTES: LiteralString = """
SELECT (pg_database_size(current_database()) - sum(pg_total_relation_size(oid)))::bigint
FROM pg_class WHERE relkind IN ('r', 'm', 'S')"""

_NOT_TABLES_BYTES = 1_000_000
"""More than the few files of a database that are no table's: some 150 kB, and the cache of the catalog."""

_ALTERED_GROUPS: LiteralString = """
WITH loaded AS (
    SELECT event_type, event_level, master_type, rows, duration_ms_max, round(cost_usd::numeric, 4) AS cost
    FROM {statistics} WHERE hour = {start}),
present AS (
    SELECT event_type, event_level, master_type, count(*) AS rows, max(duration_ms) AS duration_ms_max,
        round(sum(weight * cost_usd::float8)::numeric, 4) AS cost
    FROM {table} WHERE timestamp >= {start} AND timestamp < {end} GROUP BY 1, 2, 3)
SELECT count(*) FROM (
    (TABLE present EXCEPT ALL TABLE loaded) UNION ALL (TABLE loaded EXCEPT ALL TABLE present)) AS differing
WHERE EXISTS (TABLE loaded)"""
"""Costs are compared to a hundredth of a cent: sums of floating-point numbers differ in their last digits.

An hour without statistics was loaded before they existed; it has no altered group.
"""

_DELETE_CHANGED: LiteralString = """
DELETE FROM {leaf} AS there WHERE timestamp >= {start} AND timestamp < {end} AND NOT EXISTS (
    SELECT FROM {aside} AS offered
    WHERE offered.row_uid = there.row_uid AND ({offered}) IS NOT DISTINCT FROM ({there}))"""

_INSERT_MISSING: LiteralString = """
INSERT INTO {leaf} ({columns}) SELECT {offered} FROM {aside} AS offered WHERE NOT EXISTS (
    SELECT FROM {leaf} AS there
    WHERE timestamp >= {start} AND timestamp < {end} AND there.row_uid = offered.row_uid)
ORDER BY timestamp, row_uid"""

_COUNT_LOAD = """
INSERT INTO obs.totals AS t (destination, total_events_written, total_batches_written, last_write_at)
VALUES (%s, %s, %s, %s) ON CONFLICT (destination) DO UPDATE SET
    total_events_written = t.total_events_written + excluded.total_events_written,
    total_batches_written = t.total_batches_written + excluded.total_batches_written,
    last_write_at = excluded.last_write_at"""

_COUNT_ERROR = """
INSERT INTO obs.totals AS t (destination, total_errors) VALUES (%s, 1)
ON CONFLICT (destination) DO UPDATE SET total_errors = t.total_errors + 1"""


def _holding(offer: Offer) -> Holding:
    return Holding(offer.version, offer.rows, offer.content_hash)
