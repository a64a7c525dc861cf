"""PostgreSQL: an hour and its ledger row are replaced in a transaction.

::

    public.events            the events, partitioned by ``timestamp``
    ├── events_d20251204     leaves (partitions), made on demand: see `leaves`
    public.events_hourly     statistics of each hour, so that dashboards need not scan events
    public.events_hourly_workers  the same by worker
    public.receipts          view: the counts of each stage for each hour
    obs.hour_loads           ledger: a row for each hour of a table, with the version of its inputs

- An hour whose leaf exists is replaced by DELETE and COPY. That blocks no reader, and each reader
  sees the old hour or the new hour, whatever its isolation level.
- If only the landed files of the hour changed, as after a late event, only the rows that differ are
  written.
- An hour without a leaf gets a new table, which is filled and indexed before it is attached. That
  blocks no reader either, and writes a third of the WAL.
- An advisory lock keeps a second writer of the hour out. A writer with an older generation than the
  ledger's is refused.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, LiteralString

import duckdb
import psycopg
import pyarrow as pa
from psycopg import errors, sql

from obs_assets.crash import crash_point
from obs_assets.destinations.base import Delivery, Holding, Offer, refuse_older
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
from obs_assets.destinations.postgres.table import STATISTICS, WORKERS, EventTable, patiently
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
from obs_assets.storage.postgres import (
    VERSION,
    Connection,
    adopt_load,
    begin,
    lock,
    one,
    session,
)
from obs_assets.storage.postgres_errors import refuse_read_only, where
from obs_assets.storage.readers import GRANT_ALERTS

OLDEST_SERVER = 140000
"""Oldest version of PostgreSQL that is supported: 14.0, as the server writes it."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Health:
    """Size and age of a table, for ``obs status``.

    Attributes:
        version: version of the server, for example ``16.4``.
        size_bytes: bytes of the table with its indexes.
        lost_bytes: bytes of files in the database that belong to no table. A server that crashes
            during a load leaves such files; only a dump and restore removes them.
        leaves: number of leaves (partitions).
        rows: number of rows, by the ledger.
        oldest: oldest hour in the ledger.
        newest: newest hour in the ledger.
        connections: number of connections to the server.
        max_connections: largest number of connections to the server.
        totals: name → figure over all loads, for example ``total_events_written``.
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
        """Name → figure, for printing."""
        oldest = str(self.oldest) if self.oldest else None
        newest = str(self.newest) if self.newest else None
        return {
            "version": self.version,
            "rows": self.rows,
            "bytes": self.size_bytes,
            "lost_bytes": self.lost_bytes,
            "leaves": self.leaves,
            "oldest": oldest,
            "newest": newest,
            "connections": f"{self.connections} of {self.max_connections}",
            **self.totals,
        }


class PostgresDestination:
    """Keeps hours in a table.

    Args:
        config: table and options.
        settings: the server that is used where the options name none.
        busy_after_s: seconds to wait for another writer of the same hour.
        hourly_from_rows: rows from which on a hot hour gets a leaf of its own.
        clock: gives the time, UTC. The age of an hour decides the span of a new leaf.
    """

    def __init__(
        self,
        config: PostgresConfig,
        settings: PostgresSettings,
        *,
        busy_after_s: float = 10.0,
        hourly_from_rows: int = leaves.HOURLY_FROM_ROWS,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.config = config
        self.server = server_of(config, settings)
        self.table = EventTable(config)
        self.key = self.table.key
        self.upkeep = Upkeep(
            self.table,
            config,
            self.server,
            busy_after_s=busy_after_s,
        )
        self._busy_after_s = busy_after_s
        self._hourly_from_rows = hourly_from_rows
        self._clock = clock

    def deliver(self, offer: Offer) -> Delivery:
        """Replace the hour's rows and its ledger row in a transaction; see `base.Destination.deliver`."""
        try:
            return self._deliver(offer)
        except (HourBusyError, StaleHourError, ConfigurationError):
            # These are no failures of a load.
            raise
        except ObsError:
            # On a connection of its own: the transaction of the load is rolled back.
            self._count_error()
            raise

    def _deliver(self, offer: Offer) -> Delivery:
        began = time.monotonic()
        with session(self.server) as connection:
            self._prepare(connection)
            self._lock(connection, offer.hour)
            # The ledger is read under the lock: a newer load of another run is seen here.
            held = self._ledger_row(connection, offer.hour, for_update=True)
            refuse_older(self.key, held, offer)
            # The ledger does not know of rows that were deleted by hand, so rows are counted too.
            is_same = held == _holding(offer) and not offer.rebuild
            if is_same and self._count(connection, offer.hour) == offer.rows:
                return Delivery(written=0, already_there=offer.rows)
            sent = self._replace(connection, offer, held)
            self._write_statistics(connection, offer)
            self._write_ledger(connection, offer, sent)
            crash_point("postgres.before_commit")
            # Rows, statistics and ledger become visible in the same moment.
            self._commit(connection, offer)
            crash_point("postgres.after_commit")
        seconds = time.monotonic() - began
        stats = {
            "total_events_written": sent.written,
            "total_batches_written": sent.batches,
            "seconds": round(seconds, 3),
            "rows_per_s": round(offer.rows / seconds),
        }
        return Delivery(
            written=sent.written,
            already_there=offer.rows - sent.written,
            size_bytes=sent.size_bytes,
            stats=stats,
        )

    def holding(
        self,
        hour: Hour,
        *,
        count: bool = False,
    ) -> Holding | None:
        """The ledger's row of an hour; with ``count`` also the table's rows and altered groups."""
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
        """Query for the number of groups (type, level, master) that differ from the statistics."""
        words = {
            "table": self.table.name,
            "statistics": self.table.statistics,
            "start": sql.Literal(hour.start),
            "end": sql.Literal(hour.end),
        }
        return sql.SQL(_ALTERED_GROUPS).format(**words)

    def holdings(self) -> dict[Hour, Holding]:
        """The ledger's rows of the hours that still have a row in the table, or never had a row."""
        # The subquery with LIMIT reads an index entry of a leaf for each hour; a join would scan
        # the table.
        query = """
            SELECT hour, {version}, rows, content_hash
            FROM obs.hour_loads AS load LEFT JOIN LATERAL (
                SELECT true AS found FROM {table}
                WHERE timestamp >= load.hour AND timestamp < load.hour + interval '1 hour' LIMIT 1
            ) AS first ON true
            WHERE destination = {key} AND (rows = 0 OR found)"""
        with session(self.server) as connection:
            begin(connection, lock_timeout_s=5)
            words = {
                "table": self.table.name,
                "key": sql.Literal(self.key),
                "version": sql.SQL(VERSION),
            }
            try:
                rows = connection.execute(sql.SQL(query).format(**words)).fetchall()
            except errors.UndefinedTable:
                return {}
        return {Hour.of(row[0]): Holding(InputVersion(*row[1:5]), *row[5:]) for row in rows}

    def adopt(
        self,
        hour: Hour,
        held: Holding,
        version: InputVersion,
    ) -> None:
        """Change the version of the ledger's row; see `base.Destination.adopt`."""
        expected = {**asdict(held.version), "content_hash": held.content_hash}
        key = {"destination": self.key, "hour": hour.start}
        with session(self.server) as connection:
            self._prepare(connection)
            self._lock(connection, hour)
            if not adopt_load(connection, key, expected, asdict(version)):
                raise HourBusyError(
                    f"{self.key} holds another {hour} than it did a moment ago: try again"
                )
            connection.commit()

    def selected(self, frame: Frame) -> Frame:
        """All rows, events without the characters that ``jsonb`` cannot hold, and ``columns``."""
        return frame.project(
            f"* REPLACE ({stored_event('event')} AS event), {columns_of_row()} AS columns"
        )

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid``, ``event`` and ``columns`` of the rows, as a temporary table of ``connection``.

        ``event`` is ``data`` as the server prints it. Compare it with `stored_event` of the written event,
        both in canonical form.
        """
        name = f"read_back_{self.key.replace('.', '_')}_{hour.stamp}"
        columns_of_table = "row_uid VARCHAR, event VARCHAR, columns VARCHAR"
        connection.execute(f'CREATE OR REPLACE TEMP TABLE "{name}" ({columns_of_table})')
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
        """Connect to the server; returns its address, the database and the table as a line of text."""
        at, create = where(self.server), self.config.create_table_if_not_exists
        try:
            with session(self.server) as connection:
                version = one(connection, "SHOW server_version")[0]
                if connection.info.server_version < OLDEST_SERVER:
                    raise ConfigurationError(
                        f"PostgreSQL at {at} is version {version}: it must be 14 or newer"
                    )
                exists = self.table.is_there(connection)
                if not create and not self.table.is_current(connection):
                    raise ConfigurationError(self.table.absent)
                refuse_read_only(connection, self.server)
                self.table.refuse_others(connection)
                if not exists:
                    # The first load makes the table. Here it is only tried: the rights may be missing.
                    begin(connection, lock_timeout_s=5)
                    self.table.migrate(connection)
                    connection.rollback()
        except TransientError as error:
            raise ConfigurationError(str(error)) from None
        database = self.server.database
        reached = f"PostgreSQL {version} at {at}, database {database}, table {self.key}"
        if exists:
            return reached
        return f"{reached}; the table does not exist yet, the first load creates it"

    # -- administration ----------------------------------------------------------------------------

    def init(
        self,
        *,
        reader: str | None = None,
    ) -> list[str]:
        """Make or migrate table and ledger, and a role that can only read the events.

        Args:
            reader: name of the role; None makes no role.

        Returns:
            descriptions of the steps, a sentence each.
        """
        with session(self.server) as connection:
            begin(connection, lock_timeout_s=10)
            done = self.table.migrate(connection)
            if reader:
                done += self._make_reader(connection, reader)
            connection.commit()
        return done

    def _make_reader(self, connection: Connection, name: str) -> list[str]:
        """Make the reader's role if it is missing, and grant its rights; returns descriptions."""
        role = sql.Identifier(name)
        done = []
        query = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)"
        if not one(connection, query, [name])[0]:
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(role))
            done.append(
                f"Make the role {name}, which cannot log in yet: "
                f"ALTER ROLE {name} LOGIN PASSWORD '…'."
            )
        for setting, value in _READER_SETTINGS.items():
            alter = sql.SQL("ALTER ROLE {} SET {} = {}")
            connection.execute(
                alter.format(
                    role,
                    sql.SQL(setting),
                    sql.Literal(value),
                )
            )
        schema = sql.Identifier(self.config.schema_name)
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
        tables = [
            self.table.name,
            self.table.statistics,
            self.table.workers,
            self.table.receipts,
        ]
        if self.table.view:
            tables.append(self.table.view)
        readable = sql.SQL(", ").join(tables)
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(readable, role))
        # A search says which version of an hour it read.
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA obs TO {}").format(role))
        ledger = sql.SQL("GRANT SELECT ON obs.hour_loads, obs.receipts TO {}")
        connection.execute(ledger.format(role))
        connection.execute(GRANT_ALERTS)
        receipts = f"{self.config.schema_name}.receipts"
        done.append(
            f"Let {name} read {self.key}, {self.key}_hourly, {self.key}_hourly_workers and "
            f"{receipts}."
        )
        return done

    def health(self) -> Health | None:
        """Size and age of the table; None if it does not exist yet."""
        with session(self.server) as connection:
            if not self.table.is_current(connection):
                return None
            oldest, newest, rows = one(connection, _LEDGER_SUMMARY, [self.key])
            table = self.table.name.as_string(connection)
            oldest_hour = Hour.of(oldest) if oldest else None
            newest_hour = Hour.of(newest) if newest else None
            other_bytes = one(connection, _LOST_BYTES)[0]
            return Health(
                version=one(connection, "SHOW server_version")[0],
                size_bytes=one(connection, _TABLE_BYTES, [table])[0],
                lost_bytes=max(0, other_bytes - _NOT_TABLES_BYTES),
                leaves=len(self.table.leaves(connection)),
                rows=rows,
                oldest=oldest_hour,
                newest=newest_hour,
                connections=one(connection, _CONNECTIONS)[0],
                max_connections=int(one(connection, "SHOW max_connections")[0]),
                totals=self._totals(connection),
            )

    def _totals(self, connection: Connection) -> dict[str, int | str | None]:
        """Figures over all loads of the table; zeros before the first load."""
        row = connection.execute(_TOTALS, [self.key]).fetchone()
        events, batches, failed, written_at = row or (0, 0, 0, None)
        if written_at is not None:
            written_at = written_at.astimezone(UTC).isoformat(timespec="seconds")
        return {
            "total_events_written": events,
            "total_batches_written": batches,
            "total_errors": failed,
            "last_write_at": written_at,
        }

    # -- an hour, inside the transaction of `deliver` -------------------------------------------------

    @patiently
    def _prepare(self, connection: Connection) -> None:
        """Make or migrate table and ledger in a short transaction of its own."""
        with connection.transaction():
            begin(connection, lock_timeout_s=2)
            if self.table.is_current(connection):
                return
            if not self.config.create_table_if_not_exists:
                raise ConfigurationError(self.table.absent)
            self.table.migrate(connection)

    def _lock(self, connection: Connection, hour: Hour) -> None:
        """Begin a transaction, and keep other writers of the hour out until its end."""
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
        """The ledger's row of an hour; ``for_update`` locks it until the transaction ends."""
        query: LiteralString = f"""
            SELECT {VERSION}, rows, content_hash FROM obs.hour_loads AS load
            WHERE destination = %s AND hour = %s"""
        if for_update:
            query += " FOR UPDATE"
        row = connection.execute(query, [self.key, hour.start]).fetchone()
        return Holding(InputVersion(*row[:4]), *row[4:]) if row else None

    def _count(self, connection: Connection, hour: Hour) -> int:
        query = self._of_hour(
            "SELECT count(*) FROM {table} WHERE timestamp >= {start} AND timestamp < {end}",
            hour,
        )
        return int(one(connection, query)[0])

    def _replace(
        self,
        connection: Connection,
        offer: Offer,
        held: Holding | None,
    ) -> "_Sent":
        """Replace the hour's rows by the offered rows."""
        leaf = self._leaf_of(connection, offer.hour)
        if leaf is None and offer.rows:
            leaf = self._lock_new_leaves(connection, offer.hour)
        if leaf is not None:
            return self._replace_in(
                connection,
                self.table.leaf(leaf.suffix),
                offer,
                held,
            )
        if not offer.rows:
            return _Sent(0, 0, 0)
        return self._load_new_leaf(connection, offer)

    def _replace_in(
        self,
        connection: Connection,
        leaf: sql.Identifier,
        offer: Offer,
        held: Holding | None,
    ) -> "_Sent":
        """Replace the hour's rows in its leaf."""
        if held and held.rows:
            # With the same configuration and code, most of the rows are the same.
            is_alike = held.version.recipe == offer.version.recipe
            if is_alike and (sent := self._merge(connection, leaf, offer)):
                return sent
        self._delete(connection, leaf, offer.hour)
        return self._copy(connection, leaf, offer)

    def _load_new_leaf(self, connection: Connection, offer: Offer) -> "_Sent":
        """Load the hour into a table that becomes its leaf."""
        span = leaves.new_leaf(
            offer.hour,
            offer.rows,
            self.table.leaves(connection),
            now=self._clock(),
            retention_days=self.config.retention_days,
            hourly_from_rows=self._hourly_from_rows,
        )
        # No other session sees the table before the commit.
        aside = self.table.leaf(span.suffix)
        self.table.create_aside(connection, aside, span)
        if self.table.has_row_triggers(connection):
            # A user's trigger fires in an attached leaf only.
            self.table.attach(connection, aside, span)
            return self._copy(connection, aside, offer)
        sent = self._copy(connection, aside, offer)
        self.table.index_aside(connection, aside)
        crash_point("postgres.after_index")
        self.table.attach(connection, aside, span)
        return sent

    def _leaf_of(self, connection: Connection, hour: Hour) -> Span | None:
        """Span of the leaf that holds an hour; None if there is no such leaf."""
        return next((span for span in self.table.leaves(connection) if hour in span), None)

    def _lock_new_leaves(self, connection: Connection, hour: Hour) -> Span | None:
        """Keep other sessions from making leaves of the hour's month until the transaction ends.

        Returns:
            the leaf that another session made before the lock was free, or None.
        """
        try:
            lock(connection, f"{self.key} new leaf {hour.start:%Y-%m}")
        except errors.LockNotAvailable:
            raise HourBusyError(
                f"another run is making the leaf of {hour} in {self.key}: try again"
            ) from None
        return self._leaf_of(connection, hour)

    def _delete(
        self,
        connection: Connection,
        leaf: sql.Identifier,
        hour: Hour,
    ) -> None:
        query: LiteralString = (
            "DELETE FROM {leaf} WHERE timestamp >= {start} AND timestamp < {end}"
        )
        start, end = sql.Literal(hour.start), sql.Literal(hour.end)
        connection.execute(
            sql.SQL(query).format(
                leaf=leaf,
                start=start,
                end=end,
            )
        )
        crash_point("postgres.after_delete")

    def _copy(
        self,
        connection: Connection,
        table: sql.Identifier,
        offer: Offer,
    ) -> "_Sent":
        """Copy the offered rows into a table, and count the rows that arrived."""
        columns = sql.SQL(", ").join(map(sql.Identifier, row_of(offer.hour)))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, columns)
        size_bytes = batches = 0
        with connection.cursor() as cursor:
            texts = copy_data(offer.frame, offer.hour)
            with cursor.copy(statement) as copy, contextlib.closing(texts):
                for text in texts:
                    copy.write(text)
                    size_bytes += len(text)
                    batches += 1
            crash_point("postgres.after_copy")
            if cursor.rowcount != offer.rows:
                raise PermanentError(
                    f"{offer.rows:,} rows of {offer.hour} were offered to {self.key}, and "
                    f"{cursor.rowcount:,} were stored: either the frame has another number of "
                    "rows, or a trigger on the table drops rows"
                )
            return _Sent(cursor.rowcount, size_bytes, batches)

    def _merge(
        self, connection: Connection, leaf: sql.Identifier, offer: Offer
    ) -> "_Sent | None":
        """Write only the rows that differ from the table's rows, so that a late event costs one row of WAL.

        Returns:
            None if the table does not hold the offered rows afterwards, for example because a row was
            doubled by hand.
        """
        # A temporary table has neither index nor WAL, and ends with the transaction.
        aside = sql.Identifier("pg_temp", "offered")
        # The identities of an hour's rows are hashed in memory.
        connection.execute("SET LOCAL work_mem = '64MB'")
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
            "there": _columns_of("there", names),
            "offered": _columns_of("offered", names),
        }
        connection.execute(sql.SQL(_DELETE_CHANGED).format(**words))
        crash_point("postgres.after_delete")
        written = connection.execute(sql.SQL(_INSERT_MISSING).format(**words)).rowcount
        if self._count(connection, offer.hour) != offer.rows:
            return None
        return replace(sent, written=written)

    def _write_statistics(self, connection: Connection, offer: Offer) -> None:
        groups = statistics_of(offer.frame, offer.hour)
        self._write_hourly(connection, offer.hour, self.table.statistics, STATISTICS, groups)
        workers = statistics_of(offer.frame, offer.hour, keys=["worker_id"])
        self._write_hourly(connection, offer.hour, self.table.workers, WORKERS, workers)

    def _write_hourly(
        self,
        connection: Connection,
        hour: Hour,
        table: sql.Identifier,
        columns: Iterable[str],
        rows: Iterable[tuple[Any, ...]],
    ) -> None:
        """Replace the hour's rows of a table of statistics."""
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE hour = %s").format(table), [hour.start]
        )
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def _write_ledger(
        self,
        connection: Connection,
        offer: Offer,
        sent: "_Sent",
    ) -> None:
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
            INSERT INTO obs.hour_loads ({names}, first_loaded_at) VALUES ({values}, %(loaded_at)s)
            ON CONFLICT (destination, hour) DO UPDATE SET ({names}) = ROW ({values})"""
        connection.execute(sql.SQL(upsert).format(names=names, values=values), row)
        connection.execute(
            "DELETE FROM obs.receipts WHERE destination = %s AND hour = %s",
            [self.key, offer.hour.start],
        )
        insert = "INSERT INTO obs.receipts VALUES (%s, %s, %s, %s, %s, %s, %s)"
        connection.cursor().executemany(insert, self._receipt_rows(offer))
        # The last statement: all loads of a table update this row, which is locked until the commit.
        connection.execute(
            _COUNT_LOAD,
            [
                self.key,
                sent.written,
                sent.batches,
                _now(),
            ],
        )

    def _receipt_rows(self, offer: Offer) -> list[tuple[Any, ...]]:
        """Rows of ``obs.receipts``; the position keeps the order of the stages."""
        rows = []
        for position, receipt in enumerate(offer.receipts):
            set_aside = json.dumps(dict(receipt.other))
            row = (
                self.key,
                offer.hour.start,
                receipt.stage,
                position,
                receipt.taken,
                receipt.kept,
                set_aside,
            )
            rows.append(row)
        return rows

    def _count_error(self) -> None:
        """Count a failed load. If that fails too, the load's own error is the important error."""
        with contextlib.suppress(ObsError), session(self.server) as connection:
            begin(connection, lock_timeout_s=1)
            connection.execute(_COUNT_ERROR, [self.key])
            connection.commit()

    def _commit(self, connection: Connection, offer: Offer) -> None:
        """Commit. If the answer is lost, read from the ledger whether the commit succeeded."""
        try:
            connection.commit()
        except psycopg.OperationalError:
            if not connection.closed:
                raise
            if not self._is_committed(offer):
                raise TransientError(
                    f"the connection to PostgreSQL at {where(self.server)} was lost before "
                    f"{offer.hour} was committed"
                ) from None

    def _is_committed(self, offer: Offer) -> bool:
        """Whether the ledger has the offered hour, written by this run."""
        query = "SELECT run_id FROM obs.hour_loads WHERE destination = %s AND hour = %s"
        with session(self.server) as connection:
            # The lock waits for the end of the transaction whose answer was lost.
            self._lock(connection, offer.hour)
            writer = connection.execute(query, [self.key, offer.hour.start]).fetchone()
            held = self._ledger_row(connection, offer.hour)
            return writer == (offer.run_id,) and held == _holding(offer)

    def _of_hour(self, query: LiteralString, hour: Hour) -> sql.Composed:
        """A query with the table's name and the hour's ``start`` and ``end``."""
        return sql.SQL(query).format(
            table=self.table.name,
            start=sql.Literal(hour.start),
            end=sql.Literal(hour.end),
        )


@dataclass(frozen=True)
class _Sent:
    """The result of a load.

    Attributes:
        written: number of rows that were written.
        size_bytes: bytes that were sent to the server.
        batches: number of batches that were sent.
    """

    written: int
    size_bytes: int
    batches: int


_READER_SETTINGS: dict[LiteralString, str] = {
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
}
"""Settings of the reader's role: a query by mistake neither writes nor runs for hours."""

_TABLE_BYTES: LiteralString = """
SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree(%s)"""

_LEDGER_SUMMARY: LiteralString = """
SELECT min(hour), max(hour), coalesce(sum(rows), 0)::bigint
FROM obs.hour_loads WHERE destination = %s"""

_TOTALS: LiteralString = """
SELECT total_events_written, total_batches_written, total_errors, last_write_at FROM obs.totals
WHERE destination = %s"""

_CONNECTIONS: LiteralString = """
SELECT count(*) FROM pg_stat_activity WHERE backend_type IS NOT NULL"""

_LOST_BYTES: LiteralString = """
SELECT (pg_database_size(current_database()) - sum(pg_total_relation_size(oid)))::bigint
FROM pg_class WHERE relkind IN ('r', 'm', 'S')"""

_NOT_TABLES_BYTES = 1_000_000
"""Upper limit of a database's other files, in bytes: some 150 kB and the catalog's cache."""

_ALTERED_GROUPS: LiteralString = """
WITH loaded AS (
    SELECT event_type, event_level, master_type, rows, duration_ms_max,
        round(cost_usd::numeric, 4) AS cost
    FROM {statistics} WHERE hour = {start}),
present AS (
    SELECT event_type, event_level, master_type,
        count(*) AS rows, max(duration_ms) AS duration_ms_max,
        round(sum(weight * cost_usd::float8)::numeric, 4) AS cost
    FROM {table} WHERE timestamp >= {start} AND timestamp < {end} GROUP BY 1, 2, 3)
SELECT count(*) FROM (
    (TABLE present EXCEPT ALL TABLE loaded) UNION ALL (TABLE loaded EXCEPT ALL TABLE present)
) AS differing
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
INSERT INTO obs.totals AS t
    (destination, total_events_written, total_batches_written, last_write_at)
VALUES (%s, %s, %s, %s) ON CONFLICT (destination) DO UPDATE SET
    total_events_written = t.total_events_written + excluded.total_events_written,
    total_batches_written = t.total_batches_written + excluded.total_batches_written,
    last_write_at = excluded.last_write_at"""

_COUNT_ERROR = """
INSERT INTO obs.totals AS t (destination, total_errors) VALUES (%s, 1)
ON CONFLICT (destination) DO UPDATE SET total_errors = t.total_errors + 1"""


def _columns_of(table: LiteralString, names: Iterable[sql.Identifier]) -> sql.Composed:
    """For example ``there."id", there."event_id"``."""
    prefix = sql.SQL(table)
    return sql.SQL(", ").join(sql.SQL("{}.{}").format(prefix, name) for name in names)


def _holding(offer: Offer) -> Holding:
    """The ledger's row of an hour after its delivery."""
    return Holding(offer.version, offer.rows, offer.content_hash)
