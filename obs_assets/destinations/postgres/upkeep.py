"""The daily upkeep of a table: drop expired leaves, and merge small old leaves into larger leaves.

No reader waits for either. After a run that was killed, the next run continues its work.
"""

import time
from datetime import datetime, timedelta

from psycopg import sql

from obs_assets.crash import crash_point
from obs_assets.destinations.postgres import leaves
from obs_assets.destinations.postgres.config import PostgresConfig
from obs_assets.destinations.postgres.leaves import Span
from obs_assets.destinations.postgres.table import EventTable, patiently
from obs_assets.hours import ONE_HOUR
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres import Connection, begin, one, session

DOOMED = "obs_assets: expired, to be dropped"
"""Comment on a leaf whose removal has begun, so that the next run can continue it."""

OLDER_SNAPSHOTS_S = 60
"""Seconds to wait for transactions that began before a merged leaf was committed."""

_LOOKS_EVERY_S = 0.1
"""Seconds between two looks at those transactions."""

_TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"


class Upkeep:
    """The upkeep of a table.

    Args:
        table: the table.
        config: configuration with the retention.
        server: the server of the table.
        busy_after_s: seconds to wait for a lock that another session holds.
    """

    def __init__(
        self,
        table: EventTable,
        config: PostgresConfig,
        server: PostgresSettings,
        *,
        busy_after_s: float,
    ) -> None:
        self._table = table
        self._config = config
        self._server = server
        self._busy_after_s = busy_after_s

    def run(self, now: datetime) -> list[str]:
        """Drop expired leaves and merge old leaves. Run it daily; a repetition changes nothing.

        Returns:
            a sentence for each leaf that was dropped or made.
        """
        dropped = [f"Dropped {leaf}." for leaf in self.drop_expired(now)]
        return dropped + [f"Rolled up {leaf}." for leaf in self.roll_up(now)]

    def due(self, now: datetime) -> list[str]:
        """Names of the leaves that `run` would drop or make now; nothing is changed."""
        days = self._config.retention_days
        with session(self._server) as connection:
            if not self._table.is_there(connection):
                return []
            spans = self._table.leaves(connection)
            begun = [name for name, _, _ in self._doomed(connection)]
            connection.rollback()
        due = leaves.roll_ups(spans, now=now, retention_days=days)
        if days is not None:
            due += leaves.expired(spans, now=now, retention_days=days)
        names = {f"{self._config.table_name}{span.suffix}" for span in due}
        return sorted(names.union(begun))

    def drop_expired(self, now: datetime) -> list[str]:
        """Drop the leaves that ended ``retention_days`` before ``now``, with their rows in the ledger.

        No reader waits for it.

        Returns:
            names of the dropped leaves.
        """
        dropped: list[str] = []
        days = self._config.retention_days
        if days is None:
            return dropped
        with session(self._server) as connection:
            connection.autocommit = True
            # If a transaction of another session takes longer, the next run continues.
            connection.execute("SET lock_timeout = '60s'")
            if not self._table.is_there(connection) or not self._is_alone(connection):
                return dropped
            spans = self._table.leaves(connection)
            doom = sql.SQL("COMMENT ON TABLE {} IS {}")
            # All leaves are marked first: each step after that can be repeated by the next run.
            for span in leaves.expired(spans, now=now, retention_days=days):
                leaf = self._table.leaf(span.suffix)
                connection.execute(doom.format(leaf, sql.Literal(DOOMED)))
            for name, is_attached, is_pending in self._doomed(connection):
                if is_attached:
                    self._detach(connection, name, is_pending=is_pending)
                self._drop(connection, name)
                dropped.append(name)
            self._forget_empty_hours(connection, until=now - timedelta(days=days))
        return dropped

    def _detach(
        self,
        connection: Connection,
        name: str,
        *,
        is_pending: bool,
    ) -> None:
        """Detach a leaf without blocking readers; finish it where a killed run began it."""
        leaf = sql.Identifier(self._config.schema_name, name)
        detach = sql.SQL("ALTER TABLE {} DETACH PARTITION {} CONCURRENTLY")
        if is_pending:
            detach = sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE")
        connection.execute(detach.format(self._table.name, leaf))

    def _is_alone(self, connection: Connection) -> bool:
        """Take the lock on dropping leaves until this session ends; False if another holds it."""
        return bool(one(connection, _TRY_LOCK, [f"{self._table.key} upkeep"])[0])

    def _doomed(self, connection: Connection) -> list[tuple[str, bool, bool]]:
        """Leaves with the comment `DOOMED`: name, still attached, and detaching has begun."""
        query = """
            SELECT relname, inhrelid IS NOT NULL, coalesce(inhdetachpending, false)
            FROM pg_class c LEFT JOIN pg_inherits ON inhrelid = c.oid
            WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relkind = 'r'
                AND starts_with(relname, %s)
                AND obj_description(c.oid, 'pg_class') = %s
            ORDER BY coalesce(inhdetachpending, false) DESC, relname"""
        parameters = [self._config.schema_name, f"{self._config.table_name}_", DOOMED]
        found = connection.execute(query, parameters).fetchall()
        # A table of a longer name, such as events_old, begins with the same text.
        return [row for row in found if self._span_of(row[0])]

    def _span_of(self, leaf: str) -> Span | None:
        """The span of a leaf by its name; None for another table."""
        return leaves.span_of(leaf.removeprefix(self._config.table_name))

    def _drop(self, connection: Connection, name: str) -> None:
        """Drop a detached leaf, and its hours in ledger, receipts and statistics."""
        span = self._span_of(name)
        if span is None:
            raise LookupError("not the name of a leaf")
        of_span = sql.SQL("DELETE FROM {} WHERE hour >= %s AND hour < %s")
        of_table = sql.SQL(
            "DELETE FROM obs.{} WHERE destination = %s AND hour >= %s AND hour < %s"
        )
        hours = [span.start, span.end]
        leaf = sql.Identifier(self._config.schema_name, name)
        with connection.transaction():
            for table in ("hour_loads", "receipts"):
                delete = of_table.format(sql.Identifier(table))
                connection.execute(delete, [self._table.key, *hours])
            for statistics in (self._table.statistics, self._table.workers):
                connection.execute(of_span.format(statistics), hours)
            connection.execute(sql.SQL("DROP TABLE {}").format(leaf))

    def _forget_empty_hours(self, connection: Connection, until: datetime) -> None:
        """Delete expired hours without rows from the ledger: no leaf holds them."""
        forget = """
            WITH gone AS (
                DELETE FROM obs.hour_loads
                WHERE destination = %s AND rows = 0 AND hour <= %s RETURNING *)
            DELETE FROM obs.receipts USING gone
            WHERE receipts.destination = gone.destination AND receipts.hour = gone.hour"""
        connection.execute(forget, [self._table.key, until - ONE_HOUR])

    def roll_up(self, now: datetime) -> list[str]:
        """Merge old leaves: hours into days, days into months.

        Readers see the same rows at each moment, also in a snapshot that is older than the merge.
        A load of these hours raises HourBusyError meanwhile. A leaf that is in use is left for the
        next run.

        Returns:
            names of the leaves that were made.
        """
        with session(self._server) as connection:
            if not self._table.is_there(connection):
                return []
            due = leaves.roll_ups(
                self._table.leaves(connection),
                now=now,
                retention_days=self._config.retention_days,
            )
            connection.rollback()
        return [
            f"{self._config.table_name}{span.suffix}" for span in due if self._roll_up(span)
        ]

    def _roll_up(self, span: Span) -> bool:
        """Merge the leaves inside a span; False if other sessions use them."""
        with session(self._server) as connection:
            # The lock belongs to the session, so that it spans both transactions.
            lock_name = self._table.leaves_lock(span.start)
            if not one(connection, _TRY_LOCK, [lock_name])[0]:
                return False
            connection.commit()
            parts = [part for part in self._table.leaves(connection) if span.overlaps(part)]
            connection.rollback()
            self._merge_aside(connection, span, parts)
            if not self._wait_for_older_snapshots(connection):
                return False
            crash_point("postgres.before_swap")
            self._swap(connection, span, parts)
            return True

    def _merge_aside(
        self,
        connection: Connection,
        span: Span,
        parts: list[Span],
    ) -> None:
        """Copy the rows of smaller leaves into a table that is not attached yet."""
        aside = self._table.leaf(f"{span.suffix}_new")
        insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY timestamp, row_uid")
        with connection.transaction():
            begin(connection, lock_timeout_s=self._busy_after_s)
            connection.execute("SET LOCAL statement_timeout = 0")
            # A run that was killed may have left a table of that name.
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(aside))
            self._table.create_aside(connection, aside, span)
            columns = self._table.stored_columns(connection)
            for part in parts:
                leaf = self._table.leaf(part.suffix)
                connection.execute(insert.format(aside, columns, columns, leaf))
            self._table.index_aside(connection, aside)

    def _wait_for_older_snapshots(
        self, connection: Connection, patience_s: float = OLDER_SNAPSHOTS_S
    ) -> bool:
        """Wait for the transactions that began before the merged leaf was committed.

        Their snapshots see no row of the merged leaf. CREATE INDEX CONCURRENTLY waits in the same
        way. False if the wait takes longer than ``patience_s`` seconds.
        """
        running = """
            SELECT l.virtualtransaction FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid()
                AND a.datname = current_database()"""
        until = time.monotonic() + patience_s
        connection.autocommit = True
        try:
            older = set(connection.execute(running).fetchall())
            while older and time.monotonic() < until:
                time.sleep(_LOOKS_EVERY_S)
                older &= set(connection.execute(running).fetchall())
        finally:
            connection.autocommit = False
        return not older

    @patiently
    def _swap(
        self,
        connection: Connection,
        span: Span,
        parts: list[Span],
    ) -> None:
        """Replace the smaller leaves by the merged leaf, in a transaction."""
        aside = self._table.leaf(f"{span.suffix}_new")
        detach = sql.SQL("ALTER TABLE {} DETACH PARTITION {}")
        with connection.transaction():
            begin(connection, lock_timeout_s=1)
            for part in parts:
                leaf = self._table.leaf(part.suffix)
                connection.execute(detach.format(self._table.name, leaf))
                connection.execute(sql.SQL("DROP TABLE {}").format(leaf))
            name = sql.Identifier(self._config.table_name + span.suffix)
            connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(aside, name))
            self._table.attach(
                connection,
                self._table.leaf(span.suffix),
                span,
            )
